// SPDX-License-Identifier: Apache-2.0
// Rules of a coordinate of any number of points by bisection over the bits of values: a rank's value is found
// bit by bit, among chunks of points that are sorted. The same number of steps whatever the data.
#pragma once

#include "kernels/common/registers.cuh"
#include "kernels/select/means.cuh"

namespace bragg::detail::cuda {

inline constexpr int chunk_threads = 256;
inline constexpr int chunk_warps = chunk_threads / 32;

/// Points of a chunk, one less than a power of two: the last binary search of a chunk then takes no probe
/// more than the others.
template <class ValueT>
inline constexpr int chunk_points = sizeof(ValueT) == 8 ? 31 : 63;

/// Integers in the order of values; the lowest and highest are NaN's.
template <class ValueT>
struct SortKey;
template <>
struct SortKey<float> {
  using Type = std::uint32_t;
  static constexpr int bits = 32;
  static constexpr Type lowest = 0x007FFFFFu;  ///< of −inf

  BRAGG_DEVICE static float value(Type key) {
    return simt::float_of((key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key);
  }
};
template <>
struct SortKey<double> {
  using Type = std::uint64_t;
  static constexpr int bits = 64;
  static constexpr Type lowest = 0x000FFFFFFFFFFFFFull;

  BRAGG_DEVICE static double value(Type key) {
    return simt::double_of((key >> 63) != 0 ? key ^ 0x8000000000000000ull : ~key);
  }
};

/// The warps that share 32 coordinates. All of the block's teams do the same steps at a time.
struct Team {
  int warps;        ///< of a team
  int warp;         ///< of this thread, in its team
  double* scratch;  ///< [2][chunk_threads]
  int turn = 0;

  BRAGG_DEVICE void sync() const {
    if (warps > 1) {
      simt::sync_threads();
    } else {
      simt::sync_warp();
    }
  }
  /// Makes every warp's x known: of(w) then gives that of a warp of the team. Two turns of scratch: a barrier
  /// a turn is enough.
  BRAGG_DEVICE const double* share(double x) {
    double* const all = scratch + (turn ^= 1) * chunk_threads;
    all[simt::thread()] = x;
    sync();
    return all + simt::thread() - 32 * warp;
  }
  BRAGG_DEVICE double sum(double x) {
    if (warps == 1) return x;
    const double* const all = share(x);
    double total = 0;
    for (int w = 0; w < warps; ++w) total += all[32 * w];
    return total;
  }
  /// Of the warps before.
  BRAGG_DEVICE double sum_before(double x) {
    const double* const all = share(x);
    double total = 0;
    for (int w = 0; w < warp; ++w) total += all[32 * w];
    return total;
  }
  BRAGG_DEVICE double least(double x) {
    const double* const all = share(x);
    double result = all[0];
    for (int w = 1; w < warps; ++w) result = fmin(result, all[32 * w]);
    return result;
  }
};

/// A lane's coordinate: its points' values, of which a warp has [begin, end).
template <class ValueT>
struct Points {
  ValueT* values;  ///< of this lane, 32 apart
  int begin;
  int end;
  Team team;

  BRAGG_DEVICE ValueT at(int p) const { return values[p * 32]; }
};

/// The least key that `is_below` does not hold for, given that it holds for a stretch of keys from the
/// lowest on: is_below(value) is asked of SortKey::bits values, the same number of times by all threads.
template <class ValueT, class F>
BRAGG_DEVICE typename SortKey<ValueT>::Type bisect(F is_below) {
  using KeyT = typename SortKey<ValueT>::Type;
  KeyT key = 0;
  for (int bit = SortKey<ValueT>::bits - 1; bit >= 0; --bit) {
    const KeyT tried = key | KeyT{1} << bit;
    const KeyT asked = tried < SortKey<ValueT>::lowest ? SortKey<ValueT>::lowest : tried;
    if (is_below(SortKey<ValueT>::value(asked))) key = tried;
  }
  return key;
}

/// Sorts the warp's chunks.
template <class ValueT>
BRAGG_DEVICE void sort_chunks(const Points<ValueT>& x) {
  constexpr int size = chunk_points<ValueT>;
  constexpr DType value = sizeof(ValueT) == 8 ? DType::f64 : DType::f32;
  for (int c = x.begin; c < x.end; c += size) {
    ValueT v[size];
    each<size>([&](auto i) { v[i] = c + i < x.end ? x.at(c + i) : infinity_of<ValueT>(); });
    sort_registers<value, 0, size - 1>(v);
    each<size>([&](auto i) {
      if (c + i < x.end) x.values[(c + i) * 32] = v[i];
    });
  }
}

/// How many of the warp's chunk at `c` `is_below` holds for: the first so many.
template <class ValueT, class F>
BRAGG_DEVICE int search(const Points<ValueT>& x, int c, const F& is_below) {
  constexpr int size = chunk_points<ValueT>;
  const int count = x.end - c < size ? x.end - c : size;
  int position = 0;
  BRAGG_UNROLL
  for (int step = (size + 1) / 2; step > 0; step /= 2) {
    if (position + step <= count && is_below(x.at(c + position + step - 1))) position += step;
  }
  return position;
}

/// How many of all points `is_below` holds for.
template <class ValueT, class F>
BRAGG_DEVICE int count_below(Points<ValueT>& x, const F& is_below) {
  int count = 0;
  for (int c = x.begin; c < x.end; c += chunk_points<ValueT>) count += search(x, c, is_below);
  return static_cast<int>(x.team.sum(static_cast<double>(count)));
}

/// The value of a rank. A number that is NaN stands for one above all values.
template <class ValueT>
BRAGG_DEVICE ValueT value_of_rank(Points<ValueT>& x, int rank) {
  return SortKey<ValueT>::value(bisect<ValueT>(
      [&](ValueT tried) { return count_below(x, [&](ValueT v) { return !(v >= tried); }) <= rank; }));
}

/// The mean of ranks first … first + count − 1, whose extremes are given.
template <class ValueT>
BRAGG_DEVICE double mean_of_ranks(Points<ValueT>& x, int first, int count, ValueT low, ValueT high) {
  const bool large = is_large<ValueT>(low, high);
  const double scale = large ? shrink : 1;
  double sum = 0;
  int to_low = 0;  // values up to low
  int below_high = 0;
  for (int c = x.begin; c < x.end; c += chunk_points<ValueT>) {
    const int from = search(x, c, [&](ValueT v) { return v <= low; });
    const int to = search(x, c, [&](ValueT v) { return v < high; });
    for (int i = from; i < to; ++i) sum += static_cast<double>(x.at(c + i)) * scale;
    to_low += from;
    below_high += to;
  }
  sum = x.team.sum(sum);
  to_low = static_cast<int>(x.team.sum(to_low));
  below_high = static_cast<int>(x.team.sum(below_high));
  if (low == high) return low;
  sum += static_cast<double>(low) * scale * (to_low - first);
  sum += static_cast<double>(high) * scale * (first + count - below_high);
  return large ? finish_shrunk_mean(sum, count, low, high) : finish_mean(sum, count, low, high);
}

template <class ValueT>
BRAGG_DEVICE double mean_of_ranks(Points<ValueT>& x, int first, int count) {
  const ValueT low = value_of_rank(x, first);
  const ValueT high = value_of_rank(x, first + count - 1);
  return mean_of_ranks(x, first, count, low, high);
}

template <class ValueT>
BRAGG_DEVICE double median(Points<ValueT>& x, int points, EvenMedian even) {
  const double low = value_of_rank(x, even == EvenMedian::upper ? points / 2 : (points - 1) / 2);
  if (points % 2 == 1 || even != EvenMedian::midpoint) return low;
  return midpoint(low, value_of_rank(x, points / 2));
}

/// Distances from a centre, halved where they would overflow.
template <class ValueT>
struct Distance {
  double centre;
  double scale;

