// SPDX-License-Identifier: Apache-2.0
// Points as combinations of rows of one dtype of 16 or 32 bits, where a device's f64 is slow: a sum is two
// floats.
//
// First pass   M, the sum of |c||x|: an operation a product. With 2^E ≤ M(1 + 2⁻¹⁰) < 2^(E+1) the sum starts
//              at A = 1.5·2^e, e = E + 2. It is never M or more away from there: it stays in its binade.
// Second pass  The sum takes c·x fused; what that loses is exact but for its own rounding. Losses and
//              products of a coefficient's second float add up to `second`, which joins the sum proper every
//              eight rows.
// Error        With u = 2⁻²⁴, K rows, H = u·2^e ≤ 4.01uM: a coefficient is two floats, off by u²|c|. An
//              addition loses H at most; of that uH is rounded off. The k-th row after a join (which leaves
//              H) makes `second` (k + 1.5)H at most, in two additions that round by u of it. So eight rows
//              are off by u(8 + 2·48)H, a row by 13uH, and all with their coefficients by less than
//              55·K·2⁻⁴⁸·M, K ≤ 4096. Then rounded to f32, once.
// Range        Coefficients times 2⁻¹⁶, as in combine/pairs.cuh. What underflows is off by 2⁻¹⁴⁹ a row: next
//              to nothing beside an M of 2⁻⁹⁶. A row whose coefficients are all below 2⁻⁴⁰, as of huge rows
//              that were clipped, is multiplied by the power of two of the largest, and they are divided by
//              it; its group's rows are read element by element. A value whose M is below 2⁻⁹⁶, or so large
//              that A would be no float (M(1 + 2⁻¹⁰) ≥ 2¹²⁶), or which no float holds, or which has a
//              coefficient that pairs do not suit even so, is added up in f64, rows in order. Zeros are not
//              converted, so values of rows that are 0 take no f64.
// Bits         depend on no other coordinate, on alignment, or on where a tile begins.
// Table        Coefficients are in shared memory: of all points, or of as many groups of 16 as there is room
//              for beside the values, at a time, and then filled anew for each 128 coordinates (mixed.cuh:
//              for each 1024).
// Map          Of a warp's 16 points × 32 coordinates lane 4g + t has points 4t … 4t+3 (of 8 at most: 2t and
//              2t+1) at coordinates 4g … 4g+3 of rows that are read 16 bytes (of 16 bits: 8) at a time, else
//              at g, g+8, g+16 and g+24.
// Bound        f32 operations: six a product, 7.4 instructions with all that belongs to it (8.9; of up to 8
//              points 8.0): 17 products a cycle and multiprocessor, where f64 makes two.
// Measured     not yet run on hardware.
#pragma once

#include "kernels/common/double_float.cuh"
#include "kernels/select/mix.cuh"
#include "kernels/select/trim_floats.cuh"

