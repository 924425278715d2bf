// SPDX-License-Identifier: Apache-2.0
// OpenMP's threads on cores of their own: unbound, they wander, and runs differ by milliseconds.
#pragma once

#include <sched.h>

namespace bragg::bench {

/// The OpenMP runtime reads the environment before main begins. Where that says nothing of binding, this sets
/// OMP_PROC_BIND and OMP_PLACES and starts the program once more, with the same arguments; it returns in the
/// new one, or where that is not possible.
void bind_threads(char** argv);

/// Whether OpenMP's threads stay where they are.
bool threads_are_bound();

/// All cores of this process, for a child: that of a bound thread would inherit its one.
class AllCores {
 public:
  AllCores();
  /// In the child, between fork and exec: makes one system call.
  void apply() const noexcept;

 private:
  cpu_set_t cores_;
  bool known_ = false;
};

}  // namespace bragg::bench
