// SPDX-License-Identifier: Apache-2.0
#include "kernels/common/simt.cuh"
#include "kernels/solve/step.hpp"

namespace bragg::detail::cuda {

/// One thread: parts are few, and what it decides is one word.
BRAGG_KERNEL(32, 1)
finish_state_kernel(BRAGG_GRID_CONSTANT SolveBlocks blocks, PlanState* state) {
  simt::grid_dependency_sync();
  if (simt::thread() != 0) return;
  int status = 0;
  for (int part = 0; part < blocks.parts && status == 0; ++part) {
    const std::byte* const block = blocks.first + static_cast<std::size_t>(part) * blocks.stride;
    status = reinterpret_cast<const SolveWords*>(block)->status;
  }
  state->status = status;
  if (status != 0) return;
  ++state->round;
  state->has_previous = 1;
}

void finish_state(const SolveBlocks& blocks, PlanState* state, Stream stream) {
  simt::launch_dependent(finish_state_kernel, 1, 1, 32, 0, stream, blocks, state);
}

}  // namespace bragg::detail::cuda
