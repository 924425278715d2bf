// SPDX-License-Identifier: Apache-2.0
// Where in the source an access is, in 32 bits: of a named access its Site, of another its instruction.
#pragma once

#include <cstdint>
#include <string>

#include "tests/simt/simt_executor.hpp"

namespace bragg::detail::simt {

using Place = std::uint32_t;  // bytes into the program's image; 0: unknown

Place place_of(const Site& site);
Place place_of(const void* instruction);
/// "sketch.cuh:73".
std::string to_string(Place place);

/// A constant or a variable of the program, not on a stack or the heap.
bool in_image(const void* p);

}  // namespace bragg::detail::simt
