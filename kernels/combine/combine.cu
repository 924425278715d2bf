// SPDX-License-Identifier: Apache-2.0
#include "kernels/combine/combine.cuh"

namespace bragg::detail::cuda {

void combine(const CombineArguments& arguments, Stream stream) {
  switch (arguments.rows.dtype) {
    case DType::f32:
      return launch_combine<DType::f32>(arguments, stream);
    case DType::f16:
      return launch_combine<DType::f16>(arguments, stream);
    case DType::bf16:
      return launch_combine<DType::bf16>(arguments, stream);
    case DType::f64:
      return launch_combine<DType::f64>(arguments, stream);
  }
}

}  // namespace bragg::detail::cuda
