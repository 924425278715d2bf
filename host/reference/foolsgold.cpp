// SPDX-License-Identifier: Apache-2.0
// FoolsGold, Fung et al. 2020, without memory.
#include <algorithm>
#include <cmath>

#include "host/reference/angles.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {
constexpr long double least_apart = 1e-12L;
constexpr long double most_sure = 0.99L;
}  // namespace

template <>
Point apply(const FoolsGold& rule, Stage& stage) {
  need_finite(stage.origin);
  const auto n = static_cast<std::size_t>(stage.n());
  std::vector<Vector> c(n, Vector(n, 0));
  Vector m(n, 0);
  const auto compared = [&](std::size_t i, std::size_t j) {
    return i != j && !stage.points[i].infinite && !stage.points[j].infinite;
  };
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      if (!compared(i, j)) continue;
      c[i][j] = cosine(stage, stage.points[i], stage.points[j]);
      m[i] = std::max(m[i], c[i][j]);
    }
  }
  if (std::all_of(stage.points.begin(), stage.points.end(),
                  [](const Point& point) { return point.infinite; }))
    throw Failed{Status::too_many_nonfinite};
  Vector a(n, 0);
  long double most = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (stage.points[i].infinite) continue;
    long double largest = 0;
    for (std::size_t j = 0; j < n; ++j) {
      if (compared(i, j)) largest = std::max(largest, m[j] > m[i] ? c[i][j] * m[i] / m[j] : c[i][j]);
    }
    a[i] = 1 - largest;
    most = std::max(most, a[i]);
  }
  decided_by_angle(stage, most - least_apart);
  if (!(most > least_apart)) throw Failed{Status::no_majority};
  long double total = 0;
  for (long double& x : a) {
    const long double sure = std::min(x / most, most_sure);
    x = sure > 0 ? std::clamp(rule.kappa * (std::log(sure / (1 - sure)) + 0.5L), 0.0L, 1.0L) : 0;
    total += x;
  }
  for (long double& x : a) x /= total;
  Point out = combination(stage.points, a);
  // A share s of the most is in doubt by its error over `most`, and the logarithm's slope is 1/(s(1 − s)): at
  // most 101 where it is cut off.
  count_angles(out, 1 + 2 * 101 * rule.kappa / (most * total) * static_cast<long double>(n));
  return out;
}

}  // namespace bragg::reference
