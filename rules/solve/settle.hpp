// SPDX-License-Identifier: Apache-2.0
// Whether the squares of f64 rows stay in the range of f64, and what to multiply the rows by where they do
// not.
#pragma once

#include "rules/solve/block.hpp"

namespace bragg::detail {

struct GramScale {
  bool fits = true;  ///< the products are good as they are
  double scale = 1;
  double limit = 0x1p500;
};

/// Magnitudes of the rows, known after a pass.
struct Magnitudes {
  int rows = 0;
  const std::int64_t* nonfinite = nullptr;
  const std::uint8_t* left_out = nullptr;  ///< [inputs] not 0: the row is infinite
  int inputs = 0;
  unsigned measured = 0;  ///< bit r: distances from reference r are taken
  const double* max_abs = nullptr;
  double scale = 1;        ///< that their products were taken with
  double limit = 0x1p500;  ///< of max_abs; of rows less a centre none: it is for values as they are given
  int tolerated = 0;       ///< rows that may be bad
};

/// `order`: scratch, `rows` ints.
BRAGG_HD inline GramScale settle(const Magnitudes& seen, int* order) {
  // Sum values scaled by a power of two that puts the largest at 2^480. Rows 2^940 times smaller stay below
  // the reach of f64 and count as equal to 0. So that a bad row cannot do that to the others, rows that much
  // larger than the largest but as many as may be bad count as infinite: no honest spread is far below it.
  // Where all that differ may be bad, what honest rows differ from is the reference.
  constexpr double reach = 0x1p920;
  const int rows = seen.rows;
  const double* const max_abs = seen.max_abs;
  GramScale out{.scale = seen.scale, .limit = seen.limit};
  // A reference that nothing is measured from may overflow; one that rows are measured from must not.
  const auto measured = [&](int i) {
    return i >= seen.inputs && (seen.measured >> (i - seen.inputs) & 1U) != 0;
  };
  const auto takes_part = [&](int i) {
    if (i >= seen.inputs && !measured(i)) return false;
    if (i < seen.inputs && seen.left_out[i] != 0) return false;
    return seen.nonfinite[i] == 0 && max_abs[i] > 0 && (i >= seen.inputs || max_abs[i] <= seen.limit);
  };
  int count = 0;  // of rows that are not references
  double origin = 0;
  double largest = 0;
  double least = infinity;
  BRAGG_HD_UNROLL(1)
  for (int i = 0; i < rows; ++i) {
    if (!takes_part(i)) continue;
    count += i < seen.inputs;
    if (i >= seen.inputs && max_abs[i] > origin) origin = max_abs[i];
    largest = max_abs[i] > largest ? max_abs[i] : largest;
    least = max_abs[i] < least ? max_abs[i] : least;
  }
  out.fits = largest == 0 || (largest * seen.scale <= 0x1p480 && least * seen.scale >= 0x1p-460);
  if (out.fits) return out;

  const int kept = count > seen.tolerated ? count - seen.tolerated : 1;
  smallest(seen.inputs, kept, order, [&](int i) { return takes_part(i) ? max_abs[i] : infinity; });
  const bool all_may_be_bad = count <= seen.tolerated;
  const double sure = all_may_be_bad && origin > 0 ? origin : count > 0 ? max_abs[order[kept - 1]] : infinity;
  const double limit = sure * reach;
  largest = 0;
  BRAGG_HD_UNROLL(1)
  for (int i = 0; i < rows; ++i) {
    if (takes_part(i) && (max_abs[i] <= limit || measured(i)) && max_abs[i] > largest) largest = max_abs[i];
  }
  if (limit < out.limit) out.limit = limit;
  int exponent = 479 - std::ilogb(largest);
  if (exponent > 1000) exponent = 1000;
  if (exponent < -1000) exponent = -1000;
  out.scale = std::ldexp(1.0, exponent);
  return out;
}

}  // namespace bragg::detail
