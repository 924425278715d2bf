// SPDX-License-Identifier: Apache-2.0
// The centre of coordinates, which a pass about a centre takes from every row: a row's value, or the lower
// median of the rows that count, each by its weight: the least value up to which weights reach half of all.
// 0 where that is not finite, as where nothing counts.
#pragma once

#include "kernels/common/registers.cuh"
#include "kernels/gram/batch.cuh"

namespace bragg::detail::cuda {

/// The weight of a table row in the median. A centre that is a row is the median of that row alone.
BRAGG_DEVICE double weight_of(const GramArguments& pass, int tensor, int row) {
  if (pass.center == Center::row) return row == pass.center_row ? 1.0 : 0.0;
  if (row >= pass.rows.inputs) return 0.0;
  const std::uint8_t* const left_out = pass.parts.of(pass.left_out, tensor);
  if (left_out != nullptr && left_out[row] != 0) return 0.0;
  return pass.weights != nullptr ? pass.weights[row] : 1.0;
}

/// Half of all weights; infinity where there are none: no value reaches it.
BRAGG_DEVICE double half_of(double weights) { return weights > 0 ? weights / 2 : infinity_of<double>(); }

template <class T>
BRAGG_DEVICE T finite_or_zero(T x) {
  return is_finite(x) ? x : T{0};
}

/// The median of a few values: the least of those up to which weights reach `half`.
template <class T, int count>
BRAGG_DEVICE T median_of_few(const T (&v)[count], const double* weight, double half) {
  T least = infinity_of<T>();
  BRAGG_UNROLL
  for (int i = 0; i < count; ++i) {
    double reached = 0;
    BRAGG_UNROLL
    for (int j = 0; j < count; ++j) reached += v[j] <= v[i] ? weight[j] : 0.0;
    if (reached >= half && v[i] < least) least = v[i];
  }
  return finite_or_zero(least);
}

// Bit by bit ------------------------------------------------------------------------------------------

template <DType dtype>
using Key = std::conditional_t<dtype == DType::f64, std::uint64_t, std::uint32_t>;

/// Keys are ordered as the values that they stand for. Those above infinity's stand for infinity, those below
/// −infinity's for NaN.
template <DType dtype>
BRAGG_DEVICE Value<dtype> value_of_key(Key<dtype> key, Key<dtype> kept) {
  using KeyT = Key<dtype>;
  constexpr KeyT sign = static_cast<KeyT>(KeyT{1} << (8 * sizeof(KeyT) - 1));
  constexpr KeyT infinity = dtype == DType::f64 ? static_cast<KeyT>(infinite_bits) : KeyT{0x7F800000u};
  const KeyT above = (key & ~sign) < infinity ? key & ~sign : infinity;
  const KeyT bits = ((key & sign) != 0 ? above : ~key) & kept;
  if constexpr (dtype == DType::f64) {
    return simt::double_of(bits);
  } else {
    return simt::float_of(bits);
  }
}

/// The greatest value of the dtype below which weights do not reach half of all: the median.
/// `falls_short(c)` says whether those of values below c do; it does where c is NaN.
template <DType dtype, class F>
BRAGG_DEVICE Value<dtype> median_by_bits(const F& falls_short) {
  // As f32, values of 16 bits have zeros in the last places.
  using KeyT = Key<dtype>;
  constexpr int width = 8 * sizeof(KeyT);
  constexpr int places = dtype == DType::bf16 ? 16 : dtype == DType::f16 ? 19 : width;
  constexpr KeyT last = static_cast<KeyT>(KeyT{1} << (width - places));
  KeyT key = 0;
  BRAGG_ROLLED
  for (KeyT bit = static_cast<KeyT>(KeyT{1} << (width - 1)); bit >= last && bit != 0; bit >>= 1) {
    if (falls_short(value_of_key<dtype>(key | bit, static_cast<KeyT>(~KeyT{0})))) key |= bit;
  }
  return finite_or_zero(value_of_key<dtype>(key, static_cast<KeyT>(~(last - 1))));
}

// Of a warp's rows ------------------------------------------------------------------------------------

/// Weights of rows in the median, in shared memory.
template <DType dtype, int count>
struct CountedRows {
  double weight[count];
  double half;
  /// A register's bits & x | y: those of rows that do not count are ±infinity, of which there are so many
  /// that the median of the others is the middle of all.
  uint2 mask[count];

  static constexpr int middle = (count - 1) / 2;

