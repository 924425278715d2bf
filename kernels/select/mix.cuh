// SPDX-License-Identifier: Apache-2.0
// Points as combinations of rows, Z = C·X in float64 on tensor cores, 16 points × 32 coordinates a warp.
//
// What lane 4g + t holds of mma_16x8x16 (common/simt.cuh), in tile q of 8 or 16 coordinates:
//
//                   16 points, q = 0 … 3                   8 points at most (kFew), q = 0, 1
//   A[g+8h][t+4i]   coefficient of point g+8h, row t+4i    row t+4i at coordinate 4g+2q+h
//   B[t+4i][g]      row t+4i at coordinate 4g+q            coefficient of point g, row t+4i
//   C[g+8h][2t+i]   point g+8h at coordinate 4(2t+i)+q     point 2t+i at coordinate 4g+2q+h
//
// Over all tiles a lane reads coordinates 4g … 4g+3 of rows t, t+4, t+8 and t+12, which are 16 consecutive
// bytes of each (f32), and gets four consecutive coordinates of each of its points. The map of few points
// leaves no half of a tile idle. A row that none of the points has a coefficient for is not read: it may
// hold NaN; a step without such rows is not in the table. All of a step's rows are under way before the first
// is converted; with kAhead the next step's, too, before this one is multiplied.
//
// Tried and lost (by its code, not run): a branch between vectors and elements at each step, and a whole step
// of elements under way, which spilled with 128 registers; a question to each rounded value, six
// instructions and a wait for its conversion where one and a multiply-add do; zeros to add the first step to,
// and null pointers looked for, which with the search for the next step made 60 instructions of a tile 120; a
// dtype at run time and a branch for each row, which made the loads of a step wait for one another;
// coefficients from global memory at each step, 24 address operations of 8 loads.
#pragma once

#include "kernels/common/registers.cuh"
#include "kernels/common/tuning.hpp"
#include "kernels/select/points.cuh"

