// SPDX-License-Identifier: Apache-2.0
// Mean: (1/n) Σ x_i, with client weights Σ p_i x_i / Σ p_i. Not robust: NaN and infinities go through as IEEE
// adds them.
#include <algorithm>
#include <cmath>

#include "host/reference/coordinate_wise.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

Point apply(const Mean&, Stage& stage) {
  Point out = each_coordinate(stage, [](std::size_t) { return Summary{0, 0}; });
  Vector share(stage.points.size(), 0);
  long double total = 0;
  for (std::size_t i = 0; i < share.size(); ++i) {
    const Point& point = stage.points[i];
    share[i] = point.invalid ? 0 : stage.weighted ? point.weight : 1;
    total += share[i];
  }
  std::fill(out.coefficients.begin(), out.coefficients.end(), 0);
  for (std::size_t i = 0; i < share.size(); ++i) {
    if (share[i] == 0 && total > 0) continue;  // 0·∞ never reaches the output
    const Point& point = stage.points[i];
    const bool reads_infinite = stage.mixed && point.infinite;
    for (std::size_t c = 0; c < out.value.size(); ++c) {
      out.value[c] += share[i] / total * (reads_infinite ? infinity : point.value[c]);
      out.magnitude[c] += std::isfinite(point.value[c]) ? share[i] / total * point.magnitude[c] : 0;
    }
    for (std::size_t r = 0; r < out.coefficients.size(); ++r) {
      out.coefficients[r] += share[i] / total * point.coefficients[r];
    }
  }
  return out;
}

}  // namespace bragg::reference
