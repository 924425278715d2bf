// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "host/files/inputs.hpp"
#include "host/plan/engine.hpp"

namespace bragg::detail {

/// Says which files made a solve fail. `tensor`: the one that was solved, or null.
[[noreturn]] void throw_failure(const Solution& solution, const Inputs& inputs, const Pipeline& pipeline,
                                const TensorInfo* tensor);

}  // namespace bragg::detail
