// SPDX-License-Identifier: Apache-2.0
// Command-line arguments as values. Errors are bragg::Error.
#pragma once

#include <bragg/error.hpp>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bragg::cli {

/// The library calls an option by the name of its field.
Error with_option_names(const Error& error);

/// "1GiB", "64 MiB", "500MB", "1048576": the value of `option`.
std::uint64_t parse_bytes(const char* option, std::string_view text);

/// Client weights as they are given, with the names that stand beside them in a file, and their lines.
struct GivenWeights {
  std::vector<double> values;
  std::vector<std::string> names;  ///< none, or as many
  std::vector<int> lines;          ///< of a file
  std::string file;
};

/// "1,2,3", or "@file" with a line per worker: a number, or "name number", "name,number", in double quotes
/// where a name needs them. Blank lines and those that begin with # do not count, nor does a first line like
/// "name,weight".
GivenWeights parse_weights(const std::string& text);

/// A weight per input: in their order, or, where there are names, of the input with that path, else with that
/// file name. A name that no input has is a worker's that handed in nothing: `warning` tells of it. Where an
/// input has no weight, it is an error.
std::vector<double> match_weights(const GivenWeights& given, const std::vector<std::filesystem::path>& inputs,
                                  std::string& warning);

/// The workers' checkpoints: as given, or, for a single folder of several workers' models, these by name,
/// without the base. `output`: where something is written, which must not be among them. `quiet`: there is no
/// warning where the folder holds files and folders of models.
std::vector<std::filesystem::path> find_inputs(const std::vector<std::filesystem::path>& given,
                                               const std::optional<std::filesystem::path>& base,
                                               const std::optional<std::filesystem::path>& output,
                                               bool quiet = false);

}  // namespace bragg::cli
