// SPDX-License-Identifier: Apache-2.0
// Products of a chunk for any number of rows of any mixture of dtypes: tensor cores, f64, 64 × 64 pairs per
// thread block, rows staged through shared memory.
//
// Order        a product's coordinates are added as the tensor core adds them, first those of even fragments
//              of 16, then those of odd ones: one order for all pairs, so equal rows have bit-equal products.
// Map          block = chunk · tiles + tile: blocks that share a chunk run near each other, and its rows come
//              from L2. Of 8 warps, warp w stages octet w of the 64 rows and of the 64 columns as f64,
//              converted once, 32 coordinates at a time; warps 0 … 3 multiply the first 16 of them, warps 4 …
//              7 the last 16. A quadrant of 32 × 32 pairs each; on the diagonal, where columns are the rows,
//              five of the twenty 16 × 8 tiles that reach below it.
//              Tails and unaligned rows are loaded by elements, a row's 32 coordinates to a warp. A centre, a
//              row or medians that another kernel has found, lies in shared memory for two stages, and is
//              taken from what is staged.
//              After 4096 coordinates of each warp sums are added up, in global memory: a product of a chunk
//              of 65536 is the sum of 4096 terms, of 2 warps', and 8 times.
// Bound        FP64 tensor cores: 64 multiply-adds per value that is read. One block is resident, and a stage
//              takes less time (640 cycles on the diagonal) than memory's latency: so six stages ahead are
//              prefetched into L2, one line of 128 bytes per instruction, and on the diagonal two are in
//              flight in registers. Hardware has to show whether a prefetch brings the line or a sector.
// Resources    256 threads; registers: sums 64, loads 32 (a stage of both sides, or two of one), fragments
// 40;
//              68 KB shared: two stages of 128 rows × 34 doubles (the two of padding keep lanes on different
//              banks).
// Measured     not yet run on hardware.
// Not done     quadrants on the diagonal too: that above it would leave a quarter of the tensor cores idle.
#pragma once

#include "kernels/gram/center.cuh"

