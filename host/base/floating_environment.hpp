// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cfenv>

namespace bragg::detail {

/// While it lives, its thread rounds to nearest, keeps denormals and traps nothing, whatever the thread was
/// set to (by torch.set_flush_denormal, or a library linked with -ffast-math). A thread of a parallel region
/// has one of its own.
class FloatingEnvironment {
 public:
  FloatingEnvironment() noexcept {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~FloatingEnvironment() { std::fesetenv(&before_); }
  FloatingEnvironment(const FloatingEnvironment&) = delete;
  FloatingEnvironment& operator=(const FloatingEnvironment&) = delete;

 private:
  std::fenv_t before_ = {};
};

}  // namespace bragg::detail
