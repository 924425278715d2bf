// SPDX-License-Identifier: Apache-2.0
// Rules of mixed points, and closest_to_median and closest_to_trimmed_mean (MeaMed, Phocas, Bulyan's second
// stage), per coordinate, by a comparator network in registers.
//
// Shapes: 1 to 128 points (f64: 64), any number of rows.
// Order: as direct.cuh. Mixed values are sums of f64 products, fused, rounded once (mix.cuh). Where f64 is
//   slow, mixed values are summed in pairs of floats (mix_pairs.cuh), trimmed means of them in f32 with the
//   bits of f64 (trim_floats.cuh), in instances of their own.
// Threads: a block takes 128 coordinates. Warps mix 16 points × 32 coordinates each (or every thread reads
//   its coordinate of the points) into a tile in shared memory; then a thread sorts its coordinate in
//   registers, puts back what the rule needs of it, and finishes with plain loops over the column.
// Bytes and operations: rows are read once for every 16 points, from L1 or L2 but the first time; 2·points·
//   rows f64 operations on tensor cores; 2·(comparators of the bucket) minima and maxima.
// Registers: by the blocks of common/tuning.hpp; shared: 512 bytes per point (f64: 1024), and coefficients
//   if there is room.
// Deterministic: a coordinate is one thread's, a mixed value one warp's. Not yet run on hardware.
#pragma once

#include "kernels/common/registers.cuh"
#include "kernels/common/tuning.hpp"
#include "kernels/select/launch.hpp"
#include "kernels/select/means.cuh"
#include "kernels/select/mix.cuh"
#include "kernels/select/mix_pairs.cuh"
#include "kernels/select/trim.cuh"
#include "kernels/select/trim_floats.cuh"

