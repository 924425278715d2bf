// SPDX-License-Identifier: Apache-2.0
// Common parts of the Gram pass's kernels: a batch of chunks, its rows, their statistics.
#pragma once

#include <cmath>

#include "kernels/common/vectors.cuh"
#include "kernels/gram/gram.hpp"

namespace bragg::detail::cuda {

/// Chunks [first, first + chunks), whose products go to `partial`, chunk after chunk, those of rows that are
/// not zeros: pair (i, j ≤ i) at i(i+1)/2 + j, or without pairs (i, i) at i and that of the reference, the
/// last row, with j at rows + j.
struct GramBatch {
  GramArguments pass;
  std::int64_t first = 0;
  int chunks = 0;
  int rows = 0;  ///< that are not zeros in every tensor; they keep their order
};

BRAGG_HD constexpr std::int64_t triangle(std::int64_t rows) { return rows * (rows + 1) / 2; }

/// Products of a chunk of so many rows, references among them.
BRAGG_HD constexpr std::int64_t products_of_chunk(std::int64_t rows, bool pairs) {
  return pairs ? triangle(rows) : 2 * rows;
}

/// The row of the triangle that element `index` lies in.
BRAGG_DEVICE std::int64_t triangle_row(std::int64_t index) {
  auto row = static_cast<std::int64_t>((sqrt(8.0 * static_cast<double>(index) + 1) - 1) / 2);
  while (triangle(row) > index) --row;
  while (triangle(row + 1) <= index) ++row;
  return row;
}

/// Where among a chunk's that of rows i and j ≤ i is; −1: it is not wanted.
BRAGG_DEVICE std::int64_t product_index(const GramBatch& batch, std::int64_t i, std::int64_t j) {
  if (batch.pass.pairs) return triangle(i) + j;
  if (i == j) return i;
  return i >= batch.pass.rows.inputs ? batch.rows + j : -1;
}

/// The row that is the batch's i-th. Only references can be zeros.
BRAGG_DEVICE int row_of(const Rows& rows, int i) { return i >= rows.inputs && rows.zeros[0] ? i + 1 : i; }
/// The inverse; −1 for a row of zeros.
BRAGG_DEVICE int index_of(const Rows& rows, int row) {
  if (row < rows.inputs) return row;
  const int reference = row - rows.inputs;
  if (rows.zeros[reference]) return -1;
  return reference == 1 && rows.zeros[0] ? row - 1 : row;
}

BRAGG_DEVICE bool is_skipped(const GramArguments& pass, int tensor) {
  const int* const skip = pass.parts.of(pass.skip, tensor);
  return skip != nullptr && *skip != 0;
}

BRAGG_DEVICE double scale_of(const GramArguments& pass, int tensor) {
  const double* const scale = pass.parts.of(pass.scale, tensor);
  return scale != nullptr ? *scale : 1.0;
}

BRAGG_DEVICE Alignment alignment_of(const Rows& rows, int tensor) {
  return static_cast<Alignment>(rows.alignment[tensor]);
}

/// Where the batch's row i begins in a piece; null: zeros, or no such row.
BRAGG_DEVICE const unsigned char* row_data(const GramBatch& batch, const Piece& piece, int i) {
  if (i >= batch.rows) return nullptr;
  const Rows& rows = batch.pass.rows;
  const int row = row_of(rows, i);
  const auto* const data = static_cast<const unsigned char*>(
      rows.data[static_cast<std::int64_t>(piece.tensor) * rows.count + row]);
  return data == nullptr ? nullptr : data + piece.begin * bytes_of(rows.dtype_of(row));
}

// Statistics --------------------------------------------------------------------------------------

constexpr std::uint64_t infinite_bits = 0x7FF0000000000000ull;

/// Bits of |x|: they are ordered as the numbers, with infinity and then NaN above all that is finite.
BRAGG_DEVICE std::uint64_t magnitude_bits(std::uint64_t bits) { return bits & 0x7FFFFFFFFFFFFFFFull; }

BRAGG_DEVICE void raise(std::uint64_t& most, std::uint64_t x) {
  if (x > most) most = x;
}

BRAGG_DEVICE std::uint64_t warp_max(std::uint64_t x) {
  BRAGG_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) raise(x, simt::shuffle_xor(x, lanes));
  return x;
}

