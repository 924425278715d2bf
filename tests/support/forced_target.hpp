// SPDX-License-Identifier: Apache-2.0
// The instruction sets of this machine, one at a time.
#pragma once

#include "host/cpu/kernels.hpp"
// After kernels.hpp, which chooses the targets.
#include <hwy/targets.h>

#include <cstdint>
#include <string>

namespace bragg::test {

/// The passes run on this target for as long as it lives: in all threads.
class ForcedTarget {
 public:
  explicit ForcedTarget(std::int64_t target) { set(target); }
  ForcedTarget(const ForcedTarget&) = delete;
  ForcedTarget& operator=(const ForcedTarget&) = delete;
  ~ForcedTarget() { set(0); }

 private:
  static void set(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

inline std::string target_name(std::int64_t target) { return hwy::TargetName(target); }

}  // namespace bragg::test
