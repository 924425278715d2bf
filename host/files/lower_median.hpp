// SPDX-License-Identifier: Apache-2.0
// The lower median of integers and booleans, exactly.
#pragma once

#include <cstdint>
#include <span>

#include "host/io/element_type.hpp"

namespace bragg::detail {

/// out[k] = the ⌈n/2⌉-th smallest of rows[0][k] … rows[n−1][k], for k < count. Elements need no alignment.
/// Booleans other than 0 are read as 1.
void lower_median(const ElementType& type, std::span<const void* const> rows, std::int64_t count, void* out,
                  int threads);

}  // namespace bragg::detail
