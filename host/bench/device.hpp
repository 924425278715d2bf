// SPDX-License-Identifier: Apache-2.0
// Measurements on the current CUDA device. In a build without CUDA they throw Error unsupported.
#pragma once

#include <functional>
#include <string>

#include "host/bench/bench.hpp"

namespace bragg::bench {

/// Copy bandwidth, of bytes read and written, by copies within the device's memory; nothing else.
Floors measure_device_floors(std::string& name, double seconds);

/// Times Plan::run(stream) by CUDA events on updates that are copied to the device before. The floor is that
/// of the bytes alone; extra memory is the plan's workspace.
Row measure_on_device(const Case& one, const unsigned char* updates, const Budget& budget,
                      const std::function<void()>& poll);

}  // namespace bragg::bench
