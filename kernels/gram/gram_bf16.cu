// SPDX-License-Identifier: Apache-2.0
#include "kernels/gram/chunks.cuh"

namespace bragg::detail::cuda {

template void gram_chunks<DType::bf16>(const GramBatch&, Stream);

}  // namespace bragg::detail::cuda