  /// By all threads of a block; to be followed by sync_threads.
  BRAGG_DEVICE void prepare(const GramArguments& pass, int tensor) {
    constexpr std::uint32_t infinity = dtype == DType::f64    ? 0x7FF00000u
                                       : dtype == DType::f32  ? 0x7F800000u
                                       : dtype == DType::bf16 ? 0x7F807F80u
                                                              : 0x7C007C00u;
    constexpr std::uint32_t signs = vector_elements<dtype> == 8 ? 0x80008000u : 0x80000000u;
    const int own = simt::thread();
    if (own >= count) return;
    double total = 0;
    double own_weight = 0;
    int counted = 0;
    int others_before = 0;
    for (int r = 0; r < count; ++r) {
      const double w = weight_of(pass, tensor, r);
      total += w;
      counted += w > 0 ? 1 : 0;
      others_before += r < own && !(w > 0) ? 1 : 0;
      if (r == own) own_weight = w;
    }
    const int below = counted > 0 ? middle - (counted - 1) / 2 : 0;
    weight[own] = own_weight;
    if (own == 0) half = half_of(total);
    mask[own] =
        own_weight > 0 ? uint2{~0u, 0} : uint2{0, others_before < below ? infinity | signs : infinity};
  }
};

/// A warp writes the centres of 128 bytes of each of `count` rows, which are staged `pitch` times 16 bytes
/// apart. To be followed by sync_warp.
template <DType dtype, int count>
BRAGG_DEVICE void find_centers(const GramArguments& pass, const CountedRows<dtype, count>& counted,
                               const uint4* staged, int pitch, double* centers) {
  using RegisterT = Register<dtype>;
  using Word = Key<dtype>;
  constexpr int words = 128 / static_cast<int>(sizeof(Word));
  const int place = simt::lane() % words;
  const auto word = [&](int r) { return reinterpret_cast<const Word*>(staged + r * pitch)[place]; };
  const auto write = [&](int half, Value<dtype> center) {
    if (simt::lane() < words) centers[RegisterT::width * place + half] = static_cast<double>(center);
  };
  typename RegisterT::Type v[count];
  if (pass.center == Center::row || pass.weights == nullptr) {
    each<count>([&](auto r) {
      const uint2 mask = counted.mask[r];
      if constexpr (dtype == DType::f64) {
        const std::uint64_t all = static_cast<std::uint64_t>(mask.x) << 32 | mask.x;
        v[r] = RegisterT::of((word(r) & all) | static_cast<std::uint64_t>(mask.y) << 32);
      } else {
        v[r] = RegisterT::of((word(r) & mask.x) | mask.y);
      }
      if constexpr (r % 8 == 7) simt::sync_warp();  // masks of so many rows are in registers at a time
    });
    constexpr int middle = CountedRows<dtype, count>::middle;
    sort_registers<dtype, middle, middle>(v);
    each<RegisterT::width>(
        [&](auto half) { write(half, finite_or_zero(RegisterT::value(v[middle], half))); });
  } else {
    each<count>([&](auto r) { v[r] = RegisterT::of(word(r)); });
    each<RegisterT::width>([&](auto half) {
      write(half, median_by_bits<dtype>([&](Value<dtype> c) {
              simt::sync_warp();  // weights are read anew: there are no registers for them
              double below[4] = {};
              each<count>([&](auto r) {
                below[r % 4] += RegisterT::value(v[r], half) < c ? counted.weight[r] : 0.0;
              });
              return (below[0] + below[1]) + (below[2] + below[3]) < counted.half;
            }));
    });
  }
}

// Of rows that a block does not see -----------------------------------------------------------------

/// Centres of a piece: a row of the table, or medians that another kernel has found.
struct CenterRow {
  const unsigned char* data = nullptr;  ///< null: zeros
  DType dtype = DType::f32;
  Alignment alignment = Alignment::vector;
};

/// `chunk`: of the batch.
BRAGG_DEVICE CenterRow center_row_of(const GramBatch& batch, const Piece& piece, int chunk) {
  const GramArguments& pass = batch.pass;
  if (pass.center == Center::row) {
    return {row_data(batch, piece, pass.center_row), pass.rows.dtype_of(pass.center_row),
            alignment_of(pass.rows, piece.tensor)};
  }
  return {static_cast<const unsigned char*>(pass.centers) +
              chunk * pass.chunks.length * bytes_of(pass.rows.dtype),
          pass.rows.dtype, Alignment::vector};
}

/// Finite.
BRAGG_DEVICE double load_center(const CenterRow& row, int index, int size) {
  if (row.data == nullptr || index >= size) return 0.0;
  return finite_or_zero(load_f64(row.data, index, row.dtype, row.alignment));
}

}  // namespace bragg::detail::cuda
