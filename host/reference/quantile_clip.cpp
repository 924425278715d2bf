// SPDX-License-Identifier: Apache-2.0
// Clipping to a quantile of the norms about o: the ⌈q·n⌉-th smallest, where an infinite point's is +inf. An
// infinite point becomes o.
#include <algorithm>
#include <cmath>

#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
void apply(const QuantileClip& rule, Stage& stage) {
  need_finite(stage.origin);
  Vector norms;
  for (const Point& point : stage.points) norms.push_back(distance(point, stage.origin));
  std::sort(norms.begin(), norms.end());
  const long double place = std::ceil(static_cast<long double>(rule.q) * stage.n() - 1e-9L);
  const long double bound = norms[static_cast<std::size_t>(std::max(place, 1.0L)) - 1];
  for (Point& point : stage.points) clip(stage, point, bound);
}

}  // namespace bragg::reference
