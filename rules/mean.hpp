// SPDX-License-Identifier: Apache-2.0
// The mean.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

/// The mean of points as coefficients.
struct MeanStep {
  Stage stage;
  bool skip = false;  ///< infinite points are left out

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b)) return;
    const double* const weights = b.weights[stage.marks];
    const std::uint8_t* const infinite = b.infinite[stage.marks];
    const auto counts = [&](int i) { return skip && infinite[i] != 0 ? 0.0 : 1.0; };
    const auto weight = [&](int i) { return stage.weighted ? counts(i) * weights[i] : counts(i); };
    const double total = team.sum(stage.count, weight);
    const double counted = skip ? team.sum(stage.count, counts) : 0;
    // No row has a valid weight, or none is finite. Of those that count, weights that vanish against one that
    // does not are alike.
    if (!(total > 0) && !(counted > 0)) return fail(team, b, Status::too_many_nonfinite);
    team.parallel_for(stage.size(), [&](int i) {
      b.coefficients[i] = i >= stage.count ? 0 : total > 0 ? weight(i) / total : counts(i) / counted;
    });
    team.parallel_for(stage.count, [&](int i) { b.clip_factors[i] = 1; });
    if (!stage.mixed || skip) return;
    // A bucket of infinite rows only: the mean is infinite in every coordinate, which combinations cannot
    // say.
    const int found = team.argmin(stage.count, [&](int i) { return infinite[i] != 0 ? 0.0 : 1.0; });
    team.single([&] { b.words->infinite = infinite[found] != 0; });
  }
};

template <>
struct ChoicesOf<Mean::Nonfinite> {
  static constexpr std::array<std::string_view, 2> names = {"propagate", "skip"};
};

template <>
struct RuleOf<Mean> : CoordinateWiseRule<Mean> {
  static constexpr RuleText text{.name = "mean",
                                 .definition = "(1/n) Σ x_i, of all rows or of the finite ones",
                                 .needs = "n ≥ 1",
                                 .guarantee =
                                     "none: one bad row moves it anywhere; one NaN is in the "
                                     "result, unless `nonfinite` is skip",
                                 .source = ""};
  static constexpr std::tuple parameters{choice(
      &Mean::nonfinite, "nonfinite", "rows with NaN or infinity: in the mean, or left out of it and of n")};
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"mean", "mean(nonfinite=skip)",
                                          "bucketing(s=2, seed=3) | mean(nonfinite=skip)"};
  using Step = MeanStep;
  static Step step(const Mean& rule, const Stage& stage, const SequenceInputs&) {
    return {.stage = stage, .skip = rule.nonfinite == Mean::Nonfinite::skip};
  }
  static bool needs_statistics(const Mean& rule) { return rule.nonfinite == Mean::Nonfinite::skip; }
};

}  // namespace bragg::detail
