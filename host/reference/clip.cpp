// SPDX-License-Identifier: Apache-2.0
// Clipping: o + (x − o)·min(1, c/‖x − o‖); an infinite row becomes o.
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
void apply(const Clip& rule, Stage& stage) {
  need_finite(stage.origin);
  for (Point& point : stage.points) {
    const long double norm = distance(point, stage.origin);
    const long double factor = point.infinite ? 0 : norm > rule.c ? rule.c / norm : 1;
    if (factor == 1) continue;
    Point clipped = blend(stage.origin, point, factor);
    count_difference(clipped, stage.origin, factor);
    clipped.weight = point.weight;
    clipped.label = point.label;
    point = clipped;
  }
}

}  // namespace bragg::reference
