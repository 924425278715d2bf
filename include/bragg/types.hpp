// SPDX-License-Identifier: Apache-2.0
// Enumerations that the passes over the data share with rules and plans. They lie apart, so that a new rule
// compiles no pass again.
#pragma once

#include <cstdint>

namespace bragg {

/// What the median of an even number of values is.
enum class EvenMedian : std::uint8_t { midpoint, lower, upper };

/// What the output holds after a run whose status is not ok.
enum class OnFailure : std::uint8_t {
  keep,  ///< its former content: nothing is written
  nan,
  zero,
};

}  // namespace bragg
