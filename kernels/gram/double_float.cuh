// SPDX-License-Identifier: Apache-2.0
// Products of a chunk for 3 rows and more of f32, f16 or bf16 where a device's f64 is slow: each value is a
// float, each sum two floats that stand for their sum.
//
// Order        A lane adds products of four coordinates as a tree, and four such trees; lanes are added as a
//              tree in pairs of floats, and the sum of 512 coordinates, a span, goes to an f64: spans in
//              order. One order for all pairs, so equal rows have bit-equal products. A non-finite value
//              stays in its row's pairs.
// Error        With u = 2⁻²⁴ and M = Σ|x_ik x_jk|: products are exact as two floats, and so is what each
//              addition of leading floats loses. What was lost is added up by itself, and rounds. In a lane
//              the losses within trees are at most 3uM in total, those of the lane's sum uM a tree, so their
//              roundings are 8 + 7 + 18 = 33 u²M; over five levels of lanes 1 + 3 + … = 35 more; 128 spans of
//              a chunk 4 more. Together 72·2⁻⁴⁸·M, less than gram_additions are promised: the bound of
//              docs/numerics.md is the same. Of 16-bit types products are exact as one float.
// Scale        A row's values in a span are multiplied by a power of two that takes the largest to 2⁴⁰ … 2⁴¹,
//              so nothing overflows, and what underflows is below 2⁻¹⁵⁰ of the product of two rows' lengths.
//              Each row has its own, so nobody else's values matter.
// Map          One thread block per chunk. Its warps stage a span of all rows in shared memory as scaled
//              floats, each warp its rows, and ask for the next in L2. Rows go by units of 8 (to 8 rows: of
//              4); a task is a unit with itself, or with half of one before: of u units there are u², of
//              nearly as many pairs, and each warp takes one to three. Tails and unaligned rows go to the
//              same places: the same bits.
// Bound        f32 arithmetic: 40 operations (16 bits: 33) for each pair and four coordinates, of whole
// units;
//              then memory. f64: ten operations of a warp per task and span.
// Resources    128 to 384 threads; registers: two a pair (20 or 72), and values; 2 KB shared a row of 48.
// Measured     not yet run on hardware.
#pragma once

#include <type_traits>

#include "kernels/common/double_float.cuh"
#include "kernels/common/tuning.hpp"
#include "kernels/gram/batch.cuh"
#include "kernels/gram/chunks.hpp"

namespace bragg::detail::cuda {

inline constexpr int span_length = 512;  ///< coordinates that have a common scale
inline constexpr int span_elements = span_length / 32;

/// Four neighbouring coordinates: shared memory is read and written 16 bytes at a time.
struct alignas(16) FourFloats {
  float x[4];
};

// What fold_lanes takes. By members: a choice between structs would be one of addresses, and put them in
// memory.
BRAGG_DEVICE DoubleFloat exchange(DoubleFloat x, int lanes) {
  return {simt::shuffle_xor(x.high, lanes), simt::shuffle_xor(x.low, lanes)};
}
BRAGG_DEVICE DoubleFloat choose(bool first, DoubleFloat a, DoubleFloat b) {
  return {first ? a.high : b.high, first ? a.low : b.low};
}

/// sum += four products, each p but for `rest`, of which there is none unless `has_rest`.
template <bool has_rest>
BRAGG_DEVICE void add_four(DoubleFloat& sum, const float (&p)[4], const float (&rest)[4]) {
  float lost[4];
  const float front = two_sum(p[0], p[1], lost[0]);
  const float back = two_sum(p[2], p[3], lost[1]);
  const float four = two_sum(front, back, lost[2]);
  float small = (lost[0] + lost[1]) + lost[2];
  if constexpr (has_rest) small += (rest[0] + rest[1]) + (rest[2] + rest[3]);
  sum.high = two_sum(sum.high, four, lost[3]);
  sum.low += small + lost[3];
}

/// sum += the products of four coordinates. `rounds`: a product may not fit in a float.
template <bool rounds>
BRAGG_DEVICE void add_products(DoubleFloat& sum, const FourFloats& a, const FourFloats& b) {
  float p[4];
  float rest[4] = {};
  BRAGG_UNROLL
  for (int i = 0; i < 4; ++i) p[i] = a.x[i] * b.x[i];
  if constexpr (rounds) {
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) rest[i] = simt::fma(a.x[i], b.x[i], -p[i]);
  }
  add_four<rounds>(sum, p, rest);
}

/// The exponent of the power of two that a row whose largest magnitude has these bits is multiplied by: what
/// f32 holds of it at most, 0 where that is not finite.
BRAGG_DEVICE int span_exponent(std::uint32_t largest) {
  const auto biased = static_cast<int>(largest >> 23);
  if (biased == 255) return 0;
  const int exponent = 40 + 127 - (biased > 0 ? biased : 1);
  return exponent < 127 ? exponent : 127;
}

