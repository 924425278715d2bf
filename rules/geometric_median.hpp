// SPDX-License-Identifier: Apache-2.0
// Geometric median by Weiszfeld's iteration with Vardi and Zhang's correction (2000), in Gram space: an
// iteration costs n², whatever d is. RFA: Pillutla et al. 2019. A run to convergence ends with a bound on
// what the objective may be above its minimum, never because a step was short. Huber's objective has the same
// iteration, with a floor on distances, and no corners. AutoGM's weights follow from the distances to the
// last median, in turn.
#pragma once

#include "rules/rule.hpp"
#include "rules/solve/eigen.hpp"

namespace bragg::detail {

/// The sum that a rule minimises, as its step on the block holds it: Σ p_i ‖x_i − v‖, or with a floor the
/// one that Weiszfeld's steps with weights 1/max(floor, ‖x_i − v‖) make smaller.
struct SumOfDistances {
  double floor = 0;
  bool to_convergence = false;  ///< else `max_iters` of these steps
  int max_iters = 0;
  double tol = 0;
  GeometricMedian::Start start = GeometricMedian::Start::medoid;
  double lam = 0;  ///< above 0: of AutoGM, `max_iters` medians, each to convergence
};

/// An iterate v as coefficients over the points, with what one step needs to know of it.
struct Weiszfeld {
  const Points* points;
  double* gram;      ///< about a central row
  double* v;         ///< size: coefficients of the iterate
  double* next;      ///< size
  double* image;     ///< size: gram · a coefficient vector
  double* distance;  ///< count: ‖x_i − v‖, +inf for infinite points
  // To converge:
  double* pulled = nullptr;  ///< size: gram · resultant
  double* rank = nullptr;    ///< count
  double* matrix = nullptr;  ///< count²
  double* right = nullptr;   ///< count
  double* step = nullptr;    ///< size
  double* saved = nullptr;   ///< 3 · size
  double* last = nullptr;    ///< size: v a turn ago, of AutoGM
  double* alpha = nullptr;   ///< count: its weights
  double mass = 0;           ///< of the finite rows
  double floor = 0;          ///< as in SumOfDistances
  int central = 0;           ///< the row that `gram` is about

  BRAGG_HD double entry(int i, int j) const { return gram[static_cast<std::size_t>(i) * points->size + j]; }

  /// out = gram · coefficients.
  template <class TeamT>
  BRAGG_HD void apply(TeamT team, const double* coefficients, double* out) const {
    const int size = points->size;
    team.parallel_for(size, [&](int i) {
      out[i] = inner_product(gram + static_cast<std::size_t>(i) * size, coefficients, size);
    });
  }

  /// image = gram · coefficients; returns coefficientsᵀ · gram · coefficients.
  template <class TeamT>
  BRAGG_HD double quadratic(TeamT team, const double* coefficients) const {
    apply(team, coefficients, image);
    return team.sum(points->size, [&](int i) { return coefficients[i] * image[i]; });
  }

  static constexpr double rounding = 0x1p-52;
  static constexpr double unseen = 0x1p-22;  ///< of lengths: what distances do not tell

  /// The error of coefficientsᵀ · gram · coefficients: huge rows may cancel in it, and leave their rounding.
  template <class TeamT>
  BRAGG_HD double blur(TeamT team, const double* coefficients) const {
    const double extent = team.sum(
        points->size, [&](int i) { return std::fabs(coefficients[i]) * std::sqrt(std::fabs(entry(i, i))); });
    return 4 * rounding * extent * extent;
  }

  /// Squared length of a move (coefficients that sum to 0); what cannot be told from its blur is as long as
  /// that.
  template <class TeamT>
  BRAGG_HD double squared_length(TeamT team, const double* move) const {
    const double least = blur(team, move);
    const double squared = quadratic(team, move);
    return squared > least ? squared : least;
  }

  /// Distances to v. At an input row, which is where rounding cannot tell v from it, the distance is 0. Where
  /// v itself is blurred no row counts as reached: it is taken to be as far as the blur.
  template <class TeamT>
  BRAGG_HD_CALLED void measure(TeamT team) const {
    const double blurred = blur(team, v);
    const double vv = quadratic(team, v);
    team.parallel_for(points->count, [&](int i) {
      if (!points->finite(i)) {
        distance[i] = infinity;
        return;
      }
      const double squared = (entry(i, i) - image[i]) + (vv - image[i]);
      const double extent = points->extent_of(i);
      const double error = 16 * rounding * (extent * extent + entry(i, i));
      if (squared > error && squared > blurred) {
        distance[i] = std::sqrt(squared);
      } else {
        distance[i] = blurred > error ? std::sqrt(blurred) : 0;
      }
    });
  }

  /// Σ |v_i|·‖x_i‖ about the central row.
  template <class TeamT>
  BRAGG_HD double extent(TeamT team) const {
    return team.sum(points->size, [&](int i) { return std::fabs(v[i]) * length(i); });
  }
  BRAGG_HD double length(int i) const { return std::sqrt(std::fabs(entry(i, i))); }
  /// What sums of products about the central row may hide in the square of distance i. `extent_v`: of v.
  BRAGG_HD double hidden(int i, double extent_v) const {
    return 16 * rounding * (extent_v * (length(i) + extent_v));
  }

  /// Distance `r` made smooth to mu: (r² + mu²)^½. With a floor max(r, mu, floor).
  BRAGG_HD double smooth(double r, double mu) const {
    if (floor > mu) mu = floor;
    const double larger = r > mu ? r : mu;
    const double smaller = r > mu ? mu : r;
    if (smaller <= 0 || floor > 0) return larger;
    const double ratio = smaller / larger;
    return larger * std::sqrt(1 + ratio * ratio);
  }
  BRAGG_HD double soft(int i, double mu) const { return smooth(distance[i], mu); }

