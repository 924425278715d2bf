// SPDX-License-Identifier: Apache-2.0
#include "kernels/runtime/check.hpp"

#include <fmt/format.h>
#include <bragg/error.hpp>

namespace bragg::detail::cuda {

namespace {

Status status_of(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return Status::out_of_memory;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureImplicit:
      return Status::unsupported;
    default:
      return Status::internal;
  }
}

const char* remedy(cudaError_t error) {
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
      return "; this build has no code for the device: add its architecture to CMAKE_CUDA_ARCHITECTURES";
    case cudaErrorInsufficientDriver:
      return "; update the driver";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
      return "; are all addresses in memory of this device, and as long as the plan's sizes?";
    default:
      return "";
  }
}

}  // namespace

void check(cudaError_t error, const char* call, const char* file, int line) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // what is reported here is not reported again
  throw Error(status_of(error), fmt::format("CUDA: {} ({}) from {} at {}:{}{}", cudaGetErrorString(error),
                                            cudaGetErrorName(error), call, file, line, remedy(error)));
}

}  // namespace bragg::detail::cuda
