// SPDX-License-Identifier: Apache-2.0
#include "kernels/select/chunks.cuh"
#include "kernels/select/launch.hpp"

namespace bragg::detail::cuda {

void chunks_f64(const SelectArguments& arguments, Stream stream) { launch_chunks<double>(arguments, stream); }

std::size_t chunks_f64_workspace(const SelectArguments& arguments) {
  return chunk_workspace<double>(arguments);
}

}  // namespace bragg::detail::cuda
