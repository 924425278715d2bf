// SPDX-License-Identifier: Apache-2.0
// Input and output of solvers: points as inner products, results as coefficients. No coordinate of the data
// is here.
#pragma once

#include <bragg/error.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "rules/solve/team.hpp"

namespace bragg::detail {

inline constexpr double infinity = __builtin_huge_val();

/// A distance is clear when its error is at most this share of it, or of the spread of the majority.
inline constexpr double clear_share = 0x1p-20;

/// m points followed by reference points: o at index m, then (where there is one) the previous output.
struct Points {
  int count = 0;                           ///< m
  int size = 0;                            ///< m + references
  const double* gram = nullptr;            ///< size × size; 0 in rows and columns of infinite points
  const std::uint8_t* infinite = nullptr;  ///< size
  const double* weights = nullptr;         ///< count client weights, or null
  double scale = 1;  ///< the points were multiplied by it: lengths given by a user are too
  /// [size] Σ_k |a_k|·‖row k‖ over the rows k that a point is a combination of; null: points are rows.
  const double* extent = nullptr;
  /// A product is off by at most rounding times the extents of its points.
  double rounding = 0x1p-50;

  BRAGG_HD int origin() const { return count; }
  BRAGG_HD bool finite(int i) const { return i >= count || !infinite[i]; }
  BRAGG_HD double product(int i, int j) const { return gram[static_cast<std::size_t>(i) * size + j]; }
  BRAGG_HD double weight(int i) const { return weights == nullptr ? 1.0 : weights[i]; }

  /// ‖i − j‖², +inf when either is infinite. Exactly 0 for identical rows: their products are the same bits.
  BRAGG_HD double squared_distance(int i, int j) const {
    if (!finite(i) || !finite(j)) return infinity;
    const double value = (product(i, i) - product(i, j)) + (product(j, j) - product(i, j));
    return value > 0 ? value : 0;
  }
  BRAGG_HD double distance(int i, int j) const { return std::sqrt(squared_distance(i, j)); }

  BRAGG_HD double extent_of(int i) const {
    return extent != nullptr ? extent[i] : std::sqrt(std::fabs(product(i, i)));
  }
  /// By how much squared_distance(i, j) of finite points may be off. (Of identical rows it is exact.)
  BRAGG_HD double error(int i, int j) const {
    const double reach = extent_of(i) + extent_of(j);
    return rounding * reach * reach;
  }
  /// error(i, j) where squared_distance(i, j) is not clear, else 0.
  BRAGG_HD double unclear(int i, int j) const {
    const double off = error(i, j);
    return off > clear_share * squared_distance(i, j) ? off : 0;
  }
  /// ‖i − j‖², from above where it is not clear: what is scaled from this length is never longer.
  BRAGG_HD double squared_length(int i, int j) const {
    const double squared = squared_distance(i, j);
    return squared < infinity ? squared + unclear(i, j) : infinity;
  }
  BRAGG_HD double length(int i, int j) const { return std::sqrt(squared_length(i, j)); }
};

/// min(1, bound/length): what is left of a row that is clipped. 0 rather than a number so small that it has
/// lost digits, with which the row might be longer than the bound.
BRAGG_HD inline double clip_factor(double length, double bound) {
  if (!(length > bound)) return 1;
  const double factor = bound / length;
  return factor < 0x1p-1000 ? 0 : factor;
}

/// Memory for one solver call, carved front to back. `scratch_doubles`, `scratch_ints` bound what any solver
/// takes.
struct Scratch {
  double* doubles = nullptr;
  int* ints = nullptr;

