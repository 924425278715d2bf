// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/error.hpp>
#include <cstdint>
#include <limits>
#include <vector>

namespace bragg {
inline namespace v0 {

/// Outcome of a run for one row.
struct RowReport {
  /// Geometric rule: the row's coefficient in the output. Coordinate-wise rule: its mean coefficient in the
  /// points which that rule sees (1/n each where there is no pre-aggregator).
  double weight = 0;
  /// weight is not 0.
  bool selected = false;
  /// krum, multi_krum: score; each of its squared distances is off by Report::distance_error of itself and of
  /// the majority's spread. monna, balance: distance to the pivot. fltrust: cosine with the pivot. foolsgold:
  /// weight before they are made to sum to 1. cge: norm about o. geometric_median: distance to the result.
  /// caf: the final filter weight. Others, and after a pre-aggregator that merges rows (nnm, bucketing): NaN.
  double score = 0;
  /// Coordinates that are NaN or infinite.
  std::int64_t nonfinite = 0;
  /// Product of the factors in (0, 1] that clip, arc and (last iteration) centered_clipping applied; 0 for an
  /// infinite row, 1 where nothing was clipped.
  double clip_factor = 1;
};

/// Outcome of a run: which rows look bad, and why. One per tensor if scope = per_tensor.
struct Report {
  Status status = Status::ok;
  std::vector<RowReport> rows;  ///< in the caller's order
  int iterations = 0;           ///< of geometric_median, huber, autogm, centered_clipping, caf; else 0
  bool converged = true;        ///< false: geometric_median, huber or autogm stopped at max_iters
  /// geometric_median run to convergence: the objective is at most this far above its minimum, relative to
  /// half of the weight times the least distance to the result within which more than half of it is. Of the
  /// distances as computed. Else NaN.
  double optimality_gap = std::numeric_limits<double>::quiet_NaN();
  /// Rows differ so little beside what they have in common that distances were taken once more, less what a
  /// majority of them has in each coordinate (or less the base): one more read.
  bool recentred = false;
  /// The largest rounding error that a distance which decided can have, as a share of it and of the spread of
  /// the majority; 0 where no distance was taken. Above 2^-20 products in f32 told the order of distances,
  /// which then alone decides: the result is that of products in f64.
  double distance_error = 0;
};

}  // namespace v0
}  // namespace bragg