namespace bragg::detail::cuda {

inline constexpr int pair_rows = 4;       ///< whose loads are under way together
inline constexpr int pair_join_rows = 8;  ///< after which `second` joins the sum
/// Rows of smaller coefficients are scaled: huge ones that were clipped.
inline constexpr int least_unscaled_exponent = -40;

/// Of a row, for the points of a lane.
template <bool kFew>
struct alignas(16) PairCoefficients {
  static constexpr int points = kFew ? 2 : 4;
  float high[points], low[points];
};

/// What a block keeps of the coefficients of a tensor: of each group of points the rows that some point of it
/// has a coefficient for, in order, and behind them such a row again with coefficients 0. Coefficients are
/// over the row's scale and times pair_scale; NaN where pairs do not suit. If not all groups fit, the table
/// holds some at a time.
template <bool kFew>
struct PairTable {
  PairCoefficients<kFew>* coefficients = nullptr;  ///< [group − first][slot][4]
  const unsigned char** rows = nullptr;            ///< [group − first][slot]
  std::uint16_t* row = nullptr;                    ///< [group − first][slot] its number
  float* scale = nullptr;        ///< [group − first][slot] what its values are multiplied by
  int* count = nullptr;          ///< [group − first] slots, a multiple of pair_rows
  int* scaled = nullptr;         ///< [group − first] not 0: some row's scale is not 1
  unsigned* infinite = nullptr;  ///< [group − first] as in MixTable
  int groups = 0;
  int first = 0;  ///< group that it holds
  int held = 0;   ///< groups that it has room for, at most all
  int slots = 0;  ///< of a group at most
};

BRAGG_HD constexpr std::size_t pair_slots(int rows) {
  return static_cast<std::size_t>((rows + pair_rows - 1) / pair_rows * pair_rows);
}

/// Shared memory of a group; few: of 8 points at most. A piece of shared memory is a multiple of 16 bytes.
BRAGG_HD constexpr std::size_t pair_group_bytes(int rows, bool few) {
  const std::size_t coefficients =
      4 * (few ? sizeof(PairCoefficients<true>) : sizeof(PairCoefficients<false>));
  const std::size_t slot =
      coefficients + sizeof(const unsigned char*) + sizeof(std::uint16_t) + sizeof(float);
  return pair_slots(rows) * slot + 4 * 16;
}

/// Of what tile.cuh (`none`: mixed.cuh) keeps beside coefficients: the values of a block's coordinates.
constexpr std::size_t pair_value_bytes(int points, bool none) {
  return none ? MixedTuning::threads / 32 * mix_points * mix_columns * sizeof(float)
              : static_cast<std::size_t>(points) * 128 * sizeof(float);
}

/// Groups that a block has room for at a time, by shape, alike on all devices. 0: select mixes points in f64.
constexpr std::size_t pair_groups_held(int points, int rows, bool none) {
  const std::size_t values = pair_value_bytes(points, none);
  if (values > most_pair_shared) return 0;
  const std::size_t fit = (most_pair_shared - values) / pair_group_bytes(rows, !none && points <= 8);
  return fit < mix_groups(points) ? fit : mix_groups(points);
}
// What docs/numerics.md says.
static_assert(pair_groups_held(80, 80, false) == 5 && pair_groups_held(128, 225, false) == 1 &&
              pair_groups_held(16, 600, false) == 1 && pair_groups_held(600, 600, true) == 1);

/// What is left of dynamic shared memory, where the launch has asked for pair_group_bytes for each group
/// held.
template <bool kFew>
BRAGG_DEVICE PairTable<kFew> take_pair_table(simt::DynamicShared& shared, int points, int rows) {
  PairTable<kFew> table;
  table.groups = static_cast<int>(mix_groups(points));
  const auto fit = static_cast<int>(shared.left() / pair_group_bytes(rows, kFew));
  table.held = fit < table.groups ? fit : table.groups;
  const auto groups = static_cast<std::size_t>(table.held);
  const std::size_t slots = groups * pair_slots(rows);
  table.slots = static_cast<int>(pair_slots(rows));
  table.coefficients = shared.take<PairCoefficients<kFew>>(4 * slots);
  table.rows = shared.take<const unsigned char*>(slots);
  table.row = shared.take<std::uint16_t>(slots);
  table.scale = shared.take<float>(slots);
  table.count = shared.take<int>(groups);
  table.scaled = shared.take<int>(groups);
  table.infinite = shared.take<unsigned>(groups);
  return table;
}

/// Sets the coefficient of the group's point p, if a group has so many.
template <bool kFew>
BRAGG_DEVICE void set_coefficient(const PairTable<kFew>& table, int slot, int p, DoubleFloat c) {
  constexpr int own = PairCoefficients<kFew>::points;
  if (p >= 4 * own) return;
  PairCoefficients<kFew>& to = table.coefficients[4 * slot + p / own];
  to.high[p % own] = c.high;
  to.low[p % own] = c.low;
}

/// c · 2^−exponent · pair_scale, off by 2⁻⁴⁸ of it; NaN where pairs do not suit. By its bits: a table may be
/// filled for every 128 coordinates.
BRAGG_DEVICE DoubleFloat pair_coefficient(double c, int exponent) {
  const std::uint64_t size = simt::bits_of(c) & 0x7FFFFFFFFFFFFFFFull;
  if (size == 0) return {0, 0};
  const std::uint64_t scaled = size - (static_cast<std::uint64_t>(exponent) << 52);  // exponent ≤ 0
  if (scaled < simt::bits_of(least_pair_coefficient) || scaled > simt::bits_of(largest_pair_coefficient)) {
    const float nan = simt::float_of(0x7FC00000u);
    return {nan, nan};
  }
  const int e = static_cast<int>(scaled >> 52) - 1023 - 16;
  const auto place = static_cast<int>(scaled & 0x1FFFFFFFu);  // behind the 24 digits of a float
  const bool up = place > 1 << 28;
  const std::uint32_t high = static_cast<std::uint32_t>(127 + e) << 23 | (scaled >> 29 & 0x7FFFFFu);
  const float low = static_cast<float>(up ? place - (1 << 29) : place) * 0x1p-40f * power_of_two(e - 12);
  const std::uint32_t sign = static_cast<std::uint32_t>(simt::bits_of(c) >> 32) & 0x80000000u;
  return {simt::float_of((high + (up ? 1u : 0u)) | sign), simt::float_of(simt::bits_of(low) ^ sign)};
}
static_assert(pair_scale == 0x1p-16f);

/// The power of two in a row's scale, of which the lane and those that differ from it by multiples of four
/// have these coefficients: 0, or that of the largest where it is small. All lanes of a warp.
BRAGG_DEVICE int scale_exponent(double c, double other) {
  const auto exponent_of = [](double x) { return static_cast<int>(simt::bits_of(x) >> 52 & 0x7FF) - 1023; };
  int exponent = exponent_of(c) > exponent_of(other) ? exponent_of(c) : exponent_of(other);
  BRAGG_UNROLL
  for (int lanes = 4; lanes < 32; lanes *= 2) {
    const int theirs = simt::shuffle_xor(exponent, lanes);
    exponent = theirs > exponent ? theirs : exponent;
  }
  return exponent >= least_unscaled_exponent ? 0 : exponent > -126 ? exponent : -126;
}

/// Fills a table with groups from table.first on. All threads; to be preceded and followed by a barrier.
template <bool kFew>
BRAGG_DEVICE void fill_mix_table(const SelectArguments& a, int tensor, const PairTable<kFew>& table) {
  const int steps = (mixed_rows(a.rows) + mix_rows - 1) / mix_rows;
  const int lane = simt::lane();
  for (int place = simt::warp(); place < table.held; place += simt::threads() / 32) {
    const int group = table.first + place;
    if (group >= table.groups) return;
    const int first = place * table.slots;
    int end = first;
    bool is_scaled = false;
    BRAGG_ROLLED
    for (int index = 0; index < steps; ++index) {
      double c[8];
      const unsigned used = read_coefficients(a, tensor, group, index, c);
      const auto slot_of = [&](int r) { return end + simt::popcount(used & ((1u << r) - 1)); };
      BRAGG_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int r = lane % 4 + 4 * i;
        const int exponent = scale_exponent(c[2 * i], c[2 * i + 1]);
        if ((used >> r & 1) != 0) {
          set_coefficient(table, slot_of(r), lane / 4, pair_coefficient(c[2 * i], exponent));
          set_coefficient(table, slot_of(r), lane / 4 + 8, pair_coefficient(c[2 * i + 1], exponent));
          if (lane < 4) table.scale[slot_of(r)] = power_of_two(exponent);
          is_scaled = is_scaled || exponent != 0;
        }
      }
      if (lane < mix_rows && (used >> lane & 1) != 0) {
        table.row[slot_of(lane)] = static_cast<std::uint16_t>(mix_rows * index + lane);
        table.rows[slot_of(lane)] = row_of(a, tensor, mix_rows * index + lane);
      }
      end += simt::popcount(used);
    }
    simt::sync_warp();
    BRAGG_ROLLED
    for (; (end - first) % pair_rows != 0; ++end) {
      set_coefficient(table, end, lane, {0, 0});
      if (lane == 0) {
        table.row[end] = table.row[first];
        table.scale[end] = 1;
        table.rows[end] = table.rows[first];
      }
    }
    is_scaled = simt::any(is_scaled);
    const unsigned infinite = infinite_points(a, tensor, group);
    if (lane == 0) {
      table.count[place] = end - first;
      table.scaled[place] = is_scaled ? 1 : 0;
      table.infinite[place] = infinite;
    }
  }
}

