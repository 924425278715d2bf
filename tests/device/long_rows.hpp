// SPDX-License-Identifier: Apache-2.0
// Every coordinate of an output of tests/support/long_rows.hpp, judged where it lies.
#pragma once

#include "kernels/runtime/stream.hpp"
#include "tests/support/long_rows.hpp"

namespace bragg::test {

/// The first of the coordinates [0, d) that is wrong, or d. Waits.
std::int64_t first_wrong(const LongRowsJudge& judge, std::int64_t d, detail::cuda::Stream stream);

}  // namespace bragg::test
