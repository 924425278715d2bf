// SPDX-License-Identifier: Apache-2.0
// Votes of signs per coordinate: o, and a step up or down from it, as more of the points' weight lies above
// or below.
//
// Shapes: any number of points, rows or mixed. Values: as direct.cuh and mix.cuh order them, compared with o
//   in f64. A point that reads +inf everywhere has no vote.
// Threads: a block takes pieces of 1024 coordinates. Rows: a thread a coordinate, eight rows of it under way
//   at a time. Mixed: a warp 32 coordinates, 16 points of them at a time, by way of a tile of its own in
//   shared memory.
// Bytes and operations: rows once (mixed: once for every 16 points, from L1 or L2 but the first time), o
// once,
//   one row written; two comparisons and at most two additions of f64 a point. Bound by memory.
// Deterministic: a coordinate is one thread's, and weights are added in the order of the points, as on the
//   CPU. Not yet run on hardware.
#pragma once

#include "kernels/common/tuning.hpp"
#include "kernels/select/launch.hpp"
#include "kernels/select/mix.cuh"
#include "kernels/select/points.cuh"

namespace bragg::detail::cuda {

/// The votes on one coordinate.
struct Votes {
  double o;
  double up = 0;
  double down = 0;

  BRAGG_DEVICE void take(double x, double weight) {
    if (x > o) up += weight;
    if (x < o) down += weight;
  }
  /// Sums that rounding alone may tell apart are a draw.
  BRAGG_DEVICE double result(double step) const {
    if (fabs(up - down) <= 1e-12 * (up + down)) return o;
    return up > down ? o + step : o - step;
  }
};

BRAGG_DEVICE double origin_at(const SelectArguments& a, int tensor, std::int64_t index, bool inside) {
  const unsigned char* const origin = row_of(a, tensor, a.rows.inputs);
  if (origin == nullptr || !inside) return 0;
  return load_f64(origin, index, a.rows.dtype_of(a.rows.inputs),
                  static_cast<Alignment>(a.rows.alignment[tensor]));
}

BRAGG_DEVICE double vote_of(const SelectArguments& a, int tensor, int point) {
  const int index = index_of(a, tensor, point);
  if (is_infinite(a, tensor, index)) return 0;
  return a.weights != nullptr ? a.parts.of(a.weights, tensor)[index] : 1.0;
}

/// A thread's coordinate of points that are rows; what is not finite is counted.
template <DType dtype>
BRAGG_DEVICE void take_rows(const SelectArguments& a, int tensor, std::int64_t index, bool inside,
                            Votes& votes) {
  const auto alignment = static_cast<Alignment>(a.rows.alignment[tensor]);
  const auto row = [&](int p) { return row_of(a, tensor, index_of(a, tensor, p)); };
  read_rows<dtype>(0, a.points, index, inside, alignment, row, [&](int p, Bits<dtype> bits) {
    const Value<dtype> v = value_of<dtype>(bits);
    const unsigned lanes = simt::ballot(!is_finite(v));
    if (lanes != 0 && simt::lane() == 0 && a.nonfinite != nullptr) {
      simt::atomic_add(a.parts.of(a.nonfinite, tensor) + index_of(a, tensor, p),
                       static_cast<unsigned long long>(simt::popcount(lanes)));
    }
    votes.take(static_cast<double>(nan_to_infinity(v)), vote_of(a, tensor, p));
  });
}

template <DType value>
BRAGG_KERNEL(VoteTuning::threads, VoteTuning::blocks)
vote_kernel(BRAGG_GRID_CONSTANT SelectArguments a) {
  simt::grid_dependency_sync();
  using ValueT = Value<value>;
  constexpr int warps = VoteTuning::threads / 32;
  const bool mixes = a.mix != nullptr;
  simt::DynamicShared shared;
  ValueT* const tiles = shared.take<ValueT>(mixes ? warps * mix_points * mix_columns : 0);
  ValueT* const tile = tiles + (mixes ? simt::warp() * (mix_points * mix_columns) : 0);
  const MixTable mixing = take_mix_table(shared, a.points, mixes ? mixed_rows(a.rows) : 0);
  const bool alike = have_one_dtype(a.rows);
  if (failed(a)) return;
  int tensor = -1;
  for (OwnPieces own(a.tiles, a.rows.sizes); own.more(); own.advance()) {
    const Piece& piece = own.piece();
    const auto alignment = static_cast<Alignment>(a.rows.alignment[piece.tensor]);
    if (mixes && piece.tensor != tensor) {
      simt::sync_threads();
      fill_mix_table(a, piece.tensor, mixing);
      simt::sync_threads();
    }
    tensor = piece.tensor;
    for (int done = 32 * simt::warp(); done < piece.size; done += VoteTuning::threads) {
      const std::int64_t begin = piece.begin + done;
      const std::int64_t index = begin + simt::lane();
      const int left = piece.size - done;
      const bool inside = simt::lane() < left;
      Votes votes{origin_at(a, tensor, index, inside)};
      if (mixes) {
        const Loads loads = mix_loads(alike, alignment);
        for (int group = 0; group < mixing.groups; ++group) {
          mix<value, false>(a, tensor, mixing, loads, group, begin, left, tile, mix_columns);
          simt::sync_warp();
          for (int p = 0; p < mix_points && mix_points * group + p < a.points; ++p) {
            votes.take(static_cast<double>(tile[p * mix_columns + simt::lane()]),
                       vote_of(a, tensor, mix_points * group + p));
          }
          simt::sync_warp();
        }
      } else {
        with_dtype_of<ValueT>(a.rows.dtype,
                              [&]<DType dtype>() { take_rows<dtype>(a, tensor, index, inside, votes); });
      }
      if (inside) store_result(a, tensor, index, votes.result(a.rule.step), alignment);
    }
  }
}

template <DType value>
void launch_votes(const SelectArguments& a, Stream stream) {
  constexpr int threads = VoteTuning::threads;
  std::size_t shared = 0;
  if (a.mix != nullptr) {
    shared = simt::shared_bytes<Value<value>>(threads / 32 * mix_points * mix_columns);
    const std::size_t most = simt::most_dynamic_shared(vote_kernel<value>);
    shared += mix_shared_within(most, shared, a.points, mixed_rows(a.rows));
  }
  const std::int64_t resident = simt::resident_blocks(vote_kernel<value>, threads, shared);
  const int blocks = static_cast<int>(a.tiles.pieces < resident ? a.tiles.pieces : resident);
  simt::launch_dependent(vote_kernel<value>, blocks, 1, threads, shared, stream, a);
}

}  // namespace bragg::detail::cuda
