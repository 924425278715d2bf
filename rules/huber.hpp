// SPDX-License-Identifier: Apache-2.0
// Huber's minimiser, Zhao et al. 2024: squares of distances up to tau, the distances themselves beyond. It is
// what centered clipping converges to.
#pragma once

#include "rules/geometric_median.hpp"

namespace bragg::detail {

template <>
struct RuleOf<Huber> : GeometricRule<Huber> {
  static constexpr RuleText text{
      .name = "huber",
      .definition = "argmin_v Σ φ(‖x_i − v‖), φ(t) = t²/2 up to tau and tau·t − tau²/2 beyond",
      .needs = "n ≥ 1",
      .guarantee =
          "within (1+r)·(2s + tau/2) of the honest mean, r = f/(n−2f), s the root mean square of honest "
          "distances from it, with the default `max_iters` and `tol`",
      .source = "Zhao et al. 2024"};
  static constexpr std::tuple parameters{
      required(&Huber::tau, "tau", "tau > 0", "distance beyond which a row pulls no more than at it"),
      parameter(&Huber::max_iters, "max_iters", "max_iters ≥ 1", "iterations to stop after"),
      parameter(&Huber::tol, "tol", "tol ≥ 0", "as of geometric_median"),
      choice(&Huber::start, "start", "where the iteration starts")};
  static constexpr bool takes_weights = true;
  static constexpr bool weighs_its_majority = true;
  static constexpr std::array examples = {"huber(tau=1)", "huber(tau=0.25, start=mean)",
                                          "huber(tau=1, max_iters=3, tol=0, start=origin)",
                                          "nnm(f=F) | huber(tau=0.5)", "clip(c=2) | huber(tau=1)"};

  static void check(const Huber& rule, const StagePoints&) {
    need_finite(text.name, "tau", rule.tau, false);
    need_at_least(text.name, "max_iters", rule.max_iters, 1);
    need_finite(text.name, "tol", rule.tol, true);
  }
  static int reference(const Huber& rule, const Stage& stage) {
    return rule.start == GeometricMedian::Start::origin ? stage.count : -1;
  }
  static bool forgets_start(const Huber& rule) { return rule.max_iters >= GeometricMedian::plain_iters; }
  using Step = SolveStep<SumOfDistances>;
  static SumOfDistances sum(const Huber& rule) {
    return {.floor = rule.tau,
            .to_convergence = forgets_start(rule),
            .max_iters = rule.max_iters,
            .tol = rule.tol,
            .start = rule.start};
  }
  static Step step(const Huber& rule, const Stage& stage, const SequenceInputs&) {
    return {.rule = sum(rule), .stage = stage, .reference = reference(rule, stage), .out_of_range = true};
  }
};

}  // namespace bragg::detail
