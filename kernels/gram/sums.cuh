// SPDX-License-Identifier: Apache-2.0
// Products from the products of chunks: added in the order of the chunks, one after another, so the bits
// depend on neither the batches nor the device, nor on windows whose borders are multiples of a chunk.
//
// Order        what each addition rounds off is summed by itself and added at the end, so the error is one
//              rounding of the sum, and of second order in the number of chunks. From batch to batch that sum
//              is kept in the mirror image of its product, which nobody reads yet; a square has none, and
//              keeps it behind `partial`.
// Map          a block takes 32 pairs of a part at a time; its warps load 128 chunks at a time to shared
//              memory, one ahead, and one warp adds them up.
// Bound        for few rows seven additions a chunk of one warp, one of them in a chain; else memory.
// Resources    256 threads, 80 registers at most; 32 KB shared.
// Measured     not yet run on hardware.
// Not done     one thread a pair: its loads would wait for memory once every few chunks (reckoned, not run).
#pragma once

#include "kernels/gram/batch.cuh"

namespace bragg::detail::cuda {

inline constexpr int sum_threads = 256;
inline constexpr int sum_chunks = 128;

/// sum += x, and what that rounds off to `low`.
BRAGG_DEVICE void add_exactly(double x, double& sum, double& low) {
  const double next = sum + x;
  const double taken = next - sum;
  low += (sum - (next - taken)) + (x - taken);
  sum = next;
}

BRAGG_KERNEL(sum_threads, 3)
gram_sums(BRAGG_GRID_CONSTANT GramBatch batch) {
  simt::grid_dependency_sync();
  constexpr int warps = sum_threads / 32;
  constexpr int loads = sum_chunks / warps;
  BRAGG_SHARED(double, staged, [sum_chunks][32]);
  const GramArguments& pass = batch.pass;
  const int rows = pass.rows.count;
  const std::int64_t groups = (triangle(rows) + 31) / 32;
  const std::int64_t parts = pass.parts.per_tensor ? pass.rows.tensors : 1;
  const std::int64_t stride = products_of_chunk(batch.rows, pass.pairs);
  const std::int64_t batch_end = batch.first + batch.chunks;
  for (std::int64_t work = simt::block(); work < parts * groups; work += simt::blocks()) {
    const auto part = static_cast<int>(work / groups);
    if (is_skipped(pass, part)) continue;
    const bool has_borders = pass.parts.per_tensor && pass.chunks.tensors > 1;
    const std::int64_t part_begin = has_borders ? pass.chunks.first[part] : 0;
    const std::int64_t part_end = has_borders ? pass.chunks.first[part + 1] : pass.chunks.pieces;
    const std::int64_t begin = part_begin > batch.first ? part_begin : batch.first;
    const std::int64_t end = part_end < batch_end ? part_end : batch_end;
    if (batch.first > 0 && begin >= end) continue;  // the first batch also sees to parts without chunks

    const std::int64_t pair = work % groups * 32 + simt::lane();
    const bool inside = pair < triangle(rows);
    const std::int64_t row = inside ? triangle_row(pair) : 0;
    const std::int64_t column = inside ? pair - triangle(row) : 0;
    const std::int64_t i = index_of(pass.rows, static_cast<int>(row));
    const std::int64_t j = index_of(pass.rows, static_cast<int>(column));
    const std::int64_t index = inside && i >= 0 && j >= 0 ? product_index(batch, i, j) : -1;
    const bool present = index >= 0;
    const double* const source = pass.partial + (present ? index : 0);
    double* const products = pass.parts.of(pass.products, part);
    double& product = products[row * rows + column];
    double& mirrored = products[column * rows + row];
    // Of a part that goes on from batch to batch, of which there is one at most at a border.
    double* const kept_low = pass.parts.of(pass.low, part);
    double& low_part = kept_low != nullptr ? kept_low[row * rows + column]
                       : row == column     ? pass.partial[pass.batch * stride + row]
                                           : mirrored;
    const bool adds = simt::warp() == 0 && inside;
    const bool goes_on = part_begin < batch.first;
    const bool will_go_on = part_begin < batch_end && batch_end < part_end;
    double sum = adds && (batch.first > 0 || pass.add) ? product : 0.0;
    double low = adds && (goes_on || (pass.add && kept_low != nullptr)) ? low_part : 0.0;

    double ahead[loads];
    const auto load = [&](std::int64_t at) {
      BRAGG_UNROLL
      for (int l = 0; l < loads; ++l) {
        const std::int64_t chunk = at + warps * l + simt::warp();
        ahead[l] = present && chunk < end ? source[(chunk - batch.first) * stride] : 0.0;
      }
    };
    const bool some = simt::any(present);  // alike in all warps
    if (some) load(begin);
    for (std::int64_t at = begin; some && at < end; at += sum_chunks) {
      BRAGG_UNROLL
      for (int l = 0; l < loads; ++l) staged[warps * l + simt::warp()][simt::lane()] = ahead[l];
      simt::sync_threads();
      load(at + sum_chunks);
      if (simt::warp() == 0) {
        const int count = end - at < sum_chunks ? static_cast<int>(end - at) : sum_chunks;
        for (int k = 0; k < count; ++k) add_exactly(staged[k][simt::lane()], sum, low);
      }
      simt::sync_threads();
    }
    if (!adds) continue;
    const bool is_last = part_end <= batch_end || part_begin == part_end;
    if (is_last && kept_low == nullptr && is_finite(low)) sum += low;
    product = sum;
    if (is_last) mirrored = sum;
    if (kept_low != nullptr || will_go_on) low_part = low;
    if (is_last && kept_low != nullptr) kept_low[column * rows + row] = low;
  }
}

}  // namespace bragg::detail::cuda
