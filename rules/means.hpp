// SPDX-License-Identifier: Apache-2.0
// Midpoints and means of f64 values that do not overflow: the same operations in the same order on the CPU
// and on a GPU, so that the bits are the same. host/cpu/means-inl.hpp holds the same for vectors.
#pragma once

#include <cmath>

#include "rules/solve/team.hpp"

namespace bragg::detail {

inline constexpr double large_value = 0x1p1000;  ///< sums of larger values might overflow
inline constexpr double shrink = 0x1p-64;        ///< sums of up to 2^64 shrunk values stay finite

/// As std::midpoint; midpoint(−inf, +inf) = −inf.
BRAGG_HD_INLINE double midpoint(double low, double high) {
  const double sum = low + high;
  const double middle = fabs(sum) < __builtin_huge_val() ? sum * 0.5 : low * 0.5 + high * 0.5;
  return middle == middle ? middle : low;
}

/// Whether a plain sum of values between low and high, which ValueT holds, might overflow.
template <class ValueT>
BRAGG_HD_INLINE bool is_large(double low, double high) {
  if constexpr (sizeof(ValueT) < sizeof(double)) {
    return false;
  } else {
    return fmax(fabs(low), fabs(high)) >= large_value;
  }
}

/// sum/count inside [low, high], the extremes of what is summed; −inf where the least is −inf.
BRAGG_HD_INLINE double finish_mean(double sum, int count, double low, double high) {
  const double mean = fmax(fmin(sum / static_cast<double>(count), high), low);
  return low == -__builtin_huge_val() ? low : mean;
}

/// The same for a sum of values times `shrink`.
BRAGG_HD_INLINE double finish_shrunk_mean(double sum, int count, double low, double high) {
  const double mean = finish_mean(sum, count, low * shrink, high * shrink);
  return fmax(fmin(mean / shrink, high), low);
}

}  // namespace bragg::detail
