// SPDX-License-Identifier: Apache-2.0
// FABA, Xia et al. 2019: the row farthest from the mean of those left is removed, f times.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const Faba& rule, const Points& points, Scratch scratch, Combination& out) {
  const int m = points.count;
  if (count_infinite(team, points) > rule.f) return Status::too_many_nonfinite;
  clear(team, out, points);
  double* const distances = scratch.take_doubles(static_cast<std::size_t>(m) * m);
  double* const keys = scratch.take_doubles(static_cast<std::size_t>(m));
  int* const left = scratch.take_ints(static_cast<std::size_t>(m));
  int* const chosen = scratch.take_ints(static_cast<std::size_t>(m));
  parallel_for_2d(team, m, m, [&](int i, int j) {
    const bool known = i != j && points.finite(i) && points.finite(j);
    distances[static_cast<std::size_t>(i) * m + j] = known ? points.squared_distance(i, j) : 0;
  });
  team.parallel_for(m, [&](int i) { left[i] = 1; });
  for (int round = 0; round < rule.f; ++round) {
    // With P = Σ p_j over the rows left, ‖x_i − mean‖² is Σ_j p_j ‖x_i − x_j‖² / P less what is the same for
    // all i. The sums are taken afresh each round: a huge row is forgotten when it goes.
    team.parallel_for(m, [&](int i) {
      double total = points.finite(i) ? 0 : infinity;
      BRAGG_HD_UNROLL(1)
      for (int j = 0; j < m && points.finite(i); ++j) {
        if (left[j] != 0 && points.finite(j)) {
          total += points.weight(j) * distances[static_cast<std::size_t>(i) * m + j];
        }
      }
      keys[i] = left[i] != 0 ? -total : infinity;
    });
    // Infinite rows first; of equally far ones that of the highest index.
    const int last = m - 1 - team.argmin(m, [&](int k) { return keys[m - 1 - k]; });
    team.single([&] { left[last] = 0; });
  }
  const int kept = team.collect(
      m, [&](int i) { return left[i] != 0; }, chosen);
  mean_of(team, points, chosen, kept, out.coefficients);
  return Status::ok;
}

template <>
struct RuleOf<Faba> : GeometricRule<Faba> {
  static constexpr RuleText text{
      .name = "faba",
      .definition = "f times the row farthest from the mean of those left is removed; the mean of the rest",
      .needs = "n ≥ 2f+1",
      .guarantee =
          "for n ≥ 3f bad rows that stay are within D/(1−2β) of a mean of honest ones, D the honest "
          "diameter, β = f/(n−f+1)",
      .source = "Xia et al. 2019"};
  static constexpr std::tuple parameters{tolerated(&Faba::f, "0 ≤ f, 2f < n")};
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"faba(f=F)", "nnm(f=F) | faba(f=F)", "arc(f=F) | faba(f=F)"};

  static void check(const Faba& rule, const StagePoints& points) { need_majority(text.name, rule.f, points); }
  /// One chain of additions, which waits for each: the factor is measured.
  static double work(const Faba& rule, int n) { return 8.0 * rule.f * n * n; }
};

}  // namespace bragg::detail
