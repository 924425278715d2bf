// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace bragg::cli {

/// `bragg verify` as it was called.
struct VerifyCommand {
  std::string device = "all";
  std::optional<std::uint64_t> seed;
  std::vector<std::string> rules;
  bool aimed = false;
  bool quick = false;
  double seconds = 30;
  std::optional<std::filesystem::path> json;
};

/// Whether every result was right. @throws bragg::Error.
bool run(const VerifyCommand& command);

}  // namespace bragg::cli
