// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/io.hpp>
#include <chrono>
#include <string>

#include "host/verify/verify.hpp"

namespace bragg::cli {

/// A line on stderr that says how far the run is; gone when it is destroyed. Off unless stderr is a terminal.
class ProgressBar {
 public:
  explicit ProgressBar(bool wanted);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(const Progress& progress);
  void show(const verify::Stage& stage);
  /// `share` of the work is done; `text` says what is being done.
  void show(double share, const std::string& text);

 private:
  using Clock = std::chrono::steady_clock;

  /// False where the line is off, or was drawn just now.
  bool is_due();
  void draw(double share, const std::string& text);

  bool enabled_;
  bool shown_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_;
};

}  // namespace bragg::cli
