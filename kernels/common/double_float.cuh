// SPDX-License-Identifier: Apache-2.0
// Numbers of two floats, for devices whose f64 is slow.
#pragma once

#include "kernels/common/simt.cuh"

namespace bragg::detail::cuda {

/// The sum of two floats.
struct DoubleFloat {
  float high;
  float low;
};

/// a + b rounded, and exactly what that loses.
BRAGG_DEVICE float two_sum(float a, float b, float& lost) {
  const float sum = a + b;
  const float taken = sum - a;
  lost = (a - (sum - taken)) + (b - taken);
  return sum;
}

BRAGG_DEVICE DoubleFloat operator+(DoubleFloat a, DoubleFloat b) {
  float lost = 0;
  const float high = two_sum(a.high, b.high, lost);
  return {high, (a.low + b.low) + lost};
}

/// x as two floats, off by 2⁻⁴⁸ of it; of what no float holds the parts are not finite.
BRAGG_DEVICE DoubleFloat pair_of(double x) {
  const auto high = static_cast<float>(x);
  return {high, static_cast<float>(x - static_cast<double>(high))};
}
BRAGG_DEVICE double to_double(DoubleFloat x) {
  return static_cast<double>(x.high) + static_cast<double>(x.low);
}

/// What coefficients of sums over rows are multiplied by: 2¹⁵ terms of the largest float do not overflow.
inline constexpr float pair_scale = 0x1p-16f;
/// Beside a sum of so much, scaled, what underflows is next to nothing.
inline constexpr float least_pair_sum = 0x1p-96f;
/// Magnitudes of coefficients that may be two floats, scaled.
inline constexpr double least_pair_coefficient = 0x1p-60;
inline constexpr double largest_pair_coefficient = 0x1p14;
BRAGG_DEVICE bool suits_pairs(double c) {
  const double size = fabs(c);
  return size >= least_pair_coefficient && size <= largest_pair_coefficient;
}

}  // namespace bragg::detail::cuda
