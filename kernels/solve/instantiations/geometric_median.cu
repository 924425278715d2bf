// SPDX-License-Identifier: Apache-2.0
#include "kernels/solve/step.cuh"

namespace bragg::detail::cuda {

template void run_step(const SolveStep<GeometricMedian>&, const SolveBlocks&, Stream);

}  // namespace bragg::detail::cuda
