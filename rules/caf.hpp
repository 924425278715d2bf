// SPDX-License-Identifier: Apache-2.0
// Covariance-bound agnostic filter, Allouah et al. 2025, in Gram space. With y_i = x_i − μ and M_ij = √c_i
// √c_j ⟨y_i, y_j⟩ / Σc, an eigenvector u of M gives the covariance's: Σ √c_i u_i y_i, up to its length.
#pragma once

#include "rules/rule.hpp"
#include "rules/solve/eigen.hpp"

namespace bragg::detail {

/// The weighted rows about their mean, all taken from the Gram matrix afresh in each iteration: a huge row is
/// forgotten with its weight.
struct FilterState {
  const Points* points;
  int pivot;             ///< an honest-sized row; products are taken about it before they are about μ
  double* c;             ///< count: weights; an exact 0 takes no part in anything
  double* mean_product;  ///< count: ⟨x_i − pivot, μ − pivot⟩
  double mean_square;    ///< ‖μ − pivot‖²

  /// Relative: squared lengths along a direction that differ by less are equal.
  static constexpr double tie = 1e-12;

  BRAGG_HD double about_pivot(int i, int j) const {
    const Points& p = *points;
    return (p.product(i, j) + p.product(pivot, pivot)) - (p.product(i, pivot) + p.product(j, pivot));
  }
  /// ⟨y_i, y_j⟩, the same bits for identical rows.
  BRAGG_HD double about_mean(int i, int j) const {
    return (about_pivot(i, j) + mean_square) - (mean_product[i] + mean_product[j]);
  }
  /// Σ_j weight_j ⟨y_i, y_j⟩ over the rows that take part.
  BRAGG_HD double image(int i, const double* weight) const {
    double total = 0;
    BRAGG_HD_UNROLL(1)
    for (int j = 0; j < points->count; ++j) {
      if (c[j] > 0) total += weight[j] * about_mean(i, j);
    }
    return total;
  }

