// SPDX-License-Identifier: Apache-2.0
// Lists in messages.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>

namespace bragg::detail {

/// "a, b and 3 more": eight at most.
inline std::string listed(std::span<const std::string> texts, std::string_view separator = ", ") {
  const std::size_t shown = std::min<std::size_t>(8, texts.size());
  std::string text = fmt::format("{}", fmt::join(texts.first(shown), separator));
  if (shown < texts.size()) text += fmt::format(" and {} more", texts.size() - shown);
  return text;
}

}  // namespace bragg::detail
