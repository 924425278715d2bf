// SPDX-License-Identifier: Apache-2.0
// The updates of host/bench/data.hpp, made on a device.
#pragma once

#include <bragg/updates.hpp>
#include <cstdint>

#include "kernels/runtime/stream.hpp"

namespace bragg::bench {

/// Enqueues on the current device what writes random_updates(n, d, dtype), bit by bit the same, to `data`.
void enqueue_updates(void* data, int n, std::int64_t d, DType dtype, detail::cuda::Stream stream);

}  // namespace bragg::bench
