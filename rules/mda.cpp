// SPDX-License-Identifier: Apache-2.0
// A set of diameter ≤ t is what is left when every pair further apart than t has lost a member: the deleted
// points are a vertex cover of the graph of those pairs. Binary search finds the least t that f deletions can
// reach.
#include "rules/mda.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

#include "rules/solve/vertex_cover.hpp"

namespace bragg::detail {

namespace {

/// The finite points, renumbered in order.
struct Distances {
  const double* values;
  std::size_t ld;
  std::vector<int> point;

  int n() const { return static_cast<int>(point.size()); }
  double operator()(int i, int j) const {
    return values[static_cast<std::size_t>(point[static_cast<std::size_t>(i)]) * ld +
                  static_cast<std::size_t>(point[static_cast<std::size_t>(j)])];
  }
};

/// The points further apart than t.
Graph far_pairs(const Distances& distance, double t) {
  Graph graph(distance.n());
  for (int i = 0; i < graph.n; ++i) {
    for (int j = 0; j < i; ++j) {
      if (distance(i, j) > t) graph.connect(i, j);
    }
  }
  return graph;
}

BitSet all_of(int n) {
  BitSet set(n);
  for (int i = 0; i < n; ++i) set.add(i);
  return set;
}

struct Bounds {
  double low;
  double high;
};

/// Of the least diameter. Below: each of `size` points has size−1 others within it. Above: what the nearest
/// `size` points about one of the most central ones reach.
Bounds diameter_bounds(const Distances& distance, int size) {
  const int n = distance.n();
  std::vector<double> reach(static_cast<std::size_t>(n));  // to the (size−1)-th neighbour
  std::vector<double> row(static_cast<std::size_t>(n));
  const auto nth = static_cast<std::ptrdiff_t>(size) - 1;
  const auto radius = [&](int i) {
    for (int j = 0; j < n; ++j) row[static_cast<std::size_t>(j)] = i == j ? 0 : distance(i, j);
    std::nth_element(row.begin(), row.begin() + nth, row.end());
    return row[static_cast<std::size_t>(nth)];
  };
  std::vector<int> central(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) {
    central[static_cast<std::size_t>(i)] = i;
    reach[static_cast<std::size_t>(i)] = radius(i);
  }
  constexpr int tried = 8;
  const int balls = std::min(n, tried);
  const auto nearer = [&](int a, int b) {
    const double ra = reach[static_cast<std::size_t>(a)];
    const double rb = reach[static_cast<std::size_t>(b)];
    return ra < rb || (ra == rb && a < b);
  };
  std::partial_sort(central.begin(), central.begin() + balls, central.end(), nearer);

  Bounds bounds{.low = 0, .high = std::numeric_limits<double>::infinity()};
  std::vector<int> ball(static_cast<std::size_t>(n));
  for (int b = 0; b < balls; ++b) {
    const int center = central[static_cast<std::size_t>(b)];
    for (int i = 0; i < n; ++i) ball[static_cast<std::size_t>(i)] = i;
    std::nth_element(ball.begin(), ball.begin() + nth, ball.end(), [&](int i, int j) {
      const double di = i == center ? 0 : distance(center, i);
      const double dj = j == center ? 0 : distance(center, j);
      return di < dj || (di == dj && i < j);
    });
    double diameter = 0;
    for (int i = 0; i < size; ++i) {
      for (int j = 0; j < i; ++j) {
        diameter = std::max(diameter,
                            distance(ball[static_cast<std::size_t>(i)], ball[static_cast<std::size_t>(j)]));
      }
    }
    bounds.high = std::min(bounds.high, diameter);
  }
  std::nth_element(reach.begin(), reach.begin() + nth, reach.end());
  bounds.low = reach[static_cast<std::size_t>(nth)];
  return bounds;
}

/// The least diameter of n−deletions points; `cover`: points to delete for it.
double least_diameter(const Distances& distance, int deletions, CoverSearch& search, BitSet& cover) {
  const int n = distance.n();
  const Bounds bounds = diameter_bounds(distance, n - deletions);
  std::vector<double> candidates{bounds.high};
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < i; ++j) {
      const double d = distance(i, j);
      if (d >= bounds.low && d < bounds.high) candidates.push_back(d);
    }
  }
  std::sort(candidates.begin(), candidates.end());
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());

  const BitSet everyone = all_of(n);
  const auto feasible = [&](double t) {
    return search.find(far_pairs(distance, t), everyone, deletions, cover);
  };
  std::size_t low = 0;
  std::size_t high = candidates.size() - 1;
  bool held = false;  // cover is of candidates[high]
  while (low < high && !search.exhausted()) {
    const std::size_t middle = low + (high - low) / 2;
    if (feasible(candidates[middle])) {
      high = middle;
      held = true;
    } else {
      low = middle + 1;
    }
  }
  if (!held) feasible(candidates[high]);
  return candidates[high];
}

/// Walks the points in order and keeps each that some set of `size` points of diameter ≤ t holds together
/// with those kept before it. `cover`: what one such set leaves out.
void keep_first(const Graph& graph, int size, CoverSearch& search, BitSet& cover, BitSet& kept) {
  BitSet alive = all_of(graph.n);
  int budget = graph.n - size;
  int count = 0;
  BitSet rest(graph.n);
  BitSet found(graph.n);
  for (int i = 0; i < graph.n && count < size; ++i) {
    if (!alive.has(i)) continue;
    rest = alive;
    rest.remove(i);
    rest -= graph.of(i);
    const int left = budget - (alive.count() - 1 - rest.count());
    bool keep = !cover.has(i);
    if (!keep && search.find(graph, rest, left, found)) {
      keep = true;
      cover = found;
    }
    if (search.exhausted()) return;
    if (keep) {
      alive = rest;
      budget = left;
      kept.add(i);
      ++count;
    } else {
      alive.remove(i);
      --budget;
    }
  }
}

}  // namespace

Status solve_mda(const double* squared_distances, int m, int ld, const std::uint8_t* infinite, int f,
                 std::uint8_t* keep) {
  Distances distance{.values = squared_distances, .ld = static_cast<std::size_t>(ld), .point = {}};
  for (int i = 0; i < m; ++i) {
    keep[i] = 0;
    if (!infinite[i]) distance.point.push_back(i);
  }
  const int size = m - f;
  CoverSearch search(mda_work_limit);
  BitSet cover(distance.n());
  BitSet kept(distance.n());
  const double diameter = least_diameter(distance, distance.n() - size, search, cover);
  if (!search.exhausted()) keep_first(far_pairs(distance, diameter), size, search, cover, kept);
  if (search.exhausted()) return Status::too_large;
  kept.for_each([&](int i) { keep[distance.point[static_cast<std::size_t>(i)]] = 1; });
  return Status::ok;
}

Status search(const Mda& rule, const Points& points, double* distances, std::uint8_t* keep) {
  const auto n = static_cast<std::size_t>(points.count);
  for (int i = 0; i < points.count; ++i) {
    for (int j = 0; j < points.count; ++j) {
      distances[static_cast<std::size_t>(i) * n + static_cast<std::size_t>(j)] =
          points.squared_distance(i, j);
    }
  }
  return solve_mda(distances, points.count, points.count, points.infinite, rule.f, keep);
}

}  // namespace bragg::detail
