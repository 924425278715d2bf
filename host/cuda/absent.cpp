// SPDX-License-Identifier: Apache-2.0
#include "host/cuda/absent.hpp"

#include <bragg/plan.hpp>

namespace bragg {

inline namespace v0 {
int cuda_device_count() noexcept { return 0; }
}  // namespace v0

namespace detail {

void refuse_cuda() {
  throw Error(Status::unsupported,
              "device = cuda: this bragg was built without CUDA; build it where nvcc is found "
              "(BRAGG_CUDA=ON), or take the device cpu");
}

}  // namespace detail

}  // namespace bragg