namespace bragg::detail::cuda {

inline constexpr int tile_threads = 128;

/// Values [p][thread] of the points at the block's coordinates, the `left`-th and on as if they were 0.
template <DType dtype, class ValueT, int kPoints>
BRAGG_DEVICE void read_points(const SelectArguments& a, PointTable<kPoints>& table, std::int64_t begin,
                              int left, Alignment alignment, ValueT* tile) {
  const auto row = [&](int p) { return table.data[p]; };
  read_rows<dtype>(0, a.points, begin + simt::thread(), simt::thread() < left, alignment, row,
                   [&](int p, Bits<dtype> bits) {
                     const ValueT v = value_of<dtype>(bits);
                     const unsigned lanes = simt::ballot(!is_finite(v));
                     if (lanes != 0 && simt::lane() == 0) {
                       simt::atomic_add(&table.nonfinite[p], static_cast<unsigned>(simt::popcount(lanes)));
                     }
                     tile[p * tile_threads + simt::thread()] =
                         table.infinite[p] != 0 ? infinity_of<ValueT>() : nan_to_infinity(v);
                   });
}

/// The same of mixed points.
template <DType value, int kPoints, bool kAhead>
BRAGG_DEVICE void mix_tile(const SelectArguments& a, int tensor, const MixTable& table, Loads loads,
                           std::int64_t begin, int left, Value<value>* tile) {
  constexpr int quarters = tile_threads / mix_columns;
  if constexpr (kPoints <= mix_points) {
    static_assert(quarters == tile_threads / 32);
    const int column = simt::warp() * mix_columns;
    mix<value, kAhead, kPoints <= 8>(a, tensor, table, loads, 0, begin + column, left - column, tile + column,
                                     tile_threads);
  } else {
    // Warps that run at a time share a quarter's rows. There are 8 groups at most, so `quarter` is exact.
    for (int item = simt::warp(); item < table.groups * quarters; item += tile_threads / 32) {
      const int quarter = item * table.per_group >> 16;
      const int group = item - quarter * table.groups;
      const int column = quarter * mix_columns;
      mix<value, kAhead>(a, tensor, table, loads, group, begin + column, left - column,
                         tile + mix_points * group * tile_threads + column, tile_threads);
    }
  }
}

/// The same in pairs of floats, after a barrier. `stale`: the table has another tensor's coefficients.
template <bool kFew>
BRAGG_DEVICE void mix_tile_in_pairs(const SelectArguments& a, int tensor, PairTable<kFew>& table, bool stale,
                                    Loads loads, std::int64_t begin, int left, float* tile) {
  constexpr int quarters = tile_threads / mix_columns;
  BRAGG_ROLLED
  for (int first = 0; first < table.groups; first += table.held) {
    if (stale || table.held < table.groups) {
      if (first > 0) simt::sync_threads();
      table.first = first;
      fill_mix_table(a, tensor, table);
      simt::sync_threads();
    }
    for (int item = simt::warp(); item < table.held * quarters; item += tile_threads / 32) {
      const int quarter = item / table.held;  // warps that run at a time share its rows
      const int group = first + item - quarter * table.held;
      if (group >= table.groups) continue;
      const int column = quarter * mix_columns;
      mix_in_pairs<kFew>(a, tensor, table, loads, group, begin + column, left - column,
                         tile + mix_points * group * tile_threads + column, tile_threads);
    }
  }
}

/// Asks for a whole tile of all rows, which are of one dtype, before it is mixed: barriers part the blocks'
/// work into phases, and memory must not idle while they sort. A line of 128 bytes per thread, by its last
/// element: where rows do not begin on a line, the first is the last of the tile before.
BRAGG_DEVICE void prefetch_tile(const SelectArguments& a, int tensor, std::int64_t begin) {
  if (begin + tile_threads > a.rows.sizes[tensor]) return;
  const int size = bytes_of(a.rows.dtype);
  static_assert(tile_threads == 128);  // of a row's tile as many lines as an element has bytes
  for (int item = simt::thread(); item < a.rows.count * size; item += simt::threads()) {
    const int row = size == 2 ? item / 2 : size == 4 ? item / 4 : item / 8;
    const int line = item - row * size;
    const unsigned char* const data = row_of(a, tensor, row);
    if (data != nullptr) simt::prefetch_l2(data + begin * size + 128 * line + 128 - size);
  }
}

/// Sorts a thread's column in registers; puts back the ranks that the rule looks at, if it does not end
/// there.
template <DType value, int kPoints, class KeptT>
BRAGG_DEVICE double rule_of_column(Value<value>* column, int points, const SelectRule& rule,
                                   [[maybe_unused]] const KeptT& kept, [[maybe_unused]] DType out) {
  Value<value> registers[1][kPoints];
  auto& v = registers[0];
  each<kPoints>([&](auto i) {
    v[i] = i < least_points<kPoints> || i < points ? column[i * tile_threads] : infinity_of<Value<value>>();
  });
  sort_registers<value, 0, kPoints - 1>(v);
  if constexpr (value != DType::f64) {
    if (rule.kind == SelectRule::Kind::trimmed_mean) {
      if constexpr (std::is_same_v<KeptT, KeptFloats>) {
        return trimmed_mean_rounding_to<kPoints>(out, registers, points, rule, kept);
      } else {
        double x[1];
        trimmed_means<value>(registers, points, rule.f, kept, x);
        return x[0];
      }
    }
  }
  if (rule.kind == SelectRule::Kind::median) {
    each<kPoints>([&](auto i) {
      if (i == (points - 1) / 2 || i == points / 2) column[i * tile_threads] = v[i];
    });
  } else {
    each<kPoints>([&](auto i) {
      if (i < least_points<kPoints> || i < points) column[i * tile_threads] = v[i];
    });
  }
  return apply_rule(Column<Value<value>>{column, tile_threads, points}, rule);
}

/// `unit` double_float: of mixed points alone.
template <DType value, int kPoints, class TuningT = TileTuning<value, kPoints>, SumUnit unit = SumUnit::f64>
BRAGG_KERNEL(tile_threads, TuningT::blocks)
tile_kernel(BRAGG_GRID_CONSTANT SelectArguments a) {
  simt::grid_dependency_sync();
  using ValueT = Value<value>;
  BRAGG_SHARED(PointTable<kPoints>, tables, [1]);
  PointTable<kPoints>& table = tables[0];
  simt::DynamicShared shared;
  ValueT* const tile = shared.take<ValueT>(static_cast<std::size_t>(a.points) * tile_threads);
  constexpr bool in_pairs = unit == SumUnit::double_float;
  const bool mixes = in_pairs || a.mix != nullptr;
  auto mixing = [&] {
    if constexpr (in_pairs) {
      return take_pair_table<(kPoints <= 8)>(shared, a.points, mixed_rows(a.rows));
    } else {
      return take_mix_table(shared, a.points, mixes ? mixed_rows(a.rows) : 0);
    }
  }();
  const bool alike = have_one_dtype(a.rows);
  if (failed(a)) return;
  const auto kept = [&] {
    if constexpr (in_pairs) {
      return kept_floats_by<value>(a.rule, a.points);
    } else {
      return kept_by(a.rule, a.points);
    }
  }();
  if (!in_pairs) table.clear_counts();
  int tensor = -1;
  for (OwnPieces own(a.tiles, a.rows.sizes); own.more(); own.advance()) {
    const Piece& piece = own.piece();
    bool stale = piece.tensor != tensor;
    if (stale && !in_pairs) {
      simt::sync_threads();
      if (mixes) {
        fill_mix_table(a, piece.tensor, mixing);
      } else {
        table.flush_counts(a, tensor);
        table.gather(a, piece.tensor);
      }
    }
    tensor = piece.tensor;
    const auto alignment = static_cast<Alignment>(a.rows.alignment[tensor]);
    const Loads loads = mix_loads(alike, alignment);
    for (int done = 0; done < piece.size; done += tile_threads) {
      const std::int64_t begin = piece.begin + done;
      const int left = piece.size - done;
      if (mixes) {
        simt::sync_threads();  // the last columns are done with; coefficients are there
        // The next one lies behind, unless that is another block's, or of another tensor.
        if (alike && (tile_threads < left || !own.is_last())) prefetch_tile(a, tensor, begin + tile_threads);
        if constexpr (in_pairs) {
          mix_tile_in_pairs(a, tensor, mixing, stale, loads, begin, left, tile);
          stale = false;
        } else {
          mix_tile<value, kPoints, TuningT::ahead>(a, tensor, mixing, loads, begin, left, tile);
        }
        simt::sync_threads();
      } else {
        with_dtype_of<ValueT>(
            a.rows.dtype, [&]<DType dtype>() { read_points<dtype>(a, table, begin, left, alignment, tile); });
      }
      ValueT* const column = tile + simt::thread();
      const double x = rule_of_column<value, kPoints>(column, a.points, a.rule, kept, a.out.dtype);
      if (simt::thread() < left) store_result(a, tensor, begin + simt::thread(), x, alignment);
    }
  }
  if (mixes) return;
  simt::sync_threads();
  table.flush_counts(a, tensor);
}

template <DType value, int kPoints, class TuningT = TileTuning<value, kPoints>, SumUnit unit = SumUnit::f64>
void launch_tile_bucket(const SelectArguments& a, Stream stream) {
  const auto kernel = tile_kernel<value, kPoints, TuningT, unit>;
  const std::size_t values =
      simt::shared_bytes<Value<value>>(static_cast<std::size_t>(a.points) * tile_threads);
  const std::size_t shared = values + [&] {
    if constexpr (unit == SumUnit::double_float) {
      return pair_groups_held(a.points, mixed_rows(a.rows), false) *
             pair_group_bytes(mixed_rows(a.rows), kPoints <= 8);
    } else {
      return mix_shared_within(simt::most_dynamic_shared(kernel), values, a.points,
                               a.mix != nullptr ? mixed_rows(a.rows) : 0);
    }
  }();
  const std::int64_t resident = simt::resident_blocks(kernel, tile_threads, shared);
  const int blocks = static_cast<int>(a.tiles.pieces < resident ? a.tiles.pieces : resident);
  simt::launch_dependent(kernel, blocks, 1, tile_threads, shared, stream, a);
}

/// Enqueues the kernel of the bucket that holds the points: this or a larger one.
template <DType value, SumUnit unit, int kPoints>
void launch_tile_from(const SelectArguments& a, Stream stream) {
  if (a.points <= kPoints) {
    launch_tile_bucket<value, kPoints, TileTuning<value, kPoints>, unit>(a, stream);
  } else if constexpr (kPoints < largest_bucket<value>) {
    launch_tile_from<value, unit, bucket_after<kPoints>>(a, stream);
  }
}

template <DType value, SumUnit unit>
void launch_tile(const SelectArguments& a, Stream stream) {
  launch_tile_from<value, unit, buckets[0]>(a, stream);
}

}  // namespace bragg::detail::cuda
