// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "host/files/inputs.hpp"

namespace bragg::detail {

/// Integers that are codes of quantised weights mean nothing by themselves: each worker has its own scales.
/// @throws Error invalid_argument: `automatic`, and integer tensors look like such codes or are most of the
/// model; `error`, and there are integer tensors.
void check_integers(const Inputs& inputs, Integers integers);

}  // namespace bragg::detail
