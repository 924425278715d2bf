// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace bragg::cli {

/// `bragg audit` as it was called.
struct AuditCommand {
  std::vector<std::filesystem::path> inputs;
  std::optional<std::filesystem::path> base;
  std::vector<std::string> rules;
  std::vector<std::string> exclude;
  std::optional<int> f;
  std::int64_t sample = std::int64_t{1} << 16;
  std::uint64_t seed = 0;
  bool json = false;
  std::optional<std::filesystem::path> svg;
};

/// @throws bragg::Error; bench::UnreadableRule.
void run(const AuditCommand& command);

}  // namespace bragg::cli
