// SPDX-License-Identifier: Apache-2.0
// Static clipping about o.
#pragma once

#include <bragg/pipeline.hpp>

#include "rules/solve/points.hpp"

namespace bragg::detail {

/// z_i = o + (x_i − o)·factor. An infinite row becomes o.
BRAGG_HD inline void scale_about_origin(const Points& points, int i, double factor, Transform& out) {
  double* const coefficients = out.coefficients + static_cast<std::size_t>(i) * points.size;
  if (!points.finite(i)) factor = 0;
  if (factor > 0) coefficients[i] = factor;
  coefficients[points.origin()] = 1 - factor;
  out.clip_factors[i] = factor;
  out.infinite[i] = 0;
  if (points.weights != nullptr) out.weights[i] = points.weights[i];
}

template <class TeamT>
BRAGG_HD Status transform(TeamT team, const Clip& rule, const Points& points, Scratch, Transform& out) {
  const double c = rule.c * points.scale;
  team.parallel_for(points.count, [&](int i) {
    const double norm = points.length(i, points.origin());
    scale_about_origin(points, i, norm > c ? c / norm : 1, out);
  });
  out.count = points.count;
  out.weighted = points.weights != nullptr;
  return Status::ok;
}

}  // namespace bragg::detail