/// Where rows come from and where their spans go, in shared memory.
struct SpanRows {
  const unsigned char* const* data;  ///< [row]; null: zeros
  float* staged;                     ///< [row][span_length]
  int* exponents;                    ///< [row]
};

/// What most is in any lane.
BRAGG_DEVICE std::uint32_t warp_max(std::uint32_t most) {
  BRAGG_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    const std::uint32_t other = simt::shuffle_xor(most, lanes);
    if (other > most) most = other;
  }
  return most;
}

/// The scale of a row, of what each lane saw of it.
BRAGG_DEVICE float settle_scale(const SpanRows& rows, int row, std::uint32_t most) {
  const int exponent = span_exponent(warp_max(most));
  if (simt::lane() == 0) rows.exponents[row] = exponent;
  return float_power_of_two(exponent);
}

/// A warp stages a whole span of `count` rows from `row`, whose loads are under way together.
template <DType dtype, int count>
BRAGG_DEVICE void stage_vectors(const SpanRows& rows, int row, int begin) {
  constexpr int run = vector_elements<dtype>;
  constexpr int loads = span_elements / run;
  uint4 raw[count][loads];
  BRAGG_UNROLL
  for (int r = 0; r < count; ++r) {
    const unsigned char* const p = rows.data[row + r];
    BRAGG_UNROLL
    for (int l = 0; l < loads; ++l) {
      const int at = begin * static_cast<int>(sizeof(Bits<dtype>)) + 16 * (32 * l + simt::lane());
      raw[r][l] = p != nullptr ? simt::load16(p + at) : uint4{0, 0, 0, 0};
    }
  }
  BRAGG_UNROLL
  for (int r = 0; r < count; ++r) {
    std::uint32_t most = 0;
    BRAGG_UNROLL
    for (int e = 0; e < span_elements; ++e) raise_float(most, value_at<dtype>(raw[r][e / run], e % run));
    const float scale = settle_scale(rows, row + r, most);
    float* const to = rows.staged + (row + r) * span_length + run * simt::lane();
    BRAGG_UNROLL
    for (int e = 0; e < span_elements; e += 4) {
      FourFloats four;
      BRAGG_UNROLL
      for (int i = 0; i < 4; ++i) four.x[i] = value_at<dtype>(raw[r][e / run], e % run + i) * scale;
      *reinterpret_cast<FourFloats*>(to + 32 * run * (e / run) + e % run) = four;
    }
  }
}

/// The same of one row that ends within the span or is not aligned; `loads` of a lane are under way.
template <DType dtype, int loads>
BRAGG_DEVICE void stage_elements(const SpanRows& rows, int row, int begin, int size, Alignment alignment) {
  const unsigned char* const p = rows.data[row];
  float* const to = rows.staged + row * span_length + simt::lane();
  std::uint32_t most = 0;
  BRAGG_ROLLED
  for (int base = 0; base < span_length; base += 32 * loads) {
    Bits<dtype> bits[loads];
    BRAGG_UNROLL
    for (int l = 0; l < loads; ++l) {
      const int at = begin + base + 32 * l + simt::lane();
      bits[l] = p != nullptr && at < size ? load_element<dtype>(p, at, alignment) : Bits<dtype>{0};
    }
    BRAGG_UNROLL
    for (int l = 0; l < loads; ++l) {
      const float x = value_of<dtype>(bits[l]);
      raise_float(most, x);
      to[base + 32 * l] = x;
    }
  }
  const float scale = settle_scale(rows, row, most);
  BRAGG_ROLLED
  for (int at = 0; at < span_length; at += 32) to[at] *= scale;
}

/// Tasks of so many units of rows: unit I has 2I with halves of the units before it, then its own.
BRAGG_HD constexpr int pair_tasks(int units) { return units * units; }

/// Pairs of staged rows that a warp multiplies: of a unit with itself, pair (i, j ≤ i) at i(i+1)/2 + j; or
/// with half of another, pair (i, j) at i · side + j.
template <int unit>
struct PairTask {
  static constexpr int pairs = unit * (unit + 1) / 2;  ///< that there is room for
  static constexpr int side = unit / 2;

  int first_row;
  int first_column;
  bool is_triangle;

  /// `half`: of a unit before `own`; 2 · own: of itself.
  BRAGG_DEVICE PairTask(int own, int half)
      : first_row(own * unit), first_column(half * side), is_triangle(half == 2 * own) {}

  /// The task of that number.
  BRAGG_DEVICE static PairTask of(int task) {
    int own = 0;
    while (pair_tasks(own + 1) <= task) ++own;
    return {own, task - pair_tasks(own)};
  }