  /// Whether a value on the left, or on the right, `is_far`.
  template <class F>
  BRAGG_DEVICE bool far_left(ValueT v, const F& is_far) const {
    return v < centre && is_far(centre * scale - static_cast<double>(v) * scale);
  }
  template <class F>
  BRAGG_DEVICE bool far_right(ValueT v, const F& is_far) const {
    return !(v < centre) && is_far(static_cast<double>(v) * scale - centre * scale);
  }

  /// How many of all points are closer than `radius`.
  BRAGG_DEVICE int count_closer(Points<ValueT>& x, double radius) const {
    const auto is_far = [&](double d) { return d >= radius; };
    int count = 0;
    for (int c = x.begin; c < x.end; c += chunk_points<ValueT>) {
      count += search(x, c, [&](ValueT v) { return !far_right(v, is_far); });
      count -= search(x, c, [&](ValueT v) { return far_left(v, is_far); });
    }
    return static_cast<int>(x.team.sum(count));
  }
};

/// The first rank of the `keep` closest. With D the keep-th smallest distance: all that are closer, then of
/// those at D the left ones.
template <class ValueT>
BRAGG_DEVICE int first_of_closest(Points<ValueT>& x, int points, int keep, double centre) {
  Distance<ValueT> distance{centre, 1};
  if (distance.count_closer(x, infinity_of<double>()) < keep) distance.scale = 0.5;
  // Bits of distances are in order; those above +inf's are not asked about.
  const std::uint64_t infinite = simt::bits_of(infinity_of<double>());
  std::uint64_t bits = 0;
  for (int bit = 62; bit >= 0; --bit) {
    const std::uint64_t tried = bits | std::uint64_t{1} << bit;
    const int closer = distance.count_closer(x, simt::double_of(tried < infinite ? tried : infinite));
    if (tried <= infinite && closer < keep) bits = tried;
  }
  const double radius = simt::double_of(bits);
  const int right =
      count_below(x, [&](ValueT v) { return !distance.far_right(v, [&](double d) { return d >= radius; }); });
  const int left =
      count_below(x, [&](ValueT v) { return distance.far_left(v, [&](double d) { return d > radius; }); });
  const int first = right - keep > left ? right - keep : left;
  return first < 0 ? 0 : first > points - keep ? points - keep : first;
}

template <class ValueT>
BRAGG_DEVICE double closest_mean(Points<ValueT>& x, int points, int keep, double centre) {
  const double mean = mean_of_ranks(x, first_of_closest(x, points, keep, centre), keep);
  return is_finite(centre) ? mean : centre;
}

template <class ValueT>
BRAGG_DEVICE double apply_rule(Points<ValueT>& x, int points, const SelectRule& rule) {
  switch (rule.kind) {
    case SelectRule::Kind::median:
      return median(x, points, rule.even);
    case SelectRule::Kind::trimmed_mean:
      return mean_of_ranks(x, rule.f, points - 2 * rule.f);
    case SelectRule::Kind::closest_to_median:
      return closest_mean(x, points, rule.keep, median(x, points, EvenMedian::midpoint));
    case SelectRule::Kind::closest_to_trimmed_mean:
    case SelectRule::Kind::sign_vote:  // is votes.cuh's
    case SelectRule::Kind::none:       // is mixed.cuh's
      break;
  }
  return closest_mean(x, points, rule.keep, mean_of_ranks(x, rule.f, points - 2 * rule.f));
}

}  // namespace bragg::detail::cuda
