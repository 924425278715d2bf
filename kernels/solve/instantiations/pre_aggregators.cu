// SPDX-License-Identifier: Apache-2.0
#include "kernels/solve/step.cuh"

namespace bragg::detail::cuda {

template void run_step(const TransformStep<Nnm>&, const SolveBlocks&, Stream);
template void run_step(const TransformStep<BucketingDraw>&, const SolveBlocks&, Stream);
template void run_step(const TransformStep<Clip>&, const SolveBlocks&, Stream);
template void run_step(const TransformStep<Arc>&, const SolveBlocks&, Stream);

}  // namespace bragg::detail::cuda