namespace bragg::detail::cuda {

inline constexpr int gram_tile_threads = 256;
inline constexpr int tile_rows = 64;
inline constexpr int tile_depth = 32;
inline constexpr int tile_pitch = tile_depth + 2;
inline constexpr int tile_side = tile_rows * tile_pitch;  ///< doubles
inline constexpr int stages_ahead = 6;  ///< that are asked for in L2 before they are multiplied
inline constexpr int tile_span = 2 * longest_sum / tile_depth;  ///< stages between sums of sums
inline constexpr std::size_t tile_shared = sizeof(double) * 2 * 2 * tile_side;

/// Two coordinates: shared memory is read and written 16 bytes at a time.
struct alignas(16) DoublePair {
  double x, y;
};

/// A lane's loads of the next stage for one side: 16 bytes of one row at 16t + 64j, or one element of
/// each of the warp's 8 rows.
struct StageWords {
  std::uint32_t word[16];
};

BRAGG_DEVICE void load_vectors(StageWords& loaded, const unsigned char* p, int bytes) {
  BRAGG_UNROLL
  for (int j = 0; j < 4; ++j) {
    const uint4 v = p != nullptr && j < bytes / 2 ? simt::load16(p + 64 * j) : uint4{0, 0, 0, 0};
    loaded.word[4 * j] = v.x;
    loaded.word[4 * j + 1] = v.y;
    loaded.word[4 * j + 2] = v.z;
    loaded.word[4 * j + 3] = v.w;
  }
}

template <DType dtype, bool centered>
BRAGG_DEVICE std::uint64_t store_vectors(const StageWords& loaded, double* row, double scale,
                                         const double* centers) {
  constexpr int run = vector_elements<dtype>;
  std::uint64_t most = 0;
  BRAGG_UNROLL
  for (int j = 0; j < 8 / run; ++j) {
    const uint4 v{loaded.word[4 * j], loaded.word[4 * j + 1], loaded.word[4 * j + 2], loaded.word[4 * j + 3]};
    BRAGG_UNROLL
    for (int e = 0; e < run; e += 2) {
      DoublePair pair{value_at<dtype>(v, e), value_at<dtype>(v, e + 1)};
      if constexpr (dtype == DType::f64) {
        raise(most, magnitude_bits(element_of<dtype>(v, e)));
        raise(most, magnitude_bits(element_of<dtype>(v, e + 1)));
      }
      const int at = (simt::lane() % 4 + 4 * j) * run + e;
      if constexpr (centered) {
        pair.x -= centers[at];
        pair.y -= centers[at + 1];
      }
      if constexpr (dtype == DType::f64) {
        pair.x *= scale;
        pair.y *= scale;
      }
      *reinterpret_cast<DoublePair*>(row + at) = pair;
    }
  }
  return most;
}

/// The largest magnitude of f64 values; 0 for others.
template <bool centered>
BRAGG_DEVICE std::uint64_t store_vectors(const StageWords& loaded, double* row, DType dtype, double scale,
                                         const double* centers) {
  return with_dtype(
      dtype, [&]<DType known>() { return store_vectors<known, centered>(loaded, row, scale, centers); });
}

BRAGG_DEVICE void load_elements(StageWords& loaded, const unsigned char* const* data, const DType* dtypes,
                                int index, int size, Alignment alignment) {
  const auto bits_of_row = [&](int r, Alignment known) {
    if (data[r] == nullptr || index >= size) return std::uint64_t{0};
    const int bytes = bytes_of(dtypes[r]);
    return bytes == 8   ? load_element<DType::f64>(data[r], index, known)
           : bytes == 4 ? load_element<DType::f32>(data[r], index, known)
                        : std::uint64_t{load_element<DType::f16>(data[r], index, known)};
  };
  const auto keep = [&](int r, std::uint64_t bits) {
    loaded.word[2 * r] = static_cast<std::uint32_t>(bits);
    loaded.word[2 * r + 1] = static_cast<std::uint32_t>(bits >> 32);
  };
  if (alignment == Alignment::byte) {
    // One row after another: copies of this would fill the kernel.
    BRAGG_ROLLED
    for (int r = 0; r < 8; ++r) {
      const std::uint64_t bits = bits_of_row(r, Alignment::byte);
      BRAGG_UNROLL
      for (int k = 0; k < 8; ++k) {
        if (k == r) keep(k, bits);
      }
    }
    return;
  }
  BRAGG_UNROLL
  for (int r = 0; r < 8; ++r) keep(r, bits_of_row(r, Alignment::element));
}

template <bool centered>
BRAGG_DEVICE void store_elements(const StageWords& loaded, double* rows, const DType* dtypes, double scale,
                                 const double* centers) {
  BRAGG_UNROLL
  for (int r = 0; r < 8; ++r) {
    const std::uint32_t low = loaded.word[2 * r];
    const auto half = static_cast<std::uint16_t>(low);
    double x = 0;
    switch (dtypes[r]) {
      case DType::f32:
        x = value_of<DType::f32>(low);
        break;
      case DType::f16:
        x = value_of<DType::f16>(half);
        break;
      case DType::bf16:
        x = value_of<DType::bf16>(half);
        break;
      case DType::f64:
        x = simt::double_of(static_cast<std::uint64_t>(loaded.word[2 * r + 1]) << 32 | low);
        break;
    }
    if constexpr (centered) x -= centers[simt::lane()];
    if (dtypes[r] == DType::f64) x *= scale;
    rows[r * tile_pitch + simt::lane()] = x;
  }
}

/// Four neighbouring coordinates of a staged row, from the lane's place.
BRAGG_DEVICE void load_four(const double* p, double& x0, double& x1, double& x2, double& x3) {
  const DoublePair low = *reinterpret_cast<const DoublePair*>(p);
  const DoublePair high = *reinterpret_cast<const DoublePair*>(p + 2);
  x0 = low.x;
  x1 = low.y;
  x2 = high.x;
  x3 = high.y;
}

/// Rows 16r … 16r + 15 as the first factor; `place` is the lane's in a row octet.
BRAGG_DEVICE void load_rows(const double* side, int place, int r, double (&a)[8]) {
  load_four(side + 16 * r * tile_pitch + place, a[0], a[2], a[4], a[6]);
  load_four(side + (16 * r + 8) * tile_pitch + place, a[1], a[3], a[5], a[7]);
}

BRAGG_DEVICE void load_columns(const double* side, int place, int c, double (&b)[4]) {
  load_four(side + 8 * c * tile_pitch + place, b[0], b[1], b[2], b[3]);
}

/// The 16 × 8 tile that is a warp's k-th: rows 16 · row, columns 8 · column.
struct WarpTile {
  int row;
  int column;
};
BRAGG_DEVICE WarpTile warp_tile(bool diagonal, int quarter, int k) {
  if (!diagonal) return {quarter / 2 * 2 + k / 4, quarter % 2 * 4 + k % 4};
  const int place = 5 * quarter + k;
  if (place < 8) return {3, place};
  if (place < 14) return {2, place - 8};
  if (place < 18) return {1, place - 14};
  return {0, place - 18};
}

/// sums += products of a warp's tiles in a stage, whose columns are its rows.
BRAGG_DEVICE void multiply_diagonal(const double* rows, int place, int quarter, double (&sums)[8][4]) {
  double a[8];
  double b[4];
  int held = -1;
  BRAGG_UNROLL
  for (int k = 0; k < 5; ++k) {
    const WarpTile at_tile = warp_tile(true, quarter, k);
    if (at_tile.row != held) load_rows(rows, place, at_tile.row, a);
    held = at_tile.row;
    load_columns(rows, place, at_tile.column, b);
    simt::mma_16x8x16(sums[k], a, b);
  }
}

/// The same of other columns, which lie behind the rows.
BRAGG_DEVICE void multiply_off_diagonal(const double* rows, int place, int quarter, double (&sums)[8][4]) {
  double a[2][8];
  double b[4];
  load_rows(rows, place, quarter / 2 * 2, a[0]);
  load_rows(rows, place, quarter / 2 * 2 + 1, a[1]);
  BRAGG_UNROLL
  for (int k = 0; k < 4; ++k) {
    load_columns(rows + tile_side, place, quarter % 2 * 4 + k, b);
    simt::mma_16x8x16(sums[k], a[0], b);
    simt::mma_16x8x16(sums[4 + k], a[1], b);
  }
}

template <bool centered>
BRAGG_KERNEL(gram_tile_threads, 1)
gram_tiles(BRAGG_GRID_CONSTANT GramBatch batch) {
  simt::grid_dependency_sync();
  BRAGG_SHARED(const unsigned char*, data, [2][tile_rows]);
  BRAGG_SHARED(DType, dtypes, [2][tile_rows]);
  BRAGG_SHARED(double, squares, [tile_rows]);
  BRAGG_SHARED(std::uint64_t, row_most, [tile_rows]);
  BRAGG_SHARED(double, centers, [centered ? 2 : 1][tile_depth]);  // [stage % 2]
  simt::DynamicShared dynamic;
  double* const staged = dynamic.take<double>(4 * tile_side);  // [stage % 2][side]
  const GramArguments& pass = batch.pass;
  const Rows& table = pass.rows;
  const std::int64_t tiles = triangle((batch.rows + tile_rows - 1) / tile_rows);
  const auto chunk = static_cast<int>(simt::block() / tiles);
  const std::int64_t tile = simt::block() - chunk * tiles;
  const auto tile_row = static_cast<int>(triangle_row(tile));
  const auto tile_column = static_cast<int>(tile - triangle(tile_row));
  const bool diagonal = tile_row == tile_column;
  const Piece piece = locate(pass.chunks, table.sizes, batch.first + chunk);
  if (is_skipped(pass, piece.tensor)) return;
  const Alignment alignment = alignment_of(table, piece.tensor);
  const double scale = scale_of(pass, piece.tensor);
  const int warp = simt::warp();
  const int lane = simt::lane();
  if (simt::thread() < 2 * tile_rows) {
    const int side = simt::thread() / tile_rows;
    const int r = simt::thread() % tile_rows;
    const int i = (side == 0 ? tile_row : tile_column) * tile_rows + r;
    data[side][r] = row_data(batch, piece, i);
    dtypes[side][r] = table.dtype_of(i < batch.rows ? row_of(table, i) : 0);
  }
  simt::sync_threads();

  const int sides = diagonal ? 1 : 2;
  const int own = 8 * warp + lane / 4;
  const unsigned char* at[2];
  int bytes[2];
  BRAGG_UNROLL
  for (int side = 0; side < 2; ++side) {
    bytes[side] = bytes_of(dtypes[side][own]);
    at[side] = data[side][own] != nullptr ? data[side][own] + 16 * (lane % 4) : nullptr;
  }
  const int whole = alignment == Alignment::vector ? piece.size / tile_depth : 0;
  const int stages = (piece.size + tile_depth - 1) / tile_depth;
  StageWords loaded[2];
  std::uint64_t most = 0;  // of what is loaded by vectors
  const auto load = [&](int stage, int side, StageWords& to) {
    if (stage < whole) {
      const unsigned char* const p = at[side];
      load_vectors(to,
                   p != nullptr ? p + static_cast<std::int64_t>(stage) * tile_depth * bytes[side] : nullptr,
                   bytes[side]);
    } else {
      load_elements(to, &data[side][8 * warp], &dtypes[side][8 * warp], stage * tile_depth + lane, piece.size,
                    alignment);
    }
  };
  const auto store = [&](int stage, int side, const StageWords& from) {
    double* const to = staged + (stage % 2 * 2 + side) * tile_side;
    if (stage < whole) {
      const std::uint64_t seen = store_vectors<centered>(from, to + own * tile_pitch, dtypes[side][own],
                                                         scale, centers[centered ? stage % 2 : 0]);
      if (side == 0) raise(most, seen);
    } else {
      store_elements<centered>(from, to + 8 * warp * tile_pitch, &dtypes[side][8 * warp], scale,
                               centers[centered ? stage % 2 : 0]);
    }
  };
  // Lines of 128 bytes of a stage, each by its last 16 bytes: where rows do not begin on a line, the first is
  // the last of the stage before.
  const auto prefetch = [&](int stage) {
    if (stage >= piece.size / tile_depth) return;
    BRAGG_UNROLL
    for (int side = 0; side < 2; ++side) {
      const int line = lane % 4;
      if (side == sides || at[side] == nullptr || 4 * line >= bytes[side]) continue;
      const int size = tile_depth * bytes[side];
      simt::prefetch_l2(at[side] + static_cast<std::int64_t>(stage) * size + (size < 128 ? size : 128) - 16 +
                        (128 - 16) * line);
    }
  };

  const int quarter = warp % 4;
  const int place = lane / 4 * tile_pitch + 4 * (lane % 4) + 16 * (warp / 4);
  double sums[8][4] = {};
  BRAGG_ROLLED
  for (int stage = 1; stage < stages_ahead; ++stage) prefetch(stage);
  // Centres of a stage are loaded two before, while those of the one before are taken.
  CenterRow center;
  if constexpr (centered) {
    center = center_row_of(batch, piece, chunk);
    if (warp < 2) centers[warp][lane] = load_center(center, warp * tile_depth + lane, piece.size);
    simt::sync_threads();
  }
  const auto load_centers = [&](int stage) {
    return centered && warp == 0 ? load_center(center, stage * tile_depth + lane, piece.size) : 0.0;
  };
  const auto store_centers = [&](int stage, double center_ahead) {
    if (centered && warp == 0) centers[stage % 2][lane] = center_ahead;
  };

  // The sums of odd fragments are added to those of even ones, these to those of the stages before, and all
  // begun anew. The last stage, if others follow, was an odd one: the next lies in the other half.
  double* const odd = staged + 2 * tile_side + quarter * (8 * 4 * 32);
  const auto add_up = [&](bool is_first) {
    if (warp >= 4) {
      BRAGG_UNROLL
      for (int k = 0; k < 8; ++k) {
        BRAGG_UNROLL
        for (int i = 0; i < 4; ++i) odd[(4 * k + i) * 32 + lane] = sums[k][i];
      }
    }
    simt::sync_threads();
    if (warp < 4) {
      double* const partial = pass.partial + chunk * triangle(batch.rows);
      BRAGG_UNROLL
      for (int k = 0; k < 8; ++k) {
        if (diagonal && k >= 5) break;
        const WarpTile at_tile = warp_tile(diagonal, quarter, k);
        BRAGG_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int r = 16 * at_tile.row + lane / 4 + 8 * (i / 2);
          const int row = tile_row * tile_rows + r;
          const int column = tile_column * tile_rows + 8 * at_tile.column + 2 * (lane % 4) + i % 2;
          if (row >= batch.rows || column > row) continue;
          double sum = sums[k][i] + odd[(4 * k + i) * 32 + lane];
          double& product = partial[triangle(row) + column];
          if (!is_first) sum = product + sum;
          product = sum;
          if (row == column) squares[r] = sum;
        }
      }
    }
    BRAGG_UNROLL
    for (int k = 0; k < 8; ++k) {
      BRAGG_UNROLL
      for (int i = 0; i < 4; ++i) sums[k][i] = 0;
    }
    simt::sync_threads();
  };

