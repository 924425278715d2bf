// SPDX-License-Identifier: Apache-2.0
// Centered clipping, Karimireddy et al. 2021.
#pragma once

#include <bragg/pipeline.hpp>

#include "host/solve/geometric_median.hpp"
#include "host/solve/points.hpp"

namespace bragg::detail {

/// Starts at the previous output where the points have one, else at o: the caller passes no previous row
/// otherwise.
template <class TeamT>
BRAGG_HD Status solve(TeamT team, const CenteredClipping& rule, const Points& points, Scratch scratch,
                      Combination& out) {
  const int m = points.count;
  const int size = points.size;
  clear(team, out, points);
  double* const gram = scratch.take_doubles(static_cast<std::size_t>(size) * size);
  Weiszfeld w{.points = &points,
              .gram = gram,
              .v = out.coefficients,
              .next = scratch.take_doubles(static_cast<std::size_t>(size)),
              .image = scratch.take_doubles(static_cast<std::size_t>(size)),
              .distance = scratch.take_doubles(static_cast<std::size_t>(m))};
  // About the starting point: v leaves it by tau an iteration at most, so the lengths that matter are from
  // there.
  center(team, points, size - 1, gram);

  const double tau = rule.tau * points.scale;
  const double total = team.sum(m, [&](int i) { return points.weight(i); });
  team.single([&] { w.v[size - 1] = 1; });
  for (; out.iterations < rule.iters; ++out.iterations) {
    w.measure(team);
    team.parallel_for(m, [&](int i) {
      out.clip_factors[i] = !points.finite(i) ? 0 : w.distance[i] > tau ? tau / w.distance[i] : 1;
    });
    // An infinite row pulls with 0 and still counts in the total.
    const auto share = [&](int i) {
      return total > 0 ? points.weight(i) * out.clip_factors[i] / total : 0.0;
    };
    const double moved = team.sum(m, share);
    team.parallel_for(size, [&](int i) { w.v[i] = w.v[i] * (1 - moved) + (i < m ? share(i) : 0.0); });
  }
  return Status::ok;
}

}  // namespace bragg::detail