  /// By how much a term of the objective made smooth grows on the way from distance `from` to `to`, with
  /// `squares` the difference of their squares. A huge row swallows nothing.
  BRAGG_HD double growth(double from, double to, double squares, double mu) const {
    const double plain = squares / (smooth(from, mu) + smooth(to, mu));
    if (!(floor > 0)) return plain;
    // Below the floor t a term is (r²/t + t)/2, which has the slope of r there.
    const double t = floor > mu ? floor : mu;
    const double inner = from < to ? from : to;
    const double outer = from < to ? to : from;
    if (inner > t || outer <= t) return plain;
    const double rest = (t - inner) * (t + inner) * (0.5 / t - 1 / (t + outer));
    return from < to ? plain + rest : plain - rest;
  }

  /// Products are about the central row: what the coefficients lack of 1 is its, and moves v nowhere.
  template <class TeamT>
  BRAGG_HD void complete(TeamT team) const {
    const double lacking = 1 - team.sum(points->size, [&](int i) { return v[i]; });
    team.single([&] { v[central] += lacking; });
  }

  /// Takes products about the row nearest to v where that is much nearer than the central one: rounding is
  /// relative to lengths about it. False: that is not so.
  template <class TeamT>
  BRAGG_HD_CALLED bool recenter(TeamT team) {
    const int nearest = team.argmin(points->count, [&](int i) { return distance[i]; });
    if (!(distance[nearest] < distance[central] / 16)) return false;
    complete(team);
    central = nearest;
    center(team, *points, central, gram);
    measure(team);
    return true;
  }

