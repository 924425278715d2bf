// SPDX-License-Identifier: Apache-2.0
// Points as combinations of rows, Z = C·X in float64 on tensor cores, 16 points × 32 coordinates a warp.
//
// mma_16x8x16 with 16 points, 16 rows, 8 coordinates: the coordinate of column g of tile q is 4g + q, so that
// a lane's four column tiles take 16 consecutive bytes of a row (f32), and its results of a point are four
// consecutive coordinates. A row that none of the 16 points has a coefficient for is not read: it may hold
// NaN. All of a step's rows are under way before the first is converted; with kAhead the next step's, too,
// before this one is multiplied.
// Tried and lost (by its code, not run): a question to each rounded value, six instructions and a wait for
// its conversion where one and a multiply-add do; a dtype at run time and a branch for each row, which made
// the loads of a step wait for one another; coefficients from global memory at each step, 24 address
// operations of 8 loads.
#pragma once

#include "kernels/common/tuning.hpp"
#include "kernels/select/points.cuh"
#include "kernels/select/registers.cuh"

namespace bragg::detail::cuda {

inline constexpr int mix_points = 16;   ///< of a warp at a time
inline constexpr int mix_rows = 16;     ///< of a step
inline constexpr int mix_columns = 32;  ///< coordinates

/// What a block keeps of the coefficients of a tensor, in the order in which lanes take them: step s of group
/// g is number g · steps + s.
struct MixTable {
  struct alignas(16) Pair {
    double low, high;
  };
  Pair* pairs = nullptr;                 ///< [number][4][lane]
  unsigned* used = nullptr;              ///< [number] bit r: a point of the group has a coefficient of row r
  unsigned* infinite = nullptr;          ///< [group] bit p: point p of the group reads +inf everywhere
  const unsigned char** rows = nullptr;  ///< [number][16]; of rows that are not used, some row that is
  int groups = 0;
  int steps = 0;
  int per_group = 0;     ///< 2¹⁶/groups, rounded up: what divides by groups
  bool is_held = false;  ///< else there is no room, and coefficients are read where they lie
};

/// Rows to go through: references of zeros behind the others are left out.
BRAGG_HD inline int mixed_rows(const Rows& rows) {
  int count = rows.count;
  while (count > rows.inputs && rows.zeros[count - 1 - rows.inputs]) --count;
  return count;
}

/// Shared memory of a table; 0: nothing is mixed, or there is no room.
BRAGG_HD constexpr std::size_t mix_shared(int points, int rows) {
  if (rows == 0) return 0;
  const auto groups = static_cast<std::size_t>((points + mix_points - 1) / mix_points);
  const auto steps = static_cast<std::size_t>((rows + mix_rows - 1) / mix_rows);
  const std::size_t bytes =
      groups * steps * (4 * 32 * sizeof(MixTable::Pair) + mix_rows * sizeof(const unsigned char*)) +
      (groups * steps * sizeof(unsigned) + 15) / 16 * 16 + (groups * sizeof(unsigned) + 15) / 16 * 16;
  return bytes <= most_mix_shared ? bytes : 0;
}

BRAGG_DEVICE MixTable take_mix_table(simt::DynamicShared& shared, int points, int rows) {
  MixTable table;
  table.groups = (points + mix_points - 1) / mix_points;
  table.steps = (rows + mix_rows - 1) / mix_rows;
  table.per_group = 65536 / table.groups + 1;
  table.is_held = mix_shared(points, rows) != 0;
  // Pointers are never null, so that the compiler knows what memory they are to.
  const auto held = static_cast<std::size_t>(table.is_held ? table.groups * table.steps : 0);
  table.pairs = shared.take<MixTable::Pair>(held * 4 * 32);
  table.used = shared.take<unsigned>(held);
  table.infinite = shared.take<unsigned>(static_cast<std::size_t>(table.is_held ? table.groups : 0));
  table.rows = shared.take<const unsigned char*>(held * mix_rows);
  return table;
}

/// A lane's coefficients of a step, c[2i + h] of point g + 8h and row t + 4i, from global memory; 0 of zeros.
/// Returns the rows that some point of the group has a coefficient for. All lanes of a warp.
BRAGG_DEVICE unsigned read_coefficients(const SelectArguments& a, int tensor, int group, int step,
                                        double (&c)[8]) {
  const double* const coefficients = a.parts.of(a.mix, tensor);
  const int g = simt::lane() / 4;
  const int t = simt::lane() % 4;
  // What is outside is read at the last point or row, and dropped: no branch parts the loads.
  const double* of_point[2];
  bool has_point[2];
  BRAGG_UNROLL
  for (int h = 0; h < 2; ++h) {
    const int point = mix_points * group + g + 8 * h;
    has_point[h] = point < a.points;
    const auto index = static_cast<std::int64_t>(index_of(a, tensor, has_point[h] ? point : a.points - 1));
    of_point[h] = coefficients + index * a.rows.count;
  }
  unsigned used = 0;
  BRAGG_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int row = mix_rows * step + t + 4 * i;
    const bool has_row = row < a.rows.inputs || (row < a.rows.count && row_of(a, tensor, row) != nullptr);
    BRAGG_UNROLL
    for (int h = 0; h < 2; ++h) {
      const double x = of_point[h][has_row ? row : a.rows.count - 1];
      c[2 * i + h] = has_row && has_point[h] ? x : 0.0;
    }
    unsigned lanes = simt::ballot(c[2 * i] != 0 || c[2 * i + 1] != 0);
    lanes |= lanes >> 16;
    lanes |= lanes >> 8;
    lanes |= lanes >> 4;
    used |= (lanes & 15u) << (4 * i);
  }
  return used;
}

