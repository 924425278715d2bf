// SPDX-License-Identifier: Apache-2.0
// Whether the squares of f64 rows stay in the range of f64, and what to multiply the rows by where they do
// not.
#pragma once

#include "host/solve/block.hpp"

namespace bragg::detail {

struct GramScale {
  bool fits = true;  ///< the products are good as they are
  double scale = 1;
  double limit = 0x1p500;
};

/// `order`: scratch, `rows` ints.
BRAGG_HD inline GramScale settle(int rows, const std::int64_t* nonfinite, const double* max_abs, int* order) {
  // Sum values scaled by a power of two that puts the largest at 2^480. Rows 2^940 times smaller stay below
  // the reach of f64 and count as equal to 0; so that a huge row cannot do that to the others, rows that much
  // larger than the median row count as infinite.
  constexpr double reach = 0x1p920;
  GramScale out;
  const auto takes_part = [&](int i) {
    return nonfinite[i] == 0 && max_abs[i] > 0 && max_abs[i] <= out.limit;
  };
  int count = 0;
  double largest = 0;
  double least = infinity;
  BRAGG_HD_UNROLL(1)
  for (int i = 0; i < rows; ++i) {
    if (!takes_part(i)) continue;
    ++count;
    largest = max_abs[i] > largest ? max_abs[i] : largest;
    least = max_abs[i] < least ? max_abs[i] : least;
  }
  out.fits = count == 0 || (largest <= 0x1p480 && least >= 0x1p-460);
  if (out.fits) return out;

  const int middle = (count + 1) / 2;
  smallest(rows, middle, order, [&](int i) { return takes_part(i) ? max_abs[i] : infinity; });
  const double limit = max_abs[order[middle - 1]] * reach;
  largest = 0;
  BRAGG_HD_UNROLL(1)
  for (int i = 0; i < rows; ++i) {
    if (takes_part(i) && max_abs[i] <= limit && max_abs[i] > largest) largest = max_abs[i];
  }
  if (limit < out.limit) out.limit = limit;
  int exponent = 479 - std::ilogb(largest);
  if (exponent > 1000) exponent = 1000;
  if (exponent < -1000) exponent = -1000;
  out.scale = std::ldexp(1.0, exponent);
  return out;
}

/// After pass 1 of f64 rows. Where words.settled stays 0 their products must be summed once more, scaled.
struct SettleStep {
  int rows = 0;

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    team.single([&] {
      const GramScale found = settle(rows, b.nonfinite, b.max_abs, b.ints);
      b.words->settled = found.fits;
      b.words->scale = found.scale;
      b.words->limit = found.limit;
    });
  }
};

}  // namespace bragg::detail
