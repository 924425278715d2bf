// SPDX-License-Identifier: Apache-2.0
// What a build with hooks knows of every byte of device memory: whether it is allocated and written, and who
// touched it last. Other builds know nothing: there every function is empty.
#pragma once

#include <cstddef>

#include "tests/simt/simt_executor.hpp"

namespace bragg::detail::simt::shadow {

#if defined(BRAGG_SIMT_HOOKS)
/// The piece of memory is no more.
void forget(const void* p, std::size_t bytes);
/// The host has written it.
void initialise(const void* p, std::size_t bytes);
/// How many bytes from p on, of so many, are written.
std::size_t initialised_bytes(const void* p, std::size_t bytes);

// What orders accesses.
void begin_launch();
void begin_block();
void block_barrier();
void warp_barrier(int warp);

/// The running thread touches memory. Ends its block where it may not.
void check(const void* p, std::size_t bytes, Access access, const Site& site);
#else
inline void forget(const void*, std::size_t) {}
inline void initialise(const void*, std::size_t) {}
inline std::size_t initialised_bytes(const void*, std::size_t bytes) { return bytes; }
inline void begin_launch() {}
inline void begin_block() {}
inline void block_barrier() {}
inline void warp_barrier(int) {}
inline void check(const void*, std::size_t, Access, const Site&) {}
#endif

}  // namespace bragg::detail::simt::shadow
