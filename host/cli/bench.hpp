// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace bragg::cli {

/// `bragg bench` as it was called.
struct BenchCommand {
  std::vector<std::string> rules;
  std::vector<int> n;
  std::vector<std::string> sizes;
  std::vector<std::string> dtypes;
  std::string preset;
  int tensors = 1;
  std::string device = "auto";
  std::string gram = "auto";
  int threads = 0;
  double seconds = 0.5;
  std::vector<std::string> peers;
  std::string peers_folder;
  std::string python = "python3";
  std::filesystem::path files;
  std::optional<std::filesystem::path> json;
  std::optional<std::filesystem::path> csv;
  std::string command_line;
};

/// One line for each preset, for the help.
std::string preset_lines();

/// @throws bragg::Error, bench::UnreadableRule.
void run(const BenchCommand& command);

}  // namespace bragg::cli
