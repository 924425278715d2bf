// SPDX-License-Identifier: Apache-2.0
// Bulyan, El Mhamdi et al. 2018: repeated Krum chooses S, then each coordinate is averaged around the median
// of S.
#include <algorithm>
#include <numeric>

#include "host/reference/coordinate_wise.hpp"
#include "host/reference/krum.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
Point apply(const Bulyan& rule, Stage& stage) {
  tolerate_infinite(stage, rule.f);
  const int theta = stage.n() - 2 * rule.f;
  std::vector<int> left(stage.points.size());
  std::iota(left.begin(), left.end(), 0);
  Stage chosen = stage;
  chosen.points.clear();
  while (chosen.n() < theta) {
    const int count = static_cast<int>(left.size());
    const int neighbors = count == 1 ? 0 : std::clamp(count - rule.f - 2, 1, count - 1);
    const KrumScores scores = krum_scores(stage, left, neighbors);
    const int winner = least(stage, left, scores.score, scores.terms, 1).front();
    chosen.points.push_back(stage.points[winner]);
    left.erase(std::find(left.begin(), left.end(), winner));
  }
  return each_coordinate(chosen, [&](std::size_t c) {
    const Column sorted = column(chosen, c);
    return mean_of_closest(stage, sorted, median_of(sorted, EvenMedian::midpoint), theta - 2 * rule.f);
  });
}

}  // namespace bragg::reference
