// SPDX-License-Identifier: Apache-2.0
// The n-sized mathematics between the passes, cut into steps. A step is a plain struct that any Team can run
// on a block; a step that finds a failure writes it to the block's status, and later steps do nothing.
#pragma once

#include <cstdint>

#include "rules/solve/spread.hpp"
#include "rules/stage.hpp"

namespace bragg::detail {

template <class RuleT>
struct RuleOf;  // rules/rule.hpp

/// The reference point that a step cannot do without is not finite. `reference`: its index in the stage; -1:
/// none is needed. `out_of_range`: one that its products leave the range of f64 for will do.
template <class TeamT>
BRAGG_HD bool lacks_reference(TeamT team, const SolveBlock& b, const Stage& s, int reference,
                              bool out_of_range = false) {
  if (reference < 0 || b.infinite[s.marks][reference] == 0) return false;
  if (out_of_range && b.nonfinite[s.inputs + (reference - s.count)] == 0) return false;
  fail(team, b, Status::nonfinite_base);
  return true;
}

/// Whether row i is infinite because its values, or their squares, leave the range of f64. (Also true of one
/// that was infinite for another reason before rows were centred.)
BRAGG_HD inline bool is_out_of_range(const SolveBlock& b, int i, bool input) {
  return (input && b.max_abs[i] > b.words->limit) || (b.words->recentred != 0 && b.left_out[i] != 0);
}

/// Pass 1's sums as points: which are infinite, and nothing of those in the Gram matrix.
struct StartStep {
  Stage stage;
  bool statistics = false;  ///< pass 1 ran
  bool products = false;
  int pivot = -1;  ///< the row that the rule trusts; -1: none

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    const int rows = stage.rows();
    std::uint8_t* const infinite = b.infinite[stage.marks];
    team.single([&] {
      b.words->status = static_cast<int>(Status::ok);
      b.words->iterations = 0;
      b.words->converged = 1;
      b.words->optimality_gap = __builtin_nan("");
      b.words->infinite = 0;
    });
    double* const gram = b.gram[stage.gram];
    team.parallel_for(rows, [&](int i) {
      const bool input = i < stage.inputs;
      infinite[i] = (input && b.invalid[i] != 0) ||
                    (statistics && (b.nonfinite[i] > 0 || is_out_of_range(b, i, input)));
      // A reference that nothing is measured from may be out of the range that suits the rows (settle).
      if (products && !input && !(gram[static_cast<std::size_t>(i) * rows + i] < infinity)) infinite[i] = 1;
      b.row_clip[i] = 1;
    });
    // Before a pre-aggregator makes a finite point of it.
    if (pivot >= 0 && infinite[pivot] != 0) return fail(team, b, Status::nonfinite_pivot);
    if (!products) return;
    parallel_for_2d(team, rows, rows, [&](int i, int j) {
      const std::size_t at = static_cast<std::size_t>(i) * rows + j;
      gram[at] = infinite[i] != 0 || infinite[j] != 0 ? 0 : gram[at] + b.low[at];
      b.low[at] = 0;
    });
    team.parallel_for(rows, [&](int i) {
      b.extent[stage.gram][i] = std::sqrt(gram[static_cast<std::size_t>(i) * rows + i]);
    });
  }
};

/// Rows that are infinite are so in every sample, whatever they hold at its coordinates. After StartStep.
struct MarkSamplesStep {
  Stage stage;  ///< of the rows
  int samples = 0;

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    for (int t = 0; t < samples; ++t) {
      const SolveBlock sample = sample_block(b, stage.rows(), t);
      team.parallel_for(stage.rows(), [&](int i) { sample.nonfinite[i] += b.infinite[stage.marks][i]; });
    }
  }
};

/// All neighbours of all points, for the next step (take_neighbors).
struct RankStep {
  static constexpr bool independent = true;
  static constexpr bool by_rows = true;  ///< a row is a block's
  Stage stage;

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b)) return;
    Scratch scratch = b.scratch();
    const Neighbors near = take_neighbors(scratch, stage.count);
    rank_neighbors(team, points_of(b, stage), near, reinterpret_cast<int*>(scratch.doubles));
  }
};

/// A pre-aggregator: the new points as coefficients over the old ones, in b.transform.
template <class RuleT>
struct TransformStep {
  typename RuleOf<RuleT>::OnBlock rule;
  Stage from;
  Stage to;
  int reference = -1;     ///< that it measures from
  bool weighted = false;  ///< the majority is one of weight
  bool measured = false;  ///< a later stage takes distances of the new points

