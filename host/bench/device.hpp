// SPDX-License-Identifier: Apache-2.0
// Measurements on the current CUDA device. In a build without CUDA they throw Error unsupported.
#pragma once

#include <memory>
#include <string>

#include "host/bench/bench.hpp"
#include "host/bench/gram_choices.hpp"

namespace bragg::bench {

/// Speeds of all multiprocessors: bandwidths by loops with 2, 4 and 8 loads of a thread in flight, and for
/// copies the runtime's own; units by loops in registers; the cost of launches and graphs. `seconds`: about
/// how long this takes. @throws Error out_of_memory, unsupported.
Floors measure_device_floors(std::string& name, double seconds);

/// random_updates(n, d, dtype) in the device's memory, made there. @throws Error out_of_memory, unsupported.
std::shared_ptr<const void> updates_on_device(int n, std::int64_t d, DType dtype);

/// Times Plan::run(stream) by CUDA events on updates in the device's memory; and, where the rule can be
/// captured, replays of a graph of it. What the passes have to do is found by solving the first coordinates
/// on the CPU. Extra memory is the plan's workspace. Of a case with a choice, the Gram pass is timed by
/// itself too, and its products are compared with `first`'s; where there are none they are put there.
Row measure_on_device(const Case& one, const void* updates, const Budget& budget, FirstProducts& first);

}  // namespace bragg::bench