  BRAGG_HD double* take_doubles(std::size_t n) {
    double* p = doubles;
    doubles += n;
    return p;
  }
  BRAGG_HD int* take_ints(std::size_t n) {
    int* p = ints;
    ints += n;
    return p;
  }
};

BRAGG_HD constexpr std::size_t scratch_doubles(std::size_t size) { return 2 * size * size + 11 * size; }
BRAGG_HD constexpr std::size_t scratch_ints(std::size_t size) { return size * size + size; }

/// The result of a geometric rule.
struct Combination {
  double* coefficients = nullptr;  ///< Points::size; sums to 1
  double* scores = nullptr;        ///< Points::count; NaN where the rule has none
  double* clip_factors = nullptr;  ///< Points::count; 1 where nothing is clipped
  int iterations = 0;
  bool converged = true;
  double optimality_gap = __builtin_nan("");  ///< as in Report
};

/// The result of a pre-aggregator: new points as combinations of the old ones.
struct Transform {
  double* coefficients = nullptr;  ///< count × (old) Points::size, zeroed by the caller
  std::uint8_t* infinite = nullptr;
  double* weights = nullptr;       ///< count, when `weighted`
  double* clip_factors = nullptr;  ///< old count; 1 where nothing is clipped
  int count = 0;
  bool weighted = false;
};

template <class TeamT>
BRAGG_HD int count_infinite(TeamT team, const Points& points) {
  return static_cast<int>(team.sum(points.count, [&](int i) { return points.infinite[i] != 0 ? 1.0 : 0.0; }));
}

/// coefficients = weighted mean of the finite points among `chosen[0..k)`. Zeroed before by the caller.
BRAGG_HD inline void mean_of(const Points& points, const int* chosen, int k, double* coefficients) {
  double total = 0;
  int finite = 0;
  BRAGG_HD_UNROLL(1)
  for (int c = 0; c < k; ++c) {
    if (!points.finite(chosen[c])) continue;
    total += points.weight(chosen[c]);
    ++finite;
  }
  BRAGG_HD_UNROLL(1)
  for (int c = 0; c < k; ++c) {
    if (!points.finite(chosen[c])) continue;
    // Weights so small that they vanish against the largest count alike among themselves.
    coefficients[chosen[c]] = total > 0 ? points.weight(chosen[c]) / total : 1.0 / finite;
  }
}

/// The same by all of a team. Weights are added one after another, by every member.
template <class TeamT>
BRAGG_HD void mean_of(TeamT team, const Points& points, const int* chosen, int k, double* coefficients) {
  const auto counts = [&](int c) { return points.finite(chosen[c]); };
  const double finite = team.sum(k, [&](int c) { return counts(c) ? 1.0 : 0.0; });
  double total = 0;
  if (points.weights != nullptr) {
    BRAGG_HD_UNROLL(4)
    for (int c = 0; c < k; ++c) total += counts(c) ? points.weight(chosen[c]) : 0.0;
  } else {
    total = finite;
  }
  team.parallel_for(k, [&](int c) {
    if (counts(c)) coefficients[chosen[c]] = total > 0 ? points.weight(chosen[c]) / total : 1.0 / finite;
  });
}

/// The mean of the `k` lowest-index finite points: what stands in where a distance cannot be taken.
BRAGG_HD inline void mean_of_first_finite(const Points& points, int k, int* chosen, double* coefficients) {
  int found = 0;
  BRAGG_HD_UNROLL(1)
  for (int i = 0; i < points.count && found < k; ++i) {
    if (points.finite(i)) chosen[found++] = i;
  }
  mean_of(points, chosen, found, coefficients);
}

template <class TeamT>
BRAGG_HD void clear(TeamT team, Combination& out, const Points& points) {
  team.parallel_for(points.size, [&](int i) { out.coefficients[i] = 0; });
  team.parallel_for(points.count, [&](int i) {
    out.scores[i] = __builtin_nan("");
    out.clip_factors[i] = 1;
  });
  out.iterations = 0;
  out.converged = true;
  out.optimality_gap = __builtin_nan("");
}

/// The row of least Σ p_j ‖x_i − x_j‖ among the finite ones, ties to the lowest index: to the precision of
/// the largest distance, beside which others may vanish. `sums`: count doubles.
template <class TeamT>
BRAGG_HD int medoid(TeamT team, const Points& points, double* sums) {
  team.parallel_for(points.count, [&](int i) {
    double total = points.finite(i) ? 0 : infinity;
    BRAGG_HD_UNROLL(1)
    for (int j = 0; j < points.count && points.finite(i); ++j) {
      if (points.finite(j)) total += points.weight(j) * points.distance(i, j);
    }
    sums[i] = total;
  });
  return team.argmin(points.count, [&](int i) { return sums[i]; });
}

/// out (size × size) = the Gram matrix about point `pivot`: lengths near the pivot lose nothing to a common
/// offset.
template <class TeamT>
BRAGG_HD void center(TeamT team, const Points& points, int pivot, double* out) {
  const int size = points.size;
  const double pp = points.product(pivot, pivot);
  team.parallel_for(size, [&](int i) {
    BRAGG_HD_UNROLL(1)
    for (int j = 0; j < size; ++j) {
      const bool known = points.finite(i) && points.finite(j);
      out[static_cast<std::size_t>(i) * size + j] =
          known ? (points.product(i, j) + pp) - (points.product(i, pivot) + points.product(pivot, j)) : 0;
    }
  });
}

}  // namespace bragg::detail
