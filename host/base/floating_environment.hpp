// SPDX-License-Identifier: Apache-2.0
#pragma once

#ifdef __SSE2__
#include <xmmintrin.h>
#else
#include <cfenv>
#endif

namespace bragg::detail {

/// While it lives, its thread rounds to nearest, keeps denormals and traps nothing, whatever the thread was
/// set to (by torch.set_flush_denormal, or a library linked with -ffast-math). A thread of a parallel region
/// has one of its own.
class FloatingEnvironment {
 public:
  FloatingEnvironment(const FloatingEnvironment&) = delete;
  FloatingEnvironment& operator=(const FloatingEnvironment&) = delete;

#ifdef __SSE2__
  // Alone: fegetenv and fesetenv take 0.1 µs, for the x87 unit, which computes nothing here.
  FloatingEnvironment() noexcept : before_(_mm_getcsr()) {
    if ((before_ & modes) != defaults) _mm_setcsr(defaults);
  }
  ~FloatingEnvironment() {
    if ((before_ & modes) != defaults) _mm_setcsr(before_);
  }

 private:
  static constexpr unsigned modes = 0xFFC0;
  static constexpr unsigned defaults = 0x1F80;

  unsigned before_;
#else
  FloatingEnvironment() noexcept {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~FloatingEnvironment() { std::fesetenv(&before_); }

 private:
  std::fenv_t before_ = {};
#endif
};

}  // namespace bragg::detail