/// Which coordinates a lane takes: first + step·e, e < 4, of 32 from `begin` on, the last of those there are
/// in place of what is behind it.
struct PairPlace {
  std::int64_t begin;
  int first, step, last;
  Alignment alignment;

  BRAGG_DEVICE std::int64_t index(int e) const {
    const int coordinate = first + step * e;
    return begin + (coordinate < last ? coordinate : last);
  }
};

/// A row at a lane's coordinates, as it lies in memory.
template <DType dtype, Loads loads>
struct LaneRow {
  static constexpr int size = static_cast<int>(sizeof(Bits<dtype>));
  static constexpr int words = loads == Loads::vectors ? size : 4;
  static constexpr bool is_scaled = loads == Loads::any;
  std::uint32_t word[words];

  BRAGG_DEVICE void load(const unsigned char* row, const PairPlace& place) {
    const unsigned char* const p = row + (place.begin + place.first) * size;
    if constexpr (loads == Loads::any) {
      each<4>([&](auto e) { word[e] = load_element<dtype>(row, place.index(e), place.alignment); });
    } else if constexpr (loads == Loads::elements) {
      each<4>([&](auto e) {
        const unsigned char* const at = p + 8 * e * size;
        if constexpr (size == 2) {
          word[e] = simt::load2_kept(at);
        } else {
          word[e] = simt::load4_kept(at);
        }
      });
    } else if constexpr (size == 2) {
      const uint2 w = simt::load8_kept(p);
      word[0] = w.x, word[1] = w.y;
    } else {
      const uint4 w = simt::load16_kept(p);
      word[0] = w.x, word[1] = w.y, word[2] = w.z, word[3] = w.w;
    }
  }
  BRAGG_DEVICE float operator[](int e) const {
    if constexpr (words == 2) {
      return value_of<dtype>(static_cast<std::uint16_t>(word[e / 2] >> (16 * (e % 2))));
    } else {
      return value_of<dtype>(static_cast<Bits<dtype>>(word[e]));
    }
  }
};

