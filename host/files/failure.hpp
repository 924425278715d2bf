// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "host/files/inputs.hpp"
#include "host/plan/engine.hpp"

namespace bragg::detail {

/// Says which files made a solve fail. `tensor`: the one that was solved, or null.
[[noreturn]] void throw_failure(const Solution& solution, const Inputs& inputs, const Pipeline& pipeline,
                                const TensorInfo* tensor);

/// Says which rows may have made the output what it is: values of `tensor` are NaN or infinite.
/// `may_be_asked_for`: allow_nonfinite would help.
[[noreturn]] void throw_nonfinite_output(const Solution& solution, const Inputs& inputs,
                                         const Pipeline& pipeline, const TensorInfo& tensor,
                                         bool may_be_asked_for);

/// Whether none of the active rows is finite, and the pipeline gives such rows no weight (clip,
/// centered_clipping, …): the output would be o, and nothing of any worker. `solution` is solved.
bool is_none_finite(const Solution& solution, const ActiveRows& active, std::span<const std::uint8_t> bad);

/// Whether bad inputs have a part in the output that the solution describes, or would be most of what a rule
/// by coordinate chooses from. `bad`: per row that takes part. Of an empty solution: whether no other row is
/// left.
bool bad_decide(const Solution& solution, std::span<const std::uint8_t> bad);

/// @throws Error nonfinite_pivot: the row that the rule trusts is a bad input.
void check_pivot(const Inputs& inputs, const Pipeline& pipeline);

}  // namespace bragg::detail
