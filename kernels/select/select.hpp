// SPDX-License-Identifier: Apache-2.0
// Pass 2 of coordinate-wise rules on the device: a rule of the points' values, coordinate by coordinate.
#pragma once

#include "kernels/common/rows.hpp"
#include "kernels/common/tuning.hpp"
#include "kernels/runtime/stream.hpp"
#include "rules/select_rule.hpp"

namespace bragg::detail::cuda {

struct SelectArguments {
  Rows rows;
  Cut tiles;    ///< of tile_length
  Parts parts;  ///< of chosen, mix, infinite, weights, nonfinite
  Target out;   ///< Kind::none: data[point * rows.tensors + tensor], apart from all rows; no copy
  Gate gate;
  SelectRule rule;
  int points = 0;  ///< that the rule sees
  /// [points] ascending indices into the rows, or the mixed points, that the rule sees; null: 0 … points−1.
  const int* chosen = nullptr;
  /// [mixed point][rows.count] coefficients of points that are combinations of rows; null: points are rows.
  /// Rows that no point has a coefficient for may hold anything; the others are finite.
  const double* mix = nullptr;
  /// By row or mixed point: not 0 where it reads +inf in every coordinate (its coefficients are 0); null:
  /// none.
  const std::uint8_t* infinite = nullptr;
  /// By row or mixed point: weights ≥ 0 of the weighted median, weighted trimmed mean or votes; null:
  /// unweighted.
  const double* weights = nullptr;
  /// [rows.count] non-finite values of the rows that the rule sees are added; null: not counted. Not with
  /// mix.
  unsigned long long* nonfinite = nullptr;
  void* workspace = nullptr;  ///< select_workspace_bytes, aligned to 256
  SumUnit unit = SumUnit::automatic;
};

/// Memory for one call. A function of rows.count, rows.dtype, points, rule.kind, whether there are mix and
/// weights, tiles.pieces and the device; no pointer is followed.
std::size_t select_workspace_bytes(const SelectArguments& arguments);

/// Enqueues the pass. Values of rows are ordered as they are; mixed values are sums in f64, or in pairs of
/// floats as mix_pairs.cuh says, rounded once to f32 (f64 rows: f64), a finite one never to infinity. Means
/// are sums in f64, ascending, clamped to the extremes that they are made of, rounded once, or have the same
/// bits (trim_floats.cuh). @throws Error as simt::launch.
void select(const SelectArguments& arguments, Stream stream);

}  // namespace bragg::detail::cuda
