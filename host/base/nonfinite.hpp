// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/updates.hpp>
#include <cstdint>

namespace bragg::detail {

/// How many values are NaN or infinite; they may be unaligned.
std::int64_t count_nonfinite(DType dtype, const void* values, std::int64_t count) noexcept;

}  // namespace bragg::detail
