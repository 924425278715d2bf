// SPDX-License-Identifier: Apache-2.0
// Rules that search among subsets of rows. They branch as a host does, and run there.
#pragma once

#include "rules/steps.hpp"

namespace bragg::detail {

/// Runs the step on a block in host memory. RuleT: Mda or Smea.
template <class RuleT>
void run_search(const SearchStep<RuleT>& step, const SolveBlock& b);

}  // namespace bragg::detail
