// SPDX-License-Identifier: Apache-2.0
// The memory of one part's n-sized mathematics: one block, laid out alike on the host and on a device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "rules/solve/points.hpp"

namespace bragg::detail {

/// Single values of a block.
struct SolveWords {
  int status = 0;  ///< Status
  int iterations = 0;
  int converged = 1;
  int infinite = 0;                           ///< every coordinate of the result is +inf
  int settled = 0;                            ///< pass 1 need not be run once more
  int recentred = 0;                          ///< products are those of rows less a centre
  double scale = 1;                           ///< as GramSums
  double limit = 0x1p500;                     ///< as GramSums
  double rounding = 0;                        ///< as GramSums
  double distance_error = 0;                  ///< as Report
  double optimality_gap = __builtin_nan("");  ///< as Report
};
static_assert(sizeof(SolveWords) % 16 == 0);

struct SolveLayout {
  int rows = 0;           ///< table rows, references included
  bool products = false;  ///< the pipeline takes distances
  bool stages = false;    ///< it has pre-aggregators
  int samples = 0;        ///< of coordinates, that its rule judges points by
};

/// Two buffers that steps read and write in turn. Not an array: an index known at run time alone would put a
/// kernel's pointers into local memory.
template <class T>
struct Two {
  T* first;
  T* second;
  BRAGG_HD T* operator[](int k) const { return k == 0 ? first : second; }
};

/// Pointers into a block. Points never outnumber rows.
struct SolveBlock {
  SolveWords* words;
  std::int64_t* nonfinite;  ///< [rows] of pass 1
  double* max_abs;          ///< [rows] of pass 1
  std::uint8_t* invalid;    ///< [rows] the row's weight makes it infinite
  std::uint8_t* left_out;   ///< [rows] the row was infinite before rows were centred; else unspecified
  Two<std::uint8_t> infinite;
  Two<double> weights;
  Two<double> extent;  ///< as Points
  double* low;         ///< [rows²] of pass 1: what is to be added to gram.first
  Two<double> gram;
  Two<double> mix;
  double* transform;
  double* shift;  ///< [rows + 1] clip, arc: the point that is taken from all before they are multiplied, and
                  ///< its factor
  double* product;
  double* doubles;  ///< scratch
  int* ints;        ///< scratch
  int* chosen;      ///< [rows] Bulyan: the points that pass 2 sees, ascending

  double* coefficients;  ///< [rows] of points
  double* scores;        ///< [rows] of points
  double* clip_factors;  ///< [rows] of points, in the last step
  double* row_weight;  ///< [rows] the result as a combination of rows; coordinate-wise: the rows' mean shares
  double* row_clip;    ///< [rows] product of all clip factors

  std::byte* samples;  ///< a block for each sample (sample_block)

  BRAGG_HD Scratch scratch() const { return {doubles, ints}; }
};

/// `base` null: only the size is wanted, which goes to `bytes`; that of the samples is not in it.
BRAGG_HD inline SolveBlock solve_block(std::byte* base, const SolveLayout& layout,
                                       std::size_t* bytes = nullptr) {
  std::size_t used = 0;
  const auto rows = static_cast<std::size_t>(layout.rows);
  const auto take = [&](std::size_t size) {
    // Of a pointer, not of an integer: a device's compiler then knows that all of this is global memory.
    std::byte* const at = bytes == nullptr ? base + used : nullptr;
    used += (size + 15) / 16 * 16;
    return at;
  };
  const auto doubles = [&](std::size_t count) { return reinterpret_cast<double*>(take(8 * count)); };
  const auto ints = [&](std::size_t count) { return reinterpret_cast<int*>(take(4 * count)); };
  const auto bits = [&](std::size_t count) { return reinterpret_cast<std::uint8_t*>(take(count)); };
  const std::size_t squares = layout.products ? rows * rows : 0;
  const std::size_t mixes = layout.stages ? rows * rows : 0;

  SolveBlock block{};
  block.words = reinterpret_cast<SolveWords*>(take(sizeof(SolveWords)));
  block.nonfinite = reinterpret_cast<std::int64_t*>(take(8 * rows));
  block.max_abs = doubles(rows);
  block.invalid = bits(rows);
  block.coefficients = doubles(rows);
  block.scores = doubles(rows);
  block.clip_factors = doubles(rows);
  block.row_weight = doubles(rows);
  block.row_clip = doubles(rows);
  block.chosen = ints(rows);
  block.left_out = bits(rows);
  block.infinite = {bits(rows), bits(rows)};
  block.weights = {doubles(rows), doubles(rows)};
  const std::size_t extents = layout.products ? rows : 0;
  block.extent = {doubles(extents), doubles(layout.stages ? extents : 0)};
  block.low = doubles(squares);
  block.gram = {doubles(squares), doubles(layout.stages ? squares : 0)};
  block.mix = {doubles(mixes), doubles(mixes)};
  block.transform = doubles(mixes);
  block.shift = doubles(layout.stages ? rows + 1 : 0);
  block.product = doubles(layout.stages ? squares : 0);
  block.doubles = doubles(layout.products ? scratch_doubles(rows) : 0);
  block.ints = ints(layout.products ? scratch_ints(rows) : rows);
  used = (used + 255) / 256 * 256;
  block.samples = take(0);
  if (bytes != nullptr) *bytes = used;
  return block;
}

/// Of sample t in the block of a part of so many table rows: what pass 1 found of the rows at its
/// coordinates.
BRAGG_HD inline SolveBlock sample_block(const SolveBlock& block, int rows, int t) {
  const SolveLayout layout{.rows = rows, .products = true};
  std::size_t bytes = 0;
  solve_block(nullptr, layout, &bytes);
  return solve_block(block.samples + static_cast<std::size_t>(t) * bytes, layout);
}

/// The block that lies `bytes` further on.
BRAGG_HD inline SolveBlock moved(const SolveBlock& block, std::size_t bytes) {
  struct Pointers {
    std::byte* of[sizeof(SolveBlock) / sizeof(std::byte*)];
  };
  auto pointers = __builtin_bit_cast(Pointers, block);
  for (std::byte*& pointer : pointers.of) pointer += bytes;
  return __builtin_bit_cast(SolveBlock, pointers);
}

inline std::size_t solve_block_bytes(const SolveLayout& layout) {
  std::size_t bytes = 0;
  solve_block(nullptr, layout, &bytes);
  if (layout.samples == 0) return bytes;
  return bytes + static_cast<std::size_t>(layout.samples) *
                     solve_block_bytes({.rows = layout.rows, .products = true});
}

/// Bytes at a block's beginning that a report is made from: all up to `chosen`.
inline std::size_t report_bytes(int rows) {
  return reinterpret_cast<std::uintptr_t>(
      solve_block(nullptr, {.rows = rows, .products = false, .stages = false}).chosen);
}

}  // namespace bragg::detail
