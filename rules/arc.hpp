// SPDX-License-Identifier: Apache-2.0
// Adaptive robust clipping, Allouah et al. 2024.
#pragma once

#include <bragg/pipeline.hpp>

#include "rules/clip.hpp"
#include "rules/solve/points.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status transform(TeamT team, const Arc& rule, const Points& points, Scratch scratch,
                          Transform& out) {
  const int m = points.count;
  if (count_infinite(points) > rule.f) return Status::too_many_nonfinite;
  const int clipped = static_cast<int>(2 * static_cast<std::int64_t>(rule.f) * (m - rule.f) / m);
  double* const norms = scratch.take_doubles(static_cast<std::size_t>(m));
  int* const order = scratch.take_ints(static_cast<std::size_t>(m));
  team.parallel_for(m, [&](int i) { norms[i] = points.length(i, points.origin()); });
  team.single([&] { smallest(m, m - clipped, order, [&](int i) { return norms[i]; }); });
  const double bound = norms[order[m - clipped - 1]];  // the (clipped+1)-th largest
  team.parallel_for(
      m, [&](int i) { scale_about_origin(points, i, norms[i] > bound ? bound / norms[i] : 1, out); });
  out.count = m;
  out.weighted = points.weights != nullptr;
  return Status::ok;
}

}  // namespace bragg::detail