/// Which points of a group read +inf everywhere, a bit each. All lanes of a warp.
BRAGG_DEVICE unsigned infinite_points(const SelectArguments& a, int tensor, int group) {
  const int point = mix_points * group + simt::lane();
  return simt::ballot(simt::lane() < mix_points && point < a.points &&
                      is_infinite(a, tensor, index_of(a, tensor, point)));
}

/// All threads; to be preceded and followed by a barrier.
BRAGG_DEVICE void fill_mix_table(const SelectArguments& a, int tensor, const MixTable& table) {
  if (!table.is_held) return;
  for (int number = simt::warp(); number < table.groups * table.steps; number += simt::threads() / 32) {
    double c[8];
    const unsigned used = read_coefficients(a, tensor, number / table.steps, number % table.steps, c);
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) table.pairs[(4 * number + i) * 32 + simt::lane()] = {c[2 * i], c[2 * i + 1]};
    if (simt::lane() == 0) table.used[number] = used;
    if (used == 0) continue;
    // What is not used may hold NaN: with a coefficient of 0 a row that is used, and so finite, takes its
    // place.
    int some = 0;
    while ((used >> some & 1) == 0) ++some;
    if (simt::lane() < mix_rows) {
      const int row = (used >> simt::lane() & 1) != 0 ? simt::lane() : some;
      table.rows[number * mix_rows + simt::lane()] = row_of(a, tensor, number % table.steps * mix_rows + row);
    }
  }
  for (int group = simt::warp(); group < table.groups; group += simt::threads() / 32) {
    const unsigned infinite = infinite_points(a, tensor, group);
    if (simt::lane() == 0) table.infinite[group] = infinite;
  }
}

/// Of the rows that a warp goes through for a group of points.
struct MixStep {
  int step;
  unsigned used;
};

/// The first step from `step` on that some point of the group has a coefficient for.
BRAGG_DEVICE MixStep find_step(const SelectArguments& a, int tensor, const MixTable& table, int group,
                               int step) {
  unsigned used = 0;
  BRAGG_ROLLED
  for (; step < table.steps; ++step) {
    double c[8];
    used =
        table.is_held ? table.used[group * table.steps + step] : read_coefficients(a, tensor, group, step, c);
    if (used != 0) break;
  }
  return {step, used};
}

BRAGG_DEVICE void take_coefficients(const SelectArguments& a, int tensor, const MixTable& table, int group,
                                    int step, double (&c)[8]) {
  if (!table.is_held) {
    read_coefficients(a, tensor, group, step, c);
    return;
  }
  BRAGG_UNROLL
  for (int i = 0; i < 4; ++i) {
    const MixTable::Pair pair = table.pairs[(4 * (group * table.steps + step) + i) * 32 + simt::lane()];
    c[2 * i] = pair.low;
    c[2 * i + 1] = pair.high;
  }
}

