// SPDX-License-Identifier: Apache-2.0
// Every rule of the oracle: from what reaches its stage to the result, or (pre-aggregators) to the next
// stage. A rule may throw Failed. Each is a specialization in a file of its own: the linker names the rule of
// the list that has none.
#pragma once

#include "host/reference/points.hpp"

namespace bragg::reference {

template <AggregatorRule RuleT>
Point apply(const RuleT& rule, Stage& stage);

template <PreAggregatorRule RuleT>
void apply(const RuleT& rule, Stage& stage);

/// Client weights: which rows take part, with what weight.
struct ClientWeights {
  std::vector<int> active;  ///< caller's indices, ascending
  Vector weight;            ///< per active row, capped; 0 for an invalid one
  std::vector<bool> invalid;
};
/// @throws std::invalid_argument: length, or a share cap that cannot hold.
ClientWeights client_weights(const Input& input);

}  // namespace bragg::reference
