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

/// The error of a squared distance from the float64 Gram matrix, D = G_ii + G_jj − 2 G_ij, relative to ‖x_i‖²
/// + ‖x_j‖²: a few units of rounding, growing slowly with the block sums (64 units cover d ≤ 1e6);
/// pre-aggregators add up to n such terms. The oracle's margin is in the same measure.
inline long double gram_error(int n) { return 64 * 0x1p-53L * static_cast<long double>(n); }

/// The same relative to the squared distances themselves, at worst over the pairs: what clipping factors and
/// weights inherit, being functions of distances. The origin, or the reference, is a point too.
inline long double coefficient_error(const reference::Input& input) {
  Rows rows = input.rows;
  rows.push_back(input.reference.empty() ? std::vector<long double>(input.rows[0].size(), 0)
                                         : input.reference);
  if (!input.previous.empty()) rows.push_back(input.previous);
  const DType dtype = input.f64 ? DType::f64 : DType::f32;
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
  return gram_error(static_cast<int>(rows.size())) * worst;
}

/// What the library computes with, so how far it may be from the exact value before the final rounding.
struct Accuracy {
  bool exact = false;  ///< an order statistic: one value of the input, or the rounded midpoint of two
  bool mixed =
      false;  ///< values of mixed points are rounded to f32 (f64 inputs: f64) before they are ordered
  long double relative = 0;  ///< relative error of the coefficients of an iterative rule
};

inline Accuracy accuracy_of(const Pipeline& pipeline, long double coefficients) {
  Accuracy accuracy;
  accuracy.mixed = !pipeline.pre.empty();
  accuracy.exact = !accuracy.mixed && (std::holds_alternative<Median>(pipeline.rule) ||
                                       std::holds_alternative<Krum>(pipeline.rule));
  // Clipping factors are square roots of Gram distances; they inherit half of their relative error.
  if (accuracy.mixed || std::holds_alternative<CenteredClipping>(pipeline.rule))
    accuracy.relative = coefficients;
  // Weiszfeld stops 1e-10 typical distances from the minimiser by its own estimate. A row within the rounding
  // error of a squared distance, (16·2⁻⁵²)^½ ‖x‖ = 6e-8 ‖x‖, counts as reached; sums over coordinates make it
  // less, not more.
  if (std::holds_alternative<GeometricMedian>(pipeline.rule)) accuracy.relative = 2e-7L + coefficients;
  if (std::holds_alternative<Caf>(pipeline.rule)) accuracy.relative = 1e-8L + 1e3L * coefficients;
  return accuracy;
}

/// The largest admissible |library − oracle| at one coordinate. `magnitude`: the size of what was added up.
inline long double tolerance(DType in, DType out, const Accuracy& accuracy, int n, long double expected,
                             long double magnitude) {
  if (accuracy.exact) return 0;
  long double error = (n + 8) * 0x1p-53L * magnitude;
  if (accuracy.mixed) error += spacing(in == DType::f64 ? DType::f64 : DType::f32, magnitude) / 2;
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

}  // namespace bragg::test
