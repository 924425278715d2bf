// SPDX-License-Identifier: Apache-2.0
// The order of n-sized keys: the same on a host and by a thread block, whatever the keys are.
#pragma once

#include "rules/solve/points.hpp"

namespace bragg::detail {

/// Leaves in heap[0..k) the indices of the k smallest of key(0), …, key(n−1), ascending by (key, index).
/// A bounded heap: n log k whatever the keys are, so no data can make it slow.
template <class KeyF>
BRAGG_HD void smallest(int n, int k, int* heap, KeyF key) {
  const auto after = [&](int a, int b) {
    const double ka = key(a);
    const double kb = key(b);
    return ka > kb || (!(ka < kb) && a > b);
  };
  const auto sift_down = [&](int root, int size) {
    for (;;) {
      int child = 2 * root + 1;
      if (child >= size) return;
      if (child + 1 < size && after(heap[child + 1], heap[child])) ++child;
      if (!after(heap[child], heap[root])) return;
      const int other = heap[root];
      heap[root] = heap[child];
      heap[child] = other;
      root = child;
    }
  };
  BRAGG_HD_UNROLL(1)
  for (int i = 0; i < k; ++i) heap[i] = i;
  BRAGG_HD_UNROLL(1)
  for (int i = k / 2 - 1; i >= 0; --i) sift_down(i, k);
  BRAGG_HD_UNROLL(1)
  for (int i = k; i < n && k > 0; ++i) {
    if (after(heap[0], i)) {
      heap[0] = i;
      sift_down(0, k);
    }
  }
  BRAGG_HD_UNROLL(1)
  for (int size = k - 1; size > 0; --size) {
    const int other = heap[0];
    heap[0] = heap[size];
    heap[size] = other;
    sift_down(0, size);
  }
}

/// order = the indices of keys[0..n), none NaN, ascending by (key, index), by a team in step. Each of a run
/// counts what comes before it there; then runs are merged by twos, in shares of which each finds its
/// beginning by bisection. n log n steps, which a team shares, whatever the keys are. `spare`: n.
template <class TeamT>
BRAGG_HD_CALLED void sort_indices(TeamT team, int n, const double* keys, int* order, int* spare) {
  constexpr int counted = 16;  // of a run at first
  constexpr int members = 256;
  int share = 1;
  while (share < counted && share * members < n) share *= 2;
  int rounds = 0;
  for (int length = counted; length < n; length *= 2) ++rounds;
  int* from = rounds % 2 == 0 ? order : spare;
  int* to = rounds % 2 == 0 ? spare : order;
  team.parallel_for(n, [&](int i) {
    const int first = i / counted * counted;
    const int end = first + counted < n ? first + counted : n;
    const double mine = keys[i];
    int place = first;
    BRAGG_HD_UNROLL(4)
    for (int j = first; j < end; ++j) {
      const double other = keys[j];
      place += static_cast<int>(other < mine) | (static_cast<int>(other == mine) & static_cast<int>(j < i));
    }
    from[place] = i;
  });
  BRAGG_HD_UNROLL(1)
  for (int length = counted; length < n; length *= 2) {
    team.parallel_for((n + share - 1) / share, [&](int s) {
      const int begin = s * share;
      const int first = begin & -(2 * length);
      const int middle = first + length < n ? first + length : n;
      const int end = middle + length < n ? middle + length : n;
      // Of what comes before the share, `low` are of the left run. Those have the lower indices, so they come
      // first where keys are equal.
      const int before = begin - first;
      int low = before > end - middle ? before - (end - middle) : 0;
      int high = before < middle - first ? before : middle - first;
      BRAGG_HD_UNROLL(1)
      while (low < high) {
        const int at = low + (high - low) / 2;
        if (keys[from[middle + before - 1 - at]] < keys[from[first + at]]) {
          high = at;
        } else {
          low = at + 1;
        }
      }
      int left = first + low;
      int right = middle + before - low;
      int left_index = left < middle ? from[left] : 0;
      int right_index = right < end ? from[right] : 0;
      double left_key = keys[left_index];
      double right_key = keys[right_index];
      BRAGG_HD_UNROLL(1)
      for (int k = begin; k < begin + share && k < end; ++k) {
        const bool takes_left = right >= end || (left < middle && !(right_key < left_key));
        to[k] = takes_left ? left_index : right_index;
        const int next = takes_left ? ++left : ++right;
        const int index = next < (takes_left ? middle : end) ? from[next] : 0;
        const double key = keys[index];
        left_index = takes_left ? index : left_index;
        left_key = takes_left ? key : left_key;
        right_index = takes_left ? right_index : index;
        right_key = takes_left ? right_key : key;
      }
    });
    int* const other = from;
    from = to;
    to = other;
  }
}

/// order[0..n) = the indices of key(0), …, key(n−1), ascending by (key, index), by all of a team; a key that
/// is NaN counts as +inf. `keys`, `spare`: n.
template <class TeamT, class KeyF>
BRAGG_HD void sort(TeamT team, int n, KeyF key, double* keys, int* order, int* spare) {
  team.parallel_for(n, [&](int i) {
    const double value = key(i);
    keys[i] = value == value ? value : infinity;
  });
  if constexpr (TeamT::in_step) {
    sort_indices(team, n, keys, order, spare);
  } else {
    smallest(n, n, order, [&](int i) { return keys[i]; });
  }
}

/// The indices of the k smallest of key(0), …, key(n−1), ascending by (key, index), by all of a team. Takes n
/// doubles and 2n ints of `scratch`.
template <class TeamT, class KeyF>
BRAGG_HD_CALLED const int* smallest(TeamT team, Scratch& scratch, int n, [[maybe_unused]] int k, KeyF key) {
  const auto count = static_cast<std::size_t>(n);
  int* const order = scratch.take_ints(count);
  int* const spare = scratch.take_ints(count);
  double* const keys = scratch.take_doubles(count);
  if constexpr (TeamT::in_step) {
    sort(team, n, key, keys, order, spare);
  } else {
    smallest(n, k, order, key);
  }
  return order;
}

/// All points from each point, nearest first, ties to the lowest index.
struct Neighbors {
  int count = 0;
  double* distances = nullptr;  ///< count²: squared distances
  int* order = nullptr;         ///< count²: order[i · count + k] is the k-th from point i

