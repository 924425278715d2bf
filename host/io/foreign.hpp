// SPDX-License-Identifier: Apache-2.0
// Files of other formats, known by their first bytes.
#pragma once

#include <string>
#include <string_view>

#include "host/io/file.hpp"

namespace bragg::detail {

/// The kind of a file that begins with these bytes (128 are enough), and the remedy; empty for an unknown
/// one.
std::string foreign_format(std::string_view begin);

/// For a file that is not what its name says. @throws Error bad_file where its format is known.
void refuse_foreign(const ReadFile& file);

}  // namespace bragg::detail