/// use(slot, x) of the rows of the group at a place of the table, in order; after each kTogether, whose loads
/// are under way together, after(count) of so many.
template <class RowT, int kTogether, bool kFew, class UseT, class AfterT>
BRAGG_DEVICE void each_row(const PairTable<kFew>& table, int at, const PairPlace& place, const UseT& use,
                           const AfterT& after) {
  const int first = at * table.slots;
  const int end = first + table.count[at];
  BRAGG_ROLLED
  for (int slot = first; slot < end; slot += kTogether) {
    RowT rows[kTogether];
    each<kTogether>([&](auto u) { rows[u].load(table.rows[slot + u], place); });
    each<kTogether>([&](auto u) {
      float x[4];
      each<4>([&](auto e) { x[e] = rows[u][e]; });
      if constexpr (RowT::is_scaled) {
        each<4>([&](auto e) { x[e] *= table.scale[slot + u]; });
      }
      use(slot + u, x);
    });
    after(slot - first + kTogether);
  }
}

/// The values of a lane: of its points, at its coordinates.
template <bool kFew>
struct PairSums {
  static constexpr int points = PairCoefficients<kFew>::points;
  float first[points][4], second[points][4];

  template <class F>
  BRAGG_DEVICE static void each_value(const F& f) {
    each<points>([&](auto k) { each<4>([&](auto e) { f(k, e); }); });
  }

