// SPDX-License-Identifier: Apache-2.0
// Products of a chunk for 9 to 48 rows: tensor cores, f64, straight from global memory.
//
// Order        A product's coordinates are added as the tensor core adds them, warps in order: one order for
//              all pairs, so equal rows have bit-equal products. A non-finite value stays in its row's pairs.
// Map          One thread block per chunk; each warp takes every fourth group of 128 bytes of each row. Rows
//              go by octets: lane (g = lane/4, t = lane%4) loads 16 bytes at 16t and at 64 + 16t of row g of
//              each octet. Any assignment of coordinates to k gives the same sum if both factors agree, and
//              a column fragment of an octet is half of the row fragment of the same rows. So every value is
//              loaded and converted once. 16 × 8 tiles above the diagonal are left out. Tails and unaligned
//              rows go through shared memory to the same places: the same bits. About a centre, all rows do:
//              there a lane finds the medians of 4 bytes (f64: half of the lanes, of 8 bytes), by a network
//              that sorts all rows' values in its registers, or bit by bit if rows have weights. After 4096
//              coordinates of each warp, sums are added in global memory: in a chunk of 65536 a product is
//              the sum of 4096 terms, of 4 warps', and 4 times.
// Bound        Memory, until the tensor cores are: at 48 rows of f32 they need 3072 operations for 192 bytes.
//              About a centre, also the network's minima and maxima: 79 per coordinate of 16 rows, 411 of 48;
//              2.3 times the instructions in total.
// Resources    128 threads; registers: sums (8 per tile, 96 at 48 rows), two loads (8) and four values (8)
//              per octet: one load is in flight during the products of the other. 5 to 28 KB shared.
// Measured     not yet run on hardware.
#pragma once

#include "kernels/common/tuning.hpp"
#include "kernels/gram/center.cuh"

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

