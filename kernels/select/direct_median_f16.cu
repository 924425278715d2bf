// SPDX-License-Identifier: Apache-2.0
#include "kernels/select/direct.cuh"
#include "kernels/select/launch.hpp"

namespace bragg::detail::cuda {

void direct_median_f16(const SelectArguments& arguments, Stream stream) {
  launch_direct<DType::f16, true>(arguments, stream);
}

}  // namespace bragg::detail::cuda
