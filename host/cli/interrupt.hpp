// SPDX-License-Identifier: Apache-2.0
// Signals: a command ends at once, wherever it is, and leaves nothing behind.
#pragma once

#include <atomic>
#include <csignal>
#include <functional>
#include <string>
#include <thread>

namespace bragg::cli {

/// While it lives, SIGINT, SIGTERM and SIGHUP end the process with exit code 128 + signal: temporary files
/// are removed, and a line on stderr says what was written. A signal that was ignored before
/// (nohup) stays so. To be made before any other thread, so that all inherit its signal mask.
class EndOnSignal {
 public:
  /// `written`: says so, of the number of outputs that were finished before.
  explicit EndOnSignal(std::function<std::string(int)> written);
  ~EndOnSignal();
  EndOnSignal(const EndOnSignal&) = delete;
  EndOnSignal& operator=(const EndOnSignal&) = delete;

 private:
  std::function<std::string(int)> written_;
  sigset_t before_{};
  sigset_t awaited_{};
  std::atomic<bool> over_ = false;
  std::thread thread_;
};

}  // namespace bragg::cli