  /// row << 8 | column of a pair; −1: there is none.
  BRAGG_DEVICE int place(int pair) const {
    int i = 0;
    if (is_triangle) {
      while ((i + 1) * (i + 2) / 2 <= pair) ++i;
    } else {
      i = pair / side;
    }
    const int j = pair - (is_triangle ? i * (i + 1) / 2 : i * side);
    return i < unit ? (first_row + i) << 8 | (first_column + j) : -1;
  }

  /// sums += products of the lane's coordinates of a staged span, of the first `runs` times 128 coordinates.
  template <bool rounds>
  BRAGG_DEVICE void multiply(const float* staged, int runs, DoubleFloat (&sums)[pairs]) const {
    const float* const rows = staged + first_row * span_length + 4 * simt::lane();
    const float* const columns = staged + first_column * span_length + 4 * simt::lane();
    const auto four = [](const float* side_rows, int row, int k) {
      return *reinterpret_cast<const FourFloats*>(side_rows + row * span_length + 128 * k);
    };
    if (is_triangle) {
      BRAGG_ROLLED
      for (int k = 0; k < runs; ++k) {
        FourFloats x[unit];
        BRAGG_UNROLL
        for (int i = 0; i < unit; ++i) x[i] = four(rows, i, k);
        BRAGG_UNROLL
        for (int i = 0; i < unit; ++i) {
          BRAGG_UNROLL
          for (int j = 0; j <= i; ++j) add_products<rounds>(sums[i * (i + 1) / 2 + j], x[i], x[j]);
        }
      }
    } else {
      BRAGG_ROLLED
      for (int k = 0; k < runs; ++k) {
        FourFloats y[side];
        BRAGG_UNROLL
        for (int j = 0; j < side; ++j) y[j] = four(columns, j, k);
        BRAGG_UNROLL
        for (int i = 0; i < unit; ++i) {
          const FourFloats x = four(rows, i, k);
          BRAGG_UNROLL
          for (int j = 0; j < side; ++j) add_products<rounds>(sums[i * side + j], x, y[j]);
        }
      }
    }
  }
};

/// Asks for a whole span of `count` rows in L2, by all threads: a line of 128 bytes each.
template <DType dtype>
BRAGG_DEVICE void prefetch_span(const unsigned char* const* data, int count, int begin) {
  constexpr int bytes = span_length * static_cast<int>(sizeof(Bits<dtype>));
  constexpr int lines = bytes / 128;
  for (int k = simt::thread(); k < count * lines; k += simt::threads()) {
    const unsigned char* const p = data[k / lines];
    if (p == nullptr) continue;
    simt::prefetch_l2(p + static_cast<std::int64_t>(begin) * static_cast<int>(sizeof(Bits<dtype>)) +
                      128 * (k % lines));
  }
}

/// Rows of a group, where there are more than a block stages: it takes two groups then, or one with itself.
inline constexpr int double_float_group = most_staged_rows / 2;

BRAGG_HD constexpr bool goes_by_groups(int rows) { return rows > most_staged_rows; }
BRAGG_HD constexpr std::int64_t double_float_tiles(int rows) {
  return goes_by_groups(rows) ? triangle((rows + double_float_group - 1) / double_float_group) : 1;
}
/// Units of `unit` rows that a block stages at most.
template <int unit>
BRAGG_HD constexpr int double_float_units(int rows) {
  const int units = goes_by_groups(rows) ? most_staged_rows / unit : (rows + unit - 1) / unit;
  return units < 2 ? 2 : units;
}
template <int unit>
constexpr int double_float_warps(int rows) {
  constexpr int most = DoubleFloatTuning<unit>::warps;
  // Of two groups half of the pairs are within one.
  const int tasks = pair_tasks(double_float_units<unit>(rows)) / (goes_by_groups(rows) ? 2 : 1);
  const int rounds = (tasks + most - 1) / most;
  return (tasks + rounds - 1) / rounds;
}

