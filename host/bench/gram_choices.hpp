// SPDX-License-Identifier: Apache-2.0
// Who computes inner products on a device (kernels/common/tuning.hpp), each choice beside the others.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "host/bench/cases.hpp"

namespace bragg::bench {

/// Those that `--gram` may name, besides "all".
std::vector<std::string> gram_choices();

/// Each case once for each of the choices that computes its products, or lengths alone, itself, one after
/// another; a case that none does so for is left as it is.
std::vector<Case> by_choice(const std::vector<Case>& cases, std::span<const std::string> choices);

/// Products of the same rows [n²] that others are compared with: those that were measured first. Empty: none
/// were.
struct FirstProducts {
  std::vector<double> pairs;
  std::vector<double> lengths;  ///< of each row with itself, beside zeros

  /// What a pipeline takes of n rows; lengths alone, where only pairs were measured, from these.
  std::vector<double>& of(const Pipeline& pipeline, int n);
};

/// The largest difference between two Gram matrices [n²] of the same rows, as a share of what both may be off
/// by: at most 1 if both keep the bound of docs/numerics.md. Infinite where one is not finite.
double share_of_bound(std::span<const double> a, std::span<const double> b, int n);

}  // namespace bragg::bench
