// SPDX-License-Identifier: Apache-2.0
// Files that the command itself writes. Errors name the option that asked for them.
#pragma once

#include <filesystem>
#include <string>

namespace bragg::cli {

/// Throws early what write_whole would only find when the work is done: a folder that is not there.
void check_writable(const char* option, const std::filesystem::path& path);

/// The file appears whole or not at all.
void write_whole(const char* option, const std::filesystem::path& path, const std::string& text);

}  // namespace bragg::cli
