// SPDX-License-Identifier: Apache-2.0
// Products of chunks by cuBLAS: rows become f64 matrices of up to 1024 coordinates, a place each, cuBLAS
// multiplies many places at a time, and their products are added up to those of chunks.
//
// Order        That of 1024 coordinates is cuBLAS' own; whatever it is, a product goes through no more
//              additions than it has coordinates. Places of a chunk are added in order. Of a shape a call of
//              cuBLAS always has the same number of places, those past the end zeros: so bits depend on
//              neither the batch nor the window.
// Map          widen: a thread block takes a place and eight rows, a warp a row, 16 bytes a lane at a time.
//              gather: a thread takes a pair of a chunk.
// Statistics   widen sees every value once, and counts. A value that is not finite is 0 to cuBLAS: its own
//              row only could show it, and so not even that depends on how cuBLAS treats zeros and
//              infinities.
// Bound        8 bytes are written and read in L2 per value, and both triangles multiplied: twice the
//              multiply-adds.
// Resources    256 threads, 64 registers at most.
// Measured     not yet run on hardware.
// Not done     one triangle: cuBLAS has no batches of syrk.
#pragma once

#include "kernels/gram/batch.cuh"

namespace bragg::detail::cuda {

inline constexpr int widen_threads = 256;
inline constexpr int widen_rows = widen_threads / 32;

/// Places [first, first + count) of a batch's, of which a chunk has `of_chunk`; one behind the other.
struct Places {
  std::int64_t first = 0;
  int count = 0;
  int of_chunk = 1;
  int depth = 0;
  double* rows = nullptr;      ///< [place][row][depth]
  double* products = nullptr;  ///< [place][row][row]

  /// Coordinates of a place that a piece has.
  BRAGG_HD int size_in(const Piece& piece, int place) const {
    const int left = piece.size - place * depth;
    return left < 0 ? 0 : left < depth ? left : depth;
  }
};

/// Two doubles at an address that is a multiple of 16.
struct alignas(16) WidePair {
  double x, y;
};

/// A warp widens elements [begin, begin + size) of a row, which begins at p, and zeros behind them up to
/// `depth`.
template <DType dtype>
BRAGG_DEVICE void widen_row(const GramArguments& pass, int tensor, int row, const unsigned char* p, int begin,
                            int size, int depth, double* to) {
  constexpr int run = vector_elements<dtype>;
  const Alignment alignment = alignment_of(pass.rows, tensor);
  const double scale = dtype == DType::f64 ? scale_of(pass, tensor) : 1.0;
  int nonfinite = 0;
  std::uint64_t most = 0;
  const auto widen = [&](Bits<dtype> bits) {
    look_at<dtype>(bits, nonfinite, most);
    const auto x = static_cast<double>(value_of<dtype>(bits));
    return is_finite(x) ? x * scale : 0.0;
  };
  int i = 0;
  if (alignment == Alignment::vector && p != nullptr) {
    const unsigned char* const from =
        p + static_cast<std::int64_t>(begin) * static_cast<int>(sizeof(Bits<dtype>));
    for (; i + 32 * run <= size; i += 32 * run) {
      const uint4 raw = simt::load16(
          from + static_cast<std::int64_t>(i) * static_cast<int>(sizeof(Bits<dtype>)) + 16 * simt::lane());
      BRAGG_UNROLL
      for (int e = 0; e < run; e += 2) {
        *reinterpret_cast<WidePair*>(to + i + run * simt::lane() + e) = {
            widen(element_of<dtype>(raw, e)), widen(element_of<dtype>(raw, e + 1))};
      }
    }
  }
  for (i += simt::lane(); i < depth; i += 32) {
    to[i] = p != nullptr && i < size ? widen(load_element<dtype>(p, begin + i, alignment)) : 0.0;
  }
  if (!wants_statistics(pass)) return;
  BRAGG_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) nonfinite += simt::shuffle_xor(nonfinite, lanes);
  if constexpr (dtype == DType::f64) most = warp_max(most);
  if (simt::lane() != 0) return;
  unsigned long long* const counts = pass.parts.of(pass.nonfinite, tensor);
  if (counts != nullptr && nonfinite > 0)
    simt::atomic_add(counts + row, static_cast<unsigned long long>(nonfinite));
  if constexpr (dtype == DType::f64) raise_max_abs(pass, tensor, row, most);
}

BRAGG_KERNEL(widen_threads, 4)
gram_widen(BRAGG_GRID_CONSTANT GramBatch batch, BRAGG_GRID_CONSTANT Places places) {
  simt::grid_dependency_sync();
  const GramArguments& pass = batch.pass;
  const int groups = (batch.rows + widen_rows - 1) / widen_rows;
  const int local = static_cast<int>(simt::block()) / groups;
  const int i = static_cast<int>(simt::block()) % groups * widen_rows + simt::warp();
  if (i >= batch.rows) return;
  const std::int64_t index = places.first + local;
  const auto chunk = static_cast<int>(index / places.of_chunk);
  const auto place = static_cast<int>(index % places.of_chunk);
  const Piece piece = locate(pass.chunks, pass.rows.sizes, batch.first + chunk);
  double* const to = places.rows + (static_cast<std::int64_t>(local) * batch.rows + i) * places.depth;
  const int row = row_of(pass.rows, i);
  with_dtype(pass.rows.dtype_of(row), [&]<DType dtype>() {
    widen_row<dtype>(pass, piece.tensor, row, row_data(batch, piece, i), place * places.depth,
                     places.size_in(piece, place), places.depth, to);
  });
}

/// From 10.0 on the compiler unrolls the sum so far that at four blocks, 64 registers, it would spill.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
inline constexpr int gather_blocks = 2;
#else
inline constexpr int gather_blocks = 4;
#endif

BRAGG_KERNEL(widen_threads, gather_blocks)
gram_gather(BRAGG_GRID_CONSTANT GramBatch batch, BRAGG_GRID_CONSTANT Places places) {
  simt::grid_dependency_sync();
  const std::int64_t pairs = triangle(batch.rows);
  const std::int64_t first_chunk = places.first / places.of_chunk;
  const std::int64_t chunks = (places.first + places.count - 1) / places.of_chunk - first_chunk + 1;
  const std::int64_t square = static_cast<std::int64_t>(batch.rows) * batch.rows;
  for (std::int64_t work = simt::block() * widen_threads + simt::thread(); work < chunks * pairs;
       work += simt::blocks() * widen_threads) {
    const std::int64_t chunk = first_chunk + work / pairs;
    const std::int64_t pair = work % pairs;
    const std::int64_t row = triangle_row(pair);
    const std::int64_t column = pair - triangle(row);
    const std::int64_t begin = chunk * places.of_chunk;
    const std::int64_t from = begin > places.first ? begin : places.first;
    const std::int64_t end = begin + places.of_chunk;
    const std::int64_t to = end < places.first + places.count ? end : places.first + places.count;
    double& product = batch.pass.partial[chunk * pairs + pair];
    double sum = from > begin ? product : 0.0;
    for (std::int64_t place = from; place < to; ++place) {
      sum += places.products[(place - places.first) * square + column * batch.rows + row];
    }
    product = sum;
  }
}

}  // namespace bragg::detail::cuda
