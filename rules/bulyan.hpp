// SPDX-License-Identifier: Apache-2.0
// Bulyan, El Mhamdi et al. 2018: a first stage chooses the points that the coordinate-wise second stage sees.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

/// chosen[0..n−2f) = winners of repeated Krum, ascending.
template <class TeamT>
BRAGG_HD Status select_points(TeamT team, const Bulyan& rule, const Points& points, Scratch scratch,
                              int* chosen) {
  const int m = points.count;
  if (count_infinite(points) > rule.f) return Status::too_many_nonfinite;
  int* const order =
      scratch.take_ints(static_cast<std::size_t>(m) * m);  // every row's neighbours, nearest first
  int* const left = scratch.take_ints(static_cast<std::size_t>(m));
  double* const scores = scratch.take_doubles(static_cast<std::size_t>(m));
  double* const distances = scratch.take_doubles(static_cast<std::size_t>(m) * m);
  constexpr int won = -1;
  rank_neighbors(team, points, distances, order);
  team.parallel_for(m, [&](int i) { left[i] = points.finite(i); });
  for (int round = 0; round < m - 2 * rule.f; ++round) {
    const int remaining = m - round;
    int neighbors = remaining - rule.f - 2;
    if (neighbors < 1) neighbors = 1;
    if (neighbors > remaining - 1) neighbors = remaining - 1;
    team.parallel_for(m, [&](int i) {
      const int* const mine = order + static_cast<std::size_t>(i) * m;
      double score = left[i] > 0 ? 0 : infinity;
      BRAGG_HD_UNROLL(1)
      for (int k = 0, found = 0; k < m && found < neighbors && left[i] > 0; ++k) {
        if (mine[k] == i || left[mine[k]] <= 0) continue;
        score += distances[static_cast<std::size_t>(i) * m + mine[k]];
        ++found;
      }
      scores[i] = score;
    });
    const int winner = team.argmin(m, [&](int i) { return scores[i]; });
    team.single([&] { left[winner] = won; });
  }
  team.single([&] {
    BRAGG_HD_UNROLL(1)
    for (int i = 0, k = 0; i < m; ++i) {
      if (left[i] == won) chosen[k++] = i;
    }
  });
  return Status::ok;
}

/// Bulyan's first stage.
struct ChooseStep {
  Bulyan rule;
  Stage stage;

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    if (has_failed(b)) return;
    const Status status = select_points(team, rule, points_of(b, stage), b.scratch(), b.chosen);
    if (status != Status::ok) fail(team, b, status);
  }
};

template <>
struct RuleOf<Bulyan> : GeometricRule<Bulyan> {
  static constexpr RuleText text{
      .name = "bulyan",
      .definition =
          "n−2f rows by repeated Krum, then of each coordinate the mean of the n−4f values closest to the "
          "median",
      .needs = "n ≥ 4f+3",
      .guarantee = "at most one honest range beyond the honest values of each coordinate",
      .source = "El Mhamdi et al. 2018"};
  static constexpr std::tuple parameters{tolerated(&Bulyan::f, "0 ≤ f, 4f+3 ≤ n")};
  static constexpr std::array examples = {"bulyan(f=F)"};

  static void check(const Bulyan& rule, const StagePoints& points) {
    need_more_than(text.name, 4, rule.f, points);
  }
  using Step = ChooseStep;
  static Step step(const Bulyan& rule, const Stage& stage, const SequenceInputs&) {
    return {.rule = rule, .stage = stage};
  }
  static int chosen_points(const Bulyan& rule, int points) { return points - 2 * rule.f; }
  static SelectRule select(const Bulyan& rule, int points) {
    return {.kind = SelectRule::Kind::closest_to_median, .keep = points - 2 * rule.f};
  }
};

}  // namespace bragg::detail
