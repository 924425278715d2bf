// SPDX-License-Identifier: Apache-2.0
// Adaptive robust clipping, Allouah et al. 2024: the ⌊2f(n−f)/n⌋ largest norms about o are cut to the next
// largest.
#include <algorithm>

#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
void apply(const Arc& rule, Stage& stage) {
  need_finite(stage.origin);
  tolerate_infinite(stage, rule.f);
  const long long n = stage.n();
  const long long k = 2LL * rule.f * (n - rule.f) / n;
  Vector norms;
  for (const Point& point : stage.points) norms.push_back(distance(point, stage.origin));
  std::sort(norms.begin(), norms.end(), std::greater<>());
  // Rows that tie with the (k+1)-th keep their norm either way. It is finite: k ≥ f.
  const long double bound = norms[static_cast<std::size_t>(k)];
  for (Point& point : stage.points) clip(stage, point, bound);
}

}  // namespace bragg::reference