/// Row i of a step's four that are a lane's; null: not to be read.
BRAGG_DEVICE const unsigned char* row_of_step(const SelectArguments& a, int tensor, const MixStep& found,
                                              int i) {
  const int r = simt::lane() % 4 + 4 * i;
  return (found.used >> r & 1) != 0 ? row_of(a, tensor, mix_rows * found.step + r) : nullptr;
}

/// Four coordinates of a row, as they lie in memory.
template <DType dtype>
struct FourValues {
  static constexpr int words = static_cast<int>(sizeof(Bits<dtype>));
  std::uint32_t word[words] = {};

  /// Other groups of points read the same: it may stay in the cache.
  BRAGG_DEVICE void load(const unsigned char* row, std::int64_t index) {
    const unsigned char* const p = row + index * static_cast<std::int64_t>(sizeof(Bits<dtype>));
    if constexpr (words == 2) {
      const uint2 w = *reinterpret_cast<const uint2*>(p);
      word[0] = w.x, word[1] = w.y;
    } else {
      BRAGG_UNROLL
      for (int k = 0; k < words; k += 4) {
        const uint4 w = *reinterpret_cast<const uint4*>(p + 4 * k);
        word[k] = w.x, word[k + 1] = w.y, word[k + 2] = w.z, word[k + 3] = w.w;
      }
    }
  }
  BRAGG_DEVICE double operator[](int q) const {
    if constexpr (words == 8) {
      return simt::double_of(static_cast<std::uint64_t>(word[2 * q + 1]) << 32 | word[2 * q]);
    } else if constexpr (words == 4) {
      return simt::float_of(word[q]);
    } else {
      return value_of<dtype>(static_cast<std::uint16_t>(word[q / 2] >> (16 * (q % 2))));
    }
  }
};

/// z[q] += the products of rows at coordinates begin + 4·(lane/4) + q, all of `dtype` and aligned to 16
/// bytes.
template <DType dtype, bool kAhead>
BRAGG_DEVICE void mix_vectors(const SelectArguments& a, int tensor, const MixTable& table, int group,
                              std::int64_t begin, double (&z)[4][4]) {
  const std::int64_t index = begin + 4 * (simt::lane() / 4);
  FourValues<dtype> x[4];
  const auto load = [&](const MixStep& step) {
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (table.is_held) {
        const int number = group * table.steps + step.step;
        x[i].load(table.rows[number * mix_rows + simt::lane() % 4 + 4 * i], index);
      } else if (const unsigned char* const row = row_of_step(a, tensor, step, i); row != nullptr) {
        x[i].load(row, index);
      } else {
        x[i] = {};
      }
    }
  };
  MixStep now = find_step(a, tensor, table, group, 0);
  if (now.step < table.steps) load(now);
  BRAGG_ROLLED
  while (now.step < table.steps) {
    const MixStep next = find_step(a, tensor, table, group, now.step + 1);
    FourValues<dtype> current[4];
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) current[i] = x[i];
    if (kAhead && next.step < table.steps) load(next);
    double c[8];
    take_coefficients(a, tensor, table, group, now.step, c);
    BRAGG_UNROLL
    for (int q = 0; q < 4; ++q) {
      const double column[4] = {current[0][q], current[1][q], current[2][q], current[3][q]};
      simt::mma_16x8x16(z[q], c, column);
    }
    if (!kAhead && next.step < table.steps) load(next);
    now = next;
  }
}

/// The same at any alignment, and of rows of several dtypes: element by element, as if the rows were 0 from
/// the `left`-th on.
BRAGG_DEVICE void mix_elements(const SelectArguments& a, int tensor, const MixTable& table, int group,
                               std::int64_t begin, int left, double (&z)[4][4]) {
  const int own = 4 * (simt::lane() / 4);
  const auto alignment = static_cast<Alignment>(a.rows.alignment[tensor]);
  BRAGG_ROLLED
  for (MixStep now = find_step(a, tensor, table, group, 0); now.step < table.steps;
       now = find_step(a, tensor, table, group, now.step + 1)) {
    double c[8];
    take_coefficients(a, tensor, table, group, now.step, c);
    BRAGG_UNROLL
    for (int q = 0; q < 4; ++q) {
      double column[4] = {};
      BRAGG_ROLLED
      for (int i = 0; i < 4; ++i) {
        const unsigned char* const row = row_of_step(a, tensor, now, i);
        if (row == nullptr || own + q >= left) continue;
        const DType dtype = a.rows.dtype_of(mix_rows * now.step + simt::lane() % 4 + 4 * i);
        const double x = load_f64(row, begin + own + q, dtype, alignment);
        each<4>([&](auto k) { column[k] = k == i ? x : column[k]; });
      }
      simt::mma_16x8x16(z[q], c, column);
    }
  }
}

