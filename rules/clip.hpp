// SPDX-License-Identifier: Apache-2.0
// Static clipping about o.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

/// z_i = o + (x_i − o)·factor. An infinite row becomes o.
BRAGG_HD inline void scale_about_origin(const Points& points, int i, double factor, Transform& out) {
  double* const coefficients = out.coefficients + static_cast<std::size_t>(i) * points.size;
  if (!points.finite(i)) factor = 0;
  if (factor > 0) coefficients[i] = factor;
  coefficients[points.origin()] = 1 - factor;
  out.clip_factors[i] = factor;
  out.infinite[i] = 0;
  if (points.weights != nullptr) out.weights[i] = points.weights[i];
}

/// Every row clipped to `bound`; norm(i) is row i's about o.
template <class TeamT, class NormF>
BRAGG_HD Status clip_rows(TeamT team, const Points& points, double bound, NormF norm, Transform& out) {
  team.parallel_for(points.count,
                    [&](int i) { scale_about_origin(points, i, clip_factor(norm(i), bound), out); });
  out.count = points.count;
  out.weighted = points.weights != nullptr;
  return Status::ok;
}

/// The rows' norms about o, and the row that has the k-th smallest.
struct RankedNorms {
  double* norms;
  int kth;
};
template <class TeamT>
BRAGG_HD RankedNorms rank_norms(TeamT team, const Points& points, int k, Scratch scratch) {
  const int m = points.count;
  double* const norms = scratch.take_doubles(static_cast<std::size_t>(m));
  team.parallel_for(m, [&](int i) { norms[i] = points.length(i, points.origin()); });
  const int* const order = smallest(team, scratch, m, k, [&](int i) { return norms[i]; });
  return {norms, order[k - 1]};
}

template <class TeamT>
BRAGG_HD Status transform(TeamT team, const Clip& rule, const Points& points, Scratch, Transform& out) {
  return clip_rows(
      team, points, rule.c * points.scale, [&](int i) { return points.length(i, points.origin()); }, out);
}

template <>
struct RuleOf<Clip> : PreAggregatingRule<Clip> {
  static constexpr RuleText text{
      .name = "clip",
      .definition = "o + (x_i − o)·min(1, c/‖x_i − o‖), o the origin or the base; an infinite row becomes o",
      .needs = "n ≥ 1",
      .guarantee = "no row is farther than c from o",
      .source = ""};
  static constexpr std::tuple parameters{
      required(&Clip::c, "c", "c ≥ 0", "longest distance from o that is kept")};
  static constexpr Products products = Products::lengths;
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"clip(c=2) | mean",
                                          "clip(c=2) | trimmed_mean(f=F)",
                                          "clip(c=1) | caf(f=F)",
                                          "nnm(f=F) | clip(c=1) | smea(f=F)",
                                          "clip(c=3) | bucketing(s=2, seed=1) | nnm(f=1) | median",
                                          "bucketing(s=2, seed=5) | clip(c=1) | mean"};

  static void check(const Clip& rule, const StagePoints&) { need_finite(text.name, "c", rule.c, true); }
  static int reference(const Clip&, const Stage& stage) { return stage.count; }
};

}  // namespace bragg::detail
