// SPDX-License-Identifier: Apache-2.0
#include "kernels/solve/step.cuh"

namespace bragg::detail::cuda {

template void run_step(const PrepareStep&, const SolveBlocks&, Stream);
template void run_step(const SettleStep&, const SolveBlocks&, Stream);
template void run_step(const StartStep&, const SolveBlocks&, Stream);

}  // namespace bragg::detail::cuda