template <DType dtype, int octets, bool centered, class TuningT = FragmentTuning<dtype, octets>>
BRAGG_KERNEL(32 * TuningT::warps, centered ? TuningT::centered_blocks : TuningT::blocks)
gram_fragments(BRAGG_GRID_CONSTANT GramBatch batch) {
  simt::grid_dependency_sync();
  constexpr int run = vector_elements<dtype>;
  constexpr int group = 8 * run;  // coordinates
  constexpr int steps = run / 2;  // fragments of 16 coordinates
  constexpr int span = longest_sum / group * TuningT::warps;
  constexpr int rows = 8 * octets;
  constexpr int tiles = fragment_tiles(octets);
  constexpr int warps = TuningT::warps;
  constexpr bool wide = dtype == DType::f64;
  using Shared = FragmentShared<warps, octets>;
  BRAGG_SHARED(const unsigned char*, data, [rows]);
  BRAGG_SHARED(double, squares, [rows]);
  BRAGG_SHARED(std::uint64_t, warp_most, [warps][rows]);
  BRAGG_SHARED(Piece, kept_piece, [1]);  // for the end, so that no register has to
  BRAGG_SHARED(uint4, scratch, [Shared::bytes / 16]);
  using Counted = CountedRows<dtype, rows>;
  BRAGG_SHARED(Counted, counted, [1]);
  BRAGG_SHARED(double, centers, [centered ? warps : 1][group]);
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
  if (simt::thread() == 0) kept_piece[0] = piece;
  if constexpr (centered) {
    counted[0].prepare(pass, piece.tensor);
    for (int k = simt::thread(); k < warps * rows; k += 32 * warps) warp_most[k / rows][k % rows] = 0;
  }
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
  const int groups = (piece.size + group - 1) / group;
  constexpr int pitch = Shared::pitch / 16;
  uint4* const own_scratch = scratch + warp * rows * pitch;
  const auto load_scratch = [&] {
    BRAGG_UNROLL
    for (int q = 0; q < octets; ++q) {
      raw[0][q] = own_scratch[(8 * q + g) * pitch + t];
      raw[1][q] = own_scratch[(8 * q + g) * pitch + 4 + t];
    }
  };
  const auto stage = [&](int index) {
    stage_rows<dtype, rows, group>(reinterpret_cast<Bits<dtype>*>(own_scratch),
                                   Shared::pitch / static_cast<int>(sizeof(Bits<dtype>)), data, index * group,
                                   piece.size, alignment);
  };

  // Multiplies what is staged, less the centres. A step at a time, so that no more values are in registers.
  const auto multiply_staged = [&] {
    constexpr int loads = run == 2 ? 2 : 1;  // 4 values are 32, 16 or 8 bytes
    BRAGG_ROLLED
    for (int s = 0; s < steps; ++s) {
      // Of the lane's run at 16t and that at 64 + 16t: value 4s of both.
      const int first = run == 8 ? (s / 2 * 4 + t) * run + s % 2 * 4 : (s * 4 + t) * run;
      double center[4];
      double v[octets][4];
      BRAGG_UNROLL
      for (int l = 0; l < loads; ++l) {
        const int at = first + 4 * run * l;
        BRAGG_UNROLL
        for (int i = 0; i < 4 / loads; ++i) center[4 / loads * l + i] = centers[warp][at + i];
        BRAGG_UNROLL
        for (int q = 0; q < octets; ++q) {
          const auto* const row = reinterpret_cast<const unsigned char*>(own_scratch + (8 * q + g) * pitch) +
                                  at * static_cast<int>(sizeof(Bits<dtype>));
          uint4 bits{};
          if constexpr (run == 8) {
            const uint2 low = *reinterpret_cast<const uint2*>(row);
            bits = {low.x, low.y, 0, 0};
          } else {
            bits = *reinterpret_cast<const uint4*>(row);
          }
          BRAGG_UNROLL
          for (int i = 0; i < 4 / loads; ++i) {
            double& x = v[q][4 / loads * l + i];
            x = value_at<dtype>(bits, i);
            x -= center[4 / loads * l + i];
            if constexpr (wide) x *= scale;
          }
        }
      }
      multiply_octets<octets>(v, sums);
    }
  };

  // A lane raises the magnitudes of a row's staged differences, in shared memory: registers are wanted for
  // medians.
  const auto look_at_differences = [&] {
    if (pass.max_abs == nullptr) return;
    for (int r = lane; r < batch.rows; r += 32) {
      const auto* const row = reinterpret_cast<const Bits<dtype>*>(own_scratch + r * pitch);
      std::uint64_t row_most = warp_most[warp][r];
      for (int k = 0; k < group; ++k) raise_finite(row_most, value_of<dtype>(row[k]) - centers[warp][k]);
      warp_most[warp][r] = row_most;
    }
  };

  auto* const total = reinterpret_cast<double*>(scratch);
  // Sums of warps, in order: tile k, value i of a lane is slot 128k + 32i + lane. Added to those of the
  // coordinates before, and begun anew.
  const auto add_up = [&](bool is_first) {
    for (int w = 0; w < warps; ++w) {
      simt::sync_threads();
      if (w != warp) continue;
      BRAGG_UNROLL
      for (int k = 0; k < tiles; ++k) {
        BRAGG_UNROLL
        for (int i = 0; i < 4; ++i) {
          double& slot = total[128 * k + 32 * i + lane];
          slot = w == 0 ? sums[k][i] : slot + sums[k][i];
          sums[k][i] = 0;
        }
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
      double& product = partial[row * (row + 1) / 2 + column];
      const double sum = is_first ? total[slot] : product + total[slot];
      product = sum;
      if (row == column) squares[row] = sum;
    }
    simt::sync_threads();
  };

  int index = warp;
  if (!centered && index < whole) {
    load_half(0, index);
    load_half(1, index);
  }
  for (int begin = 0; begin < groups; begin += span) {
    const int end = groups < begin + span ? groups : begin + span;
    const int whole_end = whole < end ? whole : end;
    for (; !centered && index < whole_end; index += warps) {
      const int next = index + warps;
      multiply([&](int half) {
        if (next < whole) load_half(half, next);
      });
    }
    for (; index < end; index += warps) {
      if (centered && index < whole) {
        load_half(0, index);
        load_half(1, index);
        BRAGG_UNROLL
        for (int q = 0; q < octets; ++q) {
          own_scratch[(8 * q + g) * pitch + t] = raw[0][q];
          own_scratch[(8 * q + g) * pitch + 4 + t] = raw[1][q];
        }
      } else {
        stage(index);
      }
      simt::sync_warp();
      if constexpr (centered) {
        find_centers(pass, counted[0], own_scratch, pitch, centers[warp]);
        simt::sync_warp();
        if constexpr (wide) look_at_differences();
        multiply_staged();
        simt::sync_warp();
      } else {
        load_scratch();
        simt::sync_warp();
        multiply([](int) {});
      }
    }
    add_up(begin == 0);
  }

  if constexpr (wide && !centered) {
    BRAGG_UNROLL
    for (int q = 0; q < octets; ++q) {
      for (int lanes = 1; lanes < 4; lanes *= 2) raise(most[q], simt::shuffle_xor(most[q], lanes));
      if (t == 0) warp_most[warp][8 * q + g] = most[q];
    }
    simt::sync_threads();
  }
  for (int r = warp; r < batch.rows; r += warps) {
    std::uint64_t row_most = 0;
    for (int w = 0; wide && w < warps; ++w) raise(row_most, warp_most[w][r]);
    settle_row<dtype>(batch, kept_piece[0], r, data[r], squares[r], row_most);
  }
}

}  // namespace bragg::detail::cuda
