// SPDX-License-Identifier: Apache-2.0
// Partial models: tensors by who holds them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "host/files/inputs.hpp"
#include "host/plan/engine.hpp"

namespace bragg::detail {

/// Tensors that the same inputs hold.
struct HeldTogether {
  std::vector<bool> there;                      ///< per input: it holds them, or is a bad one
  std::size_t holders = 0;                      ///< that are no bad ones
  std::vector<std::size_t> floating, integers;  ///< which of the inputs' tensors
  /// Why the pipeline cannot do with these rows; empty: it can, or was not asked.
  std::string fault = {};

  std::size_t first() const { return floating.empty() ? integers.front() : floating.front(); }
};

/// All tensors that are aggregated, in the order of each group's first one.
std::vector<HeldTogether> group_by_holders(const Inputs& inputs);

/// For FileResult.
std::vector<HeldTensors> describe_holders(const std::vector<HeldTogether>& groups, const Inputs& inputs);

/// The rows that hold some tensors, of which those of weight 0 are gone. Weights are capped where the
/// pipeline can do with the rows.
ActiveRows active_rows_of(const HeldTogether& held, const FileOptions& options);

/// The groups, with their faults. @throws Error invalid_argument: some tensor with values has no holder, or
/// one of floating-point values too few for the pipeline, or the pivot is none of them.
std::vector<HeldTogether> checked_holders(const Inputs& inputs, const Pipeline& pipeline,
                                          const FileOptions& options);

/// Takes such tensors from the inputs, which are partial models without a base: otherwise one worker that
/// adds a tensor, or holds one back, would end the run. @throws Error invalid_argument: it would be for any
/// input, or no tensor of floating-point values is left.
void drop_few_held(Inputs& inputs, const Pipeline& pipeline, const FileOptions& options);

}  // namespace bragg::detail
