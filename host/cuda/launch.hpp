// SPDX-License-Identifier: Apache-2.0
// Programmatic dependent launches: kernels of a stream that are set up while the one before still runs.
#pragma once

namespace bragg::detail::cuda {

/// Whether simt::launch_dependent makes them: the environment has BRAGG_DEPENDENT_LAUNCHES=1, read once, and
/// the current device can (compute capability 9.0). @throws Error
bool makes_dependent_launches();

}  // namespace bragg::detail::cuda
