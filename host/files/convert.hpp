// SPDX-License-Identifier: Apache-2.0
// Values between the dtypes of files and those that the passes compute with.
#pragma once

#include <bragg/updates.hpp>
#include <cstddef>
#include <cstdint>

#include "host/io/element_type.hpp"

namespace bragg::detail {

/// Turns the `count` values of a file's type that end where `count` values of `to` would end, from `begin`
/// on, into those, exactly, in place. `to` is the type's own dtype, or f64.
void widen(std::byte* begin, std::int64_t count, const ElementType& from, DType to) noexcept;

/// Rounds `count` f64 values to a file's type, to the nearest and half-way to even, in place from `begin` on.
/// NaN stays NaN; where a type has no infinity, infinity becomes NaN.
/// Returns how many finite values became infinite or NaN: those that round beyond the type's largest.
std::int64_t narrow(std::byte* begin, std::int64_t count, const ElementType& to) noexcept;

}  // namespace bragg::detail