  BRAGG_DEVICE void clear() {
    each_value([&](auto k, auto e) { first[k][e] = second[k][e] = 0; });
  }
  BRAGG_DEVICE void add_magnitudes(const float (&c)[points], const float (&x)[4]) {
    each_value([&](auto k, auto e) { first[k][e] = simt::fma(fabsf(c[k]), fabsf(x[e]), first[k][e]); });
  }
  /// Puts anchors in place of magnitudes; infinity or NaN, which no sum leaves, where there is none.
  BRAGG_DEVICE void start() {
    each_value([&](auto k, auto e) {
      const float m = first[k][e];
      const std::uint32_t power = simt::bits_of(m * (1 + 0x1p-10f)) & 0x7F800000u;
      first[k][e] = m >= least_pair_sum ? simt::float_of(power) * 6 : infinity_of<float>();
    });
  }
  BRAGG_DEVICE void add(const PairCoefficients<kFew>& c, const float (&x)[4]) {
    each_value([&](auto k, auto e) {
      const float sum = simt::fma(c.high[k], x[e], first[k][e]);
      const float lost = simt::fma(c.high[k], x[e], first[k][e] - sum);
      first[k][e] = sum;
      second[k][e] = simt::fma(c.low[k], x[e], second[k][e] + lost);
    });
  }
  BRAGG_DEVICE void join() {
    each_value([&](auto k, auto e) {
      const float sum = first[k][e] + second[k][e];
      second[k][e] -= sum - first[k][e];
      first[k][e] = sum;
    });
  }
  /// Leaves values in `first`: NaN where there was no anchor, or where they are too large.
  BRAGG_DEVICE void finish() {
    each_value([&](auto k, auto e) {
      const float sum = first[k][e];
      const float x = ((sum - start_of(sum)) + second[k][e]) * (1 / pair_scale);
      first[k][e] = simt::fma(x, 0.0f, x);
    });
  }
};

/// The products of rows of one dtype, added up.
template <DType dtype, Loads loads, bool kFew>
BRAGG_DEVICE void add_rows_in_pairs(const PairTable<kFew>& table, int at, const PairPlace& place,
                                    PairSums<kFew>& sums) {
  using RowT = LaneRow<dtype, loads>;
  constexpr int together = loads == Loads::any ? 1 : pair_rows;
  sums.clear();
  const int t = simt::lane() % 4;
  each_row<RowT, together>(
      table, at, place,
      [&](int slot, const float(&x)[4]) {
        float c[PairSums<kFew>::points];
        const PairCoefficients<kFew>& of = table.coefficients[4 * slot + t];
        each<PairSums<kFew>::points>([&](auto k) { c[k] = of.high[k]; });
        sums.add_magnitudes(c, x);
      },
      [](int) {});
  sums.start();
  each_row<RowT, together>(
      table, at, place,
      [&](int slot, const float(&x)[4]) {
        const PairCoefficients<kFew> c = table.coefficients[4 * slot + t];
        sums.add(c, x);
      },
      [&](int count) {
        if (count % pair_join_rows == 0) sums.join();
      });
  sums.finish();
}

