// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/plan.hpp>

namespace bragg::detail::cuda {

/// The device that the options ask for. @throws Error unsupported: there is none; invalid_argument: not this
/// one.
int checked_device(const Options& options);

}  // namespace bragg::detail::cuda
