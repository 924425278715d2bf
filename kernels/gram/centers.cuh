// SPDX-License-Identifier: Apache-2.0
// Medians of the rows' coordinates by themselves, for kernels whose blocks do not find them in passing.
//
// Order        Exact: the median is one of the values.
// Map          A thread block takes 1024 coordinates of a chunk, a lane one of a warp's 32 at a time. Their
//              rows are staged in shared memory, where a lane reads only what it has written. If the rows do
//              not fit there, each step reads them again, from the caches. The median is found bit by bit: a
//              step counts the values below the prefix found so far.
// Bound        Shared memory: a step (32 for f32, 64 for f64, 16 and 19 for bf16 and f16) reads every value
//              once.
// Resources    128 threads at most; 32 values per row and warp shared, up to 96 KB.
// Measured     Not yet run on hardware.
#pragma once

#include <algorithm>

#include "kernels/gram/center.cuh"

namespace bragg::detail::cuda {

inline constexpr int center_threads = 128;
inline constexpr int center_coordinates = 1024;  ///< of a block
inline constexpr std::size_t most_center_shared = 96 * 1024;

constexpr int bytes_of_warp(int rows, DType dtype) { return rows * 32 * static_cast<int>(size_of(dtype)); }

/// Shared memory may hold no warp's rows: `staged` false.
template <DType dtype, bool staged>
BRAGG_KERNEL(center_threads, 8)
gram_centers(BRAGG_GRID_CONSTANT GramBatch batch) {
  simt::grid_dependency_sync();
  simt::DynamicShared dynamic;
  const GramArguments& pass = batch.pass;
  const Rows& rows = pass.rows;
  const int warps = simt::threads() / 32;
  Bits<dtype>* own = nullptr;  // [row][32] of the warp, from the lane's place
  if constexpr (staged) {
    own = dynamic.take<Bits<dtype>>(static_cast<std::size_t>(warps * rows.inputs) * 32) +
          simt::warp() * rows.inputs * 32 + simt::lane();
  }
  const auto pieces = static_cast<int>((pass.chunks.length + center_coordinates - 1) / center_coordinates);
  const int chunk = simt::block() / pieces;
  const int begin = simt::block() % pieces * center_coordinates;
  const Piece piece = locate(pass.chunks, rows.sizes, batch.first + chunk);
  if (is_skipped(pass, piece.tensor)) return;
  const Alignment alignment = alignment_of(rows, piece.tensor);
  const int end = piece.size < begin + center_coordinates ? piece.size : begin + center_coordinates;

  double weights = 0;
  for (int r = simt::lane(); r < rows.inputs; r += 32) weights += weight_of(pass, piece.tensor, r);
  BRAGG_UNROLL
  for (int lanes = 16; lanes > 0; lanes /= 2) weights += simt::shuffle_xor(weights, lanes);
  const double half = half_of(weights);

  auto* const centers = reinterpret_cast<Bits<dtype>*>(pass.centers) + chunk * pass.chunks.length;
  for (int first = begin + 32 * simt::warp(); first < end; first += 32 * warps) {
    const int index = first + simt::lane();
    const int read = index < end ? index : end - 1;
    const auto load = [&](int r) { return load_element<dtype>(row_data(batch, piece, r), read, alignment); };
    if constexpr (staged) {
      constexpr int loads = 8;
      for (int base = 0; base < rows.inputs; base += loads) {
        Bits<dtype> bits[loads];
        BRAGG_UNROLL
        for (int l = 0; l < loads; ++l) bits[l] = base + l < rows.inputs ? load(base + l) : Bits<dtype>{0};
        BRAGG_UNROLL
        for (int l = 0; l < loads; ++l) {
          if (base + l < rows.inputs) own[(base + l) * 32] = bits[l];
        }
      }
      // So that it is below nothing.
      for (int r = 0; r < rows.inputs; ++r) {
        if (!(weight_of(pass, piece.tensor, r) > 0)) own[r * 32] = static_cast<Bits<dtype>>(~Bits<dtype>{0});
      }
    }
    const auto value = [&](int r) { return value_of<dtype>(staged ? own[r * 32] : load(r)); };
    const Value<dtype> center = median_by_bits<dtype>([&](Value<dtype> c) {
      if (staged && pass.weights == nullptr) {
        float below = 0;
        for (int r = 0; r < rows.inputs; ++r) below += value(r) < c ? 1.0f : 0.0f;
        return below < half;
      }
      double below = 0;
      for (int r = 0; r < rows.inputs; ++r) below += value(r) < c ? weight_of(pass, piece.tensor, r) : 0.0;
      return below < half;
    });
    if (index < end) centers[index] = round_to<dtype>(center);
  }
}

template <DType dtype>
void launch_centers(const GramBatch& batch, Stream stream) {
  const auto of_warp = static_cast<std::size_t>(bytes_of_warp(batch.pass.rows.inputs, dtype));
  const std::size_t fit = std::min<std::size_t>(most_center_shared / of_warp, center_threads / 32);
  const std::int64_t pieces = (batch.pass.chunks.length + center_coordinates - 1) / center_coordinates;
  if (fit > 0) {
    simt::launch_dependent(gram_centers<dtype, true>, batch.chunks * static_cast<int>(pieces), 1,
                           32 * static_cast<int>(fit), fit * of_warp, stream, batch);
  } else {
    simt::launch_dependent(gram_centers<dtype, false>, batch.chunks * static_cast<int>(pieces), 1,
                           center_threads, 0, stream, batch);
  }
}

inline void launch_centers(const GramBatch& batch, Stream stream) {
  with_dtype(batch.pass.rows.dtype, [&]<DType dtype>() { launch_centers<dtype>(batch, stream); });
}

}  // namespace bragg::detail::cuda
