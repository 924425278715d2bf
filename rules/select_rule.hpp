// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/types.hpp>
#include <cstdint>

namespace bragg::detail {

/// The computation of `select` per coordinate, on the values of the points (NaN read as +inf), y_1 ≤ … ≤ y_m
/// in order.
struct SelectRule {
  enum class Kind : std::uint8_t {
    median,             ///< `even`
    trimmed_mean,       ///< drops f per side
    closest_to_median,  ///< mean of the `keep` values closest to the median (midpoint); ties to the smaller
                        ///< value
    closest_to_trimmed_mean,  ///< mean of the `keep` values closest to the trimmed mean (f)
    sign_vote,                ///< o, and `step` up or down as more of them are above or below it
    none,  ///< the values themselves, each point to an output of its own; of mixed points only
  };
  Kind kind = Kind::median;
  EvenMedian even = EvenMedian::midpoint;
  int f = 0;
  int keep = 0;
  double step = 0;
};

}  // namespace bragg::detail
