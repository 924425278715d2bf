// SPDX-License-Identifier: Apache-2.0
// Every rule for any number of points, and the weighted rules, per coordinate: bisection over the
// bits of values, a fixed number of passes over sorted chunks whatever the data.
//
// Shapes: 1 to 65535 points, rows or mixed. Order: as direct.cuh.
// Threads: a team of 1 to 8 warps takes 32 coordinates, a lane each; the warps share out the points. The
//   points' values lie in a tile [point][32]: in shared memory, or in global memory where that is too small.
//   Unweighted: chunks of 63 (f64: 31) points are sorted by a network in registers, so that a binary search
//   of 6 (5) probes tells how many are below a number. A rank's value is found bit by bit: 32 (64) passes.
//   Weighted: chunks are not sorted, every pass goes over all points, in row order.
// Means: the values strictly between two ranks' are added, and those ranks' values as often as they are kept.
//   Closest values: the distance of the farthest that is kept is found bit by bit (63 passes), of equal
//   distances the smaller values are taken.
// Operations a coordinate: unweighted 16 minima and maxima and about 3 probes a point for every rank;
//   weighted about 32 (64) · 4 a point. Bytes: n·d read once, and the tile where it is in global memory.
// Registers: 239 (f64: 176); shared: tile, at most 96 KiB, where the device has it,
//   and 4 KiB. Nothing is spilled.
// Deterministic: sums are made by lane, then warp by warp in order. Not yet run on hardware.
#pragma once

#include "kernels/select/launch.hpp"
#include "kernels/select/mix.cuh"
#include "kernels/select/weighted.cuh"

