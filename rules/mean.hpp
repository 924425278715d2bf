// SPDX-License-Identifier: Apache-2.0
// The mean.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

/// The mean of points as coefficients.
struct MeanStep {
  Stage stage;

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b)) return;
    const double* const weights = b.weights[stage.marks];
    const auto weight = [&](int i) { return stage.weighted ? weights[i] : 1.0; };
    const double total = team.sum(stage.count, weight);
    if (!(total > 0)) return fail(team, b, Status::too_many_nonfinite);  // no row has a valid weight
    team.parallel_for(stage.size(),
                      [&](int i) { b.coefficients[i] = i < stage.count ? weight(i) / total : 0; });
    team.parallel_for(stage.count, [&](int i) { b.clip_factors[i] = 1; });
    if (!stage.mixed) return;
    // A bucket of infinite rows only: the mean is infinite in every coordinate, which combinations cannot
    // say.
    const int found =
        team.argmin(stage.count, [&](int i) { return b.infinite[stage.marks][i] != 0 ? 0.0 : 1.0; });
    team.single([&] { b.words->infinite = b.infinite[stage.marks][found] != 0; });
  }
};

template <>
struct RuleOf<Mean> : CoordinateWiseRule<Mean> {
  static constexpr RuleText text{.name = "mean",
                                 .definition = "(1/n) Σ x_i",
                                 .needs = "n ≥ 1",
                                 .guarantee = "none: one bad row moves it anywhere, one NaN is in the result",
                                 .source = ""};
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"mean"};
  using Step = MeanStep;
  static Step step(const Mean&, const Stage& stage, const SequenceInputs&) { return {.stage = stage}; }
};

}  // namespace bragg::detail
