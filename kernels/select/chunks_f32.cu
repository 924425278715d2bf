// SPDX-License-Identifier: Apache-2.0
#include "kernels/select/chunks.cuh"
#include "kernels/select/launch.hpp"

namespace bragg::detail::cuda {

void chunks_f32(const SelectArguments& arguments, Stream stream) { launch_chunks<float>(arguments, stream); }

std::size_t chunks_f32_workspace(const SelectArguments& arguments) {
  return chunk_workspace<float>(arguments);
}

}  // namespace bragg::detail::cuda
