// SPDX-License-Identifier: Apache-2.0
// MoNNA, Farhadkhani et al. 2023: mean of the n−f rows nearest to a trusted one.
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
Point apply(const Monna& rule, Stage& stage) {
  tolerate_infinite(stage, rule.f);
  const Point& pivot = trusted(stage, rule.pivot);
  if (pivot.infinite) throw Failed{Status::nonfinite_pivot};  // a bucket
  return mean_of(stage, nearest(stage, pivot, stage.n() - rule.f));
}

}  // namespace bragg::reference
