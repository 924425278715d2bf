// SPDX-License-Identifier: Apache-2.0
// Enumerations that the passes over the data share with rules and plans. They have a header of their own, so
// that a new rule recompiles no pass.
#pragma once

#include <cstdint>

namespace bragg {

/// The median of an even number of values.
enum class EvenMedian : std::uint8_t { midpoint, lower, upper };

/// Content of the output after a run whose status is not ok.
enum class OnFailure : std::uint8_t {
  keep,  ///< its former content: nothing is written
  nan,
  zero,
};

}  // namespace bragg
