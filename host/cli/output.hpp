// SPDX-License-Identifier: Apache-2.0
// Files that the command itself writes. Errors name their option.
#pragma once

#include <bragg/error.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bragg::detail {
class OutputFile;
}

namespace bragg::cli {

/// Calls, and names the option in what it throws.
template <class CallF>
auto of_option(const char* option, CallF call) {
  try {
    return call();
  } catch (const Error& error) {
    throw Error(error.status(), std::string(option) + ": " + error.what());
  }
}

/// Throws early what writing would only find when the work is done: a folder that is not there, a place
/// that cannot be written to.
void check_writable(const char* option, const std::filesystem::path& path);

/// Takes the next piece of a text.
using Put = std::function<void(std::string_view)>;

/// Puts a text, which may be longer than memory, piece by piece.
using MakeText = std::function<void(const Put&)>;

/// A file that is written, and appears when it is committed. Null: a stream, to which all went.
std::unique_ptr<detail::OutputFile> write_unnamed(const char* option, const std::filesystem::path& path,
                                                  const MakeText& make);

/// A file appears whole or not at all; a stream is written to.
void write_whole(const char* option, const std::filesystem::path& path, const std::string& text);

/// Whether a name ends as a file of values does: .safetensors, .npz or .npy.
bool is_values_name(const std::filesystem::path& path);

/// Whether a name is that of an index, of a model in shards.
bool is_index_name(const std::filesystem::path& path);

/// Whether `path` is, or once written would be, a file that `input` is read from: a file, or the folder or
/// index of a model or of workers.
bool leads_to_input(const std::filesystem::path& path, const std::filesystem::path& input);

/// check_writable, and that what is written takes the place of no file of the base or of an input. `given`:
/// as the command line names them, `inputs`: what was found there.
void check_place(const char* option, const std::filesystem::path& path,
                 const std::optional<std::filesystem::path>& base,
                 const std::vector<std::filesystem::path>& given,
                 const std::vector<std::filesystem::path>& inputs);

}  // namespace bragg::cli
