// SPDX-License-Identifier: Apache-2.0
// When a result of the library is right: derived bounds on its distance from the oracle's.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "host/reference/oracle.hpp"
#include "tests/support/values.hpp"

namespace bragg::test {

using Rows = std::vector<std::vector<long double>>;

inline bool is_finite_row(const std::vector<long double>& row, DType dtype) {
  return std::all_of(row.begin(), row.end(), [&](long double x) {
    return std::isfinite(x) && (dtype != DType::f64 || std::fabs(x) <= 0x1p500L);
  });
}

/// Relative error of a squared distance that comes from the float64 Gram matrix: D = G_ii + G_jj − 2 G_ij has
/// an absolute error of a few units of rounding of ‖x‖² (the block sums add a factor that grows slowly: 64
/// covers d ≤ 1e6), so relative to the least distance it is that times the condition max‖x‖²/min D. Pairs of
/// huge rows are far apart and do not enter: the condition is taken over pairs. Pre-aggregators sum up to n
/// such terms.
inline long double decision_error(const Rows& rows, DType dtype) {
  long double worst = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (!is_finite_row(rows[i], dtype) || !is_finite_row(rows[j], dtype)) continue;
      long double distance = 0;
      long double norms = 0;
      for (std::size_t k = 0; k < rows[i].size(); ++k) {
        distance += (rows[i][k] - rows[j][k]) * (rows[i][k] - rows[j][k]);
        norms += rows[i][k] * rows[i][k] + rows[j][k] * rows[j][k];
      }
      if (distance > 0) worst = std::max(worst, norms / distance);
    }
  }
  return 64 * 0x1p-53L * worst * static_cast<long double>(rows.size());
}

/// What the library computes with, so how far it may be from the exact value before the final rounding.
struct Accuracy {
  bool exact = false;  ///< an order statistic: one value of the input, or the rounded midpoint of two
  bool mixed =
      false;  ///< values of mixed points are rounded to f32 (f64 inputs: f64) before they are ordered
  long double relative = 0;  ///< relative error of the coefficients of an iterative rule
};

inline Accuracy accuracy_of(const Pipeline& pipeline, long double decisions) {
  Accuracy accuracy;
  accuracy.mixed = !pipeline.pre.empty();
  accuracy.exact = !accuracy.mixed && (std::holds_alternative<Median>(pipeline.rule) ||
                                       std::holds_alternative<Krum>(pipeline.rule));
  // Clipping factors are square roots of Gram distances; they inherit half of their relative error.
  if (accuracy.mixed || std::holds_alternative<CenteredClipping>(pipeline.rule))
    accuracy.relative = decisions;
  // Weiszfeld stops 1e-10 typical distances from the minimiser by its own estimate. A row within the rounding
  // error of a squared distance, (16·2⁻⁵²)^½ ‖x‖ = 6e-8 ‖x‖, counts as reached; sums over coordinates make it
  // less, not more.
  if (std::holds_alternative<GeometricMedian>(pipeline.rule)) accuracy.relative = 2e-7L + decisions;
  if (std::holds_alternative<Caf>(pipeline.rule)) accuracy.relative = 1e-8L + 1e3L * decisions;
  return accuracy;
}

/// The largest admissible |library − oracle| at one coordinate. `magnitude`: the size of what was added up.
inline long double tolerance(DType in, DType out, const Accuracy& accuracy, int n, long double expected,
                             long double magnitude) {
  if (accuracy.exact) return 0;
  long double error = (n + 8) * 0x1p-53L * magnitude;
  if (accuracy.mixed) error += (in == DType::f64 ? 0x1p-53L : 0x1p-24L) * magnitude;
  error += accuracy.relative * magnitude;
  // Half a unit of the final rounding, and the unit may double just above |expected|.
  return error * 1.01L + 0.5001L * spacing(out, std::fabs(expected) + error);
}

/// Empty when `got` is right, else what is wrong with it. Non-finite values must agree exactly.
inline std::string compare(long double got, long double expected, DType out, const Accuracy& accuracy,
                           long double allowed) {
  const auto say = [&](const char* what) {
    return std::string(what) + ": got " + std::to_string(got) + ", oracle " + std::to_string(expected);
  };
  if (std::isnan(expected) != std::isnan(got)) return say("NaN");
  if (std::isnan(expected)) return "";
  if (got == 0 && std::signbit(got)) return say("negative zero");
  const long double rounded = round_to(out, expected);
  if (got == rounded) return "";
  if (std::isinf(expected) || std::isinf(got)) return say("infinity");
  if (accuracy.exact) return say("not bit-equal");
  if (!(std::fabs(got - expected) <= allowed)) {
    return say("error") + ", off by " +
           std::to_string(static_cast<double>(std::fabs(got - expected) / allowed)) + " × the bound";
  }
  return "";
}

/// Per coordinate, Σ |coefficient · x| of a geometric rule, or what the oracle says entered a coordinate-wise
/// one.
inline std::vector<long double> magnitudes(const reference::Input& input, const reference::Result& result) {
  if (result.row_weight.empty()) return result.magnitude;
  std::vector<long double> sums(input.rows[0].size(), 0);
  for (std::size_t i = 0; i < input.rows.size(); ++i) {
    if (result.row_weight[i] == 0) continue;
    for (std::size_t j = 0; j < sums.size(); ++j)
      sums[j] += std::fabs(result.row_weight[i] * input.rows[i][j]);
  }
  for (std::size_t j = 0; j < sums.size(); ++j) {
    // References enter too; their share is not in row_weight.
    if (!input.reference.empty()) sums[j] += std::fabs(input.reference[j]);
    if (!input.previous.empty()) sums[j] += std::fabs(input.previous[j]);
  }
  return sums;
}

}  // namespace bragg::test
