// SPDX-License-Identifier: Apache-2.0
#include "kernels/solve/step.cuh"

namespace bragg::detail::cuda {

template void run_step(const CombinationStep&, const SolveBlocks&, Stream);
template void run_step(const MeanStep&, const SolveBlocks&, Stream);
template void run_step(const ShareStep&, const SolveBlocks&, Stream);

}  // namespace bragg::detail::cuda
