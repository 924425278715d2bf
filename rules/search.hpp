// SPDX-License-Identifier: Apache-2.0
// Rules that search among subsets of rows. They branch as a host does, and run there.
#pragma once

#include "rules/steps.hpp"

namespace bragg::detail {

/// Runs the step on a block in host memory: search(rule, points, scratch, keep) sets keep[i] = 1 for the
/// points of the best subset, else 0.
template <class RuleT>
void run_search(const SearchStep<RuleT>& step, const SolveBlock& b) {
  if (has_failed(b)) return;
  const SerialTeam team;
  const Points points = points_of(b, step.stage);
  if (count_infinite(team, points) > step.rule.f) return fail(team, b, Status::too_many_nonfinite);
  Combination out{.coefficients = b.coefficients, .scores = b.scores, .clip_factors = b.clip_factors};
  clear(team, out, points);
  auto* const keep = reinterpret_cast<std::uint8_t*>(b.chosen);  // room that no other rule needs
  const Status status = search(step.rule, points, b.doubles, keep);
  if (status != Status::ok) return fail(team, b, status);
  int kept = 0;
  for (int i = 0; i < points.count; ++i) {
    if (keep[i] != 0) b.ints[kept++] = i;
  }
  mean_of(points, b.ints, kept, out.coefficients);
}

}  // namespace bragg::detail
