// SPDX-License-Identifier: Apache-2.0
// A fused multiply-add for processors that have none.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace bragg::detail::cpu {

/// A sum, and what its rounding lost. Knuth's.
struct ExactSum {
  double sum, lost;

  ExactSum(double a, double b) : sum(a + b), lost(0) {
    const double taken = sum - a;
    lost = (a - (sum - taken)) + (b - taken);
  }
};

/// a·b + c, rounded once: std::fma, at a tenth of the time that it takes in software. The product is a
/// sum of two f64 (Dekker), and the three are added so that what comes before the last addition is rounded to
/// odd, which rounding twice does not show in (Boldo and Melquiond 2008).
inline double fused_multiply_add(double a, double b, double c) {
  // Nothing overflows or is lost below the least f64.
  constexpr double most = 0x1p900, least = 0x1p-900;
  const double product = a * b;
  const double size = std::abs(product);
  if (!(std::abs(a) < most && std::abs(b) < most && std::abs(c) < most && size < most && size > least))
    return std::fma(a, b, c);
  constexpr double split = 0x1p27 + 1;
  const double a_high = split * a - (split * a - a), a_low = a - a_high;
  const double b_high = split * b - (split * b - b), b_low = b - b_high;
  const double rest = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
  const ExactSum low(c, rest);
  const ExactSum high(product, low.sum);
  ExactSum odd(high.lost, low.lost);
  auto bits = std::bit_cast<std::uint64_t>(odd.sum);
  if (odd.lost != 0 && bits % 2 == 0) bits += (odd.lost > 0) == (odd.sum > 0) ? 1 : -1;
  return high.sum + std::bit_cast<double>(bits);
}

}  // namespace bragg::detail::cpu
