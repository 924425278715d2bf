// SPDX-License-Identifier: Apache-2.0
// What is known of kernels before they run: their names, what they declare, what they were allowed.
#pragma once

#include <cstddef>
#include <string>

namespace bragg::detail::simt {

/// As in its source: "void bragg::detail::cuda::gram_tiles(…)".
std::string name_of(const void* kernel);

/// Bytes that the kernel's own BRAGG_SHAREDs declare; those of functions that it calls are not in it.
std::size_t declared_shared(const void* kernel);

/// Static and dynamic shared memory that a block of the kernel may have, as things stand.
std::size_t allowed_shared(const void* kernel);

/// @throws Failure: it is more than the device has.
void allow_dynamic_shared(const void* kernel, std::size_t bytes);

/// Shared memory of a block without leave for more.
inline constexpr std::size_t plain_shared = std::size_t{48} << 10;

/// With BRAGG_SIMT_ORDER=drawn and BRAGG_SIMT_DEVICE=drawn the seed of the tests decides between the random
/// schedule on the largest device and the greedy one on the smallest.
bool greedy_is_drawn();

}  // namespace bragg::detail::simt
