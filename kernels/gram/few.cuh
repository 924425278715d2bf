// SPDX-License-Identifier: Apache-2.0
// Products of a chunk for up to 8 rows: plain f64 multiply-adds.
//
// Order        A thread adds its own coordinates, lanes are added as a tree, warps in order: one order for
//              all pairs, so equal rows have bit-equal products. A non-finite value stays in its row's pairs.
// Map          One thread block per chunk; each warp takes every fourth run of 32 × 16 bytes of each row,
//              each lane 16 bytes. Tails and unaligned rows go through shared memory to the same places: the
//              same bits. About a centre, a lane has all rows of its coordinates in registers and finds the
//              median there; a row is the median of itself.
// Bound        Memory: every value is loaded and converted once; n(n+1)/2 multiply-adds per coordinate are at
//              most 36 for 32 bytes. A median costs n² further comparisons and additions. In a chunk of 65536
//              a product is the sum of 512 and 8 terms.
// Resources    128 threads; registers: the pairs' sums (72 at 8 rows), 16 bytes per row, values; 2 to 20 KB
//              shared.
// Measured     not yet run on hardware.
#pragma once

#include "kernels/common/tuning.hpp"
#include "kernels/gram/center.cuh"

namespace bragg::detail::cuda {

inline constexpr int few_threads = 128;
inline constexpr int few_warps = few_threads / 32;

/// `bound`: rows that there is room for.
template <DType dtype, int bound, bool centered>
BRAGG_KERNEL(few_threads, centered ? few_centered_blocks<bound> : few_blocks<bound>)
gram_few(BRAGG_GRID_CONSTANT GramBatch batch) {
  simt::grid_dependency_sync();
  constexpr int run = vector_elements<dtype>;
  constexpr int step = 32 * run;
  constexpr int pairs = static_cast<int>(triangle(bound));
  constexpr bool wide = dtype == DType::f64;
  BRAGG_SHARED(const unsigned char*, data, [bound]);
  BRAGG_SHARED(double, weight, [centered ? bound : 1]);
  BRAGG_SHARED(uint4, staged, [few_warps][bound][32]);
  using Totals = ChunkTotals<few_warps, pairs, bound>;
  BRAGG_SHARED(Totals, totals, [1]);
  const GramArguments& pass = batch.pass;
  const Piece piece = locate(pass.chunks, pass.rows.sizes, batch.first + simt::block());
  if (is_skipped(pass, piece.tensor)) return;
  const Alignment alignment = alignment_of(pass.rows, piece.tensor);
  const double scale = wide ? scale_of(pass, piece.tensor) : 1.0;
  const int warp = simt::warp();
  const int lane = simt::lane();
  if (simt::thread() < bound) {
    data[simt::thread()] = row_data(batch, piece, simt::thread());
    if constexpr (centered) weight[simt::thread()] = weight_of(pass, piece.tensor, simt::thread());
  }
  simt::sync_threads();

  double sums[pairs] = {};
  std::uint64_t most[bound] = {};
  const int whole = alignment == Alignment::vector ? piece.size / step : 0;
  double half = 0;
  if constexpr (centered) {
    for (int r = 0; r < bound; ++r) half += weight[r];
    half = half_of(half);
  }
  for (int s = warp; s * step < piece.size; s += few_warps) {
    uint4 raw[bound];
    if (s < whole) {
      BRAGG_UNROLL
      for (int r = 0; r < bound; ++r) {
        raw[r] = data[r] != nullptr ? simt::load16(data[r] + (s * 32 + lane) * 16) : uint4{0, 0, 0, 0};
      }
    } else {
      stage_rows<dtype, bound, step>(reinterpret_cast<Bits<dtype>*>(&staged[warp][0][0]), step, data,
                                     s * step, piece.size, alignment);
      simt::sync_warp();
      BRAGG_UNROLL
      for (int r = 0; r < bound; ++r) raw[r] = staged[warp][r][lane];
      simt::sync_warp();
    }
    const auto multiply = [&](int e) {
      double x[bound];
      BRAGG_UNROLL
      for (int r = 0; r < bound; ++r) {
        x[r] = value_at<dtype>(raw[r], e);
        if constexpr (wide) {
          if constexpr (!centered) {
            raise(most[r], magnitude_bits(element_of<dtype>(raw[r], e)));
            x[r] *= scale;
          }
        }
      }
      if constexpr (centered) {
        Value<dtype> values[bound];
        BRAGG_UNROLL
        for (int r = 0; r < bound; ++r) values[r] = value_at<dtype>(raw[r], e);
        const auto center = static_cast<double>(median_of_few(values, weight, half));
        BRAGG_UNROLL
        for (int r = 0; r < bound; ++r) {
          x[r] -= center;
          if constexpr (wide) {
            raise_finite(most[r], x[r]);
            x[r] *= scale;
          }
        }
      }
      BRAGG_UNROLL
      for (int i = 0; i < bound; ++i) {
        BRAGG_UNROLL
        for (int j = 0; j <= i; ++j) {
          sums[i * (i + 1) / 2 + j] = simt::fma(x[i], x[j], sums[i * (i + 1) / 2 + j]);
        }
      }
    };
    if constexpr (!centered) {
      BRAGG_UNROLL
      for (int e = 0; e < run; ++e) multiply(e);
    } else {
      // A word at a time, or two of f64, so that no more medians are under way than there are registers for.
      constexpr int words = wide ? 2 : 1;
      BRAGG_ROLLED
      for (int word = 0; word < 4; word += words) {
        BRAGG_UNROLL
        for (int e = 0; e < words * run / 4; ++e) multiply(e);
        BRAGG_UNROLL
        for (int r = 0; r < bound; ++r) {
          raw[r] = wide ? uint4{raw[r].z, raw[r].w, raw[r].x, raw[r].y}
                        : uint4{raw[r].y, raw[r].z, raw[r].w, raw[r].x};
        }
      }
    }
  }

  totals[0].template gather<wide>(sums, most);
  simt::sync_threads();
  const int kept = static_cast<int>(triangle(batch.rows));
  if (simt::thread() < kept) {
    pass.partial[simt::block() * static_cast<std::int64_t>(kept) + simt::thread()] =
        totals[0].sum(simt::thread());
  }
  for (int r = warp; r < batch.rows; r += few_warps) {
    settle_row<dtype>(batch, piece, r, data[r], totals[0].sum(r * (r + 1) / 2 + r),
                      totals[0].template most_of<wide>(r));
  }
}

}  // namespace bragg::detail::cuda
