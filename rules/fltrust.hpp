// SPDX-License-Identifier: Apache-2.0
// FLTrust, Cao et al. 2021: rows count by how much they point as a trusted one does, all at its length.
#pragma once

#include "rules/rule.hpp"
#include "rules/solve/angles.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const FlTrust& rule, const Points& points, Scratch scratch,
                      Combination& out) {
  // A cosine below is of directions that rounding does not tell from orthogonal ones.
  constexpr double least_trust = 1e-12;
  // Stretched by more, a row would bring the rounding of o itself, times as much: whoever hands in o but for
  // one tiny value could have any result. It counts as at o.
  constexpr double shortest = 0x1p-20;
  const int m = points.count;
  clear(team, out, points);
  double* const trust = scratch.take_doubles(static_cast<std::size_t>(m));
  const double length = points.distance(rule.pivot, points.origin());
  team.parallel_for(m, [&](int i) {
    const bool counts =
        i != rule.pivot && points.finite(i) && points.distance(i, points.origin()) > shortest * length;
    const double cosine_i = counts ? cosine(points, i, rule.pivot) : 0;
    trust[i] = cosine_i >= least_trust ? cosine_i : 0;
    out.scores[i] = points.finite(i) ? cosine(points, i, rule.pivot) : __builtin_nan("");
  });
  const double total = team.sum(m, [&](int i) { return trust[i]; });
  // No longer than the trusted row, whatever rounding makes of a row's length.
  const auto share = [&](int i) {
    return trust[i] > 0 ? trust[i] / total * (length / points.length(i, points.origin())) : 0.0;
  };
  team.parallel_for(m, [&](int i) { out.coefficients[i] = share(i); });
  const double shares = team.sum(m, share);
  team.single([&] { out.coefficients[points.origin()] = 1 - shares; });
  return Status::ok;
}

template <>
struct RuleOf<FlTrust> : GeometricRule<FlTrust> {
  static constexpr RuleText text{
      .name = "fltrust",
      .definition =
          "o + Σ t_i (N_p/N_i)(x_i − o) / Σ t_i over the rows but row p = `pivot`, N_i = ‖x_i − o‖, "
          "t_i the cosine between x_i − o and x_p − o, 0 where negative; Σ t_i = 0: o",
      .needs = "n ≥ 2",
      .guarantee = "no farther from o than the trusted row, and at most 90° from it; beyond that heuristic",
      .source = "Cao et al. 2021"};
  static constexpr std::tuple parameters{
      required(&FlTrust::pivot, "pivot", "0 ≤ pivot < n", "index of the trusted row, which is not averaged")};
  static constexpr std::array examples = {"fltrust(pivot=0)", "clip(c=2) | fltrust(pivot=0)",
                                          "nnm(f=F) | fltrust(pivot=0)"};

  static void check(const FlTrust& rule, const StagePoints& points) {
    need_points(text.name, 2, points);
    need_pivot(text.name, rule.pivot, points);
  }
  static int reference(const FlTrust&, const Stage& stage) { return stage.count; }
  static bool stays_by_reference(const FlTrust&) { return true; }
  static constexpr int* pivot(FlTrust& rule) { return &rule.pivot; }
};

}  // namespace bragg::detail
