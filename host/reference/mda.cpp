// SPDX-License-Identifier: Apache-2.0
// Minimum-diameter averaging, El Mhamdi et al. 2018: every (n−f)-subset is looked at.
#include <algorithm>

#include "host/reference/rules.hpp"
#include "host/reference/subsets.hpp"

namespace bragg::reference {

namespace {

/// The index of the first point equal to each.
std::vector<int> first_equal(const Stage& stage) {
  std::vector<int> out;
  const auto differ = [](const Point& a, const Point& b) { return a.value != b.value || a.rest != b.rest; };
  for (int i = 0; i < stage.n(); ++i) {
    int first = 0;
    while (first < i && differ(stage.points[first], stage.points[i])) ++first;
    out.push_back(first);
  }
  return out;
}

}  // namespace

template <>
Point apply(const Mda& rule, Stage& stage) {
  tolerate_infinite(stage, rule.f);
  const int n = stage.n();
  std::vector<Vector> squared(stage.points.size());
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) squared[i].push_back(squared_distance(stage.points[i], stage.points[j]));
  }

  std::vector<int> best;
  long double least_diameter = infinity;
  std::pair<int, int> widest{0, 0};
  for_each_subset(n, n - rule.f, [&](const std::vector<int>& subset) {
    long double diameter = 0;
    std::pair<int, int> ends{subset.front(), subset.front()};
    for (const int i : subset) {
      for (const int j : subset) {
        if (squared[i][j] > diameter) {
          diameter = squared[i][j];
          ends = {i, j};
        }
      }
    }
    if (best.empty() || diameter < least_diameter) {
      best = subset;
      least_diameter = diameter;
      widest = ends;
    }
  });

  // The choice is which pairs are no farther apart than the widest pair of the best subset. It stands as long
  // as no other pair changes sides; copies of a row are one row.
  const std::vector<int> same = first_equal(stage);
  const auto pair_of = [&](int i, int j) { return std::minmax(same[i], same[j]); };
  const auto [wide_a, wide_b] = pair_of(widest.first, widest.second);
  const long double wide_terms = distance_terms(stage.points[wide_a], stage.points[wide_b]);
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < i; ++j) {
      const auto [a, b] = pair_of(i, j);
      if ((a == wide_a && b == wide_b) || a == b || stage.points[i].infinite || stage.points[j].infinite)
        continue;
      const long double terms = std::max(wide_terms, distance_terms(stage.points[i], stage.points[j]));
      stage.decided(std::min(squared[i][j], least_diameter), std::max(squared[i][j], least_diameter), terms);
    }
  }
  return mean_of(stage, best);
}

}  // namespace bragg::reference
