// SPDX-License-Identifier: Apache-2.0
// A natural logarithm of fixed operations. Those of C libraries differ by processor in the last bit.
#pragma once

#include <cstdint>

#include "rules/solve/team.hpp"

namespace bragg::detail {

/// log x of a positive, finite, normal x, off by less than three units in the last place. With x = m·2^e, m
/// in [√½, √2), and f = (m − 1)/(m + 1), it is e·log 2 + 2·(f + f³/3 + f⁵/5 + …), where |f| < 0.172: what is
/// left out is below f²⁵.
BRAGG_HD inline double logarithm(double x) {
  constexpr std::uint64_t fraction = (std::uint64_t{1} << 52) - 1;
  const auto bits = __builtin_bit_cast(std::uint64_t, x);
  auto exponent = static_cast<int>(bits >> 52) - 1023;
  double m = __builtin_bit_cast(double, (bits & fraction) | (std::uint64_t{1023} << 52));
  if (m >= 0x1.6a09e667f3bcdp+0) {
    m *= 0.5;
    exponent += 1;
  }
  const double f = (m - 1) / (m + 1);
  const double square = f * f;
  double series = 0;
  BRAGG_HD_UNROLL(1)
  for (int k = 23; k >= 3; k -= 2) series = (series + 1.0 / k) * square;
  // The upper part of log 2 ends in zeros: its product with the exponent is exact.
  constexpr double upper = 0x1.62e42fefa38p-1;
  constexpr double lower = 0x1.ef35793c7673p-45;
  return exponent * upper + (2 * f + (2 * f * series + exponent * lower));
}

}  // namespace bragg::detail
