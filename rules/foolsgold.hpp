// SPDX-License-Identifier: Apache-2.0
// FoolsGold, Fung et al. 2020, without memory: rows that point alike lose their weight.
#pragma once

#include "rules/rule.hpp"
#include "rules/solve/angles.hpp"
#include "rules/solve/logarithm.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const FoolsGold& rule, const Points& points, Scratch scratch,
                      Combination& out) {
  constexpr double least_apart = 1e-12;  // rows that are no farther from all being alike are alike
  constexpr double most_sure = 0.99;
  const int m = points.count;
  if (count_infinite(team, points) == points.count) return Status::too_many_nonfinite;
  clear(team, out, points);
  double* const cosines = scratch.take_doubles(static_cast<std::size_t>(m) * m);
  double* const nearest = scratch.take_doubles(static_cast<std::size_t>(m));
  double* const apart = scratch.take_doubles(static_cast<std::size_t>(m));
  const auto compared = [&](int i, int j) { return i != j && points.finite(i) && points.finite(j); };
  parallel_for_2d(team, m, m, [&](int i, int j) {
    cosines[static_cast<std::size_t>(i) * m + j] = compared(i, j) ? cosine(points, i, j) : 0;
  });
  // A row that is compared with none has no likeness.
  const auto most = [&](int i, auto likeness) {
    double value = -1;
    BRAGG_HD_UNROLL(1)
    for (int j = 0; j < m; ++j) {
      const double found = compared(i, j) ? likeness(j) : -1.0;
      value = found > value ? found : value;
    }
    return value > 0 ? value : 0;
  };
  team.parallel_for(m, [&](int i) {
    nearest[i] = most(i, [&](int j) { return cosines[static_cast<std::size_t>(i) * m + j]; });
  });
  team.parallel_for(m, [&](int i) {
    const double pardoned = most(i, [&](int j) {
      const double plain = cosines[static_cast<std::size_t>(i) * m + j];
      return nearest[j] > nearest[i] ? plain * (nearest[i] / nearest[j]) : plain;
    });
    apart[i] = points.finite(i) ? 1 - pardoned : 0;
  });
  const double farthest = apart[team.argmin(m, [&](int i) { return -apart[i]; })];
  if (!(farthest > least_apart)) return Status::no_majority;
  team.parallel_for(m, [&](int i) {
    const double share = apart[i] / farthest;
    const double sure = share < most_sure ? share : most_sure;
    const double logit = sure > 0 ? rule.kappa * (logarithm(sure / (1 - sure)) + 0.5) : 0;
    out.scores[i] = logit > 1 ? 1 : logit > 0 ? logit : 0;
  });
  const double total = team.sum(m, [&](int i) { return out.scores[i]; });
  if (!(total > 0)) return Status::no_majority;
  team.parallel_for(m, [&](int i) { out.coefficients[i] = out.scores[i] / total; });
  return Status::ok;
}

template <>
struct RuleOf<FoolsGold> : GeometricRule<FoolsGold> {
  static constexpr RuleText text{
      .name = "foolsgold",
      .definition =
          "mean of the rows weighted by how little each points as any other does, seen from o; "
          "`kappa` says how sharply",
      .needs = "n ≥ 2; rows that do not all point alike",
      .guarantee = "heuristic: bad rows that point alike have no weight; those that differ count in full",
      .source = "Fung et al. 2020"};
  static constexpr std::tuple parameters{
      parameter(&FoolsGold::kappa, "kappa", "kappa > 0", "sharpness of the weights")};
  static constexpr std::array examples = {"foolsgold", "foolsgold(kappa=0.5)", "clip(c=2) | foolsgold",
                                          "quantile_clip | foolsgold", "bucketing(s=2, seed=3) | foolsgold"};

  static void check(const FoolsGold& rule, const StagePoints& points) {
    need_points(text.name, 2, points);
    need_finite(text.name, "kappa", rule.kappa, false);
  }
  static int reference(const FoolsGold&, const Stage& stage) { return stage.count; }
  static bool stays_by_reference(const FoolsGold&) { return true; }
};

}  // namespace bragg::detail
