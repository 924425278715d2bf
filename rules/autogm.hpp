// SPDX-License-Identifier: Apache-2.0
// AutoGM, Li et al. 2022: a geometric median whose weights follow from how far the rows are from it.
#pragma once

#include "rules/geometric_median.hpp"

namespace bragg::detail {

template <>
struct RuleOf<AutoGm> : GeometricRule<AutoGm> {
  static constexpr RuleText text{
      .name = "autogm",
      .definition =
          "in turn v = argmin_v Σ α_i ‖x_i − v‖, at first with equal weights, and the weights "
          "α_i = max(0, (η − ‖x_i − v‖)/lam) of sum 1, until v stays",
      .needs = "n ≥ 1",
      .guarantee =
          "heuristic: the smaller `lam` is, the fewer rows near each other decide, bad ones too; "
          "with a large `lam` it is `geometric_median`",
      .source = "Li et al. 2022"};
  static constexpr std::tuple parameters{
      required(&AutoGm::lam, "lam", "lam > 0", "distance within which rows share the weight"),
      parameter(&AutoGm::max_iters, "max_iters", "max_iters ≥ 1", "medians to stop after"),
      parameter(
          &AutoGm::tol, "tol", "tol ≥ 0",
          "way of v to stop at, relative to the median distance; of each median as of geometric_median")};
  static constexpr std::array examples = {"autogm(lam=4)", "autogm(lam=0.5)", "nnm(f=F) | autogm(lam=1)",
                                          "clip(c=2) | autogm(lam=2)",
                                          "bucketing(s=2, seed=5) | autogm(lam=8, max_iters=2)"};

  static void check(const AutoGm& rule, const StagePoints&) {
    need_finite(text.name, "lam", rule.lam, false);
    need_at_least(text.name, "max_iters", rule.max_iters, 1);
    need_finite(text.name, "tol", rule.tol, true);
  }
  /// A hundred turns, as many as were seen at n = 1000.
  static double work(const AutoGm&, int n) { return 4e3 * n * n; }
  using Step = SolveStep<SumOfDistances>;
  static SumOfDistances sum(const AutoGm& rule) {
    return {.to_convergence = true, .max_iters = rule.max_iters, .tol = rule.tol, .lam = rule.lam};
  }
  static Step step(const AutoGm& rule, const Stage& stage, const SequenceInputs&) {
    return {.rule = sum(rule), .stage = stage};
  }
};

}  // namespace bragg::detail
