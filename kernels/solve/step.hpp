// SPDX-License-Identifier: Apache-2.0
// The steps between the passes, on the device.
#pragma once

#include "host/solve/settle.hpp"
#include "host/solve/steps.hpp"
#include "kernels/common/stream.hpp"

namespace bragg::detail::cuda {

/// The blocks of all parts, `stride` bytes apart, in device memory.
struct SolveBlocks {
  std::byte* first = nullptr;
  std::size_t stride = 0;
  int parts = 0;
  SolveLayout layout;
};

/// Makes blocks ready for pass 1: words, counters, and what is known of the rows.
struct PrepareStep {
  int inputs = 0;
  int rows = 0;
  const std::uint8_t* invalid = nullptr;  ///< [inputs], or null: none is
  const double* weights = nullptr;        ///< [inputs], or null: none has one

  template <class TeamT>
  BRAGG_HD void operator()(TeamT team, const SolveBlock& b) const {
    team.single([&] { *b.words = SolveWords{}; });
    team.parallel_for(rows, [&](int i) {
      b.nonfinite[i] = 0;
      b.max_abs[i] = 0;
      b.invalid[i] = i < inputs && invalid != nullptr ? invalid[i] : 0;
      if (i < inputs && weights != nullptr) b.weights[0][i] = weights[i];
    });
  }
};

/// What a plan keeps on the device from run to run.
struct PlanState {
  std::uint64_t round = 0;
  int has_previous = 0;
  int status = 0;  ///< Status of the last run: that of the first part that failed
};

/// Enqueues step(team, block) for every part's block: one thread block each, or a grid where the step's
/// members are independent. @throws Error as simt::launch.
template <class StepT>
void run_step(const StepT& step, const SolveBlocks& blocks, Stream stream);

/// Enqueues state.status = the parts' status; where that is ok the state goes one round on.
void finish_state(const SolveBlocks& blocks, PlanState* state, Stream stream);

}  // namespace bragg::detail::cuda