BRAGG_DEVICE void raise_max_abs(const GramArguments& pass, int tensor, int row, std::uint64_t most) {
  unsigned long long* const max_abs = pass.parts.of(pass.max_abs, tensor);
  if (max_abs != nullptr) simt::atomic_max(max_abs + row, static_cast<unsigned long long>(most));
}

/// Raises `most` to |x|, if that is finite.
BRAGG_DEVICE void raise_finite(std::uint64_t& most, double x) {
  const std::uint64_t bits = magnitude_bits(simt::bits_of(x));
  if (bits < infinite_bits) raise(most, bits);
}

BRAGG_DEVICE bool wants_statistics(const GramArguments& pass) {
  return pass.nonfinite != nullptr || pass.max_abs != nullptr;
}

template <DType dtype>
BRAGG_DEVICE void look_at(Bits<dtype> bits, int& nonfinite, std::uint64_t& most) {
  if (!is_finite(value_of<dtype>(bits))) {
    ++nonfinite;
  } else if constexpr (dtype == DType::f64) {
    raise(most, magnitude_bits(bits));
  }
}

/// A warp adds the non-finite values among elements [begin, end) from p, and for f64 raises the largest |x|.
/// With Alignment::vector p and `begin` elements are multiples of 16 bytes.
template <DType dtype>
BRAGG_DEVICE void scan_row(const GramArguments& pass, int tensor, int row, const unsigned char* p, int begin,
                           int end, Alignment alignment) {
  constexpr int run = vector_elements<dtype>;
  constexpr int loads = 4;
  int nonfinite = 0;
  std::uint64_t most = 0;
  int i = begin;
  if (alignment == Alignment::vector) {
    for (; i + loads * 32 * run <= end; i += loads * 32 * run) {
      uint4 raw[loads];
      BRAGG_UNROLL
      for (int l = 0; l < loads; ++l) {
        raw[l] = simt::load16(p + static_cast<std::int64_t>(i) * static_cast<int>(sizeof(Bits<dtype>)) +
                              16 * (l * 32 + simt::lane()));
      }
      BRAGG_UNROLL
      for (int l = 0; l < loads; ++l) {
        BRAGG_UNROLL
        for (int e = 0; e < run; ++e) look_at<dtype>(element_of<dtype>(raw[l], e), nonfinite, most);
      }
    }
  }
  for (i += simt::lane(); i < end; i += 32) {
    look_at<dtype>(load_element<dtype>(p, i, alignment), nonfinite, most);
  }
  BRAGG_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) nonfinite += simt::shuffle_xor(nonfinite, lanes);
  if constexpr (dtype == DType::f64) most = warp_max(most);
  if (simt::lane() != 0) return;
  unsigned long long* const counts = pass.parts.of(pass.nonfinite, tensor);
  if (counts != nullptr && nonfinite > 0) {
    simt::atomic_add(counts + row, static_cast<unsigned long long>(nonfinite));
  }
  // About a centre, products tell the magnitudes of differences.
  if constexpr (dtype == DType::f64) {
    if (pass.center == Center::none) raise_max_abs(pass, tensor, row, most);
  }
}

/// The same for a dtype known at run time.
BRAGG_DEVICE void scan_row(const GramArguments& pass, int tensor, int row, const unsigned char* p, int begin,
                           int end, Alignment alignment) {
  with_dtype(pass.rows.dtype_of(row),
             [&]<DType dtype>() { scan_row<dtype>(pass, tensor, row, p, begin, end, alignment); });
}

