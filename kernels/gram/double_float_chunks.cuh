// SPDX-License-Identifier: Apache-2.0
// Products in pairs of floats: which kernel makes them.
#pragma once

#include "kernels/gram/chunks.hpp"
#include "kernels/gram/double_float.cuh"
#include "kernels/gram/double_float_lengths.cuh"

namespace bragg::detail::cuda {

template <DType dtype>
void gram_chunks_double_float(const GramBatch& batch, Stream stream) {
  if (!batch.pass.pairs) return launch_double_float_lengths<dtype>(batch, stream);
  launch_double_float<dtype>(batch, stream);
}

}  // namespace bragg::detail::cuda