  /// Whether RankStep comes before: for the rule, or to see which of the means that it makes drown.
  BRAGG_HD static constexpr bool is_ranked(bool measured) {
    return RuleOf<RuleT>::ranks || (RuleOf<RuleT>::merges && measured);
  }

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b) || lacks_reference(team, b, from, reference)) return;
    const int size = from.size();
    parallel_for_2d(team, from.count, size,
                    [&](int i, int j) { b.transform[static_cast<std::size_t>(i) * size + j] = 0; });
    team.parallel_for(from.count, [&](int i) { b.clip_factors[i] = 1; });
    Transform made{.coefficients = b.transform,
                   .infinite = b.infinite[to.marks],
                   .weights = b.weights[to.marks],
                   .clip_factors = b.clip_factors};
    Scratch scratch = b.scratch();
    // What the rule does not want may still be, afterwards.
    if (!RuleOf<RuleT>::ranks && is_ranked(measured)) take_neighbors(scratch, from.count);
    const Status status = transform(team, rule, points_of(b, from), scratch, made);
    if (status != Status::ok) return fail(team, b, status);
    if constexpr (RuleOf<RuleT>::merges) {
      if (measured) replace_drowning(team, points_of(b, from), weighted, b.scratch(), made);
    }
    team.parallel_for(from.references, [&](int r) {
      b.infinite[to.marks][to.count + r] = b.infinite[from.marks][from.count + r];
    });
    if (from.are_rows) team.parallel_for(from.count, [&](int i) { b.row_clip[i] *= b.clip_factors[i]; });
    if (!to.shifted) return;
    // A reference far from the rows would be in all points, and drown what they differ by. About the new
    // point of a row that a majority surrounds it cancels in the coefficients. (Clipping brings no two rows
    // apart.)
    int central = -1;
    if (b.words->recentred != 0 || from.has_origin) {
      const std::size_t squares = static_cast<std::size_t>(from.count) * from.count;
      const Points points = points_of(b, from);
      central = majority_spread(team, points, weighted, b.doubles, b.ints, b.doubles + squares).central;
    }
    team.parallel_for(size, [&](int j) {
      b.shift[j] = central < 0 ? 0 : b.transform[static_cast<std::size_t>(central) * size + j];
    });
    team.single([&] { b.shift[size] = central < 0 ? 1 : b.clip_factors[central]; });
  }
};

/// The coefficient of old point k in new point (or reference) i as it is multiplied.
BRAGG_HD inline double multiplied(const SolveBlock& b, const Stage& from, const Stage& to, int i, int k) {
  const bool is_point = i < to.count;
  const int reference = from.count + (i - to.count);
  if (to.shifted && k == from.count) {
    // Of the origin: 1 less the factor. What is clipped to next to nothing differs there by less than
    // rounding.
    const double factor = is_point ? b.clip_factors[i] : k == reference ? 0 : 1;
    return b.shift[from.size()] - factor;
  }
  const double own =
      is_point ? b.transform[static_cast<std::size_t>(i) * from.size() + k] : (k == reference ? 1 : 0);
  return to.shifted ? own - b.shift[k] : own;
}

/// mix ← T·mix, and the first half of gram ← T·gram·Tᵀ; references pass through unchanged.
struct MixStep {
  static constexpr bool independent = true;  ///< members never wait for each other: any number may share it
  Stage from;
  Stage to;
  bool products = false;  ///< later stages take distances

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b)) return;
    const int size = from.size();
    const int rows = from.rows();
    const auto coefficient = [&](int i, int k) {
      return b.transform[static_cast<std::size_t>(i) * size + k];
    };
    const auto row_of = [](double* matrix, int i, int width) {
      return matrix + static_cast<std::size_t>(i) * width;
    };
    double* const out = b.mix[to.mix];
    if (from.mixed) {
      multiply(
          team, to.count, rows, from.count,
          [&](int i, int j) { return j < from.inputs ? 0 : coefficient(i, from.count + (j - from.inputs)); },
          coefficient, [&](int k) { return row_of(b.mix[from.mix], k, rows); },
          [&](int i) { return row_of(out, i, rows); });
    } else {
      parallel_for_2d(team, to.count, rows,
                      [&](int i, int j) { row_of(out, i, rows)[j] = coefficient(i, j); });
    }
    if (!products) return;
    multiply(
        team, to.size(), size, size,
        [&](int i, int j) {
          if (i < to.count || to.shifted) return 0.0;
          return row_of(b.gram[from.gram], from.count + (i - to.count), size)[j];
        },
        [&](int i, int k) { return i < to.count || to.shifted ? multiplied(b, from, to, i, k) : 0; },
        [&](int k) { return row_of(b.gram[from.gram], k, size); },
        [&](int i) { return row_of(b.product, i, size); });
  }
};

