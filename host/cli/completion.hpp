// SPDX-License-Identifier: Apache-2.0
// Shell completion, made from the command line's own options: bash, zsh and fish.
#pragma once

#include <CLI/CLI.hpp>
#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

// An option that is a path takes a file, in the help and in shells.
template <>
constexpr const char* CLI::detail::type_name<std::filesystem::path>() {
  return "FILE";
}
template <>
constexpr const char* CLI::detail::type_name<std::optional<std::filesystem::path>>() {
  return "FILE";
}

namespace bragg::cli {

/// What shells complete besides FILE and sets in braces such as {cpu,cuda}: the names for options' types.
inline constexpr const char* rule_type = "RULE";
inline constexpr const char* folder_type = "FOLDER";
inline constexpr const char* weights_type = "WEIGHTS";  ///< numbers, or @FILE

inline constexpr std::array shells = {"bash", "zsh", "fish"};

/// The script that a shell reads: options, values and files of every subcommand of `app`.
std::string completion_script(const CLI::App& app, std::string_view shell);

}  // namespace bragg::cli
