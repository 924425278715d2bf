// SPDX-License-Identifier: Apache-2.0
// Majority vote of the signs of each coordinate, Bernstein et al. 2019: signSGD.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

template <>
struct RuleOf<SignVote> : CoordinateWiseRule<SignVote> {
  static constexpr RuleText text{
      .name = "sign_vote",
      .definition = "o, and in each coordinate step up or down, as more of the rows lie above or below it",
      .needs = "n ≥ 1",
      .guarantee =
          "within step of o in each coordinate; the step that honest rows vote for, where they are more "
          "than honest rows against it and f",
      .source = "signSGD: Bernstein et al. 2019"};
  static constexpr std::tuple parameters{
      parameter(&SignVote::step, "step", "step > 0", "how far to go from o")};
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"sign_vote", "sign_vote(step=0.25)", "nnm(f=F) | sign_vote",
                                          "quantile_clip | sign_vote(step=0.5)"};

  static void check(const SignVote& rule, const StagePoints&) {
    need_finite(text.name, "step", rule.step, false);
  }
  static SelectRule select(const SignVote& rule, int) {
    return {.kind = SelectRule::Kind::sign_vote, .step = rule.step};
  }
};

}  // namespace bragg::detail
