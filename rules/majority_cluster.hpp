// SPDX-License-Identifier: Apache-2.0
// The clustering of FLAME, Nguyen et al. 2022: rows that point alike are joined until they are a majority.
#pragma once

#include "rules/rule.hpp"
#include "rules/solve/angles.hpp"
#include "rules/solve/ranking.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const MajorityCluster&, const Points& points, Scratch scratch,
                      Combination& out) {
  // Cosine distances are told apart to this: what is equal but for rounding is taken in the order of indices.
  constexpr double unit = 0x1p-40;
  const int m = points.count;
  const int finite = m - count_infinite(team, points);
  if (2 * finite <= m) return Status::too_many_nonfinite;
  clear(team, out, points);
  const auto columns = static_cast<std::size_t>(m);
  double* const apart = scratch.take_doubles(columns * columns);
  int* const link = scratch.take_ints(columns);  // of a point outside the tree: that in it which is nearest
  int* const from = scratch.take_ints(columns);
  int* const to = scratch.take_ints(columns);
  int* const group = scratch.take_ints(columns);
  int* const order = scratch.take_ints(columns);
  int* const by_ends = scratch.take_ints(columns);
  double* const keys = scratch.take_doubles(columns);
  parallel_for_2d(team, m, m, [&](int i, int j) {
    const bool known = i != j && points.finite(i) && points.finite(j);
    const double value = known ? std::floor((1 - cosine(points, i, j)) / unit + 0.5) : infinity;
    apart[static_cast<std::size_t>(i) * columns + j] = value;
  });
  // Edges in the order of their length, then of their ends. They join what those of the least tree join,
  // which is made first: m² comparisons for all.
  const auto length = [&](int i, int j) { return apart[static_cast<std::size_t>(i) * columns + j]; };
  const auto ends = [](int a, int b) {  // indices have 16 bits
    return (a < b ? a : b) * 65536.0 + (a < b ? b : a);
  };
  const auto is_outside = [&](int i) { return group[i] == 0; };
  const int root = team.argmin(m, [&](int i) { return points.finite(i) ? 0.0 : 1.0; });
  team.parallel_for(m, [&](int i) {
    link[i] = root;
    group[i] = i == root || !points.finite(i) ? 1 : 0;  // in the tree, or never to be
  });
  const int edges = finite - 1;
  for (int k = 0; k < edges; ++k) {
    const int shortest = team.argmin(m, [&](int i) { return is_outside(i) ? length(i, link[i]) : infinity; });
    const double least = length(shortest, link[shortest]);
    const int next = team.argmin(
        m, [&](int i) { return is_outside(i) && length(i, link[i]) == least ? ends(i, link[i]) : infinity; });
    team.parallel_for(m, [&](int i) {
      if (i == next) {
        from[k] = i;
        to[k] = link[i];
        group[i] = 1;
      } else if (is_outside(i)) {
        const double now = length(i, link[i]);
        const double other = length(i, next);
        if (other < now || (other == now && ends(i, next) < ends(i, link[i]))) link[i] = next;
      }
    });
  }
  // By their ends, and those by their length.
  sort(
      team, edges, [&](int e) { return ends(from[e], to[e]); }, keys, by_ends, link);
  sort(
      team, edges, [&](int e) { return length(from[by_ends[e]], to[by_ends[e]]); }, keys, order, link);
  // Trees of rows that hang together: what group[i] leads to, of as many rows as link says.
  int* const trees = group;
  int* const size = link;
  team.parallel_for(m, [&](int i) {
    trees[i] = i;
    size[i] = 1;
  });
  const auto root_of = [&](int i) {
    while (trees[i] != i) i = trees[i];
    return i;
  };
  team.single([&] {
    int joined = 0;
    BRAGG_HD_UNROLL(1)
    for (int k = 0, most = 1; 2 * most <= m; ++k) {
      const int edge = by_ends[order[k]];
      const int a = root_of(from[edge]);
      const int b = root_of(to[edge]);
      joined = size[a] < size[b] ? b : a;  // so no row is far from its tree's root
      trees[joined == a ? b : a] = joined;
      most = size[a] + size[b];
      size[joined] = most;
    }
    order[0] = joined;
  });
  const int cluster = order[0];
  const int count = team.collect(
      m, [&](int i) { return root_of(i) == cluster; }, from);
  mean_of(team, points, from, count, out.coefficients);
  return Status::ok;
}

template <>
struct RuleOf<MajorityCluster> : GeometricRule<MajorityCluster> {
  static constexpr RuleText text{
      .name = "majority_cluster",
      .definition =
          "rows are joined in the order of their angles, seen from o, until more than n/2 hang "
          "together; the mean of these",
      .needs = "n ≥ 2",
      .guarantee =
          "heuristic: most of the rows that count may be bad ones linked to honest ones; lengths are "
          "unbounded without `quantile_clip` before it",
      .source = "Nguyen et al. 2022"};
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"majority_cluster", "quantile_clip | majority_cluster",
                                          "nnm(f=F) | majority_cluster",
                                          "bucketing(s=2, seed=4) | majority_cluster"};

  static void check(const MajorityCluster&, const StagePoints& points) { need_points(text.name, 2, points); }
  static int reference(const MajorityCluster&, const Stage& stage) { return stage.count; }
  static bool stays_by_reference(const MajorityCluster&) { return true; }
};

}  // namespace bragg::detail
