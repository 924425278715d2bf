// SPDX-License-Identifier: Apache-2.0
// The clustering of FLAME, Nguyen et al. 2022: rows that point alike are joined until they are a majority.
#pragma once

#include "rules/rule.hpp"
#include "rules/solve/angles.hpp"

namespace bragg::detail {

template <class TeamT>
BRAGG_HD Status solve(TeamT team, const MajorityCluster&, const Points& points, Scratch scratch,
                      Combination& out) {
  // Cosine distances are told apart to this: what is equal but for rounding is taken in the order of indices.
  constexpr double unit = 0x1p-40;
  const int m = points.count;
  if (2 * points.finite_count() <= m) return Status::too_many_nonfinite;
  clear(team, out, points);
  const auto columns = static_cast<std::size_t>(m);
  double* const apart = scratch.take_doubles(columns * columns);
  int* const link = scratch.take_ints(columns);  // of a point outside the tree: that in it which is nearest
  int* const from = scratch.take_ints(columns);
  int* const to = scratch.take_ints(columns);
  int* const order = scratch.take_ints(columns);
  int* const group = scratch.take_ints(columns);
  parallel_for_2d(team, m, m, [&](int i, int j) {
    const bool known = i != j && points.finite(i) && points.finite(j);
    const double value = known ? std::floor((1 - cosine(points, i, j)) / unit + 0.5) : infinity;
    apart[static_cast<std::size_t>(i) * columns + j] = value;
  });
  // Edges in the order of their length, then of their ends. They join what those of the least tree join,
  // which is made first: m² comparisons for all.
  const auto length = [&](int i, int j) { return apart[static_cast<std::size_t>(i) * columns + j]; };
  const auto comes_first = [&](int a, int b, int c, int d) {  // the edge {a, b} before {c, d}
    const double first = length(a, b);
    const double second = length(c, d);
    if (first != second) return first < second;
    const int low = a < b ? a : b;
    const int other_low = c < d ? c : d;
    return low != other_low ? low < other_low : (a < b ? b : a) < (c < d ? d : c);
  };
  int root = 0;
  while (!points.finite(root)) ++root;
  team.parallel_for(m, [&](int i) {
    link[i] = root;
    group[i] = i == root || !points.finite(i) ? 1 : 0;  // in the tree, or never to be
  });
  const int edges = points.finite_count() - 1;
  for (int k = 0; k < edges; ++k) {
    team.single([&] {
      int next = -1;
      BRAGG_HD_UNROLL(1)
      for (int i = 0; i < m; ++i) {
        if (group[i] != 0) continue;
        if (next < 0 || comes_first(i, link[i], next, link[next])) next = i;
      }
      from[k] = next;
      to[k] = link[next];
      group[next] = 1;
    });
    const int added = from[k];
    team.parallel_for(m, [&](int i) {
      if (group[i] == 0 && comes_first(i, added, i, link[i])) link[i] = added;
    });
  }
  team.single([&] {
    BRAGG_HD_UNROLL(1)
    for (int i = 0; i < m; ++i) group[i] = i;
    BRAGG_HD_UNROLL(1)
    for (int k = 0; k < edges; ++k) order[k] = k;
    int size = 1;
    int cluster = root;
    BRAGG_HD_UNROLL(1)
    for (int k = 0; 2 * size <= m; ++k) {
      // The next edge of those that are left.
      int first = k;
      BRAGG_HD_UNROLL(1)
      for (int l = k + 1; l < edges; ++l) {
        if (comes_first(from[order[l]], to[order[l]], from[order[first]], to[order[first]])) first = l;
      }
      const int edge = order[first];
      order[first] = order[k];
      const int joined = group[from[edge]];
      cluster = group[to[edge]];
      size = 0;
      BRAGG_HD_UNROLL(1)
      for (int i = 0; i < m; ++i) {
        if (group[i] == joined) group[i] = cluster;
        size += group[i] == cluster ? 1 : 0;
      }
    }
    int count = 0;
    BRAGG_HD_UNROLL(1)
    for (int i = 0; i < m; ++i) {
      if (group[i] == cluster) from[count++] = i;
    }
    mean_of(points, from, count, out.coefficients);
  });
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
