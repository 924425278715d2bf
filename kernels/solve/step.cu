// SPDX-License-Identifier: Apache-2.0
// The steps of rules/steps.hpp as kernels. All data is n-sized and lies in one block of global memory a
// part, which stays in the L1 and L2 caches.
//
// Map          a thread block for each part (grid.y) walks a list of steps: 32 threads to 16 inputs, 128 to
//              64, 256 above. Of many rows (common/tuning.hpp) products of matrices, neighbours and Krum's
//              scores are launches over a grid, a row's neighbours by a block.
// Bound        latency, and launches: nnm | trimmed_mean was ten of them when each step was one, and is five.
// Resources    234 registers at most, no spills; 8 KB shared, for sums. 66 000 instructions with all steps in
//              line, of which a run takes a path of a thousand or two: loops are rolled (BRAGG_HD_UNROLL).
// Determinism  sums in a fixed order; no atomics.
// Measured     not yet run on hardware.
// Lost         a step that is not compiled in line: SolveBlock's pointers went to local memory, 176 bytes a
//              thread (by the compiler's report, not run).
#include "kernels/solve/step.hpp"

#include "kernels/common/upload.cuh"
#include "kernels/solve/team.cuh"

namespace bragg::detail::cuda {

namespace {

/// Step k of a list. Each branch finds its pointers and the step for itself: what branches have in common
/// would stay in registers through all of them (254 of these when it was 206 on 12.0, and spills).
struct RunStep {
  const StepList& list;
  const SolveBlocks& blocks;
  int k;
  template <class StepT>
  BRAGG_DEVICE void operator()() const {
    const auto& step = list.steps[simt::opaque(k)].template as<StepT>();
    step(BlockTeam{}, blocks.part(simt::opaque(simt::block_y())));
  }
};

struct ThenPrepare {
  PrepareStep step;
  SolveBlocks blocks;
  BRAGG_DEVICE void operator()() const { step(BlockTeam{}, blocks.part(simt::block_y())); }
};

/// launch(some) for as many parts at a time as a grid's y can be.
template <class LaunchF>
void for_parts(const SolveBlocks& blocks, LaunchF launch) {
  constexpr int most_parts = 65535;
  for (int part = 0; part < blocks.parts; part += most_parts) {
    SolveBlocks some = blocks;
    some.first = blocks.part(part);
    some.parts = std::min(most_parts, blocks.parts - part);
    launch(some);
  }
}

}  // namespace

BRAGG_KERNEL(256, 1)
step_list_kernel(BRAGG_GRID_CONSTANT StepList list, BRAGG_GRID_CONSTANT SolveBlocks blocks) {
  simt::grid_dependency_sync();
  BRAGG_ROLLED
  for (int k = 0; k < list.count; ++k) {
    list.steps[k].visit_type(RunStep{list, blocks, k});
  }
}

void run_steps(const StepList& list, const SolveBlocks& blocks, Stream stream) {
  const int rows = blocks.rows;
  constexpr int references = 2;  // at most: 16 inputs and theirs take a warp, which waits for no other
  const int threads = rows <= 16 + references ? 32 : rows <= 64 + references ? 128 : 256;
  for_parts(blocks, [&](const SolveBlocks& some) {
    simt::launch_dependent(step_list_kernel, 1, some.parts, threads, 0, stream, list, some);
  });
}

void upload_and_prepare(void* device, const void* host, std::size_t bytes, const PrepareStep& step,
                        const SolveBlocks& blocks, Stream stream) {
  if (blocks.parts == 1) return upload_then(device, host, bytes, ThenPrepare{step, blocks}, stream);
  upload(device, host, bytes, stream);
  run_steps({.count = 1, .steps = {step}}, blocks, stream);
}

template <class StepT>
BRAGG_KERNEL(128, 1)
grid_step_kernel(BRAGG_GRID_CONSTANT StepT step, BRAGG_GRID_CONSTANT SolveBlocks blocks) {
  simt::grid_dependency_sync();
  step(GridTeam{}, blocks.part(simt::block_y()));
}

template <class StepT>
void run_over_grid(const StepT& step, const SolveBlocks& blocks, Stream stream) {
  constexpr int threads = 128;
  constexpr int most_blocks = 1024;
  std::int64_t wanted = (static_cast<std::int64_t>(blocks.rows) * blocks.rows + threads - 1) / threads;
  if constexpr (requires { StepT::by_rows; }) wanted = blocks.rows;
  const auto grid = static_cast<int>(std::min<std::int64_t>(wanted, most_blocks));
  for_parts(blocks, [&](const SolveBlocks& some) {
    simt::launch_dependent(grid_step_kernel<StepT>, grid, some.parts, threads, 0, stream, step, some);
  });
}

template void run_over_grid(const RankStep&, const SolveBlocks&, Stream);
template void run_over_grid(const KrumScoresStep&, const SolveBlocks&, Stream);
template void run_over_grid(const MixStep&, const SolveBlocks&, Stream);
template void run_over_grid(const GramStep&, const SolveBlocks&, Stream);

/// One thread: parts are few, and what it decides is one word.
BRAGG_KERNEL(32, 1)
end_run_kernel(BRAGG_GRID_CONSTANT SolveBlocks blocks, PlanState* state) {
  simt::grid_dependency_sync();
  if (simt::thread() != 0) return;
  int status = 0;
  for (int part = 0; part < blocks.parts && status == 0; ++part) {
    status = blocks.part(part).words->status;
  }
  state->end_run(status);
}

void end_run(const SolveBlocks& blocks, PlanState* state, Stream stream) {
  simt::launch_dependent(end_run_kernel, 1, 1, 32, 0, stream, blocks, state);
}

}  // namespace bragg::detail::cuda
