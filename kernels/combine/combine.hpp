// SPDX-License-Identifier: Apache-2.0
// Pass 2 of geometric rules on the device: one affine combination of rows.
#pragma once

#include "kernels/common/rows.hpp"
#include "kernels/common/tuning.hpp"
#include "kernels/runtime/stream.hpp"

namespace bragg::detail::cuda {

struct CombineArguments {
  Rows rows;
  Cut tiles;    ///< of tile_length
  Parts parts;  ///< of coefficients, infinite, nonfinite
  Target out;
  Gate gate;
  const double* coefficients =
      nullptr;                    ///< [rows.count]; rows of coefficient 0 are not read (0·∞ never happens)
  const int* infinite = nullptr;  ///< where *infinite is not 0 every coordinate is +inf; null: nowhere
  unsigned long long* nonfinite =
      nullptr;  ///< [rows.count] non-finite values seen are added; null: not counted
  SumUnit unit = SumUnit::automatic;
};

/// Enqueues out = Σ coefficients[i]·row i, in f64, row order, fused multiply-adds, rounded once; in pairs of
/// floats as pairs.cuh says. @throws Error as simt::launch.
void combine(const CombineArguments& arguments, Stream stream);

}  // namespace bragg::detail::cuda
