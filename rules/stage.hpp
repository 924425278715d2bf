// SPDX-License-Identifier: Apache-2.0
// The points between two steps of a pipeline, and what a step has to know of them.
#pragma once

#include <cstdint>
#include <span>

#include "rules/solve/block.hpp"
#include "rules/solve/points.hpp"

namespace bragg::detail {

/// The points as they stand between two steps. Known before anything runs: it depends on no data.
struct Stage {
  int inputs = 0;      ///< rows
  int references = 0;  ///< the origin, and the previous output where there is one
  int count = 0;       ///< points
  int gram = 0;        ///< which of the block's two buffers holds them
  int mix = 0;
  int marks = 0;            ///< infinite and weights
  bool mixed = false;       ///< points are combinations of rows: `mix` holds their coefficients
  bool shifted = false;     ///< products are of points less b.shift, made by the transform that made them
  bool weighted = false;    ///< points have weights
  bool are_rows = true;     ///< point i comes of row i alone
  bool has_origin = false;  ///< the origin is a caller's reference, not zeros
  double rounding = 0;      ///< of the points' products, beyond that of the rows' (as Points::rounding)

  BRAGG_HD int rows() const { return inputs + references; }
  BRAGG_HD int size() const { return count + references; }
};

/// What a run brings beside the data.
struct SequenceInputs {
  Stage stage = {};  ///< of the rows
  int pivot = 0;     ///< index of the trusted point
  std::uint64_t round = 0;
  const std::uint64_t* rounds = nullptr;  ///< as BucketingDraw::rounds
  /// Per pre-aggregator the address of its permutation on the device; empty: the rule's own.
  std::span<const int* const> permutations = {};
};

BRAGG_HD inline Points points_of(const SolveBlock& b, const Stage& s) {
  return {.count = s.count,
          .size = s.size(),
          .gram = b.gram[s.gram],
          .infinite = b.infinite[s.marks],
          .weights = s.weighted ? b.weights[s.marks] : nullptr,
          .scale = b.words->scale,
          .extent = b.extent[s.gram],
          .rounding = b.words->rounding + s.rounding};
}

BRAGG_HD inline bool has_failed(const SolveBlock& b) {
  return b.words->status != static_cast<int>(Status::ok);
}

template <class TeamT>
BRAGG_HD void fail(TeamT team, const SolveBlock& b, Status status) {
  team.single([&] { b.words->status = static_cast<int>(status); });
}

}  // namespace bragg::detail
