// SPDX-License-Identifier: Apache-2.0
// FABA, Xia et al. 2019: f times, the point farthest from the mean of those left goes.
#include <algorithm>
#include <numeric>

#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

/// One point fewer: infinite ones first; of equally far ones that of the highest index.
void remove_farthest(Stage& stage, std::vector<int>& left) {
  const auto is_infinite = [&](int i) { return stage.points[i].infinite; };
  const auto infinite = std::find_if(left.rbegin(), left.rend(), is_infinite);
  if (infinite != left.rend()) {
    left.erase(std::next(infinite).base());
    return;
  }
  const Point mean = mean_of(stage, left);
  Vector score;
  Vector terms;
  for (const int i : left) {
    score.push_back(squared_distance(stage.points[i], mean));
    terms.push_back(distance_terms(stage.points[i], mean));
  }
  left = least(stage, left, score, terms, static_cast<int>(left.size()) - 1);
  std::sort(left.begin(), left.end());
}

}  // namespace

template <>
Point apply(const Faba& rule, Stage& stage) {
  tolerate_infinite(stage, rule.f);
  std::vector<int> left(stage.points.size());
  std::iota(left.begin(), left.end(), 0);
  for (int round = 0; round < rule.f; ++round) remove_farthest(stage, left);
  return mean_of(stage, left);
}

}  // namespace bragg::reference
