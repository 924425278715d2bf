// SPDX-License-Identifier: Apache-2.0
// What kernels of lengths alone share, whoever computes them: which rows of which chunk a block has, and
// where its sums go.
#pragma once

#include "kernels/gram/batch.cuh"
#include "kernels/gram/center.cuh"

namespace bragg::detail::cuda {

/// A block's rows, `kRows` of a chunk; behind them it reads the reference and the centre, where there are
/// any.
template <int kRows, int kReferences, bool kCentered>
struct LengthBlock {
  static constexpr int rows = kRows;
  static constexpr int center = kRows + kReferences;  // its place
  static constexpr int read = center + (kCentered ? 1 : 0);
  static constexpr int products = kRows * (1 + kReferences);

  int chunk;  // of the batch
  int first_row;
  Piece piece;

  BRAGG_DEVICE explicit LengthBlock(const GramBatch& batch) {
    const int groups = (batch.rows + rows - 1) / rows;
    chunk = simt::block() / groups;
    first_row = simt::block() % groups * rows;
    piece = locate(batch.pass.chunks, batch.pass.rows.sizes, batch.first + chunk);
  }

  /// Where the k-th of what is read begins.
  BRAGG_DEVICE const unsigned char* data(const GramBatch& batch, int k) const {
    return k < rows     ? row_data(batch, piece, first_row + k)
           : k < center ? row_data(batch, piece, batch.pass.rows.inputs)
           : k < read   ? center_row_of(batch, piece, chunk).data
                        : nullptr;
  }

  /// The block's sums, of totals that all threads see.
  template <class TotalsT>
  BRAGG_DEVICE void write(const GramBatch& batch, const TotalsT& totals) const {
    if (simt::thread() < products) {
      const int row = first_row + simt::thread() % rows;
      const bool is_square = simt::thread() < rows;
      if (row < (is_square ? batch.rows : batch.pass.rows.inputs)) {
        batch.pass
            .partial[chunk * products_of_chunk(batch.rows, false) + (is_square ? row : batch.rows + row)] =
            totals.sum(simt::thread());
      }
    }
  }
};

}  // namespace bragg::detail::cuda
