// SPDX-License-Identifier: Apache-2.0
// Bulyan, El Mhamdi et al. 2018: a first stage chooses the points that the coordinate-wise second stage sees.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

/// What is left of repeated Krum: every row's neighbours, and its score among the rows that are left. A row
/// that leaves changes each score by one distance, so scores are kept up to date by subtraction, and summed
/// anew only where what rounding may have done decides.
struct KrumRounds {
  static constexpr int won = -1;

  int count;
  const double* distances;  ///< count²
  const int* order;         ///< count²: nearest first
  int* left;                ///< count: > 0, or the row is infinite or `won`
  int* farthest;            ///< count: where in `order` the last neighbour is that counts
  double* score;            ///< count
  double* slack;            ///< count: the sum is no farther from `score`

  BRAGG_HD const int* nearest(int i) const { return order + static_cast<std::size_t>(i) * count; }
  BRAGG_HD double distance(int i, int j) const { return distances[static_cast<std::size_t>(i) * count + j]; }
  BRAGG_HD bool counts(int i, int j) const { return j != i && left[j] > 0; }

  /// The score as it is defined, nearest first.
  BRAGG_HD void sum(int i, int neighbors) const {
    const int* const mine = nearest(i);
    double total = 0;
    BRAGG_HD_UNROLL(1)
    for (int k = 0, found = 0; k < count && found < neighbors; ++k) {
      if (!counts(i, mine[k])) continue;
      total += distance(i, mine[k]);
      farthest[i] = k;
      ++found;
    }
    score[i] = total;
    // Of this sum, the subtractions to come, and the sum that they stand for, at most 2 · neighbors are
    // rounded, none by more than total · 2⁻⁵³; and twice that.
    slack[i] = neighbors * 0x1p-51 * total;
  }
  /// Of one neighbour less: `gone`, or the farthest.
  BRAGG_HD void drop(int i, int gone) const {
    const int* const mine = nearest(i);
    int at = farthest[i];
    const int last = mine[at];
    const double reach = distance(i, last);
    const double to_gone = distance(i, gone);
    const bool counted = to_gone < reach || (to_gone <= reach && gone <= last);
    score[i] -= counted ? to_gone : reach;
    if (counted && gone != last) return;
    do --at;
    while (at > 0 && !counts(i, mine[at]));
    farthest[i] = at;
  }
  BRAGG_HD double lower(int i) const { return left[i] > 0 ? score[i] - slack[i] : infinity; }
  BRAGG_HD double upper(int i) const { return left[i] > 0 ? score[i] + slack[i] : infinity; }

  /// The row of least score, ties to the lowest index.
  template <class TeamT>
  BRAGG_HD int winner(TeamT team, int neighbors) const {
    const int first = team.argmin(count, [&](int i) { return upper(i); });
    const double bound = upper(first);
    const int rival = team.argmin(count, [&](int i) { return i == first ? infinity : lower(i); });
    if (rival == first || lower(rival) > bound) return first;
    team.parallel_for(count, [&](int i) {
      if (lower(i) <= bound && slack[i] > 0) sum(i, neighbors);
    });
    return team.argmin(count, [&](int i) { return lower(i) <= bound ? score[i] : infinity; });
  }
};

/// chosen[0..n−2f) = winners of repeated Krum, ascending. After RankStep.
template <class TeamT>
BRAGG_HD Status select_points(TeamT team, const Bulyan& rule, const Points& points, Scratch scratch,
                              int* chosen) {
  const int m = points.count;
  if (count_infinite(team, points) > rule.f) return Status::too_many_nonfinite;
  const auto n = static_cast<std::size_t>(m);
  const Neighbors near = take_neighbors(scratch, m);
  const KrumRounds rounds{.count = m,
                          .distances = near.distances,
                          .order = near.order,
                          .left = scratch.take_ints(n),
                          .farthest = scratch.take_ints(n),
                          .score = scratch.take_doubles(n),
                          .slack = scratch.take_doubles(n)};
  team.parallel_for(m, [&](int i) {
    rounds.left[i] = points.finite(i);
    rounds.farthest[i] = 0;
  });
  for (int round = 0, before = 0, winner = 0; round < m - 2 * rule.f; ++round) {
    const int remaining = m - round;
    int neighbors = remaining - rule.f - 2;
    if (neighbors < 1) neighbors = 1;
    if (neighbors > remaining - 1) neighbors = remaining - 1;
    const bool one_less = neighbors > 0 && neighbors == before - 1;
    team.parallel_for(m, [&](int i) {
      if (rounds.left[i] <= 0) return;
      if (one_less) {
        rounds.drop(i, winner);
      } else {
        rounds.sum(i, neighbors);
      }
    });
    winner = rounds.winner(team, neighbors);
    before = neighbors;
    team.single([&] { rounds.left[winner] = KrumRounds::won; });
  }
  team.collect(
      m, [&](int i) { return rounds.left[i] == KrumRounds::won; }, chosen);
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
  static constexpr bool ranks = true;
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
