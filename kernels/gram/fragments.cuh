// SPDX-License-Identifier: Apache-2.0
// Products of a chunk for 9 to 48 rows: tensor cores, f64, straight from global memory.
//
// Order        a product's coordinates are added as the tensor core adds them, warps in order: one order for
//              all pairs, so equal rows have bit-equal products. What is not finite stays in its row's pairs.
// Map          a block a chunk; a warp takes every fourth group of 128 bytes of each row. Rows go by octets:
//              lane (g = lane/4, t = lane%4) loads 16 bytes at 16t and at 64 + 16t of row g of each. The sum
//              over k does not care which coordinate is which k as long as both factors agree; a column
//              fragment of an octet is half of the row fragment of the same rows. So every value is loaded
//              and converted once. 16 × 8 tiles that lie above the diagonal are left out. Tails and unaligned
//              rows take the same places by way of shared memory: the same bits.
// Bound        memory until the tensor cores are: at 48 rows of f32 they need 3072 operations for 192 bytes.
// Resources    128 threads; registers: sums (8 a tile, 96 at 48 rows), two loads (8) and four values (8) an
//              octet: one load is under way while the products of the other are made. 5 to 28 KB shared.
// Measured     not yet run on hardware.
#pragma once

#include "kernels/common/tuning.hpp"
#include "kernels/gram/batch.cuh"

namespace bragg::detail::cuda {

/// 16 × 8 tiles of the lower triangle of `octets` octets of rows; row tile R has columns 0 … min(2R + 1,
/// octets − 1), and its first tile is number R(R + 1).
BRAGG_HD constexpr int fragment_tiles(int octets) {
  int tiles = 0;
  for (int r = 0; r < (octets + 1) / 2; ++r) tiles += 2 * r + 1 < octets ? 2 * r + 2 : octets;
  return tiles;
}

/// sums += products of one fragment: v[q][i] is the lane's value i of four of a row of octet q.
template <int octets>
BRAGG_DEVICE void multiply_octets(const double (&v)[octets][4], double (&sums)[fragment_tiles(octets)][4]) {
  BRAGG_UNROLL
  for (int r = 0; 2 * r < octets; ++r) {
    double a[8];
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) {
      a[2 * i] = v[2 * r][i];
      a[2 * i + 1] = 2 * r + 1 < octets ? v[2 * r + 1 < octets ? 2 * r + 1 : 0][i] : 0.0;
    }
    BRAGG_UNROLL
    for (int c = 0; c < octets && c <= 2 * r + 1; ++c) simt::mma_16x8x16(sums[r * (r + 1) + c], a, v[c]);
  }
}

template <int warps, int octets>
struct FragmentShared {
  static constexpr int pitch = 128 + 16;  // bytes; lanes of neighbouring rows fall on different banks
  static constexpr int staged = warps * 8 * octets * pitch;
  static constexpr int sums = fragment_tiles(octets) * 128 * 8;
  static constexpr int bytes = staged > sums ? staged : sums;
};

