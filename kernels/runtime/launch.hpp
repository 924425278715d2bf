// SPDX-License-Identifier: Apache-2.0
// Preparation of a kernel before its launch, once per kernel and device.
#pragma once

#include <cstddef>

namespace bragg::detail::cuda {

/// Loads a kernel on the current device, and allows its blocks all the dynamic shared memory that the device
/// has beside what the kernel declares. The first call per kernel and device does so, between any threads;
/// the others look it up. The driver may wait for copies under way: a plan calls it when it is made
/// (Rehearsal). @throws Error
void make_ready(const void* kernel);

/// Bytes of dynamic shared memory that a block of the kernel may have on the current device. Makes ready.
std::size_t most_dynamic_shared(const void* kernel);

/// Blocks of a kernel that the current device holds at a time: at least 1. Makes ready.
/// @throws Error internal: not one block has room.
int resident_blocks(const void* kernel, int threads, std::size_t shared);

/// Forgets all kernels, for tests that put another device in place. Nothing tells the library of a
/// cudaDeviceReset, and looking for one at every launch would cost a call of the driver: see Plan.
void forget_kernels() noexcept;

/// While one lives, the launches of its thread are not made: their kernels are made ready instead. So the
/// code that chooses kernels is also what finds them out beforehand.
class Rehearsal {
 public:
  Rehearsal() noexcept;
  ~Rehearsal();
  Rehearsal(const Rehearsal&) = delete;
  Rehearsal& operator=(const Rehearsal&) = delete;
};
bool is_rehearsal() noexcept;

/// Whether simt::launch_dependent makes programmatic dependent launches, kernels of a stream that are set up
/// while the one before still runs: the environment has BRAGG_DEPENDENT_LAUNCHES=1, read once, and the
/// current device can (compute capability 9.0). @throws Error
bool makes_dependent_launches();

}  // namespace bragg::detail::cuda
