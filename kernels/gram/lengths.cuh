// SPDX-License-Identifier: Apache-2.0
// Squares of a chunk's rows, and their products with the reference: all that is asked where no distance
// between rows is wanted.
//
// Order        A thread adds its own coordinates, lanes are added as a tree, warps in order: one order for
//              all products, so equal rows have bit-equal ones.
// Map          One thread block per chunk and few rows; each warp takes every fourth run of 32 × 16 bytes of
//              each row, each lane 16 bytes. The reference is read once for those rows, from L2 except the
//              first time. Tails and unaligned rows go through shared memory to the same places: the same
//              bits. A centre is read as the reference is: a row, or medians that another kernel has found.
// Bound        Memory: every value is loaded and converted once, and multiplied once or twice. In a chunk of
//              65536 a product is the sum of 512 and 8 terms.
// Resources    128 threads; registers: 16 bytes and two sums per row; 10 to 12 KB shared.
// Measured     Not yet run on hardware.
// Not done     One warp per row, without sums over warps: fewer loads of few rows are in flight (estimated,
//              not run).
#pragma once

#include "kernels/common/tuning.hpp"
#include "kernels/gram/length_block.cuh"

namespace bragg::detail::cuda {

template <DType dtype, int references, bool centered, class TuningT = LengthTuning>
BRAGG_KERNEL(32 * TuningT::warps, centered ? TuningT::centered_blocks : TuningT::blocks)
gram_lengths(BRAGG_GRID_CONSTANT GramBatch batch) {
  simt::grid_dependency_sync();
  constexpr int run = vector_elements<dtype>;
  constexpr int step = 32 * run;
  constexpr int warps = TuningT::warps;
  using Block = LengthBlock<TuningT::rows, references, centered>;
  constexpr int rows = Block::rows;
  constexpr int center = Block::center;
  constexpr int read = Block::read;
  constexpr int products = Block::products;
  constexpr bool wide = dtype == DType::f64;
  BRAGG_SHARED(const unsigned char*, data, [read]);
  BRAGG_SHARED(uint4, staged, [warps][read][32]);
  using Totals = ChunkTotals<warps, products, rows>;
  BRAGG_SHARED(Totals, totals, [1]);
  const GramArguments& pass = batch.pass;
  const Block block(batch);
  const Piece& piece = block.piece;
  if (is_skipped(pass, piece.tensor)) return;
  const Alignment alignment = alignment_of(pass.rows, piece.tensor);
  const double scale = wide ? scale_of(pass, piece.tensor) : 1.0;
  const int warp = simt::warp();
  const int lane = simt::lane();
  if (simt::thread() < read) data[simt::thread()] = block.data(batch, simt::thread());
  simt::sync_threads();

  double sums[products] = {};
  std::uint64_t most[rows] = {};
  const int whole = alignment == Alignment::vector ? piece.size / step : 0;
  for (int s = warp; s * step < piece.size; s += warps) {
    uint4 raw[read];
    if (s < whole) {
      BRAGG_UNROLL
      for (int r = 0; r < read; ++r) {
        raw[r] = data[r] != nullptr ? simt::load16(data[r] + (s * 32 + lane) * 16) : uint4{0, 0, 0, 0};
      }
    } else {
      stage_rows<dtype, read, step, 10>(reinterpret_cast<Bits<dtype>*>(&staged[warp][0][0]), step, data,
                                        s * step, piece.size, alignment);
      simt::sync_warp();
      BRAGG_UNROLL
      for (int r = 0; r < read; ++r) raw[r] = staged[warp][r][lane];
      simt::sync_warp();
    }
    BRAGG_UNROLL
    for (int e = 0; e < run; ++e) {
      double less = 0;
      if constexpr (centered) less = finite_or_zero(value_at<dtype>(raw[center], e));
      double reference = 0;
      if constexpr (references > 0) reference = value_at<dtype>(raw[rows], e);
      if constexpr (centered) reference -= less;
      if constexpr (wide) reference *= scale;
      BRAGG_UNROLL
      for (int r = 0; r < rows; ++r) {
        double x = value_at<dtype>(raw[r], e);
        if constexpr (wide && !centered) raise(most[r], magnitude_bits(element_of<dtype>(raw[r], e)));
        if constexpr (centered) x -= less;
        if constexpr (wide && centered) raise_finite(most[r], x);
        if constexpr (wide) x *= scale;
        sums[r] = simt::fma(x, x, sums[r]);
        if constexpr (references > 0) sums[rows + r] = simt::fma(x, reference, sums[rows + r]);
      }
    }
  }

  totals[0].template gather<wide>(sums, most);
  simt::sync_threads();
  block.write(batch, totals[0]);
  for (int r = warp; r < rows && block.first_row + r < batch.rows; r += warps) {
    settle_row<dtype>(batch, piece, block.first_row + r, data[r], totals[0].sum(r),
                      totals[0].template most_of<wide>(r));
  }
}

template <DType dtype, class TuningT = LengthTuning>
void launch_lengths(const GramBatch& batch, Stream stream) {
  const int groups = (batch.rows + TuningT::rows - 1) / TuningT::rows;
  const bool has_reference = batch.rows > batch.pass.rows.inputs;
  const auto kernel =
      batch.pass.center == Center::none
          ? (has_reference ? gram_lengths<dtype, 1, false, TuningT> : gram_lengths<dtype, 0, false, TuningT>)
          : (has_reference ? gram_lengths<dtype, 1, true, TuningT> : gram_lengths<dtype, 0, true, TuningT>);
  simt::launch_dependent(kernel, batch.chunks * groups, 1, 32 * TuningT::warps, 0, stream, batch);
}

}  // namespace bragg::detail::cuda
