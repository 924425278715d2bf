// SPDX-License-Identifier: Apache-2.0
#include "rules/search.hpp"

#include "rules/mda.hpp"
#include "rules/smea.hpp"

namespace bragg::detail {

namespace {

/// keep[i] = 1 for the points of the best subset.
Status search(const SearchStep<Mda>& step, const SolveBlock& b, std::uint8_t* keep) {
  const Points points = points_of(b, step.stage);
  const auto n = static_cast<std::size_t>(points.count);
  double* const distances = b.doubles;
  for (int i = 0; i < points.count; ++i) {
    for (int j = 0; j < points.count; ++j) {
      distances[static_cast<std::size_t>(i) * n + static_cast<std::size_t>(j)] =
          points.squared_distance(i, j);
    }
  }
  return solve_mda(distances, points.count, points.count, points.infinite, step.rule.f, keep);
}

Status search(const SearchStep<Smea>& step, const SolveBlock& b, std::uint8_t* keep) {
  const Points points = points_of(b, step.stage);
  return solve_smea(points.gram, points.count, points.size, points.infinite, step.rule.f, keep);
}

}  // namespace

template <class RuleT>
void run_search(const SearchStep<RuleT>& step, const SolveBlock& b) {
  if (has_failed(b)) return;
  const SerialTeam team;
  const Points points = points_of(b, step.stage);
  if (count_infinite(points) > step.rule.f) return fail(team, b, Status::too_many_nonfinite);
  Combination out{.coefficients = b.coefficients, .scores = b.scores, .clip_factors = b.clip_factors};
  clear(team, out, points);
  auto* const keep = reinterpret_cast<std::uint8_t*>(b.chosen);  // room that no other rule needs
  const Status status = search(step, b, keep);
  if (status != Status::ok) return fail(team, b, status);
  int kept = 0;
  for (int i = 0; i < points.count; ++i) {
    if (keep[i] != 0) b.ints[kept++] = i;
  }
  mean_of(points, b.ints, kept, out.coefficients);
}
template void run_search(const SearchStep<Mda>&, const SolveBlock&);
template void run_search(const SearchStep<Smea>&, const SolveBlock&);

}  // namespace bragg::detail
