// SPDX-License-Identifier: Apache-2.0
// Geometric median by Weiszfeld's iteration with Vardi and Zhang's correction (2000), in Gram space: an
// iteration costs n², whatever d is. RFA: Pillutla et al. 2019.
#pragma once

#include <bragg/pipeline.hpp>

#include "host/solve/points.hpp"

namespace bragg::detail {

/// An iterate v as coefficients over the points, with what one step needs to know of it.
struct Weiszfeld {
  const Points* points;
  const double* gram;  ///< about a central row
  double* v;           ///< size: coefficients of the iterate
  double* next;        ///< size
  double* image;       ///< size: gram · a coefficient vector
  double* distance;    ///< count: ‖x_i − v‖, +inf for infinite points

  BRAGG_HD double entry(int i, int j) const { return gram[static_cast<std::size_t>(i) * points->size + j]; }

  /// image = gram · coefficients; returns coefficientsᵀ · gram · coefficients.
  template <class TeamT>
  BRAGG_HD double quadratic(TeamT team, const double* coefficients) const {
    const int size = points->size;
    team.parallel_for(size, [&](int i) {
      double total = 0;
      for (int j = 0; j < size; ++j) total += entry(i, j) * coefficients[j];
      image[i] = total;
    });
    return team.sum(size, [&](int i) { return coefficients[i] * image[i]; });
  }

  /// Distances to v. Below the rounding error of the Gram matrix a distance is 0: v is at that row.
  template <class TeamT>
  BRAGG_HD void measure(TeamT team) const {
    const double vv = quadratic(team, v);
    team.parallel_for(points->count, [&](int i) {
      if (!points->finite(i)) {
        distance[i] = infinity;
        return;
      }
      const double squared = (entry(i, i) - image[i]) + (vv - image[i]);
      const double error = 16 * 2.3e-16 * points->product(i, i);
      distance[i] = squared > error ? std::sqrt(squared) : 0;
    });
  }

