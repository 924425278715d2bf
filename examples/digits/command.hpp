// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace digits {

/// Runs a program (arguments[0]: its path) with its output in the file `log`, and waits.
/// @throws std::runtime_error with the log if it does not exit with 0.
void run_command(const std::vector<std::string>& arguments, const std::filesystem::path& log);

}  // namespace digits
