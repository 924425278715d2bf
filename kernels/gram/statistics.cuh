// SPDX-License-Identifier: Apache-2.0
// Row statistics by themselves, for pipelines that need no products and for the magnitudes that a scale is
// chosen from.
//
// Map          a block takes chunks; a warp of it takes rows, 2 KB of a row at a time.
// Bound        memory: every row once. Integer sums and maxima: any order gives the same.
// Resources    256 threads, 64 registers at most.
// Measured     not yet run on hardware.
#pragma once

#include "kernels/gram/batch.cuh"

namespace bragg::detail::cuda {

inline constexpr int statistics_threads = 256;

BRAGG_KERNEL(statistics_threads, 4)
gram_statistics(BRAGG_GRID_CONSTANT GramBatch batch) {
  simt::grid_dependency_sync();
  const GramArguments& pass = batch.pass;
  for (std::int64_t index = simt::block(); index < pass.chunks.pieces; index += simt::blocks()) {
    const Piece piece = locate(pass.chunks, pass.rows.sizes, index);
    if (is_skipped(pass, piece.tensor)) continue;
    const Alignment alignment = alignment_of(pass.rows, piece.tensor);
    for (int i = simt::warp(); i < batch.rows; i += statistics_threads / 32) {
      const unsigned char* const p = row_data(batch, piece, i);
      if (p == nullptr) continue;
      scan_row(pass, piece.tensor, row_of(pass.rows, i), p, 0, piece.size, alignment);
    }
  }
}

}  // namespace bragg::detail::cuda