template <DType dtype, int octets, class TuningT = FragmentTuning<dtype, octets>>
BRAGG_KERNEL(32 * TuningT::warps, TuningT::blocks)
gram_fragments(BRAGG_GRID_CONSTANT GramBatch batch) {
  simt::grid_dependency_sync();
  constexpr int run = vector_elements<dtype>;
  constexpr int group = 8 * run;  // coordinates
  constexpr int steps = run / 2;  // fragments of 16 coordinates
  constexpr int rows = 8 * octets;
  constexpr int tiles = fragment_tiles(octets);
  constexpr int warps = TuningT::warps;
  constexpr bool wide = dtype == DType::f64;
  using Shared = FragmentShared<warps, octets>;
  BRAGG_SHARED(const unsigned char*, data, [rows]);
  BRAGG_SHARED(double, squares, [rows]);
  BRAGG_SHARED(std::uint64_t, warp_most, [warps][rows]);
  BRAGG_SHARED(uint4, scratch, [Shared::bytes / 16]);
  const GramArguments& pass = batch.pass;
  const Piece piece = locate(pass.chunks, pass.rows.sizes, batch.first + simt::block());
  if (is_skipped(pass, piece.tensor)) return;
  const Alignment alignment = alignment_of(pass.rows, piece.tensor);
  const double scale = wide ? scale_of(pass, piece.tensor) : 1.0;
  const int warp = simt::warp();
  const int lane = simt::lane();
  const int g = lane / 4;
  const int t = lane % 4;
  if (simt::thread() < rows) data[simt::thread()] = row_data(batch, piece, simt::thread());
  simt::sync_threads();

  uint4 raw[2][octets];
  double sums[tiles][4] = {};
  std::uint64_t most[octets] = {};
  const auto load_half = [&](int half, int index) {
    BRAGG_UNROLL
    for (int q = 0; q < octets; ++q) {
      const unsigned char* const own = data[8 * q + g];
      raw[half][q] =
          own != nullptr ? simt::load16(own + index * 128 + 64 * half + 16 * t) : uint4{0, 0, 0, 0};
    }
  };
  // Multiplies what is loaded; `reload(half)` when all of a half has been converted.
  const auto multiply = [&](const auto& reload) {
    BRAGG_UNROLL
    for (int s = 0; s < steps; ++s) {
      double v[octets][4];
      BRAGG_UNROLL
      for (int q = 0; q < octets; ++q) {
        BRAGG_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int e = 4 * s + i;
          v[q][i] = value_at<dtype>(raw[e / run][q], e % run);
          if constexpr (wide) {
            raise(most[q], magnitude_bits(element_of<dtype>(raw[e / run][q], e % run)));
            v[q][i] *= scale;
          }
        }
      }
      const auto reload_converted = [&] {
        BRAGG_UNROLL
        for (int half = 0; half < 2; ++half) {
          if ((half + 1) * run > 4 * s && (half + 1) * run <= 4 * s + 4) reload(half);
        }
      };
      // As early as registers allow: with 8 values a load they do not.
      if constexpr (run < 8) reload_converted();
      multiply_octets<octets>(v, sums);
      if constexpr (run == 8) reload_converted();
    }
  };

  const int whole = alignment == Alignment::vector ? piece.size / group : 0;
  int index = warp;
  if (index < whole) {
    load_half(0, index);
    load_half(1, index);
  }
  for (; index < whole; index += warps) {
    const int next = index + warps;
    multiply([&](int half) {
      if (next < whole) load_half(half, next);
    });
  }
  for (; index * group < piece.size; index += warps) {
    constexpr int pitch = Shared::pitch / 16;
    uint4* const own_scratch = scratch + warp * rows * pitch;
    stage_rows<dtype, rows, group>(reinterpret_cast<Bits<dtype>*>(own_scratch),
                                   Shared::pitch / static_cast<int>(sizeof(Bits<dtype>)), data, index * group,
                                   piece.size, alignment);
    simt::sync_warp();
    BRAGG_UNROLL
    for (int q = 0; q < octets; ++q) {
      raw[0][q] = own_scratch[(8 * q + g) * pitch + t];
      raw[1][q] = own_scratch[(8 * q + g) * pitch + 4 + t];
    }
    simt::sync_warp();
    multiply([](int) {});
  }

  // Sums of warps, in order: tile k, value i of a lane is slot 128k + 32i + lane.
  auto* const total = reinterpret_cast<double*>(scratch);
  for (int w = 0; w < warps; ++w) {
    simt::sync_threads();
    if (w != warp) continue;
    BRAGG_UNROLL
    for (int k = 0; k < tiles; ++k) {
      BRAGG_UNROLL
      for (int i = 0; i < 4; ++i) {
        double& slot = total[128 * k + 32 * i + lane];
        slot = w == 0 ? sums[k][i] : slot + sums[k][i];
      }
    }
  }
  if constexpr (wide) {
    BRAGG_UNROLL
    for (int q = 0; q < octets; ++q) {
      for (int lanes = 1; lanes < 4; lanes *= 2) raise(most[q], simt::shuffle_xor(most[q], lanes));
      if (t == 0) warp_most[warp][8 * q + g] = most[q];
    }
  }
  simt::sync_threads();
  double* const partial = pass.partial + simt::block() * triangle(batch.rows);
  for (int slot = simt::thread(); slot < 128 * tiles; slot += 32 * warps) {
    const int k = slot / 128;
    const int value = slot / 32 % 4;
    int r = 0;
    while ((r + 1) * (r + 2) <= k) ++r;
    const int row = 16 * r + 8 * (value / 2) + lane / 4;
    const int column = 8 * (k - r * (r + 1)) + 2 * (lane % 4) + value % 2;
    if (row >= batch.rows || column > row) continue;
    partial[row * (row + 1) / 2 + column] = total[slot];
    if (row == column) squares[row] = total[slot];
  }
  simt::sync_threads();
  for (int r = warp; r < batch.rows; r += warps) {
    std::uint64_t row_most = 0;
    for (int w = 0; wide && w < warps; ++w) raise(row_most, warp_most[w][r]);
    settle_row<dtype>(batch, piece, r, data[r], squares[r], row_most);
  }
}

}  // namespace bragg::detail::cuda
