// SPDX-License-Identifier: Apache-2.0
// Mean around the trimmed mean of each coordinate, Xie et al. 2018.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

template <>
struct RuleOf<Phocas> : CoordinateWiseRule<Phocas> {
  static constexpr RuleText text{
      .name = "phocas",
      .definition = "mean of the n−f values of each coordinate that are closest to its trimmed mean",
      .needs = "n ≥ 2f+1",
      .guarantee = "at most one honest range beyond the honest values of each coordinate",
      .source = "Xie et al. 2018"};
  static constexpr std::tuple parameters{tolerated(&Phocas::f, "0 ≤ f, 2f < n")};
  static constexpr std::array examples = {"phocas(f=F)"};

  static void check(const Phocas& rule, const StagePoints& points) {
    need_majority(text.name, rule.f, points);
  }
  static SelectRule select(const Phocas& rule, int points) {
    return {.kind = SelectRule::Kind::closest_to_trimmed_mean, .f = rule.f, .keep = points - rule.f};
  }
};

}  // namespace bragg::detail
