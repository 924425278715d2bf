// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace bragg::bench {

struct Finished {
  int code = 0;    ///< exit status
  int signal = 0;  ///< that ended it, or 0
  std::string out, err;
};

/// A new folder, which goes with this.
class TemporaryFolder {
 public:
  /// Among those for temporary files. @throws Error io_error.
  TemporaryFolder();
  /// In a folder that is there. @throws Error io_error.
  explicit TemporaryFolder(const std::filesystem::path& in);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

/// For a process that ends at once, with other threads at work: ends the program that is running and removes
/// the temporary folders. No other can be started or made any more.
void leave_nothing();

/// Starts a program, found in PATH, on all cores of this process and waits for its end.
/// @throws Error io_error: it could not be started.
Finished run_program(const std::vector<std::string>& arguments);

}  // namespace bragg::bench
