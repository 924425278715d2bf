// SPDX-License-Identifier: Apache-2.0
// What a file aggregation has read and will read, told to whoever asked for it.
#pragma once

#include <bragg/io.hpp>
#include <cstdint>

namespace bragg::detail {

class ProgressCounter {
 public:
  explicit ProgressCounter(const FileOptions& options) : options_(options) {}

  void set_passes(int passes) { progress_.passes = passes; }
  /// All over again: of what was expected nothing is left.
  void restart() {
    progress_.pass = 1;
    progress_.bytes_total = progress_.bytes_done;
  }
  void enter_last_pass() { progress_.pass = progress_.passes; }
  void expect(std::uint64_t bytes) { progress_.bytes_total += bytes; }
  /// Bytes that were expected are not going to be read.
  void skip(std::uint64_t bytes) { progress_.bytes_total -= bytes; }
  void advance(std::uint64_t bytes) {
    progress_.bytes_done += bytes;
    if (options_.progress) options_.progress(progress_);
  }

 private:
  const FileOptions& options_;
  Progress progress_;
};

}  // namespace bragg::detail