namespace bragg::detail::cuda {

inline constexpr int mix_points = 16;   ///< of a warp at a time
inline constexpr int mix_rows = 16;     ///< of a step
inline constexpr int mix_columns = 32;  ///< coordinates

/// What a block keeps of the coefficients of a tensor: the steps that each group of points goes through,
/// those of group g at g · steps and on, in the order in which lanes take their coefficients.
struct MixTable {
  struct alignas(16) Pair {
    double low, high;
  };
  struct Step {
    std::uint16_t used;   ///< bit r: a point of the group has a coefficient of row r
    std::uint16_t index;  ///< rows 16 · index and on
  };
  Pair* pairs = nullptr;                 ///< [step][4][lane]
  const unsigned char** rows = nullptr;  ///< [step][16]; of rows that are not used, some row that is
  Step* step = nullptr;                  ///< [step]
  int* count = nullptr;                  ///< [group] steps that it goes through
  unsigned* infinite = nullptr;          ///< [group] bit p: point p of the group reads +inf everywhere
  int groups = 0;
  int steps = 0;         ///< of all rows
  int per_group = 0;     ///< 2¹⁶/groups, rounded up: what divides by groups
  bool is_held = false;  ///< else there is no room, and coefficients are read where they lie
};

/// Rows to go through: references of zeros behind the others are left out.
BRAGG_HD inline int mixed_rows(const Rows& rows) {
  int count = rows.count;
  while (count > rows.inputs && rows.zeros[count - 1 - rows.inputs]) --count;
  return count;
}

BRAGG_HD constexpr std::size_t mix_groups(int points) {
  return static_cast<std::size_t>((points + mix_points - 1) / mix_points);
}
BRAGG_HD constexpr std::size_t mix_steps(int rows) {
  return static_cast<std::size_t>((rows + mix_rows - 1) / mix_rows);
}

/// Shared memory of a table; 0: nothing is mixed, or there is no room.
BRAGG_HD constexpr std::size_t mix_shared(int points, int rows) {
  const std::size_t groups = mix_groups(points);
  const std::size_t steps = groups * mix_steps(rows);
  const std::size_t bytes =
      steps * (4 * 32 * sizeof(MixTable::Pair) + mix_rows * sizeof(const unsigned char*)) +
      (steps * sizeof(MixTable::Step) + 15) / 16 * 16 + (groups * sizeof(int) + 15) / 16 * 16 +
      (groups * sizeof(unsigned) + 15) / 16 * 16;
  return rows > 0 && bytes <= most_mix_shared ? bytes : 0;
}

/// The same where blocks have `taken` bytes of shared memory anyway and may have `most`.
constexpr std::size_t mix_shared_within(std::size_t most, std::size_t taken, int points, int rows) {
  const std::size_t bytes = mix_shared(points, rows);
  return taken + bytes <= most ? bytes : 0;
}

/// Held where the launch has left room for it: values are the same, wherever coefficients are read.
BRAGG_DEVICE MixTable take_mix_table(simt::DynamicShared& shared, int points, int rows) {
  MixTable table;
  table.groups = static_cast<int>(mix_groups(points));
  table.steps = static_cast<int>(mix_steps(rows));
  table.per_group = 65536 / table.groups + 1;
  table.is_held = mix_shared(points, rows) != 0 && mix_shared(points, rows) <= shared.left();
  // Pointers are never null, so that the compiler knows what memory they are to.
  const auto groups = static_cast<std::size_t>(table.is_held ? table.groups : 0);
  const std::size_t steps = groups * static_cast<std::size_t>(table.steps);
  table.pairs = shared.take<MixTable::Pair>(steps * 4 * 32);
  table.rows = shared.take<const unsigned char*>(steps * mix_rows);
  table.step = shared.take<MixTable::Step>(steps);
  table.count = shared.take<int>(groups);
  table.infinite = shared.take<unsigned>(groups);
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
  for (int group = simt::warp(); group < table.groups; group += simt::threads() / 32) {
    int count = 0;
    BRAGG_ROLLED
    for (int index = 0; index < table.steps; ++index) {
      double c[8];
      const unsigned used = read_coefficients(a, tensor, group, index, c);
      if (used == 0) continue;
      const int number = group * table.steps + count++;
      BRAGG_UNROLL
      for (int i = 0; i < 4; ++i) {
        table.pairs[(4 * number + i) * 32 + simt::lane()] = {c[2 * i], c[2 * i + 1]};
      }
      // What is not used may hold NaN: with a coefficient of 0 a row that is used, and so finite, takes its
      // place.
      int some = 0;
      while ((used >> some & 1) == 0) ++some;
      if (simt::lane() < mix_rows) {
        const int row = (used >> simt::lane() & 1) != 0 ? simt::lane() : some;
        table.rows[number * mix_rows + simt::lane()] = row_of(a, tensor, index * mix_rows + row);
      }
      if (simt::lane() == 0) {
        table.step[number] = {static_cast<std::uint16_t>(used), static_cast<std::uint16_t>(index)};
      }
    }
    const unsigned infinite = infinite_points(a, tensor, group);
    if (simt::lane() == 0) {
      table.count[group] = count;
      table.infinite[group] = infinite;
    }
  }
}

/// The steps of a group of points, one after another, from a table in shared memory.
class HeldSteps {
 public:
  static constexpr bool has_null_rows = false;
  BRAGG_DEVICE HeldSteps(const MixTable& table, int group)
      : table_(table), now_(group * table.steps), end_(now_ + table.count[group]) {}

  BRAGG_DEVICE bool more() const { return now_ < end_; }
  BRAGG_DEVICE void advance() { ++now_; }
  BRAGG_DEVICE int index() const { return table_.step[now_].index; }
  BRAGG_DEVICE unsigned used() const { return table_.step[now_].used; }
  /// A lane's row t + 4i, or another that is finite where it has no coefficient.
  BRAGG_DEVICE const unsigned char* row(int i) const {
    return table_.rows[now_ * mix_rows + simt::lane() % 4 + 4 * i];
  }
  BRAGG_DEVICE void take_coefficients(double (&c)[8]) const {
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) {
      const MixTable::Pair pair = table_.pairs[(4 * now_ + i) * 32 + simt::lane()];
      c[2 * i] = pair.low;
      c[2 * i + 1] = pair.high;
    }
  }