namespace bragg::detail::cuda {

/// How a launch is laid out.
struct ChunkLayout {
  int team_warps = 1;         ///< 1, 2, 4 or 8
  void* workspace = nullptr;  ///< tiles of all teams; null: in shared memory
};

/// Reads the warp's points of a coordinate and counts what is not finite.
template <DType dtype, class ValueT>
BRAGG_DEVICE void read_points(const SelectArguments& a, int tensor, std::int64_t index, bool inside,
                              const Points<ValueT>& x) {
  const auto alignment = static_cast<Alignment>(a.rows.alignment[tensor]);
  const auto row = [&](int p) { return row_of(a, tensor, index_of(a, tensor, p)); };
  read_rows<dtype>(x.begin, x.end, index, inside, alignment, row, [&](int p, Bits<dtype> bits) {
    const ValueT v = value_of<dtype>(bits);
    const unsigned lanes = simt::ballot(!is_finite(v));
    if (lanes != 0 && simt::lane() == 0 && a.nonfinite != nullptr) {
      simt::atomic_add(a.parts.of(a.nonfinite, tensor) + index_of(a, tensor, p),
                       static_cast<unsigned long long>(simt::popcount(lanes)));
    }
    const bool infinite = is_infinite(a, tensor, index_of(a, tensor, p));
    x.values[p * 32] = infinite ? infinity_of<ValueT>() : nan_to_infinity(v);
  });
}

template <class ValueT>
BRAGG_DEVICE void fill(const SelectArguments& a, int tensor, std::int64_t begin, int left, ValueT* tile,
                       const Points<ValueT>& x) {
  if (a.mix != nullptr) {
    x.team.sync();
    MixTable mixing;  // without room in shared memory
    mixing.steps = (mixed_rows(a.rows) + mix_rows - 1) / mix_rows;
    const Loads loads = mix_loads(have_one_dtype(a.rows), static_cast<Alignment>(a.rows.alignment[tensor]));
    for (int group = x.team.warp; mix_points * group < a.points; group += x.team.warps) {
      mix<sizeof(ValueT) == 8 ? DType::f64 : DType::f32, false>(
          a, tensor, mixing, loads, group, begin, left,
          tile + static_cast<std::int64_t>(mix_points * group) * 32, 32);
    }
    x.team.sync();
    return;
  }
  const std::int64_t index = begin + simt::lane();
  const bool inside = simt::lane() < left;
  with_dtype_of<ValueT>(a.rows.dtype,
                        [&]<DType dtype>() { read_points<dtype>(a, tensor, index, inside, x); });
}

template <class ValueT>
BRAGG_DEVICE double apply(const SelectArguments& a, int tensor, Points<ValueT>& x) {
  if (a.weights == nullptr) {
    sort_chunks(x);
    return apply_rule(x, a.points, a.rule);
  }
  const Weights weights{a, tensor};
  if (a.rule.kind == SelectRule::Kind::trimmed_mean) {
    return weighted_trimmed_mean(x, weights, a.rule.f, a.points - a.rule.f);
  }
  return weighted_median(x, weights, a.rule.even);
}

template <class ValueT>
BRAGG_KERNEL(chunk_threads, 1)
chunk_kernel(BRAGG_GRID_CONSTANT SelectArguments a, ChunkLayout layout) {
  simt::grid_dependency_sync();
  BRAGG_SHARED(double, scratch, [2 * chunk_threads]);
  if (failed(a)) return;
  const int teams = chunk_warps / layout.team_warps;
  const int team = simt::warp() / layout.team_warps;
  const std::int64_t tile_size = static_cast<std::int64_t>(a.points) * 32;
  ValueT* tile = nullptr;
  if (layout.workspace == nullptr) {
    simt::DynamicShared shared;
    tile = shared.take<ValueT>(static_cast<std::size_t>(tile_size * teams)) + team * tile_size;
  } else {
    tile = static_cast<ValueT*>(layout.workspace) +
           (static_cast<std::int64_t>(simt::block()) * teams + team) * tile_size;
  }
  Points<ValueT> x{tile + simt::lane(), 0, 0,
                   Team{layout.team_warps, simt::warp() % layout.team_warps, scratch}};
  // Whole chunks to each warp, in order.
  constexpr int size = chunk_points<ValueT>;
  const int chunks = (a.points + size - 1) / size;
  const int share = (chunks + layout.team_warps - 1) / layout.team_warps * size;
  x.begin = x.team.warp * share < a.points ? x.team.warp * share : a.points;
  x.end = x.begin + share < a.points ? x.begin + share : a.points;

  const int span = 32 * teams;
  const int spans = static_cast<int>(tile_length) / span;
  for (OwnPieces own(a.tiles, a.rows.sizes, spans); own.more(); own.advance()) {
    const Piece& piece = own.piece();
    const int done = own.part() * span;
    if (done >= piece.size) continue;
    const std::int64_t begin = piece.begin + done + 32 * team;
    const int left = piece.size - done - 32 * team;  // none are left to the last teams
    fill(a, piece.tensor, begin, left, tile, x);
    const double result = apply(a, piece.tensor, x);
    if (x.team.warp == 0 && simt::lane() < left) {
      store_result(a, piece.tensor, begin + simt::lane(), result,
                   static_cast<Alignment>(a.rows.alignment[piece.tensor]));
    }
  }
}

/// How much of a block's tiles decides its teams, whose warps' sums are added in order: results depend on it,
/// so it is one for all devices. Two blocks of a large one have it in shared memory.
inline constexpr std::size_t chunk_tiles_bytes = std::size_t{96} << 10;
/// Global memory that all tiles may take, unless a block's need more.
inline constexpr std::size_t chunk_workspace_bytes = std::size_t{256} << 20;

template <class ValueT>
std::size_t tile_bytes(const SelectArguments& a) {
  return static_cast<std::size_t>(a.points) * 32 * sizeof(ValueT);
}

/// How the pass is launched on the current device.
struct ChunkLaunch {
  int team_warps = 1;
  std::size_t tiles_bytes = 0;  ///< of a block's teams
  bool is_shared = false;       ///< that is where they lie, else in global memory
  int blocks = 0;
};

/// As many teams a block as chunk_tiles_bytes has room for. Their tiles lie in shared memory, if the device
/// has so much.
template <class ValueT>
ChunkLaunch chunk_launch(const SelectArguments& a) {
  ChunkLaunch launch;
  const std::size_t tile = tile_bytes<ValueT>(a);
  while (launch.team_warps < chunk_warps &&
         tile * static_cast<std::size_t>(chunk_warps / launch.team_warps) > chunk_tiles_bytes) {
    launch.team_warps *= 2;
  }
  const int teams = chunk_warps / launch.team_warps;
  launch.tiles_bytes = tile * static_cast<std::size_t>(teams);
  launch.is_shared = launch.tiles_bytes <= chunk_tiles_bytes &&
                     launch.tiles_bytes <= simt::most_dynamic_shared(chunk_kernel<ValueT>);
  std::int64_t blocks =
      simt::resident_blocks(chunk_kernel<ValueT>, chunk_threads, launch.is_shared ? launch.tiles_bytes : 0);
  const std::int64_t wanted = a.tiles.pieces * (tile_length / (32 * teams));
  if (wanted < blocks) blocks = wanted;
  if (!launch.is_shared) {
    const auto most = static_cast<std::int64_t>(chunk_workspace_bytes / launch.tiles_bytes);
    if (most < blocks) blocks = most > 1 ? most : 1;
  }
  launch.blocks = static_cast<int>(blocks);
  return launch;
}

template <DType value>
std::size_t chunk_workspace(const SelectArguments& a) {
  const ChunkLaunch launch = chunk_launch<Value<value>>(a);
  return launch.is_shared ? 0 : launch.tiles_bytes * static_cast<std::size_t>(launch.blocks);
}

template <DType value>
void launch_chunks(const SelectArguments& a, Stream stream) {
  const ChunkLaunch launch = chunk_launch<Value<value>>(a);
  const ChunkLayout layout{launch.team_warps, launch.is_shared ? nullptr : a.workspace};
  simt::launch_dependent(chunk_kernel<Value<value>>, launch.blocks, 1, chunk_threads,
                         launch.is_shared ? launch.tiles_bytes : 0, stream, a, layout);
}

}  // namespace bragg::detail::cuda