  BRAGG_HD int* nearest(int i) const { return order + static_cast<std::size_t>(i) * count; }
  BRAGG_HD const double* distances_of(int i) const { return distances + static_cast<std::size_t>(i) * count; }
};

/// Where RankStep leaves them: in what is taken of the scratch first.
BRAGG_HD inline Neighbors take_neighbors(Scratch& scratch, int count) {
  const std::size_t squares = static_cast<std::size_t>(count) * count;
  return {.count = count, .distances = scratch.take_doubles(squares), .order = scratch.take_ints(squares)};
}

/// Finds all neighbours. Of few points each pair counts what is nearer: m³ comparisons without a branch,
/// which a team shares; on a host of Zen 2 they beat heaps by 3 at m = 16 and 64. Of more points each row is
/// sorted: where heaps catch up on a host is estimated; a block needs fewer instructions to sort a row from
/// about 64 on (counted). A row is a block's where blocks cannot wait for each other. `spare`: m² ints, of a
/// team in step.
template <class TeamT>
BRAGG_HD void rank_neighbors(TeamT team, const Points& points, const Neighbors& near,
                             [[maybe_unused]] int* spare) {
  constexpr int most_counted = TeamT::in_step ? 64 : 256;
  const int m = points.count;
  const auto place = [&](int i, int j) {
    const double* const mine = near.distances_of(i);
    const double distance = mine[j];
    int rank = 0;
    BRAGG_HD_UNROLL(4)
    for (int k = 0; k < m; ++k) {
      rank += static_cast<int>(mine[k] < distance) |
              (static_cast<int>(mine[k] == distance) & static_cast<int>(k < j));
    }
    near.nearest(i)[rank] = j;
  };
  const auto measure = [&](int i, int j) {
    near.distances[static_cast<std::size_t>(i) * m + j] = points.squared_distance(i, j);
  };
  if constexpr (TeamT::waits) {
    if (m <= most_counted) {
      parallel_for_2d(team, m, m, measure);
      parallel_for_2d(team, m, m, place);
      return;
    }
  }
  team.divide(m, [&](auto members, int i) {
    members.parallel_for(m, [&](int j) { measure(i, j); });
    if constexpr (decltype(members)::in_step) {
      sort_indices(members, m, near.distances_of(i), near.nearest(i),
                   spare + static_cast<std::size_t>(i) * m);
    } else {
      const double* const mine = near.distances_of(i);
      smallest(m, m, near.nearest(i), [&](int j) { return mine[j]; });
    }
  });
}

}  // namespace bragg::detail
