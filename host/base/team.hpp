// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace bragg::detail {

/// Options::threads, of which 0 or less is as many as OpenMP has.
int threads_of(int asked);

/// How many threads a parallel region that wants `wanted` has: num_threads(team(wanted)). OpenMP ends the
/// process where the system gives it no thread or no memory for its team. So both are asked for here first,
/// and the region has fewer threads if no more start. @throws std::bad_alloc
int team(int wanted);

/// Starts OpenMP's threads while there is memory for them. @throws Error out_of_memory, if not all of them
/// start.
void start_threads(int count);

}  // namespace bragg::detail
