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
      BRAGG_HD_UNROLL(4)
      for (int j = 0; j < size; ++j) total += entry(i, j) * coefficients[j];
      image[i] = total;
    });
    return team.sum(size, [&](int i) { return coefficients[i] * image[i]; });
  }

  static constexpr double rounding = 0x1p-52;

  /// The error of coefficientsᵀ · gram · coefficients: huge rows may cancel in it, and leave their rounding.
  template <class TeamT>
  BRAGG_HD double blur(TeamT team, const double* coefficients) const {
    const double extent = team.sum(
        points->size, [&](int i) { return std::fabs(coefficients[i]) * std::sqrt(std::fabs(entry(i, i))); });
    return 4 * rounding * extent * extent;
  }

  /// Squared length of a step (coefficients that sum to 0); what cannot be told from its blur is as long as
  /// that.
  template <class TeamT>
  BRAGG_HD double squared_length(TeamT team, const double* step) const {
    const double least = blur(team, step);
    const double squared = quadratic(team, step);
    return squared > least ? squared : least;
  }

  /// Distances to v. At an input row, which is where rounding cannot tell v from it, the distance is 0. Where
  /// v itself is blurred no row counts as reached: it is taken to be as far as the blur.
  template <class TeamT>
  BRAGG_HD void measure(TeamT team) const {
    const double blurred = blur(team, v);
    const double vv = quadratic(team, v);
    team.parallel_for(points->count, [&](int i) {
      if (!points->finite(i)) {
        distance[i] = infinity;
        return;
      }
      const double squared = (entry(i, i) - image[i]) + (vv - image[i]);
      const double error = 16 * rounding * (points->product(i, i) + entry(i, i));
      if (squared > error && squared > blurred) {
        distance[i] = std::sqrt(squared);
      } else {
        distance[i] = blurred > error ? std::sqrt(blurred) : 0;
      }
    });
  }

  /// The weighted lower median of the distances of the finite rows: the scale that `tol` refers to. Each
  /// member ranks rows of its own: m² comparisons, which is what the step before cost. Overwrites `next`.
  template <class TeamT>
  BRAGG_HD double typical_distance(TeamT team) const {
    const auto weight = [&](int i) { return points->finite(i) ? points->weight(i) : 0.0; };
    const double half = team.sum(points->count, weight) / 2;
    team.parallel_for(points->count, [&](int i) {
      double within = 0;  // weight of the rows that are no farther than row i
      BRAGG_HD_UNROLL(1)
      for (int j = 0; j < points->count; ++j) within += distance[j] <= distance[i] ? weight(j) : 0.0;
      next[i] = within >= half ? distance[i] : infinity;
    });
    return next[team.argmin(points->count, [&](int i) { return next[i]; })];
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

/// The row of least Σ p_j ‖x_i − x_j‖ (ties to the lowest index), by differences to the row `pivot` that
/// `gram` is about: ‖x_i − x_j‖ − ‖x_p − x_j‖ = (‖y_i‖² − 2⟨y_i, y_j⟩)/(‖x_i − x_j‖ + ‖x_p − x_j‖) with y = x
/// − x_p. A huge x_j, whose distance would swallow all others in a sum, counts as it should. `excess`: count.
template <class TeamT>
BRAGG_HD int exact_medoid(TeamT team, const Weiszfeld& w, int pivot, double* excess) {
  const Points& points = *w.points;
  team.parallel_for(points.count, [&](int i) {
    double total = points.finite(i) ? 0 : infinity;
    BRAGG_HD_UNROLL(1)
    for (int j = 0; j < points.count && points.finite(i); ++j) {
      if (!points.finite(j)) continue;
      const double lengths = points.distance(i, j) + points.distance(pivot, j);
      if (lengths > 0) total += points.weight(j) * ((w.entry(i, i) - 2 * w.entry(i, j)) / lengths);
    }
    excess[i] = total;
  });
  return team.argmin(points.count, [&](int i) { return excess[i]; });
}

/// gram = w.gram = products about a row among the majority; returns the exact medoid. A sum of distances with
/// a huge row in it says nothing of the others, so it may name a row that is merely less huge, about which
/// the majority is one point. But about any row the exact medoid is nearer to the majority, by as much as f64
/// tells: that is where products are taken next, until it does not come nearer.
template <class TeamT>
BRAGG_HD int center_at_medoid(TeamT team, const Weiszfeld& w, double* gram) {
  const Points& points = *w.points;
  int central = medoid(team, points, w.next);
  double last_move = infinity;
  for (;;) {
    center(team, points, central, gram);
    const int found = exact_medoid(team, w, central, w.next);
    const double move = points.distance(central, found);
    if (found == central || !(move < last_move / 2)) return found;
    last_move = move;
    central = found;
  }
}

/// Whether the row `row` is the minimiser; v is then that row. Such a row is approached by steps alone at a
/// rate that an attacker can bring close to 1. `saved`: size.
template <class TeamT>
BRAGG_HD bool settle_at_row(TeamT team, const Weiszfeld& w, int row, double* saved) {
  team.parallel_for(w.points->size, [&](int i) {
    saved[i] = w.v[i];
    w.v[i] = i == row ? 1 : 0;
  });
  w.measure(team);
  if (!weiszfeld_step(team, w, 0)) return true;
  team.parallel_for(w.points->size, [&](int i) { w.v[i] = saved[i]; });
  w.measure(team);
  return false;
}

/// In-place solution of a·x = b for a positive definite a (m × m, lower triangle), by Cholesky. False: a
/// pivot is not above `least`.
template <class TeamT>
BRAGG_HD bool solve_positive(TeamT team, int m, double* a, double* b, double least) {
  const auto at = [&](int i, int j) -> double& { return a[static_cast<std::size_t>(i) * m + j]; };
  for (int k = 0; k < m; ++k) {
    if (!(at(k, k) > least)) return false;
    const double root = std::sqrt(at(k, k));
    team.parallel_for(m - k, [&](int i) { at(k + i, k) = i == 0 ? root : at(k + i, k) / root; });
    team.parallel_for(m - k - 1, [&](int i) {
      BRAGG_HD_UNROLL(1)
      for (int j = 0; j <= i; ++j) at(k + 1 + i, k + 1 + j) -= at(k + 1 + i, k) * at(k + 1 + j, k);
    });
  }
  team.single([&] {
    for (int i = 0; i < m; ++i) {
      BRAGG_HD_UNROLL(1)
      for (int j = 0; j < i; ++j) b[i] -= at(i, j) * b[j];
      b[i] /= at(i, i);
    }
    for (int i = m - 1; i >= 0; --i) {
      BRAGG_HD_UNROLL(1)
      for (int j = i + 1; j < m; ++j) b[i] -= at(j, i) * b[j];
      b[i] /= at(i, i);
    }
  });
  return true;
}

/// step = the Newton step at v, as coefficients; returns its squared length, or -1 where there is none. With
/// units u_i = (x_i − v)/‖x_i − v‖, w_i = p_i/‖x_i − v‖, W = Σ w_i and U = [√w_i u_i] the Hessian is WI −
/// UUᵀ, so its inverse is (I + U(WI − UᵀU)⁻¹Uᵀ)/W: an n-sized system. `matrix`: count², `right`: count.
template <class TeamT>
BRAGG_HD double newton_step(TeamT team, const Weiszfeld& w, double* matrix, double* right, double* step) {
  const Points& points = *w.points;
  const int m = points.count;
  const int at_a_row = team.argmin(m, [&](int i) { return w.distance[i]; });
  if (w.distance[at_a_row] <= 0) return -1;
  const double vv = w.quadratic(team, w.v);  // w.image = gram·v
  const auto pull = [&](int i) { return points.finite(i) ? points.weight(i) / w.distance[i] : 0.0; };
  const auto unit_scale = [&](int i) { return points.finite(i) ? std::sqrt(pull(i)) / w.distance[i] : 0.0; };
  const auto about_v = [&](int i, int j) { return (w.entry(i, j) + vv) - (w.image[i] + w.image[j]); };
  const double total = team.sum(m, pull);
  team.parallel_for(m, [&](int i) {
    double dot = 0;  // ⟨x_i − v, Σ w_j (x_j − v)⟩
    BRAGG_HD_UNROLL(1)
    for (int j = 0; j < m; ++j) {
      const double product = points.finite(i) && points.finite(j) ? about_v(i, j) : 0;
      dot += pull(j) * product;
      // ‖u_i‖ = 1 exactly, where the difference of large products would only nearly be. In this order nothing
      // underflows: at lengths of 1e140 the two scales alone would.
      const double overlap = i == j ? pull(i) : unit_scale(i) * product * unit_scale(j);
      matrix[static_cast<std::size_t>(i) * m + j] = (i == j ? total : 0) - overlap;
    }
    right[i] = unit_scale(i) * dot;
  });
  if (!solve_positive(team, m, matrix, right, 1e-13 * total)) return -1;
  const auto move = [&](int i) { return (pull(i) + right[i] * unit_scale(i)) / total; };
  const double moved = team.sum(m, move);
  team.parallel_for(points.size, [&](int i) { step[i] = (i < m ? move(i) : 0.0) - moved * w.v[i]; });
  return w.squared_length(team, step);
}

/// Newton steps from v while they lower the objective. True: the last one was at most `tol` typical distances
/// long. Weiszfeld's own steps become ever shorter, and tell nothing of the way left, where the objective is
/// flat (two clusters of equal weight).
template <class TeamT>
BRAGG_HD bool newton(TeamT team, const Weiszfeld& w, double tol, double* matrix, double* right,
                     double* step) {
  constexpr int most_steps = 20;
  constexpr double least_share = 1e-3;  // of a step, in the search for one that lowers the objective
  const Points& points = *w.points;
  for (int k = 0; k < most_steps; ++k) {
    const double squared = newton_step(team, w, matrix, right, step);
    // v and the minimiser lie among the rows: a step longer than across them is rounding (collinear rows).
    const int farthest =
        team.argmin(points.count, [&](int i) { return points.finite(i) ? -w.distance[i] : 0.0; });
    const double across = 2 * w.distance[farthest];
    if (!(squared >= 0 && squared <= across * across)) return false;
    const double along = team.sum(points.size, [&](int i) { return w.v[i] * w.image[i]; });
    double* const before = matrix;
    double* const inner = right;  // ⟨x_i − v, δ⟩
    team.parallel_for(points.count, [&](int i) {
      inner[i] = w.image[i] - along;
      before[i] = w.distance[i];
    });
    const auto move = [&](double by) {
      team.parallel_for(points.size, [&](int i) { w.v[i] += step[i] * by; });
      w.measure(team);
    };
    // For v + tδ the objective changes by Σ p_i (t²‖δ‖² − 2t⟨x_i − v, δ⟩)/(‖x_i − v‖ + ‖x_i − v − tδ‖): in
    // this form a huge row swallows nothing.
    const auto change = [&](double t) {
      return team.sum(points.count, [&](int i) {
        if (!points.finite(i)) return 0.0;
        return points.weight(i) * (t * (t * squared - 2 * inner[i]) / (before[i] + w.distance[i]));
      });
    };
    move(1);
    const double bound = tol * w.typical_distance(team);
    if (squared <= bound * bound) return true;
    double t = 1;
    while (t > least_share && !(change(t) < 0)) {
      move(-t / 2);
      t /= 2;
    }
    if (!(t > least_share)) {
      move(-t);
      return false;
    }
  }
  return false;
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
  double* const matrix = scratch.take_doubles(static_cast<std::size_t>(m) * m);
  double* const right = scratch.take_doubles(static_cast<std::size_t>(m));
  const int start = center_at_medoid(team, w, gram);

  team.parallel_for(size, [&](int i) {
    switch (rule.start) {
      case Start::mean:
        w.v[i] = i < m && points.finite(i) ? points.weight(i) / kept : 0;
        break;
      case Start::origin:
        w.v[i] = i == points.origin() ? 1 : 0;
        break;
      default:
        w.v[i] = i == start ? 1 : 0;
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
    const double length = std::sqrt(w.squared_length(team, step));
    // Of a geometric series of such steps this much is left. Steps that do not shrink promise no end.
    const double rest = length < last_length ? length * (length / (last_length - length)) : infinity;
    last_length = length;
    team.parallel_for(size, [&](int i) { w.v[i] = w.next[i]; });
    w.measure(team);
    const double bound = rule.tol * w.typical_distance(team);
    out.converged = optimal || length == 0 || (length <= bound && rest <= bound);
    if (to_convergence && !out.converged && out.iterations % 8 == 0) {
      // If any row is the minimiser, the medoid is.
      out.converged = (out.iterations == 8 && settle_at_row(team, w, start, step)) ||
                      newton(team, w, rule.tol, matrix, right, step);
      last_length = 0;
    }
  }
  team.parallel_for(m, [&](int i) { out.scores[i] /= points.scale; });
  return Status::ok;
}

}  // namespace bragg::detail
