// SPDX-License-Identifier: Apache-2.0
// How far apart the points of a majority are, whatever the others hold; and whether distances are told apart
// from rounding beside that.
#pragma once

#include "rules/solve/ranking.hpp"

namespace bragg::detail {

/// Of the points of a majority.
struct Spread {
  double square = 0;  ///< at most twice the mean squared distance of the honest points from their mean
  int central = 0;    ///< the point that it is measured from
};

/// A point's mean squared distance to the nearest points (itself first) that make up half of all, or of all
/// weight: the least of these. With honest points a majority H of mean squared spread s², the half of H that
/// is nearest to an honest point is no farther on average than H, and over the points of H that is 2s² on
/// average: so the least is at most 2s². nearest_of(i, k): the indices of the k nearest to i. `means`: m.
template <class TeamT, class NearestF>
BRAGG_HD Spread majority_spread(TeamT team, const Points& points, bool weighted, const double* distances,
                                NearestF nearest_of, double* means) {
  const int m = points.count;
  const bool by_weight = weighted && points.weights != nullptr;
  const auto weight = [&](int i) { return by_weight ? points.weight(i) : 1.0; };
  const double half = (by_weight ? team.sum(m, weight) : m) / 2;
  const int nearest = by_weight ? m : m / 2 + 1;
  team.parallel_for(m, [&](int i) {
    means[i] = infinity;
    if (!points.finite(i)) return;
    const double* const mine = distances + static_cast<std::size_t>(i) * m;
    const int* const order = nearest_of(i, nearest);
    double left = half;
    double total = 0;
    for (int k = 0; k < nearest && left > 0; ++k) {
      const double here = weight(order[k]) < left ? weight(order[k]) : left;
      if (here > 0) total += here * mine[order[k]];
      left -= here;
    }
    means[i] = half > 0 ? total / half : 0;
  });
  Spread out;
  out.central = team.argmin(m, [&](int i) { return means[i]; });
  out.square = means[out.central] < infinity ? means[out.central] : 0;
  return out;
}

/// Of neighbours that are known.
template <class TeamT>
BRAGG_HD Spread majority_spread(TeamT team, const Points& points, bool weighted, const Neighbors& near,
                                double* means) {
  return majority_spread(
      team, points, weighted, near.distances, [&](int i, int) { return near.nearest(i); }, means);
}

/// Of others, for now and then: a row is one member's. `distances`: m², `order`: m² ints.
template <class TeamT>
BRAGG_HD Spread majority_spread(TeamT team, const Points& points, bool weighted, double* distances,
                                int* order, double* means) {
  const int m = points.count;
  parallel_for_2d(team, m, m, [&](int i, int j) {
    distances[static_cast<std::size_t>(i) * m + j] = i == j ? 0 : points.squared_distance(i, j);
  });
  return majority_spread(
      team, points, weighted, distances,
      [&](int i, int k) {
        const double* const mine = distances + static_cast<std::size_t>(i) * m;
        int* const heap = order + static_cast<std::size_t>(i) * m;
        smallest(m, k, heap, [&](int j) { return mine[j]; });
        return heap;
      },
      means);
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

/// Huge points may cancel in a mean of points and leave their rounding there, in its distances and in its
/// sum, beside which nothing else in it shows. About the central point c of a majority: extents E = Σ a_k‖x_k
/// − c‖, length L = ‖z − c‖, A the length within which half of the points are; such a mean has rounding·E² >
/// clear_share·(A² + L²), so that c is as good as its mean to √(rounding/clear_share)·E, and stands for it.
/// After RankStep.
template <class TeamT>
BRAGG_HD void replace_drowning(TeamT team, const Points& points, bool weighted, Scratch scratch,
                               Transform& out) {
  const int m = points.count;
  const Neighbors near = take_neighbors(scratch, m);
  double* const lengths = scratch.take_doubles(static_cast<std::size_t>(m));
  double* const work = scratch.take_doubles(static_cast<std::size_t>(m));
  const int central = majority_spread(team, points, weighted, near, work).central;
  if (!points.finite(central)) return;
  team.parallel_for(m, [&](int i) { lengths[i] = points.distance(i, central); });
  const double reach = majority_length(
      team, points, weighted, [&](int i) { return lengths[i]; }, work);
  const double cc = points.product(central, central);
  team.parallel_for(out.count, [&](int b) {
    double* const a = out.coefficients + static_cast<std::size_t>(b) * points.size;
    double extent = 0;
    for (int i = 0; i < m; ++i) extent += a[i] == 0 ? 0.0 : a[i] * lengths[i];
    const double rest = points.rounding * extent * extent;
    if (!(rest > clear_share * (reach * reach))) return;
    double square = 0;
    for (int i = 0; i < m; ++i) {
      if (a[i] == 0) continue;
      for (int j = 0; j < m; ++j) {
        if (a[j] == 0) continue;
        square += a[i] * a[j] *
                  ((points.product(i, j) + cc) - (points.product(i, central) + points.product(j, central)));
      }
    }
    if (square < 0) square = 0;
    if (!(rest > clear_share * (reach * reach + square))) return;
    for (int i = 0; i < m; ++i) a[i] = i == central ? 1 : 0;
  });
}

}  // namespace bragg::detail
