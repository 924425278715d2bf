// SPDX-License-Identifier: Apache-2.0
// Comparative gradient elimination, Gupta et al. 2020.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const Cge& rule, const Points& points, Scratch scratch, Combination& out) {
  const int m = points.count;
  if (count_infinite(team, points) > rule.f) return Status::too_many_nonfinite;
  clear(team, out, points);
  team.parallel_for(m, [&](int i) { out.scores[i] = points.length(i, points.origin()); });
  const int* const chosen = smallest(team, scratch, m, m - rule.f,
                                     [&](int i) { return points.squared_length(i, points.origin()); });
  mean_of(team, points, chosen, m - rule.f, out.coefficients);
  return Status::ok;
}

template <>
struct RuleOf<Cge> : GeometricRule<Cge> {
  static constexpr RuleText text{
      .name = "cge",
      .definition = "mean of the n−f rows of least norm about o, the origin or the base",
      .needs = "n ≥ 2f+1",
      .guarantee = "bad rows are no longer than the longest honest row; no bound on their direction",
      .source = "Gupta et al. 2020"};
  static constexpr std::tuple parameters{tolerated(&Cge::f, "0 ≤ f, 2f < n")};
  static constexpr Products products = Products::lengths;
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"cge(f=F)"};

  static void check(const Cge& rule, const StagePoints& points) { need_majority(text.name, rule.f, points); }
  static int reference(const Cge&, const Stage& stage) { return stage.count; }
};

}  // namespace bragg::detail