  template <class TeamT>
  BRAGG_HD void take_mean(TeamT team, double total) {
    const int m = points->count;
    team.parallel_for(m, [&](int i) {
      double sum = 0;
      BRAGG_HD_UNROLL(1)
      for (int j = 0; j < m && c[i] > 0; ++j) {
        if (c[j] > 0) sum += c[j] * about_pivot(i, j);
      }
      mean_product[i] = sum / total;
    });
    mean_square = team.sum(m, [&](int i) { return c[i] * mean_product[i]; }) / total;
  }
};

/// The finite row of least median distance to all rows: one of an honest majority, or as near to it as they
/// are. `order`: count², `medians`: count.
template <class TeamT>
BRAGG_HD int central_row(TeamT team, const Points& points, int* order, double* medians) {
  const int m = points.count;
  const int half = m / 2 + 1;
  team.parallel_for(m, [&](int i) {
    int* const mine = order + static_cast<std::size_t>(i) * m;
    const auto key = [&](int j) { return j == i ? 0 : points.squared_distance(i, j); };
    medians[i] = infinity;
    if (!points.finite(i)) return;
    smallest(m, half, mine, key);
    medians[i] = key(mine[half - 1]);
  });
  return team.argmin(m, [&](int i) { return medians[i]; });
}

/// direction (count) = coefficients over the y_i of the longest projection of a row onto the space that
/// `vectors` (eigenvectors of M, `rank` × count, of eigenvalues `values`) span; any length. `lengths`: count.
template <class TeamT>
BRAGG_HD void longest_projection(TeamT team, const FilterState& state, const double* roots,
                                 const double* values, const double* vectors, int rank, double* direction,
                                 double* lengths) {
  const int m = state.points->count;
  const auto vector = [&](int k) { return vectors + static_cast<std::size_t>(k) * m; };
  // Proportional to the component of y_i along covariance eigenvector k, times √value.
  const auto component = [&](int i, int k) {
    double total = 0;
    BRAGG_HD_UNROLL(1)
    for (int j = 0; j < m; ++j) {
      if (state.c[j] > 0) total += roots[j] * vector(k)[j] * state.about_mean(i, j);
    }
    return total;
  };
  int longest = 0;
  if (rank > 1) {
    team.parallel_for(m, [&](int i) {
      lengths[i] = 0;
      BRAGG_HD_UNROLL(1)
      for (int k = 0; k < rank && state.c[i] > 0; ++k) {
        const double part = component(i, k);
        lengths[i] += part * (part / values[k]);
      }
    });
    const double most = lengths[team.argmin(m, [&](int i) { return -lengths[i]; })];
    longest = team.argmin(m, [&](int i) { return lengths[i] >= most * (1 - FilterState::tie) ? 0.0 : 1.0; });
  }
  team.parallel_for(rank, [&](int k) { lengths[k] = rank > 1 ? component(longest, k) / values[k] : 1; });
  team.parallel_for(m, [&](int i) {
    double total = 0;
    BRAGG_HD_UNROLL(1)
    for (int k = 0; k < rank; ++k) total += lengths[k] * vector(k)[i];
    direction[i] = roots[i] * total;
  });
}

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const Caf& rule, const Points& points, Scratch scratch, Combination& out) {
  const int m = points.count;
  const auto n = static_cast<std::size_t>(m);
  if (count_infinite(team, points) > rule.f) return Status::too_many_nonfinite;
  clear(team, out, points);

  TopEigenspace space = TopEigenspace::carve(scratch, n);
  double* const roots = scratch.take_doubles(n);
  FilterState state{.points = &points,
                    .pivot = central_row(team, points, scratch.ints, space.values),
                    .c = out.scores,
                    .mean_product = scratch.take_doubles(n),
                    .mean_square = 0};
  double* const c = state.c;
  team.parallel_for(m, [&](int i) { c[i] = points.finite(i) ? 1 : 0; });

  const double stop = m - 2.0 * rule.f + 1e-9 * m;
  double total = team.sum(m, [&](int i) { return c[i]; });
  const auto remember_mean = [&] {
    team.parallel_for(m, [&](int i) { out.coefficients[i] = c[i] / total; });
  };
  remember_mean();
  double least = infinity;
  while (total > stop) {
    ++out.iterations;
    state.take_mean(team, total);
    team.parallel_for(m, [&](int i) { roots[i] = std::sqrt(c[i]); });
    const double trace = team.sum(m, [&](int i) { return c[i] > 0 ? c[i] * state.about_mean(i, i) : 0.0; });
    if (!(trace > 0)) {
      remember_mean();
      break;
    }
    team.parallel_for(m, [&](int i) {
      double* const row = space.matrix + static_cast<std::size_t>(i) * n;
      BRAGG_HD_UNROLL(1)
      for (int j = 0; j < m; ++j) {
        row[j] = c[i] > 0 && c[j] > 0 ? roots[i] * roots[j] * (state.about_mean(i, j) / trace) : 0;
      }
    });
    const int rank = space.find(team, m);
    const double variance = space.values[0] * (trace / total);
    if (variance < least) {
      least = variance;
      remember_mean();
    }
    double* const direction = space.work;
    double* const projection = space.work + n;
    longest_projection(team, state, roots, space.values, space.vectors, rank, direction, projection);
    team.parallel_for(m, [&](int i) { projection[i] = c[i] > 0 ? std::fabs(state.image(i, direction)) : 0; });
    const double furthest = projection[team.argmin(m, [&](int i) { return -projection[i]; })];
    if (!(furthest > 0)) {
      remember_mean();
      break;
    }
    team.parallel_for(m, [&](int i) {
      const double share = projection[i] / furthest;
      const double left = (1 - share) * (1 + share);
      // Equal but for rounding is equal: what weight a twin of the furthest row kept would be noise, and that
      // row would still be the furthest.
      c[i] = left > FilterState::tie ? c[i] * left : 0;
    });
    total = team.sum(m, [&](int i) { return c[i]; });
  }
  return Status::ok;
}

template <>
struct RuleOf<Caf> : GeometricRule<Caf> {
  static constexpr RuleText text{.name = "caf",
                                 .definition =
                                     "rows that stick out along the top eigenvector of the covariance lose "
                                     "weight step by step; the mean "
                                     "of least top eigenvalue",
                                 .needs = "n ≥ 2f+1",
                                 .guarantee = "(f, κ)-robust",
                                 .source = "Allouah et al. 2025"};
  static constexpr std::tuple parameters{tolerated(&Caf::f, "0 ≤ f, 2f < n")};
  static constexpr std::array examples = {"caf(f=F)"};

  static void check(const Caf& rule, const StagePoints& points) { need_majority(text.name, rule.f, points); }
  /// Every iteration takes all of its weight from a row.
  static double work(const Caf& rule, int n) { return 2.0 * rule.f * std::pow(n, 3); }
};

}  // namespace bragg::detail
