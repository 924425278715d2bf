// SPDX-License-Identifier: Apache-2.0
#include "kernels/combine/combine.cuh"

namespace bragg::detail::cuda {

void combine(const CombineArguments& arguments, Stream stream) {
  with_dtype(arguments.rows.dtype, [&]<DType dtype>() { launch_combine<dtype>(arguments, stream); });
}

}  // namespace bragg::detail::cuda
