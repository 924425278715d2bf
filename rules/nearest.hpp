// SPDX-License-Identifier: Apache-2.0
// "Did you mean …?": the known name that is nearest to a word that is not known.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <string_view>
#include <vector>

namespace bragg::detail {

/// Levenshtein's distance, upper and lower case alike.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (lower(a[i]) == lower(b[j]) ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

/// The name nearest to what was written, if it may have been meant.
template <class RangeT, class NameF>
std::string_view nearest(std::string_view written, const RangeT& range, NameF name_of) {
  std::string_view best;
  std::size_t least = std::max<std::size_t>(2, written.size() / 3) + 1;
  for (const auto& candidate : range) {
    const std::string_view name = name_of(candidate);
    const std::size_t distance = edit_distance(written.substr(0, 64), name);
    if (distance < least && distance < name.size()) {
      least = distance;
      best = name;
    }
  }
  return best;
}

}  // namespace bragg::detail
