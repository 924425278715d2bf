// SPDX-License-Identifier: Apache-2.0
// Whether the squares of f64 rows stay in the range of f64, and what to multiply the rows by where they do
// not.
#pragma once

#include "rules/solve/block.hpp"
#include "rules/solve/ranking.hpp"

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

/// Takes `rows` doubles and twice as many ints of `scratch`.
template <class TeamT>
BRAGG_HD GramScale settle(TeamT team, const Magnitudes& seen, Scratch scratch) {
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
  const auto largest_of = [&](auto counts) {
    const auto value = [&](int i) { return counts(i) ? max_abs[i] : 0.0; };
    return value(team.argmin(rows, [&](int i) { return -value(i); }));
  };
  const auto value_or_infinity = [&](int i) { return takes_part(i) ? max_abs[i] : infinity; };
  double largest = largest_of(takes_part);
  const double least = value_or_infinity(team.argmin(rows, value_or_infinity));
  out.fits = largest == 0 || (largest * seen.scale <= 0x1p480 && least * seen.scale >= 0x1p-460);
  if (out.fits) return out;

  const int count = static_cast<int>(team.sum(seen.inputs, [&](int i) { return takes_part(i) ? 1.0 : 0.0; }));
  const double origin = largest_of([&](int i) { return i >= seen.inputs && takes_part(i); });
  const int kept = count > seen.tolerated ? count - seen.tolerated : 1;
  const int* const order = smallest(team, scratch, seen.inputs, kept, value_or_infinity);
  const bool all_may_be_bad = count <= seen.tolerated;
  const double sure = all_may_be_bad && origin > 0 ? origin : count > 0 ? max_abs[order[kept - 1]] : infinity;
  const double limit = sure * reach;
  largest = largest_of([&](int i) { return takes_part(i) && (max_abs[i] <= limit || measured(i)); });
  if (limit < out.limit) out.limit = limit;
  int exponent = 479 - std::ilogb(largest);
  if (exponent > 1000) exponent = 1000;
  if (exponent < -1000) exponent = -1000;
  out.scale = std::ldexp(1.0, exponent);
  return out;
}

}  // namespace bragg::detail
