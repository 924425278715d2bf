// SPDX-License-Identifier: Apache-2.0
// CUDA's errors as the library's.
#pragma once

#include <cuda_runtime_api.h>

namespace bragg::detail::cuda {

/// @throws Error for anything but cudaSuccess: out_of_memory, unsupported (no device, no driver, code for
/// another architecture, an operation that capturing forbids) or internal. The message has the call, what
/// CUDA says, file and line.
void check(cudaError_t error, const char* call, const char* file, int line);

}  // namespace bragg::detail::cuda

#define BRAGG_CUDA_CHECK(call) ::bragg::detail::cuda::check((call), #call, __FILE__, __LINE__)
