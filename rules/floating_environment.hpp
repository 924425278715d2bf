// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cfenv>
#ifdef __SSE2__
#include <xmmintrin.h>
#endif

namespace bragg::detail {

/// While it lives, its thread rounds to nearest, keeps denormals and traps nothing, whatever the thread was
/// set to (by torch.set_flush_denormal, or a library linked with -ffast-math). A thread of a parallel region
/// has one of its own.
class FloatingEnvironment {
 public:
  FloatingEnvironment() noexcept : changes_(!is_default()) {
    if (!changes_) return;
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~FloatingEnvironment() {
    if (changes_) std::fesetenv(&before_);
  }
  FloatingEnvironment(const FloatingEnvironment&) = delete;
  FloatingEnvironment& operator=(const FloatingEnvironment&) = delete;

 private:
  /// Asked first: to get and set all takes 0.1 µs on x86.
  static bool is_default() noexcept {
#if defined(__SSE2__) && defined(__GNUC__)
    unsigned short x87 = 0;  // of long double
    __asm__ volatile("fnstcw %0" : "=m"(x87));
    return (_mm_getcsr() & 0xFFC0U) == 0x1F80U && (x87 & 0xF3FU) == 0x33FU;
#else
    return false;
#endif
  }

  std::fenv_t before_ = {};
  bool changes_;
};

}  // namespace bragg::detail
