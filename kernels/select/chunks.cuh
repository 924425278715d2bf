// SPDX-License-Identifier: Apache-2.0
// Every rule for any number of points, and the weighted rules, per coordinate (RULES.md): bisection over the
// bits of values, a fixed number of passes over sorted chunks whatever the data.
//
// Shapes: 1 to 65535 points, rows or mixed. Order: as direct.cuh.
// Threads: a team of 1 to 8 warps takes 32 coordinates, a lane each; the warps share out the points. The
//   points' values lie in a tile [point][32]: in shared memory, or in global memory where that is too small.
//   Unweighted: chunks of 63 (f64: 31) points are sorted by a network in registers, so that a binary search
//   of 6 (5) probes tells how many are below a number. A rank's value is found bit by bit: 32 (64) passes.
//   Weighted: chunks are not sorted, every pass goes over all points, in row order.
// Means: the values strictly between two ranks' are added, and those ranks' values as often as they are kept.
//   Closest values: the distance of the farthest that is kept is found bit by bit (63 passes), of equal
//   distances the smaller values are taken.
// Operations a coordinate: unweighted 16 minima and maxima and about 3 probes a point for every rank;
//   weighted about 32 (64) · 4 a point. Bytes: n·d read once, and the tile where it is in global memory.
// Registers: 239 (f64: 176); shared: tile, at most 96 KiB, where the device has it,
//   and 4 KiB. Nothing is spilled.
// Deterministic: sums are made by lane, then warp by warp in order. Not yet run on hardware.
#pragma once

#include "kernels/common/registers.cuh"
#include "kernels/select/means.cuh"
#include "kernels/select/mix.cuh"

namespace bragg::detail::cuda {

inline constexpr int chunk_threads = 256;
inline constexpr int chunk_warps = chunk_threads / 32;

/// Points of a chunk, one less than a power of two: the last binary search of a chunk then takes no probe
/// more than the others.
template <class ValueT>
inline constexpr int chunk_points = sizeof(ValueT) == 8 ? 31 : 63;

/// How a launch is laid out.
struct ChunkLayout {
  int team_warps = 1;         ///< 1, 2, 4 or 8
  void* workspace = nullptr;  ///< tiles of all teams; null: in shared memory
};

/// Integers in the order of values; the lowest and highest are NaN's.
template <class ValueT>
struct Key;
template <>
struct Key<float> {
  using Type = std::uint32_t;
  static constexpr int bits = 32;
  static constexpr Type lowest = 0x007FFFFFu;  ///< of −inf

  BRAGG_DEVICE static float value(Type key) {
    return simt::float_of((key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key);
  }
  BRAGG_DEVICE static Type of(float value) {
    const Type bits = simt::bits_of(value);
    return (bits & 0x80000000u) != 0 ? ~bits : bits ^ 0x80000000u;
  }
};
template <>
struct Key<double> {
  using Type = std::uint64_t;
  static constexpr int bits = 64;
  static constexpr Type lowest = 0x000FFFFFFFFFFFFFull;

