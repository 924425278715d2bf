// SPDX-License-Identifier: Apache-2.0
// Nearest-neighbour mixing, Allouah et al. 2023.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status transform(TeamT team, const Nnm& rule, const Points& points, Scratch scratch,
                          Transform& out) {
  const int m = points.count;
  const int near = m - rule.f;
  if (count_infinite(team, points) > rule.f) return Status::too_many_nonfinite;
  const Neighbors neighbors = take_neighbors(scratch, m);
  team.parallel_for(m, [&](int i) {
    int* const mine = neighbors.nearest(i);
    double* const coefficients = out.coefficients + static_cast<std::size_t>(i) * points.size;
    if (points.finite(i)) {
      mean_of(points, mine, near, coefficients);
    } else {
      mean_of_first_finite(points, near, mine, coefficients);
    }
    out.infinite[i] = 0;
  });
  out.count = m;
  out.weighted = false;  // consumed by the means
  return Status::ok;
}

template <>
struct RuleOf<Nnm> : PreAggregatingRule<Nnm> {
  static constexpr RuleText text{
      .name = "nnm",
      .definition = "each row becomes the mean of the n−f rows nearest to it, itself included",
      .needs = "n ≥ 2f+1",
      .guarantee = "the κ of the rule after it becomes 8f/(n−f)·(κ+1)",
      .source = "Allouah et al. 2023"};
  static constexpr std::tuple parameters{tolerated(&Nnm::f, "0 ≤ f, 2f < n")};
  static constexpr Products products = Products::pairs;
  static constexpr bool merges = true;
  static constexpr bool ranks = true;
  static constexpr bool takes_weights = true;
  static constexpr bool consumes_weights = true;
  static constexpr std::array examples = {"nnm(f=F) | mean",
                                          "nnm(f=F) | median",
                                          "nnm(f=F) | trimmed_mean(f=F)",
                                          "nnm(f=F) | meamed(f=F)",
                                          "nnm(f=F) | phocas(f=F)",
                                          "nnm(f=F) | multi_krum(f=F)",
                                          "nnm(f=F) | geometric_median",
                                          "nnm(f=F) | centered_clipping(tau=1, iters=3)",
                                          "nnm(f=F) | cge(f=F)",
                                          "nnm(f=F) | bulyan(f=F)"};

  static std::optional<NeededOrder> needed_order(const Nnm& rule, int n) {
    return NeededOrder{.taken = n - rule.f};
  }
  static void check(const Nnm& rule, const StagePoints& points) { need_majority(text.name, rule.f, points); }
};

}  // namespace bragg::detail
