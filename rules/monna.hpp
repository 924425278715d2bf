// SPDX-License-Identifier: Apache-2.0
// MoNNA, Farhadkhani et al. 2023.
#pragma once

#include <bragg/pipeline.hpp>

#include "rules/solve/points.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const Monna& rule, const Points& points, Scratch scratch,
                      Combination& out) {
  const int m = points.count;
  const int near = m - rule.f;
  if (count_infinite(points) > rule.f) return Status::too_many_nonfinite;
  clear(team, out, points);
  int* const chosen = scratch.take_ints(static_cast<std::size_t>(m));
  team.parallel_for(m, [&](int i) { out.scores[i] = points.distance(rule.pivot, i); });
  team.single([&] {
    if (points.finite(rule.pivot)) {
      smallest(m, near, chosen, [&](int i) { return points.squared_distance(rule.pivot, i); });
      mean_of(points, chosen, near, out.coefficients);
    } else {
      mean_of_first_finite(points, near, chosen, out.coefficients);
    }
  });
  return Status::ok;
}

}  // namespace bragg::detail
