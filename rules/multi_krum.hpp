// SPDX-License-Identifier: Apache-2.0
// Multi-Krum, Blanchard et al. 2017: the mean of the rows of least score.
#pragma once

#include "rules/krum.hpp"

namespace bragg::detail {

template <>
struct RuleOf<MultiKrum> : GeometricRule<MultiKrum> {
  static constexpr RuleText text{.name = "multi_krum",
                                 .definition = "mean of the m rows of least Krum score",
                                 .needs = "n ≥ 2f+3; n ≥ 2f+1 with other neighbors than n−f−2",
                                 .guarantee = "(f, κ)-robust for m ≤ n−f, with the default `neighbors`",
                                 .source = "Blanchard et al. 2017"};
  static constexpr std::tuple parameters{tolerated(&MultiKrum::f, "0 ≤ f, 2f+3 ≤ n"),
                                         derived(&MultiKrum::m, "m", "n−f", "1 ≤ m ≤ n", "rows to average"),
                                         derived(&MultiKrum::neighbors, "neighbors", "n−f−2",
                                                 "1 ≤ neighbors ≤ n−f−1", "other rows that make a score")};
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"multi_krum(f=F)", "multi_krum(f=F, m=2)"};

  static void check(const MultiKrum& rule, const StagePoints& points) {
    check_neighbors(text.name, rule.f, rule.neighbors, points);
    if (rule.m) need_between(text.name, "m", *rule.m, 1, points.n, "1 ≤ m ≤ n");
  }
  static std::optional<NeededOrder> needed_order(const MultiKrum& rule, int n) {
    return NeededOrder{.by_score = true, .taken = neighbors_of(rule, n), .kept = rule.m.value_or(n - rule.f)};
  }
  static constexpr bool ranks = true;
  static KrumScoresStep scores(const MultiKrum& rule, const Stage& stage) {
    return {.stage = stage, .neighbors = neighbors_of(rule, stage.count)};
  }
  using Step = SolveStep<KrumSelection>;
  static Step step(const MultiKrum& rule, const Stage& stage, const SequenceInputs&) {
    return {.rule = {.f = rule.f, .m = rule.m.value_or(stage.count - rule.f)}, .stage = stage};
  }
};

}  // namespace bragg::detail