  /// The weighted lower median of `value` over the finite rows; infinite rows have an infinite one. Each
  /// member ranks rows of its own: m² comparisons, which is what a step costs. Overwrites `next`.
  template <class TeamT>
  BRAGG_HD double median_of(TeamT team, const double* value) const {
    const auto weight = [&](int i) { return points->finite(i) ? points->weight(i) : 0.0; };
    const double half = team.sum(points->count, weight) / 2;
    team.parallel_for(points->count, [&](int i) {
      double within = 0;  // weight of the rows whose value is no larger than row i's
      BRAGG_HD_UNROLL(1)
      for (int j = 0; j < points->count; ++j) within += value[j] <= value[i] ? weight(j) : 0.0;
      next[i] = within >= half ? value[i] : infinity;
    });
    return next[team.argmin(points->count, [&](int i) { return next[i]; })];
  }
};

/// Moves w.v one step; w.distance is of w.v. Returns false when v is an input row that is optimal: v is then
/// that row.
template <class TeamT>
BRAGG_HD_CALLED bool weiszfeld_step(TeamT team, const Weiszfeld& w, double nu) {
  const Points& points = *w.points;
  const int m = points.count;
  if (w.floor > nu) nu = w.floor;
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
BRAGG_HD_CALLED int exact_medoid(TeamT team, const Weiszfeld& w, int pivot, double* excess) {
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

/// w.gram = products about a row among the majority, w.central; returns the exact medoid. A sum of distances
/// with a huge row in it says nothing of the others, so it may name a row that is merely less huge, about
/// which the majority is one point. But about any row the exact medoid is nearer to the majority, by as much
/// as f64 tells: that is where products are taken next, until it does not come nearer.
template <class TeamT>
BRAGG_HD int center_at_medoid(TeamT team, Weiszfeld& w) {
  const Points& points = *w.points;
  w.central = medoid(team, points, w.next);
  double last_move = infinity;
  for (;;) {
    center(team, points, w.central, w.gram);
    const int found = exact_medoid(team, w, w.central, w.next);
    const double move = points.distance(w.central, found);
    if (found == w.central || !(move < last_move / 2)) return found;
    last_move = move;
    w.central = found;
  }
}

/// What is known of F(v) = Σ p_i ‖x_i − v‖, of the distances that the Gram matrix gives. (With a floor t: of
/// F(v) = Σ p_i φ(‖x_i − v‖), φ(r) = r − t/2, below t r²/(2t).)
struct Optimality {
  double gap = infinity;  ///< F(v) − min F is at most gap + noise
  double noise = 0;       ///< what rounding may hide in `gap`
  double scale = 0;       ///< F of half the weight at the typical distance: honest rows set it
  double margin = 0;      ///< the same at the floor, where that is farther: what the rule's guarantee is of
  double typical = 0;     ///< the least distance to v within which more than half of the weight is
  double farthest = 0;    ///< the minimiser is not farther from v

  /// An objective this near to its minimum, relative to `scale`, is the minimum, whatever `tol` asks for.
  static constexpr double least_tol = 1e-9;
  static constexpr int one = 4;  ///< errors: rows that are nearer cannot be told apart

  BRAGG_HD double relative() const { return gap + noise > 0 ? (gap + noise) / scale : 0; }
  /// Whether the rule's guarantee holds of v, wider by this share.
  BRAGG_HD bool holds(double share) const { return gap + noise <= share * margin; }
  BRAGG_HD bool proven(double tol) const {
    return gap + noise <= (tol > least_tol ? tol : least_tol) * scale;
  }
  BRAGG_HD bool reached(double tol) const { return gap <= tol * scale + noise && proven(tol); }
};

/// The certificate, with the rows in S that are within reach(i) of v. Let R = Σ p_i (x_i − v)/r_i over the
/// others, r_i = ‖x_i − v‖, and u any point. By convexity F(u) ≥ F(v) − ⟨R, u − v⟩ + P_S ‖u − v‖ − 2 Σ_S p_i
/// r_i. Take u = v*, the minimiser.
/// 1. It is within L = min 2 Σ_M p_i r_i/(2 P_M − P) of v, over the sets M of rows that hold more than half
///    of the weight P: where it were farther, F(v*) would exceed F(v). Bad rows are not in the best M.
/// 2. So ⟨R, v* − v⟩ − P_S ‖v* − v‖ ≤ max(0, ‖R‖ − P_S)·L.
/// 3. Without a root, which would leave only half of the digits: v* = Σ a_i x_i with a_i = (p_i/r*_i)/W*, or
///    it is a row. With t the typical distance, W* ≥ (P/2)/(t + L) and r_i ≤ r*_i + L, so Σ a_i max(r_i, t) ≤
///    3 (t + L), and ⟨R, v* − v⟩ = Σ a_i ⟨R, x_i − v⟩ is at most 3 (t + L) max_i ⟨R, x_i − v⟩/max(r_i, t).
/// With a floor φ is between r and r less half of it, and has no slope of more than 1: 2 Σ_M p_i r_i in 1. is
/// more by half a floor P_M. S is empty, r_i in R and in 3. is at least the floor, and so are t and t + L.
/// Where r_i² may be off by the share h of itself, p_i h of R is in doubt. `extent_v`: of w.v. Overwrites
/// w.next, w.pulled.
template <class TeamT, class ReachF>
BRAGG_HD void certify(TeamT team, const Weiszfeld& w, Optimality& out, double extent_v, ReachF reach) {
  const Points& points = *w.points;
  const int m = points.count;
  const int size = points.size;
  const auto here = [&](int i) { return points.finite(i) && !(w.floor > 0) && w.distance[i] <= reach(i); };
  const auto pull = [&](int i) {
    return points.finite(i) && !here(i) ? points.weight(i) / w.soft(i, 0) : 0.0;
  };
  const double total = team.sum(m, pull);
  const double at_v = team.sum(m, [&](int i) { return here(i) ? points.weight(i) : 0.0; });
  team.parallel_for(size, [&](int i) { w.next[i] = (i < m ? pull(i) : 0.0) - total * w.v[i]; });
  const double doubt = team.sum(m, [&](int i) {
    const double squared = w.soft(i, 0) * w.soft(i, 0);
    return points.finite(i) && !here(i) ? points.weight(i) * (w.hidden(i, extent_v) / squared) : 0.0;
  });
  const double extent = team.sum(size, [&](int i) { return std::fabs(w.next[i]) * w.length(i); });
  w.apply(team, w.next, w.pulled);
  const double along = team.sum(size, [&](int i) { return w.v[i] * w.pulled[i]; });
  const double unit = 0x1p-53 * (size + 8) * extent;
  const auto at_least = [&](int i) { return w.soft(i, 0) > out.typical ? w.soft(i, 0) : out.typical; };
  const auto slope = [&](int i) { return points.finite(i) ? (w.pulled[i] - along) / at_least(i) : 0.0; };
  const auto blur = [&](int i) { return points.finite(i) ? (w.length(i) + extent_v) / at_least(i) : 0.0; };
  const double steepest = slope(team.argmin(m, [&](int i) { return -slope(i); }));
  const double across = 3 * w.smooth(out.typical + out.farthest, 0);
  out.gap = steepest > 0 ? steepest * across : 0;
  out.noise = (unit * blur(team.argmin(m, [&](int i) { return -blur(i); })) + doubt) * across;
  if (!(at_v > 0)) return;
  const double squared = team.sum(size, [&](int i) { return w.next[i] * w.pulled[i]; });
  const double resultant = squared > 0 ? std::sqrt(squared) : 0;
  const double excess = resultant > at_v ? (resultant - at_v) * out.farthest : 0;
  const double noise = (unit * (extent / (resultant + at_v)) + doubt) * out.farthest;
  if (excess + noise < out.gap + out.noise) {
    out.gap = excess;
    out.noise = noise;
  }
}

/// The certificate at w.v, whose distances w.distance are. Rows nearer than `merge` times their error are in
/// S, because directions to them are not known well enough; those nearer than `one` times count as at v.
/// Overwrites w.next, w.pulled, w.rank.
template <class TeamT>
BRAGG_HD_CALLED Optimality optimality(TeamT team, const Weiszfeld& w, double tol, double merge = 0) {
  const Points& points = *w.points;
  const int m = points.count;
  const double all = w.mass;
  team.parallel_for(m, [&](int i) {
    const double radius = w.distance[i];
    double within = 0;
    double moment = 0;
    BRAGG_HD_UNROLL(1)
    for (int j = 0; j < m && points.finite(i); ++j) {
      const bool inside = w.distance[j] <= radius;
      within += inside ? points.weight(j) : 0.0;
      moment += inside ? points.weight(j) * w.distance[j] : 0.0;
    }
    const double lead = 2 * within - all;
    const bool majority = lead > 1e-12 * all;
    w.next[i] = majority ? (2 * moment + within * (w.floor / 2)) / lead : infinity;
    w.rank[i] = majority ? radius : infinity;
  });
  Optimality out;
  out.farthest = w.next[team.argmin(m, [&](int i) { return w.next[i]; })];
  out.typical = w.rank[team.argmin(m, [&](int i) { return w.rank[i]; })];
  out.scale = all / 2 * out.typical;
  const double extent_v = w.extent(team);
  if (w.floor > 0) {
    // Nearer than distances tell, no row counts as nearer.
    const double least = Weiszfeld::unseen * (points.extent_of(w.central) + extent_v);
    const double length = out.typical > least ? out.typical : least;
    out.scale = all / 2 * w.growth(0, length, length * length, 0);
  }
  out.margin = out.scale > all / 2 * (w.floor / 2) ? out.scale : all / 2 * (w.floor / 2);
  if (out.typical <= 0 && !(w.floor > 0)) {
    out.gap = 0;
    return out;
  }
  // 2 Σ_S p_i r_i takes no more than half of the tolerance. (With a floor nothing does.)
  const double reach = tol * (out.typical / 8);
  const double far_v =
      merge > 0 ? team.sum(points.size, [&](int i) { return std::fabs(w.v[i]) * points.extent_of(i); }) : 0.0;
  const double root = std::sqrt(points.rounding);
  const auto error = [&](int i) { return merge > 0 ? root * (points.extent_of(i) + far_v) : 0.0; };
  certify(team, w, out, extent_v, [&](int i) { return merge * error(i) > reach ? merge * error(i) : reach; });
  if (w.floor > 0) return out;
  const auto counts = [&](int i) {
    const double length = w.distance[i];
    const bool near = length <= reach || length <= merge * error(i);
    return points.finite(i) && near && (length <= reach || length > Optimality::one * error(i));
  };
  out.gap += team.sum(m, [&](int i) { return counts(i) ? 2 * points.weight(i) * w.distance[i] : 0.0; });
  out.noise += team.sum(m, [&](int i) {
    if (!counts(i)) return 0.0;
    const double squared = w.distance[i] * w.distance[i];
    const double hidden = w.hidden(i, extent_v);
    return 2 * points.weight(i) * (hidden < squared ? hidden / w.distance[i] : std::sqrt(hidden));
  });
  return out;
}

/// The best certificate at w.v with ever more rows taken as one.
template <class TeamT>
BRAGG_HD Optimality merged_optimality(TeamT team, const Weiszfeld& w, double tol) {
  Optimality best = optimality(team, w, tol);
  if (w.floor > 0) return best;
  for (int merge = Optimality::one; merge <= 4096 && !best.reached(tol); merge *= 4) {
    const Optimality found = optimality(team, w, tol, merge);
    if (found.gap + found.noise < best.gap + best.noise) best = found;
  }
  return best;
}

/// v = the row `row`, measured.
template <class TeamT>
BRAGG_HD void move_to_row(TeamT team, const Weiszfeld& w, int row) {
  team.parallel_for(w.points->size, [&](int i) { w.v[i] = i == row ? 1 : 0; });
  w.measure(team);
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

/// In-place solution of a·x = b for a positive definite a (m × m), by conjugate gradients, until the residual
/// is 1e-8 of b, or `most_steps` are taken: x is then on the way. False: not solved. `work`: 3m.
template <class TeamT>
BRAGG_HD bool approach_solution(TeamT team, int m, const double* a, double* b, int most_steps, double* work) {
  double* const x = b;
  double* const residual = work;
  double* const direction = work + m;
  double* const image = work + 2 * static_cast<std::size_t>(m);
  const auto row = [&](int i) { return a + static_cast<std::size_t>(i) * m; };
  const auto scaled = [&](int i) { return residual[i] / row(i)[i]; };
  const int least = team.argmin(m, [&](int i) { return row(i)[i]; });
  if (!(row(least)[least] > 0)) return false;
  team.parallel_for(m, [&](int i) {
    residual[i] = b[i];
    direction[i] = scaled(i);
  });
  team.parallel_for(m, [&](int i) { x[i] = 0; });
  double left = team.sum(m, [&](int i) { return residual[i] * scaled(i); });
  const double enough = 1e-16 * left;
  for (int k = 0; k < most_steps && left > enough; ++k) {
    team.parallel_for(m, [&](int i) { image[i] = inner_product(row(i), direction, m); });
    const double curvature = team.sum(m, [&](int i) { return direction[i] * image[i]; });
    if (!(curvature > 0)) return false;
    const double by = left / curvature;
    team.parallel_for(m, [&](int i) {
      x[i] += by * direction[i];
      residual[i] -= by * image[i];
    });
    const double next = team.sum(m, [&](int i) { return residual[i] * scaled(i); });
    const double share = next / left;
    left = next;
    team.parallel_for(m, [&](int i) { direction[i] = scaled(i) + share * direction[i]; });
  }
  return left <= enough;
}

/// step = the Newton step at v, as coefficients, for Σ p_i s_i with s_i = w.soft(i, mu); returns its squared
/// length, or -1 where there is none. With q_i = (x_i − v)/s_i, w_i = p_i/s_i, W = Σ w_i and Q = [√w_i q_i]
/// the Hessian is WI − QQᵀ, so its inverse is (I + Q(WI − QᵀQ)⁻¹Qᵀ)/W: an n-sized system. w.image is of w.v.
template <class TeamT>
BRAGG_HD_CALLED double newton_step(TeamT team, const Weiszfeld& w, double mu) {
  const Points& points = *w.points;
  const int m = points.count;
  const int nearest = team.argmin(m, [&](int i) { return w.distance[i]; });
  if (w.soft(nearest, mu) <= 0) return -1;
  const double vv = team.sum(points.size, [&](int i) { return w.v[i] * w.image[i]; });
  const auto pull = [&](int i) { return points.finite(i) ? points.weight(i) / w.soft(i, mu) : 0.0; };
  // Below a floor a term is a square, and has its curvature in all directions.
  const auto bends = [&](int i) {
    return points.finite(i) && (!(w.floor > 0) || w.distance[i] >= w.soft(i, mu));
  };
  const auto unit_scale = [&](int i) { return bends(i) ? std::sqrt(pull(i)) / w.soft(i, mu) : 0.0; };
  const auto about_v = [&](int i, int j) { return (w.entry(i, j) + vv) - (w.image[i] + w.image[j]); };
  const double total = team.sum(m, pull);
  // Along a line with no row below the floor there is no curvature; the step's length is searched for.
  const double diagonal = w.floor > 0 ? total * (1 + 0x1p-20) : total;
  team.parallel_for(m, [&](int i) { w.rank[i] = pull(i); });
  team.parallel_for(m, [&](int i) { w.next[i] = unit_scale(i); });
  team.parallel_for(m, [&](int i) {
    double dot = 0;  // ⟨x_i − v, Σ w_j (x_j − v)⟩
    BRAGG_HD_UNROLL(1)
    for (int j = 0; j < m; ++j) {
      const double product = points.finite(i) && points.finite(j) ? about_v(i, j) : 0;
      dot += w.rank[j] * product;
      // ‖q_i‖ ≤ 1 exactly, where the difference of large products would only nearly be. In this order nothing
      // underflows: at lengths of 1e140 the two scales alone would.
      double overlap = w.next[i] * product * w.next[j];
      if (i == j) {
        const double share = bends(i) ? w.distance[i] / w.soft(i, mu) : 0;
        overlap = w.rank[i] * share * share;
      }
      w.matrix[static_cast<std::size_t>(i) * m + j] = (i == j ? diagonal : 0) - overlap;
    }
    w.right[i] = w.next[i] * dot;
  });
  // m³ where m² does not do, and never where it would take seconds: a step on the way is one that descends.
  constexpr int least_approached = 128;
  constexpr int most_eliminated = 1024;
  constexpr int most_directions = 100;
  bool solved = false;
  if (m >= least_approached) {
    team.parallel_for(m, [&](int i) { w.step[i] = w.right[i]; });
    solved = approach_solution(team, m, w.matrix, w.right, most_directions, w.saved) || m > most_eliminated;
    if (!solved) team.parallel_for(m, [&](int i) { w.right[i] = w.step[i]; });
  }
  if (!solved) solved = solve_positive(team, m, w.matrix, w.right, 1e-13 * total);
  if (!solved) return -1;
  const auto move = [&](int i) { return (w.rank[i] + w.right[i] * w.next[i]) / total; };
  const double moved = team.sum(m, move);
  team.parallel_for(points.size, [&](int i) { w.step[i] = (i < m ? move(i) : 0.0) - moved * w.v[i]; });
  return w.squared_length(team, w.step);
}

/// The t of least sum at v + tδ, where the squares of distances are `before`² + t(t‖δ‖² − 2⟨x_i − v, δ⟩): by
/// halving, as the sum is convex. `squared`: ‖δ‖²; `inner`: ⟨x_i − v, δ⟩.
template <class TeamT>
BRAGG_HD double least_along(TeamT team, const Weiszfeld& w, double mu, double squared, const double* before,
                            const double* inner) {
  constexpr double longest = 0x1p60;
  constexpr int halvings = 50;
  const Points& points = *w.points;
  const auto rises = [&](double t) {
    return team.sum(points.count, [&](int i) {
      if (!points.finite(i)) return 0.0;
      const double square = before[i] * before[i] + t * (t * squared - 2 * inner[i]);
      return points.weight(i) * ((t * squared - inner[i]) / w.smooth(square > 0 ? std::sqrt(square) : 0, mu));
    }) >= 0;
  };
  double low = 0;
  double high = 1;
  while (high < longest && !rises(high)) {
    low = high;
    high *= 4;
  }
  for (int k = 0; k < halvings; ++k) {
    const double middle = (low + high) / 2;
    (rises(middle) ? high : low) = middle;
  }
  return high;
}

/// Newton steps from v while they lower Σ p_i s_i, at most `most_steps`. mu = 0: until v is optimal; else
/// until a step is short beside mu. Weiszfeld's own steps become ever shorter, and tell nothing of the way
/// left, where the objective is flat (two clusters of equal weight).
template <class TeamT>
BRAGG_HD_CALLED Optimality newton(TeamT team, const Weiszfeld& w, double mu, double tol, int most_steps) {
  constexpr double least_share = 1e-3;  // of a step, in the search for one that lowers the objective
  const Points& points = *w.points;
  Optimality found;
  for (int k = 0; k < most_steps; ++k) {
    double squared = newton_step(team, w, mu);
    if (!(squared >= 0 && squared < infinity)) {
      w.measure(team);
      return found;
    }
    // v and the minimiser lie among the rows, and no step need be longer than across them. Where the
    // objective hardly bends (heavy rows in a line, light ones beside it) Newton's is, and still leads down.
    const int farthest =
        team.argmin(points.count, [&](int i) { return points.finite(i) ? -w.distance[i] : 0.0; });
    const double across = 2 * w.distance[farthest];
    const double share = squared > across * across ? across / std::sqrt(squared) : 1;
    squared *= share * share;
    const double along = team.sum(points.size, [&](int i) { return w.v[i] * w.image[i]; });
    double* const before = w.matrix;
    double* const inner = w.right;  // ⟨x_i − v, δ⟩
    team.parallel_for(points.count, [&](int i) {
      inner[i] = share * (w.image[i] - along);
      before[i] = w.distance[i];
    });
    team.parallel_for(points.size, [&](int i) { w.step[i] *= share; });
    const auto move = [&](double by) {
      team.parallel_for(points.size, [&](int i) { w.v[i] += w.step[i] * by; });
      w.measure(team);
    };
    // For v + tδ the squares of distances change by t²‖δ‖² − 2t⟨x_i − v, δ⟩.
    const auto change = [&](double t) {
      return team.sum(points.count, [&](int i) {
        if (!points.finite(i)) return 0.0;
        return points.weight(i) * w.growth(before[i], w.distance[i], t * (t * squared - 2 * inner[i]), mu);
      });
    };
    move(1);
    if (mu <= 0) {
      found = optimality(team, w, tol);
      if (found.reached(tol)) return found;
    }
    double t = 1;
    if (w.floor > 0) {
      t = least_along(team, w, mu, squared, before, inner);
      move(t - 1);
      if (mu <= 0) {
        found = optimality(team, w, tol);
        if (found.reached(tol)) return found;
      }
      if (squared * t * t <= (mu / 16) * (mu / 16)) return found;
      continue;
    }
    while (t > least_share && !(change(t) < 0)) {
      move(-t / 2);
      t /= 2;
    }
    if (!(t > least_share)) {
      move(-t);
      return found;
    }
    if (squared <= (mu / 16) * (mu / 16)) return found;
  }
  return found;
}

/// From v to the minimiser by way of those of Σ p_i (r_i² + mu²)^½ for mu from the typical distance down. To
/// mu, rows nearer to each other are one row of their weights together, whatever is among them: v passes by a
/// cluster that does not hold the minimiser, where steps of the objective itself are as short as the cluster.
template <class TeamT>
BRAGG_HD Optimality follow(TeamT team, Weiszfeld& w, double tol) {
  constexpr int steps = 16;  // at one mu
  constexpr int turns = 11;  // of mu to a sixteenth
  const Points& points = *w.points;
  Optimality found = optimality(team, w, tol);
  double mu = found.typical;
  for (int turn = 0; turn < turns && mu > w.floor; ++turn) {
    newton(team, w, mu, tol, steps);
    // Weiszfeld's step gives v coefficients that are as small as the rows' parts in it, and its distances
    // less rounding.
    const auto pull = [&](int i) { return points.finite(i) ? points.weight(i) / w.soft(i, mu) : 0.0; };
    const double total = team.sum(points.count, pull);
    team.parallel_for(points.size, [&](int i) { w.v[i] = i < points.count ? pull(i) / total : 0; });
    w.measure(team);
    w.recenter(team);
    found = optimality(team, w, tol);
    if (found.reached(tol)) return found;
    const int nearest = team.argmin(points.count, [&](int i) { return w.distance[i]; });
    if (w.distance[nearest] > 4 * mu) {
      const Optimality polished = newton(team, w, 0, tol, steps);
      if (polished.reached(tol)) return polished;
    }
    mu /= 16;
  }
  return optimality(team, w, tol);
}

/// The same v as a mean of rows, where it is far from one. To products, rows that are alike about the central
/// one may have coefficients of any size that cancel; not so in a sum of rows that have more in common. What
/// Weiszfeld's step makes of v is a mean, and its objective is no larger: what was proven of v holds of it.
template <class TeamT>
BRAGG_HD void tame(TeamT team, const Weiszfeld& w, double tol, Optimality& found) {
  constexpr double wild = 2;
  const int size = w.points->size;
  const int nearest = team.argmin(w.points->count, [&](int i) { return w.distance[i]; });
  if (w.distance[nearest] <= 0) {
    // What rounding does not tell from a row is that row, but in a sum.
    team.parallel_for(size, [&](int i) { w.saved[i] = w.v[i]; });
    move_to_row(team, w, nearest);
    const Optimality at_row = optimality(team, w, tol);
    if (at_row.reached(tol) || at_row.gap + at_row.noise <= found.gap + found.noise) {
      found = at_row;
      return;
    }
    team.parallel_for(size, [&](int i) { w.v[i] = w.saved[i]; });
    w.measure(team);
  }
  if (!(team.sum(size, [&](int i) { return std::fabs(w.v[i]); }) > wild)) return;
  weiszfeld_step(team, w, 0);
  team.parallel_for(size, [&](int i) { w.v[i] = w.next[i]; });
  w.measure(team);
  const Optimality tamed = merged_optimality(team, w, tol);
  if (tamed.gap + tamed.noise < found.gap + found.noise) found = tamed;
}

/// One of Weiszfeld's steps.
struct StepTaken {
  bool to_optimal_row = false;  ///< v is that row
  double length = 0;
  /// Of a geometric series of such steps this much is left. Steps that do not shrink promise no end.
  double rest = 0;

  BRAGG_HD bool is_short(double bound) const { return length == 0 || (length <= bound && rest <= bound); }
};

/// `last_length`: of the step before, 0 at first; of this one when done.
template <class TeamT>
BRAGG_HD StepTaken step_between(TeamT team, const Weiszfeld& w, const double* from, const double* to,
                                double& last_length) {
  StepTaken taken;
  team.parallel_for(w.points->size, [&](int i) { w.step[i] = to[i] - from[i]; });
  taken.length = std::sqrt(w.squared_length(team, w.step));
  const double shrinks_by = last_length - taken.length;
  taken.rest = taken.length < last_length ? taken.length * (taken.length / shrinks_by) : infinity;
  last_length = taken.length;
  return taken;
}

/// `last_length`: as of step_between.
template <class TeamT>
BRAGG_HD StepTaken take_step(TeamT team, const Weiszfeld& w, double nu, double& last_length) {
  const bool to_optimal_row = !weiszfeld_step(team, w, nu);
  StepTaken taken = step_between(team, w, w.v, w.next, last_length);
  taken.to_optimal_row = to_optimal_row;
  team.parallel_for(w.points->size, [&](int i) { w.v[i] = w.next[i]; });
  w.measure(team);
  return taken;
}

/// In the points' own units. Squares of distances are finite, so above 2^512 it is above all of them.
BRAGG_HD inline double floor_of(const SumOfDistances& rule, const Points& points) {
  const double floor = rule.floor * points.scale;
  return floor < 0x1p512 ? floor : 0x1p512;
}

/// From v to a certified minimum. `medoid`: the exact one; `steps`: of Weiszfeld's, counted on.
template <class TeamT>
BRAGG_HD Optimality converge(TeamT team, const SumOfDistances& rule, Weiszfeld& w, int medoid, int& steps) {
  constexpr double far = 4;          // typical distances of the medoid
  constexpr int steps_in_a_row = 8;  // of Weiszfeld's, before Newton's
  constexpr int newton_steps = 20;
  constexpr int most_rounds = 4;
  const Points& points = *w.points;
  const int size = points.size;
  double* const start = w.saved;
  w.floor = floor_of(rule, points);
  if (w.floor > 0) {
    // Where it is above all distances, so is any other that is: the minimiser is the mean.
    const int farthest = team.argmin(
        points.count, [&](int i) { return points.finite(i) ? -points.distance(w.central, i) : 0.0; });
    const double most = 2 * (points.finite(farthest) ? points.distance(w.central, farthest) : 0) +
                        Weiszfeld::unseen * points.extent_of(w.central);
    if (w.floor > most) w.floor = most;
  }
  if (rule.start != GeometricMedian::Start::medoid || w.floor > 0) {
    team.parallel_for(size, [&](int i) { start[i] = w.v[i]; });
    const double to_medoid = w.distance[medoid];
    move_to_row(team, w, medoid);
    // From afar the honest rows are one point, and each step shortens the way by a share that bad rows set.
    const Optimality at_medoid = optimality(team, w, rule.tol);
    // A lower floor would be above some distances for rounding alone.
    const double least = Weiszfeld::unseen * (points.extent_of(medoid) + at_medoid.farthest);
    if (w.floor > 0 && w.floor < least) w.floor = least;
    // Where most rows are at the medoid, so is the minimum; that the start is told from it, nobody knows.
    if (at_medoid.typical > 0 && !(to_medoid > far * at_medoid.typical)) {
      team.parallel_for(size, [&](int i) { w.v[i] = start[i]; });
      w.measure(team);
    }
  }
  Optimality found = optimality(team, w, rule.tol);
  for (int round = 0; round < most_rounds && steps < rule.max_iters && !found.reached(rule.tol); ++round) {
    double last_length = 0;
    const double bound = rule.tol * found.typical;
    for (int k = 0; k < steps_in_a_row && steps < rule.max_iters; ++k) {
      ++steps;
      if (take_step(team, w, 0, last_length).is_short(bound)) break;
    }
    found = optimality(team, w, rule.tol);
    if (found.reached(rule.tol)) break;
    if (round == 0 && rule.start != GeometricMedian::Start::medoid) {
      // If any row is the minimiser, the medoid is: it is approached by steps alone at a rate that an
      // attacker can bring close to 1.
      team.parallel_for(size, [&](int i) { start[i] = w.v[i]; });
      move_to_row(team, w, medoid);
      found = optimality(team, w, rule.tol);
      if (found.reached(rule.tol)) break;
      team.parallel_for(size, [&](int i) { w.v[i] = start[i]; });
      w.measure(team);
    }
    found = newton(team, w, 0, rule.tol, newton_steps);
    if (found.reached(rule.tol)) break;
    found = follow(team, w, rule.tol);
    if (found.reached(rule.tol)) break;
    if (w.floor > 0) continue;
    // What distances do not tell is the same for the medoid, and there v itself is exact.
    found = merged_optimality(team, w, rule.tol);
    if (found.reached(rule.tol)) break;
    team.parallel_for(size, [&](int i) { start[i] = w.v[i]; });
    move_to_row(team, w, medoid);
    const Optimality at_medoid = merged_optimality(team, w, rule.tol);
    if (at_medoid.gap + at_medoid.noise < found.gap + found.noise) {
      found = at_medoid;
    } else {
      team.parallel_for(size, [&](int i) { w.v[i] = start[i]; });
      w.measure(team);
    }
    // Rows that are one with v about the central row may not be so about that nearest to v.
    if (w.recenter(team)) found = merged_optimality(team, w, rule.tol);
  }
  tame(team, w, rule.tol, found);
  w.complete(team);
  return found;
}

/// `max_iters` of Weiszfeld's steps, or until they become short.
template <class TeamT>
BRAGG_HD void iterate(TeamT team, const SumOfDistances& rule, const Weiszfeld& w, Combination& out) {
  const double nu = floor_of(rule, *w.points);
  double last_length = 0;
  out.converged = false;
  while (out.iterations < rule.max_iters && !out.converged) {
    ++out.iterations;
    const StepTaken taken = take_step(team, w, nu, last_length);
    out.converged = taken.to_optimal_row || taken.is_short(rule.tol * w.median_of(team, w.distance));
  }
}

/// Marks the rows that have no place among the others, `infinite` ones too: to more than half of all their
/// distances are nothing but error (of a row that was clipped from afar, say). False where there is none, or
/// where the others are no majority. Such a row is not honest, or within 2⁻⁸ spreads of the majority.
template <class TeamT>
BRAGG_HD bool mark_displaced(TeamT team, const Points& points, double kept, std::uint8_t* infinite) {
  const int m = points.count;
  team.parallel_for(points.size, [&](int i) {
    infinite[i] = points.infinite[i];
    if (i >= m || !points.finite(i)) return;
    double lost = 0;
    BRAGG_HD_UNROLL(1)
    for (int j = 0; j < m; ++j) {
      const bool told =
          j == i || !points.finite(j) || 4 * points.error(i, j) <= points.squared_distance(i, j);
      if (!told) lost += points.weight(j);
    }
    infinite[i] = 2 * lost > kept;
  });
  const double left = team.sum(m, [&](int i) { return infinite[i] == 0 ? points.weight(i) : 0.0; });
  return left < kept && 2 * left > kept;
}

/// v = where the rule starts. `medoid`: the exact one.
template <class TeamT>
BRAGG_HD void place_at_start(TeamT team, const SumOfDistances& rule, const Weiszfeld& w, int medoid) {
  const Points& points = *w.points;
  team.parallel_for(points.size, [&](int i) {
    switch (rule.start) {
      case GeometricMedian::Start::mean:
        w.v[i] = i < points.count && points.finite(i) ? points.weight(i) / w.mass : 0;
        break;
      case GeometricMedian::Start::origin:
        w.v[i] = i == (points.infinite[points.origin()] == 0 ? points.origin() : medoid) ? 1 : 0;
        break;
      default:
        w.v[i] = i == medoid ? 1 : 0;
        break;
    }
  });
}

/// w.alpha = max(0, (η − r_i)/lam), r_i = w.distance, of the η with which they sum to 1: what makes Σ α_i r_i
/// + (lam/2)·Σ α_i² least.
template <class TeamT>
BRAGG_HD void weigh_by_distance(TeamT team, const Weiszfeld& w, double lam) {
  const int m = w.points->count;
  const double* const r = w.distance;
  double* const alpha = w.alpha;
  const double least = r[team.argmin(m, [&](int i) { return r[i]; })];
  // Where η is r_i, the rows that are nearer must not yet have all the weight.
  team.parallel_for(m, [&](int i) {
    double taken = 0;
    BRAGG_HD_UNROLL(1)
    for (int j = 0; j < m; ++j) taken += r[j] < r[i] ? r[i] - r[j] : 0.0;
    alpha[i] = taken < lam ? 1 : 0;
  });
  const double count = team.sum(m, [&](int i) { return alpha[i]; });
  const double beyond = team.sum(m, [&](int i) { return alpha[i] > 0 ? r[i] - least : 0.0; }) / count;
  team.parallel_for(m, [&](int i) {
    const double share = alpha[i] > 0 ? 1 / count + (beyond - (r[i] - least)) / lam : 0;
    alpha[i] = share > 0 ? share : 0;
  });
}

/// After a median of AutoGM: the weights of the next, in w.alpha. False: there is none.
template <class TeamT>
BRAGG_HD bool weigh_anew(TeamT team, const SumOfDistances& rule, const Weiszfeld& w, double& last_length,
                         Combination& out) {
  const Points& points = *w.points;
  const bool is_first = out.iterations == 1;
  const bool settled =
      !is_first &&
      step_between(team, w, w.last, w.v, last_length).is_short(rule.tol * w.median_of(team, w.distance));
  if (settled || out.iterations == rule.max_iters) {
    out.converged = out.converged && settled;
    return false;
  }
  team.parallel_for(points.size, [&](int i) { w.last[i] = w.v[i]; });
  // Beyond all distances, and below, it is as good as infinite, or 0.
  const double lam = rule.lam * points.scale;
  weigh_by_distance(team, w, lam > 0x1p1000 ? 0x1p1000 : lam < 0x1p-1000 ? 0x1p-1000 : lam);
  return true;
}

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const SumOfDistances& rule, const Points& all, Scratch scratch,
                      Combination& out) {
  const int m = all.count;
  const int size = all.size;
  const double lost = team.sum(m, [&](int i) { return all.finite(i) ? 0.0 : all.weight(i); });
  const double kept = team.sum(m, [&](int i) { return all.finite(i) ? all.weight(i) : 0.0; });
  if (lost >= kept) return Status::too_many_nonfinite;

  const auto columns = static_cast<std::size_t>(size);
  const auto rows = static_cast<std::size_t>(m);
  auto* const placed = reinterpret_cast<std::uint8_t*>(scratch.take_ints(columns));
  Points points = all;
  Weiszfeld w{.points = &points,
              .gram = scratch.take_doubles(columns * columns),
              .v = out.coefficients,
              .next = scratch.take_doubles(columns),
              .image = scratch.take_doubles(columns),
              .distance = out.scores,
              .pulled = scratch.take_doubles(columns),
              .rank = scratch.take_doubles(rows),
              .matrix = scratch.take_doubles(rows * rows),
              .right = scratch.take_doubles(rows),
              .step = scratch.take_doubles(columns),
              .saved = scratch.take_doubles(3 * columns),
              .last = scratch.take_doubles(columns),
              .alpha = scratch.take_doubles(rows),
              .mass = kept};
  const bool in_turn = rule.lam > 0;
  SumOfDistances sum = rule;
  if (in_turn) sum.max_iters = GeometricMedian{}.max_iters;
  double last_length = 0;
  Status status = Status::ok;
  clear(team, out, points);
  for (;;) {
    const int medoid = center_at_medoid(team, w);
    const bool is_first = points.weights == all.weights;  // of the medians
    if (is_first) place_at_start(team, rule, w, medoid);
    w.measure(team);
    if (!rule.to_convergence) {
      iterate(team, rule, w, out);
      break;
    }
    int steps = 0;
    const Optimality found = converge(team, sum, w, medoid, steps);
    out.iterations = in_turn ? out.iterations + 1 : steps;
    out.converged = found.proven(rule.tol);
    out.optimality_gap = found.relative();
    if (out.converged || found.holds(GeometricMedian::proven_gap)) {
      points.weights = all.weights;
      if (!in_turn || !weigh_anew(team, rule, w, last_length, out)) break;
      points.weights = w.alpha;
      w.mass = team.sum(m, [&](int i) { return w.alpha[i]; });
      sum.start = GeometricMedian::Start::mean;  // any but the medoid: v is where it is
      // What distances do not tell of one median they tell of no other.
      if (!found.proven(sum.tol)) sum.tol = 2 * found.relative();
      continue;
    }
    if (!is_first) break;
    // A bad row that nothing can be proven of is left out: the bound holds wherever bad rows are.
    if (points.infinite != placed && mark_displaced(team, points, kept, placed)) {
      points.infinite = placed;
      w.mass = team.sum(m, [&](int i) { return points.finite(i) ? points.weight(i) : 0.0; });
      out.iterations = 0;
      continue;
    }
    // Of a majority that distances do not tell apart nothing can be proven, and nothing is wrong with v.
    // (Extents are about a row, which may be the medoid; so it is the majority's that counts.)
    team.parallel_for(m, [&](int i) { w.rank[i] = points.finite(i) ? points.extent_of(i) : infinity; });
    const double blurred = 2048 * std::sqrt(points.rounding) * w.median_of(team, w.rank);
    if (found.typical > blurred) status = Status::not_converged;
    break;
  }
  team.parallel_for(m, [&](int i) { out.scores[i] /= points.scale; });
  return status;
}

template <>
struct ChoicesOf<GeometricMedian::Start> {
  static constexpr std::array<std::string_view, 3> names = {"medoid", "mean", "origin"};
};

template <>
struct RuleOf<GeometricMedian> : GeometricRule<GeometricMedian> {
  static constexpr RuleText text{
      .name = "geometric_median",
      .definition = "argmin_v Σ‖v − x_i‖, by Weiszfeld's iteration with weights 1/max(nu, ‖x_i − v‖)",
      .needs = "n ≥ 1",
      .guarantee = "κ = 4(1+r)², r = f/(n−2f), with the default `nu`, `max_iters` and `tol`",
      .source = "Vardi & Zhang 2000; RFA: Pillutla et al. 2019"};
  static constexpr std::tuple parameters{
      parameter(&GeometricMedian::nu, "nu", "nu ≥ 0", "floor on the distances that weights are made of"),
      parameter(&GeometricMedian::max_iters, "max_iters", "max_iters ≥ 1", "iterations to stop after"),
      parameter(&GeometricMedian::tol, "tol", "tol ≥ 0",
                "gap of the objective to stop at, relative; of fewer than 100 iterations a step, relative to "
                "the median distance"),
      choice(&GeometricMedian::start, "start", "where the iteration starts")};
  static constexpr bool takes_weights = true;
  static constexpr bool weighs_its_majority = true;
  static constexpr std::array examples = {"geometric_median", "geometric_median(start=mean)",
                                          "geometric_median(nu=0.1, max_iters=3, tol=0, start=origin)"};

  static void check(const GeometricMedian& rule, const StagePoints&) {
    need_finite(text.name, "nu", rule.nu, true);
    need_at_least(text.name, "max_iters", rule.max_iters, 1);
    need_finite(text.name, "tol", rule.tol, true);
  }
  static int reference(const GeometricMedian& rule, const Stage& stage) {
    return rule.start == GeometricMedian::Start::origin ? stage.count : -1;
  }
  /// Where a run ends does not depend on where it starts, unless it is told the number of its steps.
  static bool forgets_start(const GeometricMedian& rule) {
    return rule.max_iters >= GeometricMedian::plain_iters && !(rule.nu > 0);
  }
  using Step = SolveStep<SumOfDistances>;
  static constexpr SumOfDistances sum(const GeometricMedian& rule) {
    return {.floor = rule.nu,
            .to_convergence = rule.max_iters >= GeometricMedian::plain_iters && !(rule.nu > 0),
            .max_iters = rule.max_iters,
            .tol = rule.tol,
            .start = rule.start};
  }
  static Step step(const GeometricMedian& rule, const Stage& stage, const SequenceInputs&) {
    return {.rule = sum(rule), .stage = stage, .reference = reference(rule, stage), .out_of_range = true};
  }
};

}  // namespace bragg::detail
