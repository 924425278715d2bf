// SPDX-License-Identifier: Apache-2.0
// Command-line arguments as values. Errors are bragg::Error.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bragg::cli {

/// "1GiB", "64 MiB", "500MB", "1048576": the value of `option`.
std::uint64_t parse_bytes(const char* option, std::string_view text);

/// "1,2,3", or "@file" with one number per line; blank lines and those that begin with # do not count.
std::vector<double> parse_weights(const std::string& text);

/// The workers' checkpoints: as given, or, for a single folder of several worker files, those files by name,
/// without the base.
std::vector<std::filesystem::path> find_inputs(const std::vector<std::filesystem::path>& given,
                                               const std::optional<std::filesystem::path>& base,
                                               const std::filesystem::path& output);

}  // namespace bragg::cli