  const auto both = [&](const auto& f) {
    f(0, loaded[0]);
    f(1, loaded[1]);
  };
  // Two stages are under way on the diagonal: the second in the registers that the columns have elsewhere.
  const auto turn = [&](int stage, StageWords& next, const StageWords& coming) {
    prefetch(stage + stages_ahead);
    const double center_ahead = load_centers(stage + 2);
    if (stage + 2 < stages) load(stage + 2, 0, next);
    multiply_diagonal(staged + stage % 2 * 2 * tile_side, place, quarter, sums);
    if (stage + 1 < stages) store(stage + 1, 0, coming);
    store_centers(stage, center_ahead);
    simt::sync_threads();
  };
  if (diagonal) {
    load(0, 0, loaded[0]);
    if (stages > 1) load(1, 0, loaded[1]);
    store(0, 0, loaded[0]);
  } else {
    both([&](int side, StageWords& words) { load(0, side, words); });
    both([&](int side, StageWords& words) { store(0, side, words); });
  }
  simt::sync_threads();
  for (int first = 0; first < stages; first += tile_span) {
    const int end = stages < first + tile_span ? stages : first + tile_span;
    if (diagonal) {
      for (int stage = first; stage < end; stage += 2) {
        turn(stage, loaded[0], loaded[1]);
        if (stage + 1 < end) turn(stage + 1, loaded[1], loaded[0]);
      }
    } else {
      for (int stage = first; stage < end; ++stage) {
        prefetch(stage + stages_ahead);
        const double center_ahead = load_centers(stage + 2);
        const bool more = stage + 1 < stages;
        if (more) both([&](int side, StageWords& words) { load(stage + 1, side, words); });
        multiply_off_diagonal(staged + stage % 2 * 2 * tile_side, place, quarter, sums);
        if (more) both([&](int side, StageWords& words) { store(stage + 1, side, words); });
        store_centers(stage, center_ahead);
        simt::sync_threads();
      }
    }
    add_up(first == 0);
  }
  if (!diagonal || !wants_statistics(pass)) return;

