// SPDX-License-Identifier: Apache-2.0
// Bulyan's first stage, El Mhamdi et al. 2018: which points the coordinate-wise second stage sees.
#pragma once

#include <bragg/pipeline.hpp>

#include "rules/solve/points.hpp"

namespace bragg::detail {

/// chosen[0..n−2f) = winners of repeated Krum, ascending.
template <class TeamT>
BRAGG_HD Status select_points(TeamT team, const Bulyan& rule, const Points& points, Scratch scratch,
                              int* chosen) {
  const int m = points.count;
  if (count_infinite(points) > rule.f) return Status::too_many_nonfinite;
  int* const order =
      scratch.take_ints(static_cast<std::size_t>(m) * m);  // every row's neighbours, nearest first
  int* const left = scratch.take_ints(static_cast<std::size_t>(m));
  double* const scores = scratch.take_doubles(static_cast<std::size_t>(m));
  double* const distances = scratch.take_doubles(static_cast<std::size_t>(m) * m);
  constexpr int won = -1;
  rank_neighbors(team, points, distances, order);
  team.parallel_for(m, [&](int i) { left[i] = points.finite(i); });
  for (int round = 0; round < m - 2 * rule.f; ++round) {
    const int remaining = m - round;
    int neighbors = remaining - rule.f - 2;
    if (neighbors < 1) neighbors = 1;
    if (neighbors > remaining - 1) neighbors = remaining - 1;
    team.parallel_for(m, [&](int i) {
      const int* const mine = order + static_cast<std::size_t>(i) * m;
      double score = left[i] > 0 ? 0 : infinity;
      BRAGG_HD_UNROLL(1)
      for (int k = 0, found = 0; k < m && found < neighbors && left[i] > 0; ++k) {
        if (mine[k] == i || left[mine[k]] <= 0) continue;
        score += distances[static_cast<std::size_t>(i) * m + mine[k]];
        ++found;
      }
      scores[i] = score;
    });
    const int winner = team.argmin(m, [&](int i) { return scores[i]; });
    team.single([&] { left[winner] = won; });
  }
  team.single([&] {
    BRAGG_HD_UNROLL(1)
    for (int i = 0, k = 0; i < m; ++i) {
      if (left[i] == won) chosen[k++] = i;
    }
  });
  return Status::ok;
}

}  // namespace bragg::detail
