// SPDX-License-Identifier: Apache-2.0
// Comparative gradient elimination, Gupta et al. 2020.
#pragma once

#include <bragg/pipeline.hpp>

#include "rules/solve/points.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const Cge& rule, const Points& points, Scratch scratch, Combination& out) {
  const int m = points.count;
  if (count_infinite(points) > rule.f) return Status::too_many_nonfinite;
  clear(team, out, points);
  int* const chosen = scratch.take_ints(static_cast<std::size_t>(m));
  team.parallel_for(m, [&](int i) { out.scores[i] = points.length(i, points.origin()); });
  team.single([&] {
    smallest(m, m - rule.f, chosen, [&](int i) { return points.squared_length(i, points.origin()); });
    mean_of(points, chosen, m - rule.f, out.coefficients);
  });
  return Status::ok;
}

}  // namespace bragg::detail
