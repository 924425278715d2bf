// SPDX-License-Identifier: Apache-2.0
// Centered clipping, Karimireddy et al. 2021.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

/// Starts at the pivot, or at the previous output where the points have one, else at o: the caller passes no
/// previous row otherwise.
template <class TeamT>
BRAGG_HD Status solve(TeamT team, const CenteredClipping& rule, const Points& points, Scratch scratch,
                      Combination& out) {
  const int m = points.count;
  const int size = points.size;
  const int start = rule.start == CenteredClipping::Start::pivot ? rule.pivot : size - 1;
  clear(team, out, points);
  double* const v = out.coefficients;
  double* const gram = scratch.take_doubles(static_cast<std::size_t>(size) * size);
  double* const image = scratch.take_doubles(static_cast<std::size_t>(size));
  double* const distance = scratch.take_doubles(static_cast<std::size_t>(m));
  // About the starting point: v leaves it by tau an iteration at most, so the lengths that matter are from
  // there.
  center(team, points, start, gram);
  const auto entry = [&](int i, int j) { return gram[static_cast<std::size_t>(i) * size + j]; };
  // ‖x_i − v‖, from above where it is not clear: no row pulls by more than tau.
  const auto measure = [&] {
    team.parallel_for(size, [&](int i) {
      double total = 0;
      for (int j = 0; j < size; ++j) total += entry(i, j) * v[j];
      image[i] = total;
    });
    const double vv = team.sum(size, [&](int i) { return v[i] * image[i]; });
    const double reach = 2 * points.extent_of(start) +
                         team.sum(size, [&](int i) { return std::fabs(v[i]) * points.extent_of(i); });
    team.parallel_for(m, [&](int i) {
      const double squared = (entry(i, i) - image[i]) + (vv - image[i]);
      const double extent = points.extent_of(i) + reach;
      const double error = points.rounding * extent * extent;
      distance[i] = !points.finite(i)               ? infinity
                    : error > clear_share * squared ? std::sqrt((squared > 0 ? squared : 0) + error)
                                                    : std::sqrt(squared);
    });
  };

  const double tau = rule.tau * points.scale;
  const double total = team.sum(m, [&](int i) { return points.weight(i); });
  team.single([&] { v[start] = 1; });
  for (; out.iterations < rule.iters; ++out.iterations) {
    measure();
    team.parallel_for(
        m, [&](int i) { out.clip_factors[i] = points.finite(i) ? clip_factor(distance[i], tau) : 0; });
    // An infinite row pulls with 0 and still counts in the total.
    const auto share = [&](int i) {
      return total > 0 ? points.weight(i) * out.clip_factors[i] / total : 0.0;
    };
    const double moved = team.sum(m, share);
    team.parallel_for(size, [&](int i) { v[i] = v[i] * (1 - moved) + (i < m ? share(i) : 0.0); });
  }
  return Status::ok;
}

template <>
struct ChoicesOf<CenteredClipping::Start> {
  static constexpr std::array<std::string_view, 4> names = {"previous", "reference", "origin", "pivot"};
};

template <>
struct RuleOf<CenteredClipping> : GeometricRule<CenteredClipping> {
  static constexpr RuleText text{.name = "centered_clipping",
                                 .definition = "iters times v ← v + (1/n) Σ (x_i − v)·min(1, tau/‖x_i − v‖)",
                                 .needs = "n ≥ 1",
                                 .guarantee = "bad rows move v by at most tau·f/n an iteration",
                                 .source = "Karimireddy et al. 2021"};
  static constexpr std::tuple parameters{
      required(&CenteredClipping::tau, "tau", "tau > 0", "radius that updates are clipped to"),
      parameter(&CenteredClipping::iters, "iters", "iters ≥ 1", "iterations"),
      choice(&CenteredClipping::start, "start", "the first v; previous: the plan's last output"),
      parameter(&CenteredClipping::pivot, "pivot", "0 ≤ pivot < n",
                "index of the trusted row, for start = pivot")};
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"centered_clipping(tau=1)", "centered_clipping(tau=2, iters=5)",
                                          "centered_clipping(tau=1, start=pivot)",
                                          "nnm(f=F) | centered_clipping(tau=1, iters=3, start=pivot)"};

  static void check(const CenteredClipping& rule, const StagePoints& points) {
    need_finite(text.name, "tau", rule.tau, false);
    need_at_least(text.name, "iters", rule.iters, 1);
    if (starts_at_pivot(rule)) {
      need_pivot(text.name, rule.pivot, points);
    } else {
      need_between(text.name, "pivot", rule.pivot, 0, 0, "start = pivot");
    }
  }
  static int reference(const CenteredClipping& rule, const Stage& stage) {
    // The previous output, or the origin where there is none.
    return starts_at_pivot(rule) ? -1 : stage.size() - 1;
  }
  static bool stays_by_reference(const CenteredClipping& rule) { return !starts_at_pivot(rule); }
  static constexpr bool starts_at_pivot(const CenteredClipping& rule) {
    return rule.start == CenteredClipping::Start::pivot;
  }
  static constexpr int* pivot(CenteredClipping& rule) {
    return starts_at_pivot(rule) ? &rule.pivot : nullptr;
  }
  static Memory memory(const CenteredClipping& rule) {
    return rule.start == CenteredClipping::Start::previous ? Memory::previous : Memory::none;
  }
};

}  // namespace bragg::detail
