// SPDX-License-Identifier: Apache-2.0
// When a result of the library is right: derived bounds on its distance from the oracle's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "host/reference/oracle.hpp"
#include "host/verify/run.hpp"

namespace bragg::verify {

/// The arithmetic of the library, from which follows its error before the final rounding.
struct Accuracy {
  bool exact = false;  ///< an order statistic: one value of the input, or the rounded midpoint of two
  bool mixed =
      false;  ///< values of mixed points are rounded to f32 (f64 inputs: f64) before they are ordered
  long double relative = 0;         ///< relative error of the coefficients of an iterative rule
  long double shortened = 0;        ///< length by which the result may be too near to o
  long double sum = f64_sum_error;  ///< error of a sum of terms, per term, relative to their magnitude
};

/// The largest admissible |library − oracle| at one coordinate, in two parts.
struct Bound {
  long double computing = 0;  ///< what the sums and coefficients may be off
  long double rounding = 0;   ///< half a unit of the output's dtype
  long double total() const { return computing + rounding; }
};

/// `magnitude`: the size of what was added up.
Bound bound_of(DType in, DType out, const Accuracy& accuracy, int n, long double expected,
               long double magnitude);

/// The oracle's results, per part: whole rows, or each tensor of them.
struct Expectation {
  struct Part {
    std::int64_t first = 0;  ///< coordinate
    reference::Result result;
    Accuracy accuracy = {};
    /// The oracle's decisions are clear of rounding, so the library must agree with them.
    bool clear = false;
  };
  std::vector<Part> parts;
  Status status = Status::ok;  ///< the first that is not ok
};

/// Runs the oracle.
Expectation expect(const Pipeline& pipeline, const Request& request);

/// A result that is wrong.
struct Breach {
  std::string what;
  std::int64_t coordinate = -1;  ///< where; -1: nowhere in particular
  long double got = 0;
  long double expected = 0;
  long double bound = 0;  ///< on |got − expected|
};

struct Verdict {
  bool judged = false;  ///< false: nothing was clear enough to say what is right
  /// The largest error beyond the final rounding, as a share of what is allowed there.
  long double worst = 0;
  std::optional<Breach> breach;  ///< the first

  /// Empty when all is right.
  std::string complaint() const;
};

Verdict judge(const Pipeline& pipeline, const Request& request, const Expectation& expected,
              const Outcome& got);

/// Whether any correct backend gives the same bits: order statistics, and single rows that the oracle chose
/// clearly.
bool has_one_right_answer(const Pipeline& pipeline, const Request& request, const Expectation& expected);

}  // namespace bragg::verify
