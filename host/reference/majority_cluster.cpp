// SPDX-License-Identifier: Apache-2.0
// The clustering of FLAME, Nguyen et al. 2022, as single linkage by cosine distances.
#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include "host/reference/angles.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

/// What is told apart no better than this counts as equal: which comes first, indices say.
constexpr long double unit = 0x1p-40L;

using Edge = std::tuple<long double, int, int>;

/// Copies, whose cosine is 1 in any arithmetic.
bool alike(const Stage& stage, const Edge& edge) {
  const Point& a = stage.points[std::get<1>(edge)];
  const Point& b = stage.points[std::get<2>(edge)];
  return stage.mixed ? a.coefficients == b.coefficients : a.value == b.value;
}

/// From what separates values that count as equal.
long double to_boundary(long double value) {
  const long double units = value / unit + 0.5L;
  return unit * std::min(units - std::floor(units), std::ceil(units) - units);
}

}  // namespace

template <>
Point apply(const MajorityCluster&, Stage& stage) {
  need_finite(stage.origin);
  const int n = stage.n();
  if (2 * stage.finite_count() <= n) throw Failed{Status::too_many_nonfinite};
  std::vector<Edge> edges;
  for (int i = 0; i < n; ++i) {
    for (int j = i + 1; j < n; ++j) {
      if (stage.points[i].infinite || stage.points[j].infinite) continue;
      edges.emplace_back(1 - cosine(stage, stage.points[i], stage.points[j]), i, j);
    }
  }
  std::sort(edges.begin(), edges.end());
  std::vector<int> component(n);
  for (int i = 0; i < n; ++i) component[i] = i;
  // Which edges are taken before others matters as far as they join other components.
  const auto joined = [&](const Edge& edge) {
    return std::minmax(component[std::get<1>(edge)], component[std::get<2>(edge)]);
  };
  for (std::size_t e = 0; e < edges.size(); ++e) {
    const std::pair<int, int> both = joined(edges[e]);
    if (both.first == both.second) continue;
    bool tied = false;
    for (std::size_t later = e + 1; later < edges.size(); ++later) {
      const std::pair<int, int> others = joined(edges[later]);
      if (others.first == others.second || others == both) continue;
      const long double length = std::get<0>(edges[later]);
      const long double apart = length - std::get<0>(edges[e]);
      if (apart == 0) {
        if (!tied && !(alike(stage, edges[e]) && alike(stage, edges[later]))) {
          decided_by_angle(stage, to_boundary(length));
          tied = true;
        }
        continue;
      }
      if (apart <= unit) stage.margin = 0;
      decided_by_angle(stage, apart - unit);
      break;
    }
    const int from = component[std::get<1>(edges[e])];
    const int to = component[std::get<2>(edges[e])];
    std::replace(component.begin(), component.end(), from, to);
    std::vector<int> members;
    for (int i = 0; i < n; ++i) {
      if (component[i] == to) members.push_back(i);
    }
    if (2 * members.size() > static_cast<std::size_t>(n)) return mean_of(stage, members);
  }
  throw Failed{Status::too_many_nonfinite};
}

}  // namespace bragg::reference
