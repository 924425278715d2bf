// SPDX-License-Identifier: Apache-2.0
// Included before Highway by whatever is compiled once per instruction set.
#pragma once

#include <cstddef>

// A baseline, AVX2 and AVX-512 are what x86 machines need; fewer targets compile faster. Vectors here are
// members and elements of arrays, which those of SVE cannot be; Arm has NEON.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif

namespace bragg::detail::cpu {

/// Bytes that every vector of every target divides; scratch is aligned to it.
inline constexpr std::size_t vector_bytes = 256;

}  // namespace bragg::detail::cpu