/// A warp completes the statistics of a row of the chunk from what the products told: its square, which is
/// finite for the narrow types unless a value is not, and for f64 the largest magnitude: of values, or of
/// finite differences. Nothing is reread where all is finite.
template <DType dtype>
BRAGG_DEVICE void settle_row(const GramBatch& batch, const Piece& piece, int i, const unsigned char* p,
                             double square, std::uint64_t most) {
  const GramArguments& pass = batch.pass;
  if (!wants_statistics(pass)) return;
  const int row = row_of(pass.rows, i);
  if (pass.center != Center::none) {
    if (p != nullptr && !is_finite(square)) {
      scan_row<dtype>(pass, piece.tensor, row, p, 0, piece.size, alignment_of(pass.rows, piece.tensor));
    }
    if (dtype == DType::f64 && simt::lane() == 0) {
      raise_max_abs(pass, piece.tensor, row, most);
    }
  } else if (p == nullptr) {
    return;
  } else if (dtype == DType::f64 ? most >= infinite_bits : !is_finite(square)) {
    scan_row<dtype>(pass, piece.tensor, row, p, 0, piece.size, alignment_of(pass.rows, piece.tensor));
  } else if (dtype == DType::f64 && simt::lane() == 0) {
    raise_max_abs(pass, piece.tensor, row, most);
  }
}

// Scales of rows of floats -------------------------------------------------------------------------

/// Of exponents that f32 and f64 have.
BRAGG_DEVICE float float_power_of_two(int exponent) {
  return simt::float_of(static_cast<std::uint32_t>(127 + exponent) << 23);
}
BRAGG_DEVICE double double_power_of_two(int exponent) {
  return simt::double_of(static_cast<std::uint64_t>(1023 + exponent) << 52);
}

/// The bits of the largest magnitude.
BRAGG_DEVICE void raise_float(std::uint32_t& most, float x) {
  const std::uint32_t bits = simt::bits_of(x) & 0x7FFFFFFFu;
  if (bits > most) most = bits;
}

// Totals of a block -------------------------------------------------------------------------------

BRAGG_DEVICE double exchange(double x, int lanes) { return simt::shuffle_xor(x, lanes); }
BRAGG_DEVICE double choose(bool first, double a, double b) { return first ? a : b; }

/// Adds `count` sums over the lanes of a warp, half as many after each exchange: a lane is left with sums
/// [first, end) in v[0], v[1], … A sum's tree is the same whichever lane ends with it. T{} is zero.
template <int count, int lanes, class T, int size>
BRAGG_DEVICE int fold_lanes(T (&v)[size], int& first, int& end) {
  if constexpr (lanes == 0) {
    return count;
  } else {
    constexpr int half = (count + 1) / 2;
    const bool upper = (simt::lane() & lanes) != 0;
    BRAGG_UNROLL
    for (int i = 0; i < half; ++i) {
      const T high = i + half < count ? v[i + half] : T{};
      const T other = exchange(choose(upper, v[i], high), lanes);
      v[i] = choose(upper, high, v[i]) + other;
    }
    if (upper) {
      first += half;
    } else if (first + half < end) {
      end = first + half;
    }
    return fold_lanes<half, lanes / 2>(v, first, end);
  }
}

/// A thread block's sums of a chunk: lanes are added as a tree, warps in order. In shared memory.
template <int warps, int products, int rows>
struct ChunkTotals {
  double sums[warps][products];
  std::uint64_t most[warps][rows];

