// SPDX-License-Identifier: Apache-2.0
// Krum, Blanchard et al. 2017.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

/// Σ of the squared distances from row i to the `neighbors` nearest other rows, added in ascending order.
BRAGG_HD inline double krum_score(const Points& points, const Neighbors& near, int i, int neighbors) {
  if (!points.finite(i)) return infinity;
  const double* const distances = near.distances_of(i);
  const int* const order = near.nearest(i);
  double score = 0;
  bool has_own = false;
  BRAGG_HD_UNROLL(4)
  for (int k = 0; k < neighbors; ++k) {
    has_own = has_own || order[k] == i;
    score += order[k] == i ? 0.0 : distances[order[k]];
  }
  return has_own ? score + distances[order[neighbors]] : score;
}

/// Of all rows, for the next step: in what is taken of the scratch behind neighbours. After RankStep.
struct KrumScoresStep {
  static constexpr bool independent = true;
  Stage stage;
  int neighbors = 0;

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b)) return;
    const Points points = points_of(b, stage);
    Scratch scratch = b.scratch();
    const Neighbors near = take_neighbors(scratch, stage.count);
    double* const scores = scratch.take_doubles(static_cast<std::size_t>(stage.count));
    team.parallel_for(stage.count, [&](int i) { scores[i] = krum_score(points, near, i, neighbors); });
  }
};

/// Of n points, those whose distances make a score: of Krum and Multi-Krum.
template <class RuleT>
int neighbors_of(const RuleT& rule, int n) {
  return rule.neighbors.value_or(n - rule.f - 2);
}

/// Krum and Multi-Krum as their step on the block holds them.
struct KrumSelection {
  int f = 0;
  int m = 0;  ///< rows to average
};

/// After KrumScoresStep.
template <class TeamT>
BRAGG_HD Status solve(TeamT team, const KrumSelection& rule, const Points& points, Scratch scratch,
                      Combination& out) {
  const int m = points.count;
  if (count_infinite(team, points) > rule.f) return Status::too_many_nonfinite;
  clear(team, out, points);
  take_neighbors(scratch, m);
  const double* const scores = scratch.take_doubles(static_cast<std::size_t>(m));
  team.parallel_for(m, [&](int i) { out.scores[i] = scores[i]; });
  const int* const best = smallest(team, scratch, m, rule.m, [&](int i) { return scores[i]; });
  mean_of(team, points, best, rule.m, out.coefficients);
  return Status::ok;
}

/// `neighbors`: as in Krum.
inline void check_neighbors(std::string_view rule, int f, std::optional<int> neighbors,
                            const StagePoints& points) {
  const std::int64_t usual = static_cast<std::int64_t>(points.n) - f - 2;
  if (!neighbors || *neighbors == usual) return need_more_than(rule, 2, f, points);
  need_majority(rule, f, points);
  need_between(rule, "neighbors", *neighbors, 1, points.n - f - 1, "1 ≤ neighbors ≤ n−f−1");
}

template <>
struct RuleOf<Krum> : GeometricRule<Krum> {
  static constexpr RuleText text{
      .name = "krum",
      .definition = "the row whose `neighbors` nearest others have the least sum of squared distances to it",
      .needs = "n ≥ 2f+3; n ≥ 2f+1 with other neighbors than n−f−2",
      .guarantee = "κ = 6(1+r), r = f/(n−2f), with the default `neighbors`",
      .source = "Blanchard et al. 2017"};
  static constexpr std::tuple parameters{tolerated(&Krum::f, "0 ≤ f, 2f+3 ≤ n"),
                                         derived(&Krum::neighbors, "neighbors", "n−f−2",
                                                 "1 ≤ neighbors ≤ n−f−1", "other rows that make a score")};
  static constexpr std::array examples = {"krum(f=F)", "krum(f=F, neighbors=N1)"};

  static void check(const Krum& rule, const StagePoints& points) {
    check_neighbors(text.name, rule.f, rule.neighbors, points);
  }
  static std::optional<NeededOrder> needed_order(const Krum& rule, int n) {
    return NeededOrder{.by_score = true, .taken = neighbors_of(rule, n), .kept = 1};
  }
  static constexpr bool ranks = true;
  static KrumScoresStep scores(const Krum& rule, const Stage& stage) {
    return {.stage = stage, .neighbors = neighbors_of(rule, stage.count)};
  }
  using Step = SolveStep<KrumSelection>;
  static Step step(const Krum& rule, const Stage& stage, const SequenceInputs&) {
    return {.rule = {.f = rule.f, .m = 1}, .stage = stage};
  }
};

}  // namespace bragg::detail
