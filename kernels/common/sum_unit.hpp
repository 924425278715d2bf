// SPDX-License-Identifier: Apache-2.0
// How a device adds up.
#pragma once

#include "kernels/common/tuning.hpp"

namespace bragg::detail::cuda {

/// What BRAGG_SUMS says, read once, else what is preferred on the device's kind.
/// @throws Error as sum_unit_of; what CUDA reports.
SumUnit sum_unit(int device);
/// What is asked for; automatic: what the current device takes.
SumUnit settled(SumUnit asked);
/// The unit of that name; automatic without one. @throws Error invalid_argument
SumUnit sum_unit_of(const char* name);
const char* to_string(SumUnit unit);

}  // namespace bragg::detail::cuda
