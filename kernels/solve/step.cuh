// SPDX-License-Identifier: Apache-2.0
// The steps of host/solve/steps.hpp as kernels. All data is n-sized and lies in one block of global memory a
// part, which stays in the L1 and L2 caches: latency bounds it, not bandwidth.
//   threads: one block a part (grid.y), 32 to 256 threads by n; independent steps: as many as there is work
//   for registers: at most 255, no spills; shared: 192 bytes for sums determinism: sums in a fixed order; no
//   atomics measured: not yet run on hardware
#pragma once

#include "kernels/solve/step.hpp"
#include "kernels/solve/team.cuh"

namespace bragg::detail::cuda {

template <class StepT>
constexpr bool is_independent = requires {
  StepT::independent;
};

template <class StepT>
BRAGG_KERNEL(256, 1)
step_kernel(BRAGG_GRID_CONSTANT StepT step, BRAGG_GRID_CONSTANT SolveBlocks blocks) {
  simt::grid_dependency_sync();
  const SolveBlock block =
      solve_block(blocks.first + static_cast<std::size_t>(simt::block_y()) * blocks.stride, blocks.layout);
  if constexpr (is_independent<StepT>) {
    step(GridTeam{}, block);
  } else {
    step(BlockTeam{}, block);
  }
}

template <class StepT>
void run_step(const StepT& step, const SolveBlocks& blocks, Stream stream) {
  const int rows = blocks.layout.rows;
  int threads = rows <= 16 ? 32 : rows <= 64 ? 128 : 256;
  int grid = 1;
  if constexpr (is_independent<StepT>) {
    const std::int64_t items = static_cast<std::int64_t>(rows) * rows;
    constexpr int most_blocks = 1024;
    threads = 128;
    grid = static_cast<int>(std::min<std::int64_t>((items + threads - 1) / threads, most_blocks));
  }
  constexpr int most_parts = 65535;  // of a grid's y
  for (int part = 0; part < blocks.parts; part += most_parts) {
    SolveBlocks some = blocks;
    some.first += static_cast<std::size_t>(part) * blocks.stride;
    some.parts = std::min(most_parts, blocks.parts - part);
    simt::launch_dependent(step_kernel<StepT>, grid, some.parts, threads, 0, stream, step, some);
  }
}

}  // namespace bragg::detail::cuda
