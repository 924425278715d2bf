// SPDX-License-Identifier: Apache-2.0
// Times of repeated calls, and their spread.
#pragma once

#include <functional>
#include <vector>

namespace bragg::bench {

/// Spread of times, in their unit. Quartiles as NumPy's: linear between neighbours.
struct Spread {
  double least = 0, q1 = 0, median = 0, q3 = 0, most = 0;

  /// Distance of the quartiles as a share of the median.
  double noise() const { return median > 0 ? (q3 - q1) / median : 0; }
};

/// `values` is not empty.
Spread spread_of(std::vector<double> values);

/// Length of a measurement: at least `calls` timings and `seconds`; if a call takes long, at least `few` and
/// no more than 20 times `seconds`.
struct Budget {
  double seconds = 0.5;
  int calls = 10;
  int few = 5;
};

struct Timing {
  Spread ms;  ///< of a call
  int timings = 0;
  int batch = 1;  ///< calls that were timed together, because one alone is too short for the clock
};

/// Times calls after warming up; ms_of(k) makes k of them and says what they took together.
Timing time_batches(const std::function<double(int)>& ms_of, const Budget& budget);

/// The same by the host's clock.
Timing time_calls(const std::function<void()>& call, const Budget& budget);

}  // namespace bragg::bench
