// SPDX-License-Identifier: Apache-2.0
#include "host/cuda/launch.hpp"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <string_view>

#include "host/cuda/check.hpp"

namespace bragg::detail::cuda {

bool makes_dependent_launches() {
  static const bool wanted = [] {
    const char* const text = std::getenv("BRAGG_DEPENDENT_LAUNCHES");
    return text != nullptr && std::string_view(text) == "1";
  }();
  if (!wanted) return false;
  int device = 0;
  int major = 0;
  BRAGG_CUDA_CHECK(cudaGetDevice(&device));
  BRAGG_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major >= 9;
}

}  // namespace bragg::detail::cuda
