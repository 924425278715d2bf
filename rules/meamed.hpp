// SPDX-License-Identifier: Apache-2.0
// Mean around the median of each coordinate, Xie et al. 2018.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

template <>
struct RuleOf<Meamed> : CoordinateWiseRule<Meamed> {
  static constexpr RuleText text{
      .name = "meamed",
      .definition = "mean of the n−f values of each coordinate that are closest to its median",
      .needs = "n ≥ 2f+1",
      .guarantee = "at most one honest range beyond the honest values of each coordinate",
      .source = "Xie et al. 2018"};
  static constexpr std::tuple parameters{tolerated(&Meamed::f, "0 ≤ f, 2f < n")};
  static constexpr std::array examples = {"meamed(f=F)"};

  static void check(const Meamed& rule, const StagePoints& points) {
    need_majority(text.name, rule.f, points);
  }
  static SelectRule select(const Meamed& rule, int points) {
    return {.kind = SelectRule::Kind::closest_to_median, .f = rule.f, .keep = points - rule.f};
  }
};

}  // namespace bragg::detail
