// SPDX-License-Identifier: Apache-2.0
#include "kernels/select/launch.hpp"
#include "kernels/select/mixed.cuh"

namespace bragg::detail::cuda {

void mixed_f32(const SelectArguments& arguments, Stream stream) {
  launch_mixed<DType::f32>(arguments, stream);
}

}  // namespace bragg::detail::cuda
