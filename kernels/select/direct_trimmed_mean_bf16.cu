// SPDX-License-Identifier: Apache-2.0
#include "kernels/select/direct.cuh"
#include "kernels/select/launch.hpp"

namespace bragg::detail::cuda {

void direct_trimmed_mean_bf16(const SelectArguments& arguments, Stream stream) {
  launch_direct<DType::bf16, false>(arguments, stream);
}

}  // namespace bragg::detail::cuda
