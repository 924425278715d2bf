// SPDX-License-Identifier: Apache-2.0
// Krum and Multi-Krum, Blanchard et al. 2017.
#include "host/reference/krum.hpp"

#include <algorithm>
#include <numeric>
#include <optional>

#include "host/reference/rules.hpp"

namespace bragg::reference {

KrumScores krum_scores(const Stage& stage, const std::vector<int>& candidates, int neighbors) {
  KrumScores out;
  for (const int i : candidates) {
    std::vector<std::pair<long double, long double>> others;  // D_ij and the size of its terms
    for (const int j : candidates) {
      const Point& a = stage.points[i];
      const Point& b = stage.points[j];
      if (j != i) others.emplace_back(squared_distance(a, b), distance_terms(a, b));
    }
    std::sort(others.begin(), others.end());
    out.score.push_back(0);
    out.terms.push_back(0);
    for (int k = 0; k < neighbors; ++k) {
      out.score.back() += others[k].first;
      out.terms.back() += others[k].second;
    }
  }
  return out;
}

namespace {

std::vector<int> least_scores(Stage& stage, int f, std::optional<int> neighbors, int keep) {
  tolerate_infinite(stage, f);
  std::vector<int> all(stage.points.size());
  std::iota(all.begin(), all.end(), 0);
  const KrumScores scores = krum_scores(stage, all, neighbors.value_or(stage.n() - f - 2));
  return least(stage, scores.score, scores.terms, keep);
}

}  // namespace

template <>
Point apply(const Krum& rule, Stage& stage) {
  return mean_of(stage, least_scores(stage, rule.f, rule.neighbors, 1));
}

template <>
Point apply(const MultiKrum& rule, Stage& stage) {
  const int m = rule.m.value_or(stage.n() - rule.f);
  return mean_of(stage, least_scores(stage, rule.f, rule.neighbors, m));
}

}  // namespace bragg::reference
