// SPDX-License-Identifier: Apache-2.0
#include "host/cuda/absent.hpp"
#include "host/files/window_passes.hpp"

namespace bragg::detail {

std::unique_ptr<WindowPasses> make_cuda_passes(const Options&, const SlotShape&, std::int64_t,
                                               std::span<const int>) {
  refuse_cuda();
}

}  // namespace bragg::detail
