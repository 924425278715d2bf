// SPDX-License-Identifier: Apache-2.0
// Kernels that do one thing as fast as the device can: what its floors are measured with.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/runtime/stream.hpp"

namespace bragg::bench {

using DeviceStream = detail::cuda::Stream;

enum class DeviceUnit : std::uint8_t {
  fma_f32,
  fma_f64,       ///< one by one
  fma_f64_mma,   ///< on tensor cores
  fma_int8_mma,  ///< of bytes, on tensor cores
  min_max_f32,
  min_max_f64,
  min_max_f16,   ///< two to a register
  min_max_bf16,  ///< likewise
  to_f64,        ///< conversions from f32
};

/// Enqueues the unit's operations on all multiprocessors of the current device; returns how many of them, a
/// lane's multiply-add, minimum, maximum or conversion counting as one. `sink`: 4 bytes, not written.
double enqueue_unit(DeviceUnit unit, int steps, std::uint32_t* sink, DeviceStream stream);

/// Reads `bytes` (a multiple of 16) with 2, 4 or 8 loads of 16 bytes of a thread under way. `sink` as above.
void enqueue_read(const void* data, std::size_t bytes, int loads, std::uint32_t* sink, DeviceStream stream);

/// Copies them, likewise.
void enqueue_copy(void* to, const void* from, std::size_t bytes, int loads, DeviceStream stream);

/// A kernel that does nothing.
void enqueue_nothing(DeviceStream stream);

}  // namespace bragg::bench
