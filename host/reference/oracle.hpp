// SPDX-License-Identifier: Apache-2.0
// The oracle: every rule straight from its definition, in long double, as a textbook would write it. It
// shares no code with what it judges; only the rule structs are common.
#pragma once

#include <array>
#include <bragg/pipeline.hpp>
#include <cstdint>
#include <vector>

namespace bragg::reference {

using Vector = std::vector<long double>;

struct Input {
  std::vector<Vector> rows{};  ///< n rows of d coordinates, the inputs' values exactly
  bool f64 = false;            ///< the inputs are f64: rows with |x| > 2^500 are infinite to geometric rules
  Vector reference{};          ///< o; empty: the origin
  Vector previous{};           ///< previous output; empty: none
  std::vector<double> weights{};  ///< client weights; empty: none
  double max_weight_share = 0;    ///< 0: no cap
  std::uint64_t round = 0;        ///< bucketing
  std::vector<bool> judged{};     ///< per coordinate: whether distances are about it; empty: about all
};

struct Result {
  Status status = Status::ok;
  Vector out;  ///< not rounded to any dtype; non-finite where the rule says so; empty when status is not ok
  /// Per coordinate, the scale of a fast path's rounding: Σ|a_i||x_i| over the rows (and references) that a
  /// combination holds; of a coordinate-wise rule, the largest such sum among the values that it kept,
  /// or that rounding could put in their place.
  Vector magnitude;
  /// Least gap of any discrete decision: first not taken minus last taken, over the size of the terms that
  /// either was computed from (‖x_i‖² + ‖x_j‖² for each squared distance in it); +inf when none was made.
  /// Choices between equal points do not count. A fast path whose errors in those terms are relatively below
  /// it cannot decide otherwise.
  long double margin = 0;
  /// Allowed excess of the objective of a rule run to convergence over its minimum.
  long double gap = 0;
  /// Of a rule whose result depends on the way to it: how far from `out` another way may end.
  long double reach = 0;
  /// The judged coordinates of the finite points that reached the rule, and their client weights (1 each
  /// without): what the rule's objective is about.
  std::vector<Vector> points;
  Vector point_weights;
  Vector point_sizes;  ///< Σ|a_i|‖x_i‖ of each point, which rows that cancel leave as large as they are
  /// Coefficient of each input row, in the caller's order; empty for coordinate-wise rules and bulyan.
  std::vector<long double> row_weight;
};

/// The bounds of the pipeline are the caller's to keep: `validate` it for the rows that take part, and give
/// weights only to rules that take them. @throws std::invalid_argument for inputs that do not fit each other;
/// nothing for bad data.
Result aggregate(const Pipeline& pipeline, const Input& input);

/// Philox4x32-10, Salmon et al. 2011.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// The permutation of n points that bucketing draws.
std::vector<int> draw_permutation(int n, std::uint64_t seed, std::uint64_t round);

}  // namespace bragg::reference