/// The values that are NaN, in f64, coordinates where rows are 0 without.
template <bool kFew>
BRAGG_DEVICE void mix_again(const SelectArguments& a, int tensor, const PairTable<kFew>& table, int group,
                            const PairPlace& place, PairSums<kFew>& sums) {
  constexpr int own = PairSums<kFew>::points;
  const double* const coefficients = a.parts.of(a.mix, tensor);
  const int t = simt::lane() % 4;
  const int first = (group - table.first) * table.slots;
  double z[own][4];
  PairSums<kFew>::each_value([&](auto k, auto e) { z[k][e] = 0; });
  BRAGG_ROLLED
  for (int slot = first; slot < first + table.count[group - table.first]; ++slot) {
    float x[4];
    with_dtype_of<float>(a.rows.dtype, [&]<DType dtype>() {
      each<4>([&](auto e) {
        x[e] = value_of<dtype>(load_element<dtype>(table.rows[slot], place.index(e), place.alignment));
      });
    });
    const PairCoefficients<kFew>& of = table.coefficients[4 * slot + t];
    each<own>([&](auto k) {
      if (of.high[k] == 0) return;
      const int point = mix_points * group + own * t + k;
      const double c = coefficients[static_cast<std::int64_t>(index_of(a, tensor, point)) * a.rows.count +
                                    table.row[slot]];
      each<4>([&](auto e) {
        if (sums.first[k][e] == sums.first[k][e] || (x[e] == 0 && is_finite(c))) return;
        z[k][e] = simt::fma(c, static_cast<double>(x[e]), z[k][e]);
      });
    });
  }
  PairSums<kFew>::each_value([&](auto k, auto e) {
    if (sums.first[k][e] != sums.first[k][e]) sums.first[k][e] = mixed_value<float>(z[k][e]);
  });
}

/// As mix, of a group that the table holds, but that coordinates behind the `left`-th are any.
template <bool kFew>
BRAGG_DEVICE void mix_in_pairs(const SelectArguments& a, int tensor, const PairTable<kFew>& table,
                               Loads loads, int group, std::int64_t begin, int left, float* to, int stride) {
  using SumsT = PairSums<kFew>;
  const int at = group - table.first;
  if (left < mix_columns || table.scaled[at] != 0) loads = Loads::any;
  const bool in_vectors = loads == Loads::vectors;
  const PairPlace place{begin, simt::lane() / 4 * (in_vectors ? 4 : 1), in_vectors ? 1 : 8, left - 1,
                        static_cast<Alignment>(a.rows.alignment[tensor])};
  SumsT sums;
  with_dtype_of<float>(a.rows.dtype, [&]<DType dtype>() {
    if (loads == Loads::vectors) return add_rows_in_pairs<dtype, Loads::vectors>(table, at, place, sums);
    if (loads == Loads::elements) return add_rows_in_pairs<dtype, Loads::elements>(table, at, place, sums);
    add_rows_in_pairs<dtype, Loads::any>(table, at, place, sums);
  });
  const auto point = [](int k) { return SumsT::points * (simt::lane() % 4) + k; };
  const unsigned infinite = table.infinite[at];
  bool is_sure = true;
  each<SumsT::points>([&](auto k) {
    float seen = 0;
    each<4>([&](auto e) { seen = simt::fma(sums.first[k][e], 0.0f, seen); });
    const bool is_wanted = mix_points * group + point(k) < a.points && (infinite >> point(k) & 1) == 0;
    is_sure = is_sure && (seen == seen || !is_wanted);
  });
  if (simt::any(!is_sure)) mix_again(a, tensor, table, group, place, sums);
  if (infinite != 0) {
    SumsT::each_value([&](auto k, auto e) {
      sums.first[k][e] = (infinite >> point(k) & 1) != 0 ? infinity_of<float>() : sums.first[k][e];
    });
  }
  each<SumsT::points>([&](auto k) {
    if (mix_points * group + point(k) >= a.points) return;
    each<4>([&](auto e) { to[point(k) * stride + place.first + place.step * e] = sums.first[k][e]; });
  });
}

}  // namespace bragg::detail::cuda
