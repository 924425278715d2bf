// SPDX-License-Identifier: Apache-2.0
// What a build without CUDA says to those who ask for it.
#include <bragg/plan.hpp>

#include "host/pipeline/plan_backend.hpp"
#include "host/stream/window_passes.hpp"

namespace bragg {

int cuda_device_count() noexcept { return 0; }

namespace detail {

namespace {

[[noreturn]] void refuse() {
  throw Error(Status::unsupported,
              "device = cuda: this bragg was built without CUDA; build it where nvcc is found "
              "(BRAGG_CUDA=ON), or take the device cpu");
}

}  // namespace

std::unique_ptr<PlanBackend> make_cuda_plan(const PlanRequest&) { refuse(); }

std::unique_ptr<WindowPasses> make_cuda_passes(const Options&, const SlotShape&, std::int64_t,
                                               std::span<const int>) {
  refuse();
}

}  // namespace detail

}  // namespace bragg