  /// To be followed by sync_threads. `wide`: the rows are f64, whose magnitudes count.
  template <bool wide>
  BRAGG_DEVICE void gather(double (&own_sums)[products], std::uint64_t (&own_most)[rows]) {
    int first = 0;
    int end = products;
    const int left = fold_lanes<products, 16>(own_sums, first, end);
    BRAGG_UNROLL
    for (int i = 0; i < products; ++i) {
      if (i < left && first + i < end) sums[simt::warp()][first + i] = own_sums[i];
    }
    if constexpr (wide) {
      BRAGG_UNROLL
      for (int r = 0; r < rows; ++r) {
        own_most[r] = warp_max(own_most[r]);
        if (simt::lane() == 0) most[simt::warp()][r] = own_most[r];
      }
    }
  }
  BRAGG_DEVICE double sum(int product) const {
    double sum = sums[0][product];
    for (int w = 1; w < warps; ++w) sum += sums[w][product];
    return sum;
  }
  template <bool wide>
  BRAGG_DEVICE std::uint64_t most_of(int row) const {
    std::uint64_t largest = 0;
    for (int w = 0; wide && w < warps; ++w) raise(largest, most[w][row]);
    return largest;
  }
};

// Rows that cannot be read 16 bytes at a time ---------------------------------------------------------

/// Of `count` loads of an element that a lane makes one after another, those under way at a time.
BRAGG_HD constexpr int loads_together(int count, int most) {
  while (count % most != 0) --most;
  return most;
}

/// See stage_rows: `loads` of a lane are under way at a time.
template <DType dtype, int rows, int length, int loads>
BRAGG_DEVICE void copy_rows(Bits<dtype>* to, int pitch, const unsigned char* const* data, int begin, int size,
                            Alignment alignment) {
  BRAGG_ROLLED
  for (int base = simt::lane(); base < rows * length; base += loads * 32) {
    Bits<dtype> bits[loads];
    BRAGG_UNROLL
    for (int l = 0; l < loads; ++l) {
      const int e = base + 32 * l;
      const unsigned char* const p = data[e / length];
      const int j = begin + e % length;
      bits[l] = p != nullptr && j < size ? load_element<dtype>(p, j, alignment) : Bits<dtype>{0};
    }
    BRAGG_UNROLL
    for (int l = 0; l < loads; ++l) {
      const int e = base + 32 * l;
      to[e / length * pitch + e % length] = bits[l];
    }
  }
}

/// Vectors of a row in a lane, element by element: vector l from `first` + l · `stride`, zeros from `size`
/// on.
template <DType dtype, int loads>
BRAGG_DEVICE void load_by_elements(uint4 (&raw)[loads], const unsigned char* p, int first, int stride,
                                   int size, Alignment alignment) {
  constexpr int run = vector_elements<dtype>;
  BRAGG_UNROLL
  for (int l = 0; l < loads; ++l) {
    std::uint32_t word[4] = {};
    BRAGG_UNROLL
    for (int e = 0; e < run; ++e) {
      const int at = first + stride * l + e;
      const Bits<dtype> bits =
          p != nullptr && at < size ? load_element<dtype>(p, at, alignment) : Bits<dtype>{0};
      word[4 * e / run] |= static_cast<std::uint32_t>(bits) << (run == 8 ? 16 * (e % 2) : 0);
    }
    raw[l] = {word[0], word[1], word[2], word[3]};
  }
}

/// A warp copies elements [begin, begin + length) of `rows` rows to shared memory, zeros past `size` and for
/// null rows; `most` loads of a lane under way, as many as registers have room for. rows · length is a
/// multiple of 32. To be followed by sync_warp.
template <DType dtype, int rows, int length, int most = sizeof(Bits<dtype>) == 8 ? 8 : 16>
BRAGG_DEVICE void stage_rows(Bits<dtype>* to, int pitch, const unsigned char* const* data, int begin,
                             int size, Alignment alignment) {
  constexpr int loads = loads_together(rows * length / 32, most);
  // The question is asked here: within, a branch would part the loads.
  if (alignment == Alignment::byte) {
    copy_rows<dtype, rows, length, 1>(to, pitch, data, begin, size, Alignment::byte);
  } else {
    copy_rows<dtype, rows, length, loads>(to, pitch, data, begin, size, Alignment::element);
  }
}

}  // namespace bragg::detail::cuda
