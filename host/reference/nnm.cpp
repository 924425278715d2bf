// SPDX-License-Identifier: Apache-2.0
// Nearest-neighbour mixing, Allouah et al. 2023. Client weights are consumed by the means.
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
void apply(const Nnm& rule, Stage& stage) {
  tolerate_infinite(stage, rule.f);
  const int near = stage.n() - rule.f;
  std::vector<Point> mixed;
  for (const Point& point : stage.points) {
    mixed.push_back(point.infinite ? mean_of_first_finite(stage, near)
                                   : mean_of(stage, nearest(stage, point, near)));
    mixed.back().label = point.label;
  }
  stage.points = mixed;
  stage.weighted = false;
}

}  // namespace bragg::reference
