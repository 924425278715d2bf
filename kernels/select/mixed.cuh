// SPDX-License-Identifier: Apache-2.0
// Mixed points themselves, each written to an output of its own: what a rule of the caller's own goes on
// with.
//
// Shapes: any number of points and rows.
// Values: as tile.cuh sorts them: sums of f64 products, fused, rounded once to f32 (f64 rows: f64), a finite
//   one never to infinity; then to the output's type. Where f64 is slow: as mix_pairs.cuh says.
// Threads: a block takes pieces of 1024 coordinates, a warp 16 points × 32 coordinates of one at a time,
//   by way of a tile of its own in shared memory, from which it writes a row of 32 coordinates at a time.
// Bytes and operations: rows once for every 16 points, from L1 or L2 but the first time; points once out;
//   2·points·rows f64 operations on tensor cores. Memory bounds it to some 32 rows and points.
// Deterministic: a value is one warp's. Not yet run on hardware.
#pragma once

#include "kernels/common/tuning.hpp"
#include "kernels/select/launch.hpp"
#include "kernels/select/mix.cuh"
#include "kernels/select/mix_pairs.cuh"
#include "kernels/select/points.cuh"

namespace bragg::detail::cuda {

/// Groups of points whose coefficients a table holds at a time.
BRAGG_DEVICE int groups_held(const MixTable& table) { return table.groups; }
template <bool kFew>
BRAGG_DEVICE int groups_held(const PairTable<kFew>& table) {
  return table.held;
}

template <DType value, SumUnit unit = SumUnit::f64>
BRAGG_KERNEL(MixedTuning::threads, MixedTuning::blocks)
mixed_kernel(BRAGG_GRID_CONSTANT SelectArguments a) {
  simt::grid_dependency_sync();
  using ValueT = Value<value>;
  constexpr int warps = MixedTuning::threads / 32;
  simt::DynamicShared shared;
  ValueT* const tiles = shared.take<ValueT>(warps * mix_points * mix_columns);
  ValueT* const tile = tiles + simt::warp() * (mix_points * mix_columns);
  constexpr bool in_pairs = unit == SumUnit::double_float;
  auto mixing = [&] {
    if constexpr (in_pairs) {
      return take_pair_table<false>(shared, a.points, mixed_rows(a.rows));
    } else {
      return take_mix_table(shared, a.points, mixed_rows(a.rows));
    }
  }();
  const bool alike = have_one_dtype(a.rows);
  if (failed(a)) return;
  int tensor = -1;
  for (OwnPieces own(a.tiles, a.rows.sizes); own.more(); own.advance()) {
    const Piece& piece = own.piece();
    const bool stale = piece.tensor != tensor;
    tensor = piece.tensor;
    const auto alignment = static_cast<Alignment>(a.rows.alignment[tensor]);
    const Loads loads = mix_loads(alike, alignment);
    const int columns = (piece.size + mix_columns - 1) / mix_columns;
    const int held = groups_held(mixing);
    BRAGG_ROLLED
    for (int first = 0; first < mixing.groups; first += held) {
      if (stale || held < mixing.groups) {
        simt::sync_threads();
        if constexpr (in_pairs) mixing.first = first;
        fill_mix_table(a, tensor, mixing);
        simt::sync_threads();
      }
      // Warps that run at a time share a few columns' rows.
      for (int item = simt::warp(); item < columns * held; item += warps) {
        const int column = item / held * mix_columns;
        const int group = first + item % held;
        const int left = piece.size - column;
        if (group >= mixing.groups) continue;
        if constexpr (in_pairs) {
          mix_in_pairs<false>(a, tensor, mixing, loads, group, piece.begin + column, left, tile, mix_columns);
        } else {
          mix<value, false>(a, tensor, mixing, loads, group, piece.begin + column, left, tile, mix_columns);
        }
        simt::sync_warp();
        for (int p = 0; p < mix_points && mix_points * group + p < a.points; ++p) {
          if (simt::lane() >= left) continue;
          void* const to =
              a.out.data[static_cast<std::int64_t>(mix_points * group + p) * a.rows.tensors + tensor];
          store_rounded(to, piece.begin + column + simt::lane(), tile[p * mix_columns + simt::lane()],
                        a.out.dtype, alignment);
        }
        simt::sync_warp();
      }
    }
  }
}

template <DType value, SumUnit unit>
void launch_mixed(const SelectArguments& a, Stream stream) {
  constexpr int threads = MixedTuning::threads;
  const auto kernel = mixed_kernel<value, unit>;
  const int rows = mixed_rows(a.rows);
  const std::size_t values = simt::shared_bytes<Value<value>>(threads / 32 * mix_points * mix_columns);
  const std::size_t shared =
      values + (unit == SumUnit::double_float
                    ? pair_groups_held(a.points, rows, true) * pair_group_bytes(rows, false)
                    : mix_shared_within(simt::most_dynamic_shared(kernel), values, a.points, rows));
  const std::int64_t resident = simt::resident_blocks(kernel, threads, shared);
  const int blocks = static_cast<int>(a.tiles.pieces < resident ? a.tiles.pieces : resident);
  simt::launch_dependent(kernel, blocks, 1, threads, shared, stream, a);
}

}  // namespace bragg::detail::cuda