  BRAGG_UNROLL
  for (int lanes = 1; lanes < 4; lanes *= 2) raise(most, simt::shuffle_xor(most, lanes));
  if (lane % 4 == 0) row_most[own] = most;
  simt::sync_threads();
  for (int r = warp; r < tile_rows; r += gram_tile_threads / 32) {
    if (centered ? tile_row * tile_rows + r >= batch.rows : data[0][r] == nullptr) continue;
    const int row = row_of(table, tile_row * tile_rows + r);
    const bool wide = dtypes[0][r] == DType::f64;
    if constexpr (centered) {
      if (data[0][r] != nullptr && !is_finite(squares[r])) {
        scan_row(pass, piece.tensor, row, data[0][r], 0, piece.size, alignment);
      }
      if (!wide || pass.max_abs == nullptr) continue;
      std::uint64_t differences = 0;
      for (int k = lane; k < piece.size; k += 32) {
        const double x = data[0][r] != nullptr ? load_f64(data[0][r], k, DType::f64, alignment) : 0.0;
        raise_finite(differences, x - load_center(center, k, piece.size));
      }
      differences = warp_max(differences);
      if (lane == 0) raise_max_abs(pass, piece.tensor, row, differences);
    } else if (wide ? row_most[r] >= infinite_bits : !is_finite(squares[r])) {
      scan_row(pass, piece.tensor, row, data[0][r], 0, piece.size, alignment);
    } else if (wide) {
      // Values that were loaded by elements have not been checked yet.
      if (lane == 0) raise_max_abs(pass, piece.tensor, row, row_most[r]);
      scan_row<DType::f64>(pass, piece.tensor, row, data[0][r], whole * tile_depth, piece.size, alignment);
    }
  }
}

}  // namespace bragg::detail::cuda
