// SPDX-License-Identifier: Apache-2.0
// Text for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bragg::cli {

/// File names come from outside: control characters must not reach the terminal.
std::string printable(std::string_view text);

/// "12 s", "3:05 min".
std::string duration_text(double seconds);

/// Wrapped at blanks to `width` columns, every line indented.
std::string wrapped(std::string_view text, std::size_t indent, std::size_t width = 100);

}  // namespace bragg::cli
