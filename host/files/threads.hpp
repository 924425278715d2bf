// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace bragg::detail {

/// Starts OpenMP's threads while there is memory for them, and where a failure can still be told: OpenMP ends
/// the process. @throws Error out_of_memory.
void start_threads(int count);

}  // namespace bragg::detail
