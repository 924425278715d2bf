// SPDX-License-Identifier: Apache-2.0
// How far apart the points of a majority are, whatever the others hold; and whether distances are told apart
// from rounding beside that.
#pragma once

#include "host/solve/points.hpp"

namespace bragg::detail {

/// Of the points of a majority.
struct Spread {
  double square = 0;  ///< at most twice the mean squared distance of the honest points from their mean
  int central = 0;    ///< the point that it is measured from
};

/// A point's mean squared distance to the nearest points (itself first) that make up half of all, or of all
/// weight: the least of these. With honest points a majority H of mean squared spread s², the half of H that
/// is nearest to an honest point is no farther on average than H, and over the points of H that is 2s² on
/// average: so the least is at most 2s². `distances`: m², `order`: m² ints, `means`: m.
template <class TeamT>
BRAGG_HD Spread majority_spread(TeamT team, const Points& points, bool weighted, double* distances,
                                int* order, double* means) {
  const int m = points.count;
  const bool by_weight = weighted && points.weights != nullptr;
  const auto weight = [&](int i) { return by_weight ? points.weight(i) : 1.0; };
  const double half = (by_weight ? team.sum(m, weight) : m) / 2;
  parallel_for_2d(team, m, m, [&](int i, int j) {
    distances[static_cast<std::size_t>(i) * m + j] = i == j ? 0 : points.squared_distance(i, j);
  });
  const int nearest = by_weight ? m : m / 2 + 1;
  team.parallel_for(m, [&](int i) {
    means[i] = infinity;
    if (!points.finite(i)) return;
    const double* const mine = distances + static_cast<std::size_t>(i) * m;
    int* const heap = order + static_cast<std::size_t>(i) * m;
    smallest(m, nearest, heap, [&](int j) { return mine[j]; });
    double left = half;
    double total = 0;
    for (int k = 0; k < nearest && left > 0; ++k) {
      const double here = weight(heap[k]) < left ? weight(heap[k]) : left;
      if (here > 0) total += here * mine[heap[k]];
      left -= here;
    }
    means[i] = half > 0 ? total / half : 0;
  });
  Spread out;
  out.central = team.argmin(m, [&](int i) { return means[i]; });
  out.square = means[out.central] < infinity ? means[out.central] : 0;
  return out;
}

/// The least length that points of at least half of all, or of all weight, do not exceed. `within`: m.
template <class TeamT, class LengthF>
BRAGG_HD double majority_length(TeamT team, const Points& points, bool weighted, LengthF length,
                                double* within) {
  const int m = points.count;
  const bool by_weight = weighted && points.weights != nullptr;
  const auto weight = [&](int i) { return by_weight ? points.weight(i) : 1.0; };
  const double half = (by_weight ? team.sum(m, weight) : m) / 2;
  team.parallel_for(m, [&](int i) {
    double total = 0;
    const double mine = length(i);
    for (int j = 0; j < m; ++j) total += length(j) <= mine ? weight(j) : 0.0;
    within[i] = total >= half ? mine : infinity;
  });
  return within[team.argmin(m, [&](int i) { return within[i]; })];
}

}  // namespace bragg::detail
