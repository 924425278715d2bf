// SPDX-License-Identifier: Apache-2.0
// Files of other formats, known by their first bytes.
#pragma once

#include <string>
#include <string_view>

namespace bragg::detail {

/// Enough of a file for `foreign_format`.
inline constexpr std::size_t foreign_bytes = 128;

/// The kind of a file that begins with these bytes, and the remedy; empty for an unknown one.
std::string foreign_format(std::string_view begin);

}  // namespace bragg::detail
