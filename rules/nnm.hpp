// SPDX-License-Identifier: Apache-2.0
// Nearest-neighbour mixing, Allouah et al. 2023.
#pragma once

#include <bragg/pipeline.hpp>

#include "rules/solve/points.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status transform(TeamT team, const Nnm& rule, const Points& points, Scratch scratch,
                          Transform& out) {
  const int m = points.count;
  const int near = m - rule.f;
  if (count_infinite(points) > rule.f) return Status::too_many_nonfinite;
  int* const chosen = scratch.take_ints(static_cast<std::size_t>(m) * m);
  rank_neighbors(team, points, scratch.take_doubles(static_cast<std::size_t>(m) * m), chosen);
  team.parallel_for(m, [&](int i) {
    int* const mine = chosen + static_cast<std::size_t>(i) * m;
    double* const coefficients = out.coefficients + static_cast<std::size_t>(i) * points.size;
    if (points.finite(i)) {
      mean_of(points, mine, near, coefficients);
    } else {
      mean_of_first_finite(points, near, mine, coefficients);
    }
    out.infinite[i] = 0;
  });
  out.count = m;
  out.weighted = false;  // consumed by the means
  return Status::ok;
}

}  // namespace bragg::detail
