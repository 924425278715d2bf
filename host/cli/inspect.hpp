// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace bragg::cli {

/// `bragg inspect` as it was called.
struct InspectCommand {
  std::vector<std::filesystem::path> inputs;
  std::optional<std::filesystem::path> base;
  std::vector<std::string> exclude;
  std::vector<std::string> copy;
  bool partial = false;
  bool json = false;
};

/// @throws bragg::Error.
void run(const InspectCommand& command);

}  // namespace bragg::cli
