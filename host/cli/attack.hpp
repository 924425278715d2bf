// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bragg::cli {

/// `bragg attack` as it was called. What is not given has the attack's default.
struct AttackCommand {
  std::string name;
  std::vector<std::filesystem::path> inputs;
  std::filesystem::path output;
  std::optional<std::filesystem::path> base;
  int f = 1;
  std::optional<double> scale, epsilon, z, deviation, b, angle, most;
  std::optional<std::string> direction, kind, rule;
  std::optional<std::size_t> row;
  std::optional<std::uint64_t> seed;
  std::optional<std::filesystem::path> reference;
};

std::vector<std::string_view> attack_names();
std::vector<std::string_view> direction_names();
std::vector<std::string_view> hostile_names();

/// A line for each attack: its name, what it sends, and its options.
std::string attack_lines();

/// @throws bragg::Error.
void run(const AttackCommand& command);

}  // namespace bragg::cli
