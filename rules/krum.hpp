// SPDX-License-Identifier: Apache-2.0
// Krum, Blanchard et al. 2017.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

/// scores[i] = Σ of the `neighbors` least squared distances to the other points, added in ascending order.
/// `distances`, `order`: m² each.
template <class TeamT>
BRAGG_HD void krum_scores(TeamT team, const Points& points, int neighbors, double* distances, int* order,
                          double* scores) {
  const int m = points.count;
  rank_neighbors(team, points, distances, order);
  team.parallel_for(m, [&](int i) {
    const std::size_t row = static_cast<std::size_t>(i) * m;
    double score = points.finite(i) ? 0 : infinity;
    BRAGG_HD_UNROLL(1)
    for (int k = 0, found = 0; points.finite(i) && found < neighbors; ++k) {
      if (order[row + k] == i) continue;
      score += distances[row + order[row + k]];
      ++found;
    }
    scores[i] = score;
  });
}

/// Krum and Multi-Krum as their step on the block holds them.
struct KrumSelection {
  int f = 0;
  int m = 0;  ///< rows to average
  int neighbors = 0;
};

inline Ranking ranking_of(const KrumSelection& rule) {
  return {.by_score = true, .taken = rule.neighbors, .kept = rule.m};
}

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const KrumSelection& rule, const Points& points, Scratch scratch,
                      Combination& out) {
  const int m = points.count;
  if (count_infinite(points) > rule.f) return Status::too_many_nonfinite;
  clear(team, out, points);
  int* const order = scratch.take_ints(static_cast<std::size_t>(m) * m);
  double* const distances = scratch.take_doubles(static_cast<std::size_t>(m) * m);
  krum_scores(team, points, rule.neighbors, distances, order, out.scores);
  team.single([&] {
    smallest(m, rule.m, order, [&](int i) { return out.scores[i]; });
    mean_of(points, order, rule.m, out.coefficients);
  });
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
  static KrumSelection selection(const Krum& rule, int n) {
    return {.f = rule.f, .m = 1, .neighbors = rule.neighbors.value_or(n - rule.f - 2)};
  }
  static std::optional<Ranking> ranking(const Krum& rule, int n) { return ranking_of(selection(rule, n)); }
  using Step = SolveStep<KrumSelection>;
  static Step step(const Krum& rule, const Stage& stage, const SequenceInputs&) {
    return {.rule = selection(rule, stage.count), .stage = stage};
  }
};

}  // namespace bragg::detail