template <DType dtype, int unit>
BRAGG_KERNEL(32 * DoubleFloatTuning<unit>::warps, DoubleFloatTuning<unit>::blocks)
gram_double_float(BRAGG_GRID_CONSTANT GramBatch batch) {
  simt::grid_dependency_sync();
  using Task = PairTask<unit>;
  constexpr int together = 2;  // rows whose loads a warp has under way
  constexpr int group = double_float_group;
  constexpr int group_units = group / unit;
  const GramArguments& pass = batch.pass;
  const std::int64_t tiles = double_float_tiles(batch.rows);
  const auto chunk = static_cast<int>(simt::block() / tiles);
  const std::int64_t tile = simt::block() - chunk * tiles;
  const auto tile_row = static_cast<int>(triangle_row(tile));
  const auto tile_column = static_cast<int>(tile - triangle(tile_row));
  const bool is_square = tile_row != tile_column;
  const int units =
      is_square || !goes_by_groups(batch.rows) ? double_float_units<unit>(batch.rows) : group_units;
  const int rows = units * unit;
  // Row r of the batch, where it is among the first group's rows that are staged, or among the others.
  const int first_group = tile_column * group;
  const int second_group = is_square ? tile_row * group : group;
  const auto row_at = [&](int r) { return r < group ? first_group + r : second_group + r - group; };
  const int warps = simt::threads() / 32;
  const int warp = simt::warp();
  simt::DynamicShared dynamic;
  float* const staged = dynamic.take<float>(static_cast<std::size_t>(rows * span_length));
  const unsigned char** const data = dynamic.take<const unsigned char*>(static_cast<std::size_t>(rows));
  int* const exponents = dynamic.take<int>(static_cast<std::size_t>(rows));
  const Piece piece = locate(pass.chunks, pass.rows.sizes, batch.first + chunk);
  if (is_skipped(pass, piece.tensor)) return;
  const Alignment alignment = alignment_of(pass.rows, piece.tensor);
  if (simt::thread() < rows) data[simt::thread()] = row_data(batch, piece, row_at(simt::thread()));
  simt::sync_threads();

  double* const partial = pass.partial + chunk * triangle(batch.rows);
  const SpanRows spans{data, staged, exponents};
  const int whole = alignment == Alignment::vector ? piece.size / span_length * span_length : 0;
  const int tasks = is_square ? 2 * group_units * group_units : pair_tasks(units);
  for (int begin = 0; begin < piece.size; begin += span_length) {
    if (begin < whole) {
      BRAGG_ROLLED
      for (int r = together * warp; r < rows; r += together * warps) {
        stage_vectors<dtype, together>(spans, r, begin);
      }
      if (begin + span_length < whole) prefetch_span<dtype>(data, rows, begin + span_length);
    } else {
      BRAGG_ROLLED
      for (int r = warp; r < rows; r += warps) {
        // The question is asked here: within, a branch would part the loads.
        if (alignment == Alignment::byte) {
          stage_elements<dtype, 1>(spans, r, begin, piece.size, Alignment::byte);
        } else {
          stage_elements<dtype, 8>(spans, r, begin, piece.size, Alignment::element);
        }
      }
    }
    simt::sync_threads();
    const int left = piece.size - begin < span_length ? piece.size - begin : span_length;
    BRAGG_ROLLED
    for (int t = warp; t < tasks; t += warps) {
      const Task task =
          is_square ? Task(group_units + t / (2 * group_units), t % (2 * group_units)) : Task::of(t);
      DoubleFloat sums[Task::pairs];
      BRAGG_UNROLL
      for (int p = 0; p < Task::pairs; ++p) sums[p] = {0, 0};
      task.template multiply<dtype == DType::f32>(staged, (left + 127) / 128, sums);
      BRAGG_UNROLL
      for (int p = 0; p < Task::pairs; ++p) sums[p].high = two_sum(sums[p].high, sums[p].low, sums[p].low);
      int first = 0;
      int end = Task::pairs;
      fold_lanes<Task::pairs, 16>(sums, first, end);
      BRAGG_UNROLL
      for (int p = 0; p < (Task::pairs + 31) / 32; ++p) {
        const int place = first + p < end ? task.place(first + p) : -1;
        const int row = row_at(place >> 8);
        const int column = row_at(place & 255);
        if (place < 0 || row >= batch.rows) continue;
        double sum = static_cast<double>(sums[p].high) + static_cast<double>(sums[p].low);
        sum *= double_power_of_two(-(exponents[place >> 8] + exponents[place & 255]));
        // The same lane each time.
        double& product = partial[triangle(row) + column];
        product = begin == 0 ? sum : product + sum;
      }
    }
    simt::sync_threads();
  }
  if (is_square) return;
  for (int r = warp; r < rows && row_at(r) < batch.rows; r += warps) {
    const int row = row_at(r);
    settle_row<dtype>(batch, piece, row, data[r], partial[triangle(row) + row], 0);
  }
}

template <DType dtype>
void launch_double_float(const GramBatch& batch, Stream stream) {
  const auto launch = [&]<int unit>(std::integral_constant<int, unit>) {
    const auto rows = static_cast<std::size_t>(double_float_units<unit>(batch.rows) * unit);
    simt::launch_dependent(gram_double_float<dtype, unit>,
                           batch.chunks * static_cast<int>(double_float_tiles(batch.rows)), 1,
                           32 * double_float_warps<unit>(batch.rows),
                           simt::shared_bytes<float>(rows * span_length) +
                               simt::shared_bytes<const unsigned char*>(rows) + simt::shared_bytes<int>(rows),
                           stream, batch);
  };
  if (batch.rows <= 8) return launch(std::integral_constant<int, 4>());
  launch(std::integral_constant<int, 8>());
}

}  // namespace bragg::detail::cuda
