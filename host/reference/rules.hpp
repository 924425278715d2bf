// SPDX-License-Identifier: Apache-2.0
// Every rule of the oracle: from what reaches its stage to the result, or (pre-aggregators) to the next
// stage. A rule may throw Failed.
#pragma once

#include "host/reference/points.hpp"

namespace bragg::reference {

Point apply(const Mean& rule, Stage& stage);
Point apply(const Median& rule, Stage& stage);
Point apply(const TrimmedMean& rule, Stage& stage);
Point apply(const Meamed& rule, Stage& stage);
Point apply(const Phocas& rule, Stage& stage);
Point apply(const Krum& rule, Stage& stage);
Point apply(const MultiKrum& rule, Stage& stage);
Point apply(const GeometricMedian& rule, Stage& stage);
Point apply(const CenteredClipping& rule, Stage& stage);
Point apply(const Mda& rule, Stage& stage);
Point apply(const Smea& rule, Stage& stage);
Point apply(const Caf& rule, Stage& stage);
Point apply(const Monna& rule, Stage& stage);
Point apply(const Cge& rule, Stage& stage);
Point apply(const Bulyan& rule, Stage& stage);

void apply(const Nnm& rule, Stage& stage);
void apply(const Bucketing& rule, Stage& stage);
void apply(const Clip& rule, Stage& stage);
void apply(const Arc& rule, Stage& stage);

/// Checks every bound; `active`: the rows that take part. @throws std::invalid_argument.
void check_needs(const Pipeline& pipeline, const std::vector<int>& active, bool weighted);

/// Client weights: which rows take part, with what weight.
struct ClientWeights {
  std::vector<int> active;  ///< caller's indices, ascending
  Vector weight;            ///< per active row, capped; 0 for an invalid one
  std::vector<bool> invalid;
};
/// @throws std::invalid_argument: length, or a share cap that cannot hold.
ClientWeights client_weights(const Input& input);

}  // namespace bragg::reference
