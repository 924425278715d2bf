// SPDX-License-Identifier: Apache-2.0
// Clipping about o to a quantile of the norms, as SignGuard (Xu et al. 2022) and FLAME (Nguyen et al. 2022)
// clip to their median.
#pragma once

#include "rules/clip.hpp"
#include "rules/rule.hpp"

namespace bragg::detail {

/// ⌈q·n⌉, at least 1: rows whose norms are kept.
BRAGG_HD inline int norms_kept(const QuantileClip& rule, int n) {
  // A product with a decimal fraction may come out just above the integer that is meant.
  const auto rank = static_cast<int>(std::ceil(rule.q * n - 1e-9));
  return rank < 1 ? 1 : rank;
}

template <class TeamT>
BRAGG_HD Status transform(TeamT team, const QuantileClip& rule, const Points& points, Scratch scratch,
                          Transform& out) {
  const auto [norms, last] = rank_norms(team, points, norms_kept(rule, points.count), scratch);
  // Infinite: finite points stay as they are. Not from above where it is not clear: a row at o has length 0.
  const double bound = points.distance(last, points.origin());
  return clip_rows(
      team, points, bound, [norms = norms](int i) { return norms[i]; }, out);
}

template <>
struct RuleOf<QuantileClip> : PreAggregatingRule<QuantileClip> {
  static constexpr RuleText text{
      .name = "quantile_clip",
      .definition =
          "o + (x_i − o)·min(1, c/‖x_i − o‖), c the ⌈q·n⌉-th smallest norm about o; an infinite row becomes "
          "o",
      .needs = "n ≥ 1",
      .guarantee = "with at most (1−q)·n bad rows none is longer than the longest honest row",
      .source = "Nguyen et al. 2022, Xu et al. 2022"};
  static constexpr std::tuple parameters{
      parameter(&QuantileClip::q, "q", "0 < q ≤ 1", "share of the rows whose norms are kept")};
  static constexpr Products products = Products::lengths;
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {
      "quantile_clip | mean",
      "quantile_clip(q=0.75) | median",
      "quantile_clip(q=0.3) | trimmed_mean(f=F)",
      "quantile_clip(q=1) | mean(nonfinite=skip)",
      "quantile_clip | geometric_median",
      "quantile_clip | nnm(f=F) | trimmed_mean(f=F)",
      "bucketing(s=2, seed=5) | quantile_clip(q=0.6) | mean",
  };

  static void check(const QuantileClip& rule, const StagePoints&) { need_share(text.name, "q", rule.q); }
  static int reference(const QuantileClip&, const Stage& stage) { return stage.count; }
  static int may_be_bad(const QuantileClip& rule, int n) { return n - norms_kept(rule, n); }
};

}  // namespace bragg::detail
