// SPDX-License-Identifier: Apache-2.0
// BALANCE, Fang et al. 2024: of its neighbours' rows a worker takes those that are near its own.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const Balance& rule, const Points& points, Scratch scratch,
                      Combination& out) {
  const int m = points.count;
  clear(team, out, points);
  int* const chosen = scratch.take_ints(static_cast<std::size_t>(m));
  const double reach = rule.gamma * points.distance(rule.pivot, points.origin());
  team.parallel_for(m, [&](int i) { out.scores[i] = points.distance(rule.pivot, i); });
  const int accepted = team.collect(
      m, [&](int i) { return i != rule.pivot && points.finite(i) && out.scores[i] <= reach; }, chosen);
  mean_of(team, points, chosen, accepted, out.coefficients);
  const double others = accepted > 0 ? 1 - rule.alpha : 0;
  team.parallel_for(accepted, [&](int k) { out.coefficients[chosen[k]] *= others; });
  team.single([&] { out.coefficients[rule.pivot] = 1 - others; });
  team.parallel_for(m, [&](int i) { out.scores[i] /= points.scale; });
  return Status::ok;
}

template <>
struct RuleOf<Balance> : GeometricRule<Balance> {
  static constexpr RuleText text{
      .name = "balance",
      .definition =
          "alpha·x_p + (1−alpha)·mean of the other rows no farther than gamma·‖x_p − o‖ from x_p, "
          "row p = `pivot`; without any: x_p",
      .needs = "n ≥ 1",
      .guarantee = "no farther than (1−alpha)·gamma·‖x_p − o‖ from the trusted row",
      .source = "Fang et al. 2024"};
  static constexpr std::tuple parameters{
      required(&Balance::gamma, "gamma", "gamma > 0",
               "reach, as a share of the trusted row's distance from o"),
      parameter(&Balance::alpha, "alpha", "0 ≤ alpha ≤ 1", "share of the trusted row in the result"),
      parameter(&Balance::pivot, "pivot", "0 ≤ pivot < n", "index of the trusted row, one's own")};
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"balance(gamma=1)", "balance(gamma=0.5, alpha=0.25, pivot=0)",
                                          "nnm(f=F) | balance(gamma=1)",
                                          "quantile_clip | balance(gamma=1.5)"};

  static void check(const Balance& rule, const StagePoints& points) {
    need_finite(text.name, "gamma", rule.gamma, false);
    need_share(text.name, "alpha", rule.alpha, true);
    need_pivot(text.name, rule.pivot, points);
  }
  static int reference(const Balance&, const Stage& stage) { return stage.count; }
  static constexpr int* pivot(Balance& rule) { return &rule.pivot; }
};

}  // namespace bragg::detail
