// SPDX-License-Identifier: Apache-2.0
// Updates in checkpoint files, and the speed at which a machine reads these.
#pragma once

#include <bragg/updates.hpp>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "host/bench/models.hpp"
#include "host/bench/process.hpp"

namespace bragg::bench {

/// Checkpoint files (safetensors) of random updates, one per worker, in a new folder that goes with this.
class WrittenUpdates {
 public:
  /// @throws Error io_error: no files can be written in `folder`.
  WrittenUpdates(const std::filesystem::path& folder, int n, const Size& size, DType dtype);

  std::span<const std::filesystem::path> files() const noexcept { return files_; }
  /// For an output beside them.
  std::filesystem::path output() const { return folder_.path() / "output.safetensors"; }
  void remove_output() const;
  /// Of all files.
  std::uint64_t bytes() const noexcept { return bytes_; }

  /// Reads every file once, in pieces that stay in a core's cache, as many at a time as there are threads.
  /// @throws Error io_error.
  void read(int threads) const;
  /// Writes a file as large as one of them where the output goes, flushes it to the disk, and removes it.
  /// Seconds, without the removal. @throws Error io_error.
  double write() const;
  /// Has the system write them to the disk and forget them, so that the next to read them reads the disk.
  /// False: it does not, as where the folder is in memory.
  bool forget() const;

 private:
  TemporaryFolder folder_;
  std::vector<std::filesystem::path> files_;
  std::uint64_t bytes_ = 0;
};

/// Bytes that there are free in a folder's file system, to this user. @throws Error io_error.
std::uint64_t free_bytes(const std::filesystem::path& folder);

}  // namespace bragg::bench
