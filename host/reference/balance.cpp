// SPDX-License-Identifier: Apache-2.0
// BALANCE, Fang et al. 2024: a trusted row, and the mean of those near it.
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
Point apply(const Balance& rule, Stage& stage) {
  need_finite(stage.origin);
  const Point& own = trusted(stage, rule.pivot);
  const long double gamma = rule.gamma;
  const long double reach = gamma * gamma * squared_distance(own, stage.origin);
  const long double reach_terms = gamma * gamma * distance_terms(own, stage.origin);
  std::vector<int> accepted;
  for (int j = 0; j < stage.n(); ++j) {
    const Point& other = stage.points[j];
    if (&other == &own || other.infinite) continue;
    const long double far = squared_distance(own, other);
    if (far <= reach) accepted.push_back(j);
    // Rows at the trusted one, which is at o, are there in any arithmetic.
    if (far == 0 && other.value == own.value) continue;
    stage.decided(std::min(far, reach), std::max(far, reach),
                  std::max(reach_terms, distance_terms(own, other)));
  }
  if (accepted.empty()) return own;
  return blend(mean_of(stage, accepted), own, rule.alpha);
}

}  // namespace bragg::reference