 private:
  const MixTable& table_;
  int now_, end_;
};

/// The same from where coefficients lie.
class ReadSteps {
 public:
  static constexpr bool has_null_rows = true;  ///< where there is no coefficient
  BRAGG_DEVICE ReadSteps(const SelectArguments& a, int tensor, const MixTable& table, int group)
      : a_(a), tensor_(tensor), steps_(table.steps), group_(group) {
    find();
  }

  BRAGG_DEVICE bool more() const { return index_ < steps_; }
  BRAGG_DEVICE void advance() {
    ++index_;
    find();
  }
  BRAGG_DEVICE int index() const { return index_; }
  BRAGG_DEVICE unsigned used() const { return used_; }
  BRAGG_DEVICE const unsigned char* row(int i) const {
    const int r = simt::lane() % 4 + 4 * i;
    return (used_ >> r & 1) != 0 ? row_of(a_, tensor_, mix_rows * index_ + r) : nullptr;
  }
  BRAGG_DEVICE void take_coefficients(double (&c)[8]) const {
    read_coefficients(a_, tensor_, group_, index_, c);
  }

 private:
  BRAGG_DEVICE void find() {
    BRAGG_ROLLED
    for (; index_ < steps_; ++index_) {
      double c[8];
      used_ = read_coefficients(a_, tensor_, group_, index_, c);
      if (used_ != 0) return;
    }
  }

  const SelectArguments& a_;
  int tensor_, steps_, group_;
  int index_ = 0;
  unsigned used_ = 0;
};

/// How rows are read: one element after another, at any alignment and of several dtypes; elements of one
/// dtype, several under way; of one dtype, 16 bytes (of 16 bits: 8) at a time.
enum class Loads { any, elements, vectors };
BRAGG_DEVICE Loads mix_loads(bool alike, Alignment alignment) {
  if (!alike || alignment == Alignment::byte) return Loads::any;
  return alignment == Alignment::vector ? Loads::vectors : Loads::elements;
}

/// Four coordinates of a row, as they lie in memory.
template <DType dtype>
struct FourValues {
  static constexpr int words = static_cast<int>(sizeof(Bits<dtype>));
  std::uint32_t word[words] = {};

