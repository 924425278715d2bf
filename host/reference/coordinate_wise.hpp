// SPDX-License-Identifier: Apache-2.0
// One coordinate of all points, and what coordinate-wise rules do with it.
#pragma once

#include "host/reference/points.hpp"

namespace bragg::reference {

struct Entry {
  long double value;
  long double magnitude;
  long double weight;
};

/// Values of one coordinate, ascending by (value, index).
using Column = std::vector<Entry>;

/// Coordinate c as a rule sees it: NaN and infinite points read +inf; before any pre-aggregator the rows' own
/// values.
Column column(const Stage& stage, std::size_t c);

struct Summary {
  long double value;
  long double magnitude;
};

/// Weighted mean, inside the extremes; −inf if it holds −inf, else +inf if it holds +inf. Where all weights
/// are 0 they count alike.
Summary mean_of(const Column& kept);
/// Least value with Σ_{≤} p ≥ ½Σp; where equality holds the next value plays the part of the upper middle
/// one.
Summary median_of(const Column& sorted, EvenMedian even);
Summary trimmed_mean_of(const Column& sorted, int f);
/// Mean of the `keep` values closest to the centre, ties to the smaller value; an infinite centre itself.
Summary mean_of_closest(Stage& stage, const Column& sorted, const Summary& centre, int keep);

/// The point whose coordinate c, of value and rest together, is rule(c). It has no coefficients: it is no
/// combination of rows.
template <class RuleT>
Point each_coordinate(const Stage& stage, RuleT rule) {
  Point out;
  for (std::size_t c = 0; c < stage.origin.coordinates(); ++c) {
    const Summary summary = rule(c);
    out.value.push_back(summary.value);
    out.magnitude.push_back(summary.magnitude);
  }
  return out;
}

}  // namespace bragg::reference
