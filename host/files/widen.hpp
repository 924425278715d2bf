// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/updates.hpp>
#include <cstddef>
#include <cstdint>

namespace bragg::detail {

/// Turns the `count` values of `dtype` that end at `begin + 8·count` into as many f64 values from `begin` on,
/// exactly, in place.
void widen_to_f64(std::byte* begin, std::int64_t count, DType dtype) noexcept;

}  // namespace bragg::detail
