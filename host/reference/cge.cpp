// SPDX-License-Identifier: Apache-2.0
// Comparative gradient elimination, Gupta et al. 2020: mean of the n−f rows of least norm about o.
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
Point apply(const Cge& rule, Stage& stage) {
  need_finite(stage.origin);
  tolerate_infinite(stage, rule.f);
  return mean_of(stage, nearest(stage, stage.origin, stage.n() - rule.f));
}

}  // namespace bragg::reference
