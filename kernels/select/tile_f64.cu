// SPDX-License-Identifier: Apache-2.0
#include "kernels/select/launch.hpp"
#include "kernels/select/tile.cuh"

namespace bragg::detail::cuda {

void tile_f64(const SelectArguments& arguments, Stream stream) { launch_tile<DType::f64>(arguments, stream); }

}  // namespace bragg::detail::cuda
