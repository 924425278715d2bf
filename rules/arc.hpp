// SPDX-License-Identifier: Apache-2.0
// Adaptive robust clipping, Allouah et al. 2024.
#pragma once

#include "rules/clip.hpp"
#include "rules/rule.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status transform(TeamT team, const Arc& rule, const Points& points, Scratch scratch,
                          Transform& out) {
  const int m = points.count;
  if (count_infinite(team, points) > rule.f) return Status::too_many_nonfinite;
  const int clipped = static_cast<int>(2 * static_cast<std::int64_t>(rule.f) * (m - rule.f) / m);
  // The (clipped+1)-th largest; from below where it is not clear, as the others are from above.
  const auto [norms, last] = rank_norms(team, points, m - clipped, scratch);
  const double below = points.squared_distance(last, points.origin()) - points.unclear(last, points.origin());
  const double bound = below > 0 ? std::sqrt(below) : 0;
  return clip_rows(
      team, points, bound, [norms = norms](int i) { return norms[i]; }, out);
}

template <>
struct RuleOf<Arc> : PreAggregatingRule<Arc> {
  static constexpr RuleText text{
      .name = "arc",
      .definition = "the k = ⌊2f(n−f)/n⌋ rows of largest norm about o are scaled to the (k+1)-th largest",
      .needs = "n ≥ 2f+1",
      .guarantee = "no row is longer than the longest honest row",
      .source = "Allouah et al. 2024"};
  static constexpr std::tuple parameters{tolerated(&Arc::f, "0 ≤ f, 2f < n")};
  static constexpr Products products = Products::lengths;
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"arc(f=F) | trimmed_mean(f=F)", "arc(f=F) | multi_krum(f=F)",
                                          "arc(f=F) | nnm(f=F) | trimmed_mean(f=F)",
                                          "arc(f=F) | clip(c=2) | cge(f=F)"};

  static void check(const Arc& rule, const StagePoints& points) { need_majority(text.name, rule.f, points); }
  static int reference(const Arc&, const Stage& stage) { return stage.count; }
};

}  // namespace bragg::detail
