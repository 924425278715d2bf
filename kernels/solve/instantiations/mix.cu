// SPDX-License-Identifier: Apache-2.0
#include "kernels/solve/step.cuh"

namespace bragg::detail::cuda {

template void run_step(const MixStep&, const SolveBlocks&, Stream);
template void run_step(const GramStep&, const SolveBlocks&, Stream);

}  // namespace bragg::detail::cuda
