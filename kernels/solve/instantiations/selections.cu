// SPDX-License-Identifier: Apache-2.0
#include "kernels/solve/step.cuh"

namespace bragg::detail::cuda {

template void run_step(const SolveStep<MultiKrum>&, const SolveBlocks&, Stream);
template void run_step(const SolveStep<Monna>&, const SolveBlocks&, Stream);
template void run_step(const SolveStep<Cge>&, const SolveBlocks&, Stream);
template void run_step(const ChooseStep&, const SolveBlocks&, Stream);

}  // namespace bragg::detail::cuda