  /// The weighted lower median of the distances of the finite rows: the scale that `tol` refers to.
  BRAGG_HD double typical_distance(int* order) const {
    const int m = points->count;
    smallest(m, m, order, [&](int i) { return distance[i]; });
    double total = 0;
    for (int i = 0; i < m; ++i) total += points->finite(i) ? points->weight(i) : 0;
    double below = 0;
    for (int k = 0; k < m; ++k) {
      below += points->finite(order[k]) ? points->weight(order[k]) : 0;
      if (below >= total / 2) return distance[order[k]];
    }
    return 0;
  }
};

/// Moves w.v one step; w.distance is of w.v. Returns false when v is an input row that is optimal: v is then
/// that row.
template <class TeamT>
BRAGG_HD bool weiszfeld_step(TeamT team, const Weiszfeld& w, double nu) {
  const Points& points = *w.points;
  const int m = points.count;
  // With a floor nothing is divided by 0 and the objective is smooth: the plain step is right everywhere.
  const auto here = [&](int i) { return nu <= 0 && w.distance[i] <= 0; };
  const auto pull = [&](int i) {
    if (!points.finite(i) || here(i)) return 0.0;
    return points.weight(i) / (w.distance[i] > nu ? w.distance[i] : nu);
  };
  const double total = team.sum(m, pull);
  const double weight_here = team.sum(m, [&](int i) { return here(i) ? points.weight(i) : 0.0; });
  double stay = 0;  // share of v in the next iterate
  if (weight_here > 0) {
    // Resultant Σ p_i (x_i − v)/‖x_i − v‖ of the others, as coefficients.
    team.parallel_for(points.size, [&](int i) { w.next[i] = (i < m ? pull(i) : 0.0) - total * w.v[i]; });
    const double squared = w.quadratic(team, w.next);
    const double resultant = squared > 0 ? std::sqrt(squared) : 0;
    if (resultant <= weight_here) {
      const int row = team.argmin(m, [&](int i) { return here(i) ? 0.0 : 1.0; });
      team.parallel_for(points.size, [&](int i) { w.next[i] = i == row ? 1 : 0; });
      return false;
    }
    stay = weight_here / resultant;
  }
  team.parallel_for(points.size, [&](int i) {
    const double target = i < m ? pull(i) / total : 0;
    w.next[i] = (1 - stay) * target + stay * w.v[i];
  });
  return true;
}

/// Σ p_i ‖x_i − v‖ over the finite rows, from the distances measured.
template <class TeamT>
BRAGG_HD double weiszfeld_objective(TeamT team, const Weiszfeld& w) {
  return team.sum(w.points->count,
                  [&](int i) { return w.points->finite(i) ? w.points->weight(i) * w.distance[i] : 0.0; });
}

/// v ← v + step·factor if that lowers the objective: what the rest of a geometric series of such steps adds
/// up to. Without it a minimiser close to an input row, which an attacker can arrange, is approached ever
/// more slowly.
template <class TeamT>
BRAGG_HD void extrapolate(TeamT team, const Weiszfeld& w, const double* step, double factor) {
  const double before = weiszfeld_objective(team, w);
  const auto move = [&](double by) {
    team.parallel_for(w.points->size, [&](int i) { w.v[i] += step[i] * by; });
    w.measure(team);
  };
  move(factor);
  if (!(weiszfeld_objective(team, w) < before)) move(-factor);
}

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const GeometricMedian& rule, const Points& points, Scratch scratch,
                      Combination& out) {
  const int m = points.count;
  const int size = points.size;
  const double lost = team.sum(m, [&](int i) { return points.finite(i) ? 0.0 : points.weight(i); });
  const double kept = team.sum(m, [&](int i) { return points.finite(i) ? points.weight(i) : 0.0; });
  if (lost >= kept) return Status::too_many_nonfinite;
  clear(team, out, points);

  double* const gram = scratch.take_doubles(static_cast<std::size_t>(size) * size);
  double* const step = scratch.take_doubles(static_cast<std::size_t>(size));
  Weiszfeld w{.points = &points,
              .gram = gram,
              .v = out.coefficients,
              .next = scratch.take_doubles(static_cast<std::size_t>(size)),
              .image = scratch.take_doubles(static_cast<std::size_t>(size)),
              .distance = out.scores};
  int* const order = scratch.take_ints(static_cast<std::size_t>(m));
  const int central = medoid(team, points, w.next);
  center(team, points, central, gram);

  team.parallel_for(size, [&](int i) {
    switch (rule.start) {
      case Start::mean:
        w.v[i] = i < m && points.finite(i) ? points.weight(i) / kept : 0;
        break;
      case Start::origin:
        w.v[i] = i == points.origin() ? 1 : 0;
        break;
      default:
        w.v[i] = i == central ? 1 : 0;
        break;
    }
  });

  const double nu = rule.nu * points.scale;
  const bool to_convergence = rule.max_iters >= GeometricMedian::plain_iters && nu <= 0;
  double last_length = 0;
  w.measure(team);
  out.converged = false;
  while (out.iterations < rule.max_iters && !out.converged) {
    ++out.iterations;
    const bool optimal = !weiszfeld_step(team, w, nu);
    team.parallel_for(size, [&](int i) { step[i] = w.next[i] - w.v[i]; });
    const double squared = w.quadratic(team, step);
    const double length = squared > 0 ? std::sqrt(squared) : 0;
    const double ratio = length < last_length ? length / last_length : 0;
    const double rest = ratio / (1 - ratio);  // of the series, in steps
    last_length = length;
    team.parallel_for(size, [&](int i) { w.v[i] = w.next[i]; });
    w.measure(team);
    out.converged = optimal || length * (rest > 1 ? rest : 1) <= rule.tol * w.typical_distance(order);
    if (to_convergence && !out.converged && out.iterations % 8 == 0 && rest > 1) {
      extrapolate(team, w, step, rest);
      last_length = 0;
    }
  }
  team.parallel_for(m, [&](int i) { out.scores[i] /= points.scale; });
  return Status::ok;
}

}  // namespace bragg::detail
