// SPDX-License-Identifier: Apache-2.0
// MoNNA, Farhadkhani et al. 2023.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const Monna& rule, const Points& points, Scratch scratch,
                      Combination& out) {
  const int m = points.count;
  const int near = m - rule.f;
  if (count_infinite(team, points) > rule.f) return Status::too_many_nonfinite;
  if (!points.finite(rule.pivot)) return Status::nonfinite_pivot;  // a bucket
  clear(team, out, points);
  team.parallel_for(m, [&](int i) { out.scores[i] = points.distance(rule.pivot, i); });
  const int* const chosen =
      smallest(team, scratch, m, near, [&](int i) { return points.squared_distance(rule.pivot, i); });
  mean_of(team, points, chosen, near, out.coefficients);
  return Status::ok;
}

template <>
struct RuleOf<Monna> : GeometricRule<Monna> {
  static constexpr RuleText text{.name = "monna",
                                 .definition = "mean of the n−f rows nearest to row `pivot`, itself included",
                                 .needs = "n ≥ 2f+1",
                                 .guarantee = "(f, κ)-robust for an honest pivot",
                                 .source = "Farhadkhani et al. 2023"};
  static constexpr std::tuple parameters{
      tolerated(&Monna::f, "0 ≤ f, 2f < n"),
      parameter(&Monna::pivot, "pivot", "0 ≤ pivot < n", "index of the trusted row")};
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"monna(f=F, pivot=0)"};

  static void check(const Monna& rule, const StagePoints& points) {
    need_majority(text.name, rule.f, points);
    need_between(text.name, "pivot", rule.pivot, 0, points.n - 1, "0 ≤ pivot < n");
  }
  static constexpr int* pivot(Monna& rule) { return &rule.pivot; }
};

}  // namespace bragg::detail
