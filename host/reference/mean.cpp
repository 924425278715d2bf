// SPDX-License-Identifier: Apache-2.0
// Mean: (1/n) Σ x_i, with client weights Σ p_i x_i / Σ p_i. Not robust: NaN and infinities go through as IEEE
// adds them, unless such rows are left out.
#include <cmath>

#include "host/reference/coordinate_wise.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
Point apply(const Mean& rule, Stage& stage) {
  if (rule.nonfinite == Mean::Nonfinite::skip) {
    std::vector<int> finite;
    for (int i = 0; i < stage.n(); ++i) {
      if (!stage.points[i].infinite) finite.push_back(i);
    }
    if (finite.empty()) throw Failed{Status::too_many_nonfinite};
    return mean_of(stage, finite);
  }
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
