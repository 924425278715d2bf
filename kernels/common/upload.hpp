// SPDX-License-Identifier: Apache-2.0
// Small host data to the device by way of kernel parameters: captured by value in a graph, where a copy from
// host memory would read it at every replay; and nothing waits.
#pragma once

#include <cstddef>

#include "kernels/runtime/stream.hpp"

namespace bragg::detail::cuda {

/// Enqueues a copy of `bytes` (a multiple of 16) to `device`, which is aligned to 16. `host` may be gone when
/// this returns. @throws Error as simt::launch.
void upload(void* device, const void* host, std::size_t bytes, Stream stream);

}  // namespace bragg::detail::cuda