  BRAGG_DEVICE static double value(Type key) {
    return simt::double_of((key >> 63) != 0 ? key ^ 0x8000000000000000ull : ~key);
  }
  BRAGG_DEVICE static Type of(double value) {
    const Type bits = simt::bits_of(value);
    return (bits >> 63) != 0 ? ~bits : bits ^ 0x8000000000000000ull;
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
/// lowest on: is_below(value) is asked of Key::bits values, the same number of times by all threads.
template <class ValueT, class F>
BRAGG_DEVICE typename Key<ValueT>::Type bisect(F is_below) {
  using KeyT = typename Key<ValueT>::Type;
  KeyT key = 0;
  for (int bit = Key<ValueT>::bits - 1; bit >= 0; --bit) {
    const KeyT tried = key | KeyT{1} << bit;
    const KeyT asked = tried < Key<ValueT>::lowest ? Key<ValueT>::lowest : tried;
    if (is_below(Key<ValueT>::value(asked))) key = tried;
  }
  return key;
}

// Unweighted --------------------------------------------------------------------------------------------

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
  return Key<ValueT>::value(bisect<ValueT>(
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
    default:
      return closest_mean(x, points, rule.keep, mean_of_ranks(x, rule.f, points - 2 * rule.f));
  }
}

// Weighted ----------------------------------------------------------------------------------------------

/// The points' weights; where they sum to nothing, equal ones.
struct Weights {
  const SelectArguments& a;
  int tensor;
  bool equal = false;

  BRAGG_DEVICE double operator[](int p) const {
    return equal ? 1.0 : a.parts.of(a.weights, tensor)[index_of(a, tensor, p)];
  }
};

/// The weight of the points that `has` holds for.
template <class ValueT, class F>
BRAGG_DEVICE double weight_of(Points<ValueT>& x, const Weights& weights, const F& has) {
  double sum = 0;
  for (int p = x.begin; p < x.end; ++p) {
    if (has(x.at(p))) sum += weights[p];
  }
  return x.team.sum(sum);
}

/// The least value with at least half the weight at or below it; where that is half of it to 1e-12 of the
/// total, the midpoint with the next value that has weight.
template <class ValueT>
BRAGG_DEVICE double weighted_median(Points<ValueT>& x, Weights weights, EvenMedian even) {
  double total = weight_of(x, weights, [](ValueT) { return true; });
  if (!(total > 0)) {
    weights.equal = true;
    total = weight_of(x, weights, [](ValueT) { return true; });
  }
  const ValueT low = Key<ValueT>::value(bisect<ValueT>([&](ValueT tried) {
    const double below = weight_of(x, weights, [&](ValueT v) { return !(v >= tried); });
    return below - (total - below) < -1e-12 * total;
  }));
  const double below = weight_of(x, weights, [&](ValueT v) { return v <= low; });
  double next = infinity_of<double>();
  bool found = false;
  for (int p = x.begin; p < x.end; ++p) {
    if (x.at(p) > low && weights[p] > 0) {
      next = fmin(next, static_cast<double>(x.at(p)));
      found = true;
    }
  }
  next = x.team.least(next);
  found = x.team.sum(found ? 1 : 0) > 0;
  if (even == EvenMedian::lower || !found || fabs(below - (total - below)) > 1e-12 * total) return low;
  return even == EvenMedian::upper ? next : midpoint(low, next);
}

/// f(p, value) for the warp's points of ranks [first, last), where equal values are in the order of the
/// points: `first_value` and `last_value` are those of ranks first and last − 1.
template <class ValueT>
struct Kept {
  ValueT low, high;
  int skip;                   ///< points equal to low that are dropped: the first ones
  int take;                   ///< points equal to high that are kept: the first ones
  int equal_low, equal_high;  ///< points equal to low and high in the warps before

  template <class F>
  BRAGG_DEVICE void each_point(const Points<ValueT>& x, const F& f) const {
    int at_low = equal_low;
    int at_high = equal_high;
    for (int p = x.begin; p < x.end; ++p) {
      const ValueT v = x.at(p);
      const bool dropped =
          v < low || v > high || (v == low && at_low < skip) || (v == high && at_high >= take);
      at_low += v == low ? 1 : 0;
      at_high += v == high ? 1 : 0;
      if (!dropped) f(p, static_cast<double>(v));
    }
  }
};

/// Count of the points that `has` holds for.
template <class ValueT, class F>
BRAGG_DEVICE int count_of(Points<ValueT>& x, const F& has) {
  int count = 0;
  for (int p = x.begin; p < x.end; ++p) count += has(x.at(p)) ? 1 : 0;
  return count;
}

template <class ValueT>
BRAGG_DEVICE Kept<ValueT> keep_ranks(Points<ValueT>& x, int first, int last) {
  const auto value_of = [&](int rank) {
    return Key<ValueT>::value(bisect<ValueT>([&](ValueT tried) {
      return x.team.sum(count_of(x, [&](ValueT v) { return !(v >= tried); })) <= rank;
    }));
  };
  Kept<ValueT> kept;
  kept.low = value_of(first);
  kept.high = value_of(last - 1);
  kept.skip = first - static_cast<int>(x.team.sum(count_of(x, [&](ValueT v) { return v < kept.low; })));
  kept.take = last - static_cast<int>(x.team.sum(count_of(x, [&](ValueT v) { return v < kept.high; })));
  kept.equal_low = static_cast<int>(x.team.sum_before(count_of(x, [&](ValueT v) { return v == kept.low; })));
  kept.equal_high =
      static_cast<int>(x.team.sum_before(count_of(x, [&](ValueT v) { return v == kept.high; })));
  return kept;
}

/// Σ share·value over the kept ranks. Shares, not weights: sums of large values times weights could overflow.
template <class ValueT>
BRAGG_DEVICE double weighted_trimmed_mean(Points<ValueT>& x, Weights weights, int first, int last) {
  const Kept<ValueT> kept = keep_ranks(x, first, last);
  double total = 0;
  kept.each_point(x, [&](int p, double) { total += weights[p]; });
  total = x.team.sum(total);
  if (!(total > 0)) {
    weights.equal = true;
    total = last - first;
  }
  double low = infinity_of<double>();
  double negative_high = infinity_of<double>();
  kept.each_point(x, [&](int p, double v) {
    if (weights[p] / total == 0) return;
    low = fmin(low, v);
    negative_high = fmin(negative_high, -v);
  });
  low = x.team.least(low);
  const double high = -x.team.least(negative_high);
  // Shares of denormals would be lost.
  const double lift = fmax(fabs(low), fabs(high)) < 0x1p-900 ? 0x1p200 : 1;
  double sum = 0;
  kept.each_point(x, [&](int p, double v) {
    const double share = weights[p] / total;
    if (share != 0) sum += share * (v * lift);
  });
  sum = x.team.sum(sum);
  if (!is_finite(low)) return low;
  return fmax(fmin(sum / lift, high), low);
}

// The pass -----------------------------------------------------------------------------------------------

/// Reads the warp's points of a coordinate and counts what is not finite.
template <DType dtype, class ValueT>
BRAGG_DEVICE void read_points(const SelectArguments& a, int tensor, std::int64_t index, bool inside,
                              const Points<ValueT>& x) {
  const auto alignment = static_cast<Alignment>(a.rows.alignment[tensor]);
  const auto row = [&](int p) { return row_of(a, tensor, index_of(a, tensor, p)); };
  read_rows<dtype>(x.begin, x.end, index, inside, alignment, row, [&](int p, Bits<dtype> bits) {
    const ValueT v = value_of<dtype>(bits);
    const unsigned lanes = simt::ballot(!is_finite(v));
    if (lanes != 0 && simt::lane() == 0 && a.nonfinite != nullptr) {
      simt::atomic_add(a.parts.of(a.nonfinite, tensor) + index_of(a, tensor, p),
                       static_cast<unsigned long long>(simt::popcount(lanes)));
    }
    const bool infinite = is_infinite(a, tensor, index_of(a, tensor, p));
    x.values[p * 32] = infinite ? infinity_of<ValueT>() : nan_to_infinity(v);
  });
}

template <class ValueT>
BRAGG_DEVICE void fill(const SelectArguments& a, int tensor, std::int64_t begin, int left, ValueT* tile,
                       const Points<ValueT>& x) {
  if (a.mix != nullptr) {
    x.team.sync();
    MixTable mixing;  // without room in shared memory
    mixing.steps = (mixed_rows(a.rows) + mix_rows - 1) / mix_rows;
    const Loads loads = mix_loads(have_one_dtype(a.rows), static_cast<Alignment>(a.rows.alignment[tensor]));
    for (int group = x.team.warp; mix_points * group < a.points; group += x.team.warps) {
      mix<sizeof(ValueT) == 8 ? DType::f64 : DType::f32, false>(
          a, tensor, mixing, loads, group, begin, left,
          tile + static_cast<std::int64_t>(mix_points * group) * 32, 32);
    }
    x.team.sync();
    return;
  }
  const std::int64_t index = begin + simt::lane();
  const bool inside = simt::lane() < left;
  if constexpr (sizeof(ValueT) == 8) {
    read_points<DType::f64>(a, tensor, index, inside, x);
  } else if (a.rows.dtype == DType::f32) {
    read_points<DType::f32>(a, tensor, index, inside, x);
  } else if (a.rows.dtype == DType::f16) {
    read_points<DType::f16>(a, tensor, index, inside, x);
  } else {
    read_points<DType::bf16>(a, tensor, index, inside, x);
  }
}

template <class ValueT>
BRAGG_DEVICE double apply(const SelectArguments& a, int tensor, Points<ValueT>& x) {
  if (a.weights == nullptr) {
    sort_chunks(x);
    return apply_rule(x, a.points, a.rule);
  }
  const Weights weights{a, tensor};
  if (a.rule.kind == SelectRule::Kind::trimmed_mean) {
    return weighted_trimmed_mean(x, weights, a.rule.f, a.points - a.rule.f);
  }
  return weighted_median(x, weights, a.rule.even);
}

template <class ValueT>
BRAGG_KERNEL(chunk_threads, 1)
chunk_kernel(BRAGG_GRID_CONSTANT SelectArguments a, ChunkLayout layout) {
  simt::grid_dependency_sync();
  BRAGG_SHARED(double, scratch, [2 * chunk_threads]);
  if (failed(a)) return;
  const int teams = chunk_warps / layout.team_warps;
  const int team = simt::warp() / layout.team_warps;
  const std::int64_t tile_size = static_cast<std::int64_t>(a.points) * 32;
  ValueT* tile = nullptr;
  if (layout.workspace == nullptr) {
    simt::DynamicShared shared;
    tile = shared.take<ValueT>(static_cast<std::size_t>(tile_size * teams)) + team * tile_size;
  } else {
    tile = static_cast<ValueT*>(layout.workspace) +
           (static_cast<std::int64_t>(simt::block()) * teams + team) * tile_size;
  }
  Points<ValueT> x{tile + simt::lane(), 0, 0,
                   Team{layout.team_warps, simt::warp() % layout.team_warps, scratch}};
  // Whole chunks to each warp, in order.
  constexpr int size = chunk_points<ValueT>;
  const int chunks = (a.points + size - 1) / size;
  const int share = (chunks + layout.team_warps - 1) / layout.team_warps * size;
  x.begin = x.team.warp * share < a.points ? x.team.warp * share : a.points;
  x.end = x.begin + share < a.points ? x.begin + share : a.points;

  const int span = 32 * teams;
  const int spans = static_cast<int>(tile_length) / span;
  for (OwnPieces own(a.tiles, a.rows.sizes, spans); own.more(); own.advance()) {
    const Piece& piece = own.piece();
    const int done = own.part() * span;
    if (done >= piece.size) continue;
    const std::int64_t begin = piece.begin + done + 32 * team;
    const int left = piece.size - done - 32 * team;  // none are left to the last teams
    fill(a, piece.tensor, begin, left, tile, x);
    const double result = apply(a, piece.tensor, x);
    if (x.team.warp == 0 && simt::lane() < left) {
      store_result(a, piece.tensor, begin + simt::lane(), result,
                   static_cast<Alignment>(a.rows.alignment[piece.tensor]));
    }
  }
}

/// How much of a block's tiles decides its teams, whose warps' sums are added in order: results depend on it,
/// so it is one for all devices. Two blocks of a large one have it in shared memory.
inline constexpr std::size_t chunk_tiles_bytes = std::size_t{96} << 10;
/// Global memory that all tiles may take, unless a block's need more.
inline constexpr std::size_t chunk_workspace_bytes = std::size_t{256} << 20;

template <class ValueT>
std::size_t tile_bytes(const SelectArguments& a) {
  return static_cast<std::size_t>(a.points) * 32 * sizeof(ValueT);
}

/// How the pass is launched on the current device.
struct ChunkLaunch {
  int team_warps = 1;
  std::size_t tiles_bytes = 0;  ///< of a block's teams
  bool is_shared = false;       ///< that is where they lie, else in global memory
  int blocks = 0;
};

/// As many teams a block as chunk_tiles_bytes has room for. Their tiles lie in shared memory, if the device
/// has so much.
template <class ValueT>
ChunkLaunch chunk_launch(const SelectArguments& a) {
  ChunkLaunch launch;
  const std::size_t tile = tile_bytes<ValueT>(a);
  while (launch.team_warps < chunk_warps &&
         tile * static_cast<std::size_t>(chunk_warps / launch.team_warps) > chunk_tiles_bytes) {
    launch.team_warps *= 2;
  }
  const int teams = chunk_warps / launch.team_warps;
  launch.tiles_bytes = tile * static_cast<std::size_t>(teams);
  launch.is_shared = launch.tiles_bytes <= chunk_tiles_bytes &&
                     launch.tiles_bytes <= simt::most_dynamic_shared(chunk_kernel<ValueT>);
  std::int64_t blocks =
      simt::resident_blocks(chunk_kernel<ValueT>, chunk_threads, launch.is_shared ? launch.tiles_bytes : 0);
  const std::int64_t wanted = a.tiles.pieces * (tile_length / (32 * teams));
  if (wanted < blocks) blocks = wanted;
  if (!launch.is_shared) {
    const auto most = static_cast<std::int64_t>(chunk_workspace_bytes / launch.tiles_bytes);
    if (most < blocks) blocks = most > 1 ? most : 1;
  }
  launch.blocks = static_cast<int>(blocks);
  return launch;
}

template <class ValueT>
std::size_t chunk_workspace(const SelectArguments& a) {
  const ChunkLaunch launch = chunk_launch<ValueT>(a);
  return launch.is_shared ? 0 : launch.tiles_bytes * static_cast<std::size_t>(launch.blocks);
}

template <class ValueT>
void launch_chunks(const SelectArguments& a, Stream stream) {
  const ChunkLaunch launch = chunk_launch<ValueT>(a);
  const ChunkLayout layout{launch.team_warps, launch.is_shared ? nullptr : a.workspace};
  simt::launch_dependent(chunk_kernel<ValueT>, launch.blocks, 1, chunk_threads,
                         launch.is_shared ? launch.tiles_bytes : 0, stream, a, layout);
}

}  // namespace bragg::detail::cuda
