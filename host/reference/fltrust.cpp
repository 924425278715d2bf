// SPDX-License-Identifier: Apache-2.0
// FLTrust, Cao et al. 2021: o + Σ t_i (N_p/N_i) u_i / Σ t_i, t_i the cosine with the trusted row where
// positive.
#include <algorithm>
#include <cmath>

#include "host/reference/angles.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {
constexpr long double least_trust = 1e-12L;
constexpr long double shortest = 0x1p-20L;  ///< of a row that has a direction, beside the trusted one
}  // namespace

template <>
Point apply(const FlTrust& rule, Stage& stage) {
  need_finite(stage.origin);
  const Point& own = trusted(stage, rule.pivot);
  Vector trust;
  long double total = 0;
  for (const Point& point : stage.points) {
    trust.push_back(0);
    if (&point == &own || point.infinite || !has_direction(stage, point)) continue;
    const long double squared = squared_distance(point, stage.origin);
    const long double least = shortest * shortest * squared_distance(own, stage.origin);
    stage.decided(std::min(squared, least), std::max(squared, least), distance_terms(point, stage.origin));
    if (squared <= least) continue;
    const long double found = cosine(stage, point, own);
    if (distance(own, stage.origin) > 0) decided_by_angle(stage, found - least_trust);
    if (found >= least_trust) trust.back() = found;
    total += trust.back();
  }
  if (total == 0) return stage.origin;
  std::vector<Point> points{stage.origin};
  Vector a{1};
  long double shares = 0;
  for (std::size_t i = 0; i < trust.size(); ++i) {
    if (trust[i] == 0) continue;
    points.push_back(stage.points[i]);
    a.push_back(trust[i] / total * (distance(own, stage.origin) / distance(stage.points[i], stage.origin)));
    a.front() -= a.back();
    shares += a.back();
  }
  Point out = combination(points, a);
  count_difference(out, stage.origin, shares);
  count_angles(out, 1 + 1 / total);
  return out;
}

}  // namespace bragg::reference
