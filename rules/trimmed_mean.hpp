// SPDX-License-Identifier: Apache-2.0
// Trimmed mean of each coordinate, Yin et al. 2018.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

template <>
struct RuleOf<TrimmedMean> : CoordinateWiseRule<TrimmedMean> {
  static constexpr RuleText text{
      .name = "trimmed_mean",
      .definition = "mean of what is left of each coordinate without its f smallest and f largest values",
      .needs = "n ≥ 2f+1",
      .guarantee = "inside the honest range of each coordinate; κ = 6r(1+r), r = f/(n−2f)",
      .source = "Yin et al. 2018"};
  static constexpr std::tuple parameters{tolerated(&TrimmedMean::f, "0 ≤ f, 2f < n")};
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"trimmed_mean(f=F)"};

  static void check(const TrimmedMean& rule, const StagePoints& points) {
    need_majority(text.name, rule.f, points);
  }
  static SelectRule select(const TrimmedMean& rule, int) {
    return {.kind = SelectRule::Kind::trimmed_mean, .f = rule.f};
  }
};

}  // namespace bragg::detail