/// The second half.
struct GramStep {
  static constexpr bool independent = true;
  Stage from;
  Stage to;

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b)) return;
    const int old_size = from.size();
    const int size = to.size();
    double* const out = b.gram[to.gram];
    const double* const old_extent = b.extent[from.gram];
    team.parallel_for(size, [&](int j) {
      double total = 0;
      for (int k = 0; k < old_size; ++k) {
        total += std::fabs(multiplied(b, from, to, j, k)) * old_extent[k];
      }
      b.extent[to.gram][j] = total;
    });
    parallel_for_2d(team, size, size, [&](int j, int i) {
      if (i > j) return;
      const double* const product = b.product + static_cast<std::size_t>(i) * old_size;
      double total = 0;
      if (j >= to.count && !to.shifted) {
        total = product[from.count + (j - to.count)];
      } else {
        BRAGG_HD_UNROLL(4)
        for (int k = 0; k < old_size; ++k) {
          const double t = multiplied(b, from, to, j, k);
          if (t != 0) total += t * product[k];
        }
      }
      out[static_cast<std::size_t>(i) * size + j] = total;
      out[static_cast<std::size_t>(j) * size + i] = total;
    });
  }
};

/// A geometric rule: its result as coefficients of the points. RuleT: what there is a `solve` for.
template <class RuleT>
struct SolveStep {
  RuleT rule;
  Stage stage;
  int reference = -1;         ///< that it measures from
  bool out_of_range = false;  ///< as lacks_reference

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b) || lacks_reference(team, b, stage, reference, out_of_range)) return;
    Combination out{.coefficients = b.coefficients, .scores = b.scores, .clip_factors = b.clip_factors};
    const Status status = solve(team, rule, points_of(b, stage), b.scratch(), out);
    team.single([&] {
      b.words->status = static_cast<int>(status);
      b.words->iterations = out.iterations;
      b.words->converged = out.converged;
      b.words->optimality_gap = out.optimality_gap;
    });
  }
};

/// A rule that searches on the host (rules/search.hpp).
template <class RuleT>
struct SearchStep {
  RuleT rule;
  Stage stage;
};

/// Coefficients of points → coefficients of rows.
struct CombinationStep {
  Stage stage;

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b)) return;
    const int rows = stage.rows();
    if (stage.mixed) {
      multiply(
          team, 1, rows, stage.count,
          [&](int, int j) { return j < stage.inputs ? 0 : b.coefficients[stage.count + (j - stage.inputs)]; },
          [&](int, int k) { return b.coefficients[k]; },
          [&](int k) { return b.mix[stage.mix] + static_cast<std::size_t>(k) * rows; },
          [&](int) { return b.row_weight; });
    } else {
      team.parallel_for(rows, [&](int i) { b.row_weight[i] = b.coefficients[i]; });
    }
    if (stage.are_rows) team.parallel_for(stage.count, [&](int i) { b.row_clip[i] *= b.clip_factors[i]; });
  }
};

/// The rows' mean shares in the points that a coordinate-wise rule sees.
struct ShareStep {
  Stage stage;
  int points = 0;
  bool chosen = false;  ///< the points are b.chosen's; else all

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b)) return;
    const int rows = stage.rows();
    const double* const weights = b.weights[stage.marks];
    const auto point = [&](int k) { return chosen ? b.chosen[k] : k; };
    const double total = stage.weighted ? team.sum(points, [&](int k) { return weights[point(k)]; }) : 0;
    const auto share = [&](int k) { return total > 0 ? weights[point(k)] / total : 1.0 / points; };
    if (stage.mixed) {
      // An infinite point has no coefficients.
      multiply(
          team, 1, rows, points, [](int, int) { return 0.0; }, [&](int, int k) { return share(k); },
          [&](int k) { return b.mix[stage.mix] + static_cast<std::size_t>(point(k)) * rows; },
          [&](int) { return b.row_weight; });
      return;
    }
    team.parallel_for(rows, [&](int i) { b.row_weight[i] = 0; });
    team.parallel_for(points, [&](int k) {
      // Without mixing pass 2 judges each coordinate by itself: only a row's weight can make all of it
      // infinite.
      if (b.invalid[point(k)] == 0) b.row_weight[point(k)] = share(k);
    });
  }
};

}  // namespace bragg::detail
