// SPDX-License-Identifier: Apache-2.0
// Places that take what is written behind what they took before, and that no file may replace.
#pragma once

#include <bragg/error.hpp>
#include <filesystem>
#include <string_view>

namespace bragg::detail {

/// Whether a path leads to a descriptor of an open file (/dev/stdout, /dev/fd/3, /proc/self/fd/3), whatever
/// file that is.
bool is_descriptor(const std::filesystem::path& path);

/// Whether a path leads to a stream: a descriptor, a character device or a named pipe.
bool is_stream(const std::filesystem::path& path);

/// @throws Error io_error where the path leads to a descriptor of this process that cannot be written to.
void check_stream(const std::filesystem::path& path);

/// A stream open for writing; a descriptor of this process goes on from where it stands.
class OutputStream {
 public:
  /// @throws Error io_error.
  explicit OutputStream(std::filesystem::path path);
  ~OutputStream();
  OutputStream(const OutputStream&) = delete;
  OutputStream& operator=(const OutputStream&) = delete;

  void write(std::string_view text);
  void close();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace bragg::detail
