// SPDX-License-Identifier: Apache-2.0
#include "host/cuda/device.hpp"

#include <fmt/format.h>

#include "kernels/runtime/runtime.hpp"

namespace bragg {

inline namespace v0 {
int cuda_device_count() noexcept { return detail::cuda::device_count(); }
}  // namespace v0

namespace detail::cuda {

int checked_device(const Options& options) {
  const int count = device_count();
  if (count == 0) {
    throw Error(Status::unsupported,
                "device = cuda: no CUDA device, or no driver for one, is here; take the device cpu");
  }
  const int device = options.cuda_device < 0 ? current_device() : options.cuda_device;
  if (device >= count) {
    throw Error(Status::invalid_argument,
                fmt::format("cuda_device = {}; this machine has {}: needs 0 to {}, or -1 for the current one",
                            device, count, count - 1));
  }
  return device;
}

}  // namespace detail::cuda

}  // namespace bragg
