// SPDX-License-Identifier: Apache-2.0
// MoNNA, Farhadkhani et al. 2023: mean of the n−f rows nearest to a trusted one.
#include <algorithm>
#include <stdexcept>

#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
Point apply(const Monna& rule, Stage& stage) {
  tolerate_infinite(stage, rule.f);
  const int near = stage.n() - rule.f;
  const auto pivot = std::find_if(stage.points.begin(), stage.points.end(),
                                  [&](const Point& point) { return point.label == rule.pivot; });
  if (pivot == stage.points.end()) throw std::invalid_argument("the pivot does not take part");
  if (pivot->infinite) return mean_of_first_finite(stage, near);
  return mean_of(stage, nearest(stage, *pivot, near));
}

}  // namespace bragg::reference
