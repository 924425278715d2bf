// SPDX-License-Identifier: Apache-2.0
// Median of each coordinate, Yin et al. 2018.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

template <>
struct RuleOf<Median> : CoordinateWiseRule<Median> {
  static constexpr RuleText text{
      .name = "median",
      .definition = "the middle value of each coordinate; for even n what `even` says of the two middle ones",
      .needs = "n ≥ 1",
      .guarantee = "inside the honest range of each coordinate; κ = 4(1+r)², r = f/(n−2f)",
      .source = "Yin et al. 2018"};
  static constexpr std::tuple parameters{
      choice(&Median::even, "even", "the median of an even number of values")};
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"median", "median(even=lower)", "median(even=upper)"};

  static SelectRule select(const Median& rule, int) {
    return {.kind = SelectRule::Kind::median, .even = rule.even};
  }
};

}  // namespace bragg::detail
