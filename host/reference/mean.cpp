// SPDX-License-Identifier: Apache-2.0
// Mean: (1/n) Σ x_i, with client weights Σ p_i x_i / Σ p_i. Not robust: NaN and infinities go through as IEEE
// adds them.
#include <cmath>

#include "host/reference/coordinate_wise.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
Point apply(const Mean&, Stage& stage) {
  const auto weight = [&](const Point& point) {
    return point.invalid ? 0 : stage.weighted ? point.weight : 1;
  };
  long double total = 0;
  for (const Point& point : stage.points) total += weight(point);
  return each_coordinate(stage, [&](std::size_t c) {
    Summary out{0, 0};
    for (const Point& point : stage.points) {
      if (weight(point) == 0 && total > 0) continue;  // 0·∞ never reaches the output
      const long double share = weight(point) / total;
      const long double x = stage.mixed && point.infinite ? infinity : point.coordinate(c);
      out.value += share * x;
      if (std::isfinite(x)) out.magnitude += share * point.magnitude[c];
    }
    return out;
  });
}

}  // namespace bragg::reference
