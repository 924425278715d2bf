// SPDX-License-Identifier: Apache-2.0
// Centered clipping, Karimireddy et al. 2021: v ← v + (1/n) Σ (x_i − v)·min(1, τ/‖x_i − v‖).
#include <utility>

#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
Point apply(const CenteredClipping& rule, Stage& stage) {
  const bool from_previous = rule.start == CenteredClipping::Start::previous && !stage.previous.empty();
  Point v = rule.start == CenteredClipping::Start::pivot ? trusted(stage, rule.pivot)
            : from_previous                              ? stage.previous.front()
                                                         : stage.origin;
  need_finite(v);
  heed_cancellation(stage);
  // Infinite rows contribute nothing and still count in the total.
  long double total = 0;
  for (const Point& point : stage.points) total += stage.weighted ? point.weight : 1;
  for (int iteration = 0; iteration < rule.iters; ++iteration) {
    std::vector<Point> points{v};
    Vector a{1};
    for (const Point& point : stage.points) {
      const long double p = stage.weighted ? point.weight : 1;
      if (point.infinite || p == 0) continue;
      const long double length = distance(point, v);
      points.push_back(point);
      a.push_back(p / total * clip_factor(length, rule.tau));
      a.front() -= a.back();
    }
    Point next = combination(points, a);
    count_difference(next, v, 1 - a.front());
    v = std::move(next);
  }
  return v;
}

}  // namespace bragg::reference
