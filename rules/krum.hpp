// SPDX-License-Identifier: Apache-2.0
// Krum and Multi-Krum, Blanchard et al. 2017.
#pragma once

#include <bragg/pipeline.hpp>

#include "rules/solve/points.hpp"

namespace bragg::detail {

/// scores[i] = Σ of the `neighbors` least squared distances to the other points, added in ascending order.
/// `distances`, `order`: m² each.
template <class TeamT>
BRAGG_HD void krum_scores(TeamT team, const Points& points, int neighbors, double* distances, int* order,
                          double* scores) {
  const int m = points.count;
  rank_neighbors(team, points, distances, order);
  team.parallel_for(m, [&](int i) {
    const std::size_t row = static_cast<std::size_t>(i) * m;
    double score = points.finite(i) ? 0 : infinity;
    BRAGG_HD_UNROLL(1)
    for (int k = 0, found = 0; points.finite(i) && found < neighbors; ++k) {
      if (order[row + k] == i) continue;
      score += distances[row + order[row + k]];
      ++found;
    }
    scores[i] = score;
  });
}

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const MultiKrum& rule, const Points& points, Scratch scratch,
                      Combination& out) {
  const int m = points.count;
  if (count_infinite(points) > rule.f) return Status::too_many_nonfinite;
  clear(team, out, points);
  const int neighbors = rule.neighbors == automatic ? m - rule.f - 2 : rule.neighbors;
  const int kept = rule.m == automatic ? m - rule.f : rule.m;
  int* const order = scratch.take_ints(static_cast<std::size_t>(m) * m);
  double* const distances = scratch.take_doubles(static_cast<std::size_t>(m) * m);
  krum_scores(team, points, neighbors, distances, order, out.scores);
  team.single([&] {
    smallest(m, kept, order, [&](int i) { return out.scores[i]; });
    mean_of(points, order, kept, out.coefficients);
  });
  return Status::ok;
}

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const Krum& rule, const Points& points, Scratch scratch, Combination& out) {
  return solve(team, MultiKrum{.f = rule.f, .m = 1, .neighbors = rule.neighbors}, points, scratch, out);
}

}  // namespace bragg::detail
