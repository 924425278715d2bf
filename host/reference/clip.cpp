// SPDX-License-Identifier: Apache-2.0
// Clipping: o + (x − o)·min(1, c/‖x − o‖); an infinite row becomes o.
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
void apply(const Clip& rule, Stage& stage) {
  need_finite(stage.origin);
  for (Point& point : stage.points) clip(stage, point, rule.c);
}

}  // namespace bragg::reference
