// SPDX-License-Identifier: Apache-2.0
// Majority vote of signs, Bernstein et al. 2019.
#include <algorithm>
#include <cmath>

#include "host/reference/coordinate_wise.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

bool is_origin(const Point& point) {
  return std::all_of(point.coefficients.begin(), point.coefficients.end(),
                     [](long double a) { return a == 0; });
}

}  // namespace

template <>
Point apply(const SignVote& rule, Stage& stage) {
  return each_coordinate(stage, [&](std::size_t c) {
    const long double o = stage.origin.coordinate(c);
    long double up = 0;
    long double down = 0;
    for (const Point& point : stage.points) {
      if (point.invalid || (stage.mixed && (point.infinite || is_origin(point)))) continue;
      const long double x = std::isnan(point.coordinate(c)) ? infinity : point.coordinate(c);
      const long double p = stage.weighted ? point.weight : 1;
      if (x > o) up += p;
      if (x < o) down += p;
      // Mixed values are rounded to f32 at the coarsest, which may bring them to o.
      const bool is_zero = point.magnitude[c] == 0 && o == 0;
      if (stage.mixed && !is_zero && std::abs(x - o) < 0x1p-148L) stage.margin = 0;
      if (stage.mixed)
        stage.decided(std::min(x, o), std::max(x, o), std::max(point.magnitude[c], std::abs(o)));
    }
    const bool draw = std::abs(up - down) <= 1e-12L * (up + down);
    const auto step = static_cast<long double>(rule.step);
    return Summary{o + (draw ? 0 : up > down ? step : -step), std::abs(o) + step};
  });
}

}  // namespace bragg::reference
