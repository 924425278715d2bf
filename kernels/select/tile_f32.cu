// SPDX-License-Identifier: Apache-2.0
#include "kernels/select/launch.hpp"
#include "kernels/select/tile.cuh"

namespace bragg::detail::cuda {

void tile_f32(const SelectArguments& arguments, Stream stream) { launch_tile<DType::f32>(arguments, stream); }

}  // namespace bragg::detail::cuda