  BRAGG_DEVICE void load(const unsigned char* row, std::int64_t index) {
    const unsigned char* const p = row + index * static_cast<std::int64_t>(sizeof(Bits<dtype>));
    if constexpr (words == 2) {
      const uint2 w = simt::load8_kept(p);
      word[0] = w.x, word[1] = w.y;
    } else {
      BRAGG_UNROLL
      for (int k = 0; k < words; k += 4) {
        const uint4 w = simt::load16_kept(p + 4 * k);
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

/// A warp's 16 points × 32 coordinates, or 8 × 32, as the tensor cores leave them in its lanes.
template <bool kFew>
struct Mixed {
  static constexpr int tiles = kFew ? 2 : 4;
  double z[tiles][4];

  BRAGG_DEVICE void clear(int q) { z[q][0] = z[q][1] = z[q][2] = z[q][3] = 0; }

  /// Adds tile q of a step: a lane's coefficients, and the values of its rows, x(i, e) of row t + 4i at
  /// coordinate 4g + e.
  template <class ValueF>
  BRAGG_DEVICE void add(int q, const double (&c)[8], const ValueF& x) {
    if constexpr (kFew) {
      const double column[4] = {c[0], c[2], c[4], c[6]};
      double of_rows[8];
      BRAGG_UNROLL
      for (int k = 0; k < 8; ++k) of_rows[k] = x(k / 2, 2 * q + k % 2);
      simt::mma_16x8x16(z[q], of_rows, column);
    } else {
      const double column[4] = {x(0, q), x(1, q), x(2, q), x(3, q)};
      simt::mma_16x8x16(z[q], c, column);
    }
  }

  /// A lane has four coordinates of each of `points` points: value(k, e) is that of point(k) at first(k) + e.
  static constexpr int points = kFew ? 2 : 4;
  BRAGG_DEVICE static int point(int k) {
    return kFew ? 2 * (simt::lane() % 4) + k : simt::lane() / 4 + 8 * (k / 2);
  }
  BRAGG_DEVICE static int first(int k) {
    return 4 * (kFew ? simt::lane() / 4 : 2 * (simt::lane() % 4) + k % 2);
  }
  BRAGG_DEVICE double value(int k, int e) const { return kFew ? z[e / 2][2 * (e % 2) + k] : z[e % tiles][k]; }
};

/// The products of rows at 32 coordinates from `begin` on, all of `dtype` and aligned to 16 bytes, in place
/// of what `sums` holds. There is a step. The first is written apart: zeros that tensor cores add to take no
/// instruction.
template <DType dtype, bool kAhead, bool kFew, class StepsT>
BRAGG_DEVICE void mix_vectors(StepsT steps, std::int64_t begin, Mixed<kFew>& sums) {
  const std::int64_t index = begin + 4 * (simt::lane() / 4);
  FourValues<dtype> x[4];
  const auto load = [&](auto count) {
    each<count>([&](auto i) {
      const unsigned char* const row = steps.row(i);
      if (!StepsT::has_null_rows || row != nullptr) {
        x[i].load(row, index);
      } else {
        x[i] = {};
      }
    });
  };
  const auto multiply = [&](auto is_first, auto count) {
    FourValues<dtype> current[4];
    each<count>([&](auto i) { current[i] = x[i]; });
    double c[8];
    steps.take_coefficients(c);
    steps.advance();
    if (kAhead && steps.more()) load(Number<4>());
    BRAGG_UNROLL
    for (int q = 0; q < Mixed<kFew>::tiles; ++q) {
      if (decltype(is_first)::value) sums.clear(q);
      sums.add(q, c, [&](int i, int e) { return i < count ? current[i][e] : 0.0; });
    }
  };
  if (kFew && steps.used() >> 8 == 0) {
    load(Number<2>());
    multiply(std::true_type(), Number<2>());
  } else {
    load(Number<4>());
    multiply(std::true_type(), Number<4>());
  }
  BRAGG_ROLLED
  while (steps.more()) {
    if (!kAhead) load(Number<4>());
    multiply(std::false_type(), Number<4>());
  }
}

/// The same of rows that are aligned to their elements: a tile's are under way together. Those of a whole
/// step, 16 of a lane, would spill, and so would this of steps that are not held.
template <DType dtype, bool kFew, class StepsT>
BRAGG_DEVICE void mix_elements_alike(StepsT steps, std::int64_t begin, Mixed<kFew>& sums) {
  each<Mixed<kFew>::tiles>([&](auto q) { sums.clear(q); });
  constexpr int width = 4 / Mixed<kFew>::tiles;  // coordinates of a lane in a tile
  const std::int64_t index = begin + 4 * (simt::lane() / 4);
  BRAGG_ROLLED
  for (; steps.more(); steps.advance()) {
    double c[8];
    steps.take_coefficients(c);
    BRAGG_UNROLL
    for (int q = 0; q < Mixed<kFew>::tiles; ++q) {
      Bits<dtype> x[4][width];
      BRAGG_UNROLL
      for (int i = 0; i < 4; ++i) {
        const unsigned char* const row = steps.row(i);
        BRAGG_UNROLL
        for (int e = 0; e < width; ++e) {
          x[i][e] = !StepsT::has_null_rows || row != nullptr
                        ? load_element<dtype>(row, index + width * q + e, Alignment::element)
                        : Bits<dtype>{0};
        }
      }
      sums.add(q, c, [&](int i, int e) { return static_cast<double>(value_of<dtype>(x[i][e % width])); });
    }
  }
}

/// The same at any alignment, of rows of several dtypes, or without a step, as if the rows were 0 from the
/// `left`-th on.
template <bool kFew, class StepsT>
BRAGG_DEVICE void mix_elements(const SelectArguments& a, int tensor, StepsT steps, std::int64_t begin,
                               int left, Mixed<kFew>& sums) {
  each<Mixed<kFew>::tiles>([&](auto q) { sums.clear(q); });
  const int own = 4 * (simt::lane() / 4);
  const auto alignment = static_cast<Alignment>(a.rows.alignment[tensor]);
  BRAGG_ROLLED
  for (; steps.more(); steps.advance()) {
    double c[8];
    steps.take_coefficients(c);
    constexpr int width = 4 / Mixed<kFew>::tiles;  // coordinates of a lane in a tile
    BRAGG_UNROLL
    for (int q = 0; q < Mixed<kFew>::tiles; ++q) {
      double x[4 * width] = {};
      BRAGG_ROLLED
      for (int k = 0; k < 4 * width; ++k) {
        const int r = simt::lane() % 4 + 4 * (k / width);
        const int e = own + width * q + k % width;
        if ((steps.used() >> r & 1) == 0 || e >= left) continue;
        const DType dtype = a.rows.dtype_of(mix_rows * steps.index() + r);
        const double value = load_f64(steps.row(k / width), begin + e, dtype, alignment);
        each<4 * width>([&](auto j) { x[j] = j == k ? value : x[j]; });
      }
      sums.add(q, c, [&](int i, int e) { return x[width * i + e % width]; });
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
/// aligned to 16 bytes, `stride` a multiple of that. kFew: there are 8 points at most. All lanes of a warp.
template <DType value, bool kAhead, bool kFew = false>
BRAGG_DEVICE void mix(const SelectArguments& a, int tensor, const MixTable& table, Loads loads, int group,
                      std::int64_t begin, int left, Value<value>* to, int stride) {
  using ValueT = Value<value>;
  using MixedT = Mixed<kFew>;
  const unsigned infinite = table.is_held ? table.infinite[group] : infinite_points(a, tensor, group);
  MixedT sums;
  const auto go_through = [&](auto steps) {
    const auto alike = [&](auto of_rows) {
      constexpr DType dtype = decltype(of_rows)::value;
      if constexpr (!decltype(steps)::has_null_rows) {
        if (loads == Loads::elements) return mix_elements_alike<dtype>(steps, begin, sums);
      }
      mix_vectors<dtype, kAhead>(steps, begin, sums);
    };
    if (loads == Loads::any || (loads == Loads::elements && decltype(steps)::has_null_rows) ||
        left < mix_columns || !steps.more()) {
      mix_elements(a, tensor, steps, begin, left, sums);
    } else if constexpr (value == DType::f64) {
      alike(std::integral_constant<DType, DType::f64>());
    } else if (a.rows.dtype == DType::f32) {
      alike(std::integral_constant<DType, DType::f32>());
    } else if (a.rows.dtype == DType::f16) {
      alike(std::integral_constant<DType, DType::f16>());
    } else {
      alike(std::integral_constant<DType, DType::bf16>());
    }
  };
  // Where coefficients lie is asked once, not at each step.
  if (table.is_held) {
    go_through(HeldSteps(table, group));
  } else {
    go_through(ReadSteps(a, tensor, table, group));
  }
  ValueT x[MixedT::points][4];
  bool plain = value == DType::f32 && infinite == 0;
  if constexpr (value == DType::f32) {
    // Rounded one after another, and looked at once.
    NonfiniteTest<DType::f32> nonfinite;
    BRAGG_UNROLL
    for (int k = 0; k < 4 * MixedT::points; ++k) {
      x[k / 4][k % 4] = static_cast<float>(sums.value(k / 4, k % 4));
      nonfinite.add(x[k / 4][k % 4]);
    }
    plain = plain && !nonfinite.any();
  }
  if (!plain) {
    BRAGG_UNROLL
    for (int k = 0; k < 4 * MixedT::points; ++k) {
      const bool is_infinite = (infinite >> MixedT::point(k / 4) & 1) != 0;
      x[k / 4][k % 4] = is_infinite ? infinity_of<ValueT>() : mixed_value<ValueT>(sums.value(k / 4, k % 4));
    }
  }
  BRAGG_UNROLL
  for (int k = 0; k < MixedT::points; ++k) {
    const int point = MixedT::point(k);
    if (mix_points * group + point < a.points) store_four(to + point * stride + MixedT::first(k), x[k]);
  }
}

}  // namespace bragg::detail::cuda