/// A mixed value as it is sorted: rounded to ValueT, a finite one never to infinity; NaN is +inf.
template <class ValueT>
BRAGG_DEVICE ValueT mixed_value(double x) {
  if constexpr (sizeof(ValueT) == sizeof(double)) {
    return nan_to_infinity(x);
  } else {
    const auto rounded = static_cast<float>(x);
    if (fabsf(rounded) <= 0x1.fffffep127f) return rounded;
    if (!is_finite(x)) return nan_to_infinity(rounded);
    return x < 0 ? -0x1.fffffep127f : 0x1.fffffep127f;
  }
}

BRAGG_DEVICE void store_four(float* to, const float (&x)[4]) {
  *reinterpret_cast<uint4*>(to) =
      uint4{simt::bits_of(x[0]), simt::bits_of(x[1]), simt::bits_of(x[2]), simt::bits_of(x[3])};
}
BRAGG_DEVICE void store_four(double* to, const double (&x)[4]) {
  BRAGG_UNROLL
  for (int q = 0; q < 4; ++q) to[q] = x[q];
}

/// Points 16 · group … 16 · group + 15 (those there are) at coordinates begin … begin + 31 of a tensor, the
/// `left`-th and on as if the rows were 0 there: to[(p − 16 · group)·stride + coordinate − begin]. `to` is
/// aligned to 16 bytes, `stride` a multiple of that. `even`: all rows have one dtype and are aligned to 16
/// bytes. All lanes of a warp.
template <DType value, bool kAhead>
BRAGG_DEVICE void mix(const SelectArguments& a, int tensor, const MixTable& table, bool even, int group,
                      std::int64_t begin, int left, Value<value>* to, int stride) {
  using ValueT = Value<value>;
  const int g = simt::lane() / 4;
  const int t = simt::lane() % 4;
  const unsigned infinite = table.is_held ? table.infinite[group] : infinite_points(a, tensor, group);
  double z[4][4] = {};
  const auto mix_aligned = [&](const MixTable& known) {
    if constexpr (value == DType::f64) {
      mix_vectors<DType::f64, kAhead>(a, tensor, known, group, begin, z);
    } else if (a.rows.dtype == DType::f32) {
      mix_vectors<DType::f32, kAhead>(a, tensor, known, group, begin, z);
    } else if (a.rows.dtype == DType::f16) {
      mix_vectors<DType::f16, kAhead>(a, tensor, known, group, begin, z);
    } else {
      mix_vectors<DType::bf16, kAhead>(a, tensor, known, group, begin, z);
    }
  };
  if (!even || left < mix_columns) {
    mix_elements(a, tensor, table, group, begin, left, z);
  } else {
    // Where coefficients lie is asked once, not at each step.
    MixTable known = table;
    if (table.is_held) {
      known.is_held = true;
      mix_aligned(known);
    } else {
      known.is_held = false;
      mix_aligned(known);
    }
  }
  ValueT x[4][4];  // [2h + i][q]
  bool plain = value == DType::f32 && infinite == 0;
  if constexpr (value == DType::f32) {
    // Rounded one after another, and looked at once.
    NonfiniteTest<DType::f32> nonfinite;
    BRAGG_UNROLL
    for (int k = 0; k < 16; ++k) {
      x[k / 4][k % 4] = static_cast<float>(z[k % 4][k / 4]);
      nonfinite.add(x[k / 4][k % 4]);
    }
    plain = plain && !nonfinite.any();
  }
  if (!plain) {
    BRAGG_UNROLL
    for (int k = 0; k < 16; ++k) {
      const bool is_infinite = (infinite >> (g + 8 * (k / 8)) & 1) != 0;
      x[k / 4][k % 4] = is_infinite ? infinity_of<ValueT>() : mixed_value<ValueT>(z[k % 4][k / 4]);
    }
  }
  BRAGG_UNROLL
  for (int k = 0; k < 4; ++k) {
    const int point = g + 8 * (k / 2);
    if (mix_points * group + point < a.points) store_four(to + point * stride + 4 * (2 * t + k % 2), x[k]);
  }
}

}  // namespace bragg::detail::cuda
