// SPDX-License-Identifier: Apache-2.0
// Sizes of the tensors of a row, as callers give them.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>

namespace bragg::detail {

/// Elements that rows have together at most: their bytes can be counted.
inline constexpr std::int64_t most_elements = std::numeric_limits<std::int64_t>::max() / 64;

/// What is wrong with the sizes; if nothing is, nothing.
inline std::optional<std::string> fault_of_sizes(std::span<const std::int64_t> sizes) {
  std::int64_t total = 0;
  for (std::size_t t = 0; t < sizes.size(); ++t) {
    if (sizes[t] < 0) return fmt::format("sizes[{}] = {}; needs a size ≥ 0", t, sizes[t]);
    if (sizes[t] > most_elements - total) {
      return fmt::format("sizes[{}] = {}; needs sizes whose sum is at most {}", t, sizes[t], most_elements);
    }
    total += sizes[t];
  }
  return std::nullopt;
}

}  // namespace bragg::detail
