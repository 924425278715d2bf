// SPDX-License-Identifier: Apache-2.0
// The rules on sorted values: the same f64 operations in the same order as host/cpu/reduce-inl.hpp, so that
// the bits are the same.
#pragma once

#include "kernels/common/values.cuh"
#include "rules/means.hpp"
#include "rules/select_rule.hpp"

namespace bragg::detail::cuda {

/// Whether `right` is strictly closer to the centre than `left` ≤ right.
template <class ValueT>
BRAGG_DEVICE bool is_closer(double right, double left, double centre) {
  if (is_large<ValueT>(right, left)) {  // their distances may overflow; half of them cannot
    return right * 0.5 - centre * 0.5 < centre * 0.5 - left * 0.5;
  }
  return right - centre < centre - left;
}

/// A coordinate's points in shared or global memory, sorted as far as the rule needs.
template <class ValueT>
struct Column {
  const ValueT* values;
  int stride;
  int points;

  BRAGG_DEVICE double operator[](int rank) const { return static_cast<double>(values[rank * stride]); }
};

template <class ValueT>
BRAGG_DEVICE double median_of(const Column<ValueT>& y) {
  if (y.points % 2 == 1) return y[y.points / 2];
  return midpoint(y[y.points / 2 - 1], y[y.points / 2]);
}

template <class ValueT>
BRAGG_DEVICE double trimmed_mean_of(const Column<ValueT>& y, int f) {
  const int last = y.points - f;
  const double low = y[f];
  const double high = y[last - 1];
  double sum = 0;
  if (!is_large<ValueT>(low, high)) {
    for (int i = f; i < last; ++i) sum += y[i];
    return finish_mean(sum, last - f, low, high);
  }
  for (int i = f; i < last; ++i) sum = simt::fma(y[i], shrink, sum);
  return finish_shrunk_mean(sum, last - f, low, high);
}

/// The mean of the `keep` values closest to `centre`, ties to the smaller: ranks [s, s + keep), where s is
/// the first from which the window does not gain by moving on. Gains never grow with s.
template <class ValueT>
BRAGG_DEVICE double closest_mean_of(const Column<ValueT>& y, int keep, double centre) {
  if (!is_finite(centre)) return centre;
  int s = 0;
  int end = y.points - keep;
  while (s < end) {
    const int middle = (s + end) / 2;
    if (is_closer<ValueT>(y[middle + keep], y[middle], centre)) {
      s = middle + 1;
    } else {
      end = middle;
    }
  }
  const double low = y[s];
  const double high = y[s + keep - 1];
  const bool large = is_large<ValueT>(low, high);
  // In the order of ranks modulo keep, as on the CPU.
  const int turn = (s + keep - 1) / keep * keep;
  double sum = 0;
  for (int k = 0; k < keep; ++k) {
    const int i = turn + k < s + keep ? turn + k : turn + k - keep;
    sum = large ? simt::fma(y[i], shrink, sum) : sum + y[i];
  }
  return large ? finish_shrunk_mean(sum, keep, low, high) : finish_mean(sum, keep, low, high);
}

template <class ValueT>
BRAGG_DEVICE double apply_rule(const Column<ValueT>& y, const SelectRule& rule) {
  switch (rule.kind) {
    case SelectRule::Kind::median:
      if (rule.even == EvenMedian::midpoint) return median_of(y);
      return y[rule.even == EvenMedian::lower ? (y.points - 1) / 2 : y.points / 2];
    case SelectRule::Kind::trimmed_mean:
      return trimmed_mean_of(y, rule.f);
    case SelectRule::Kind::closest_to_median:
      return closest_mean_of(y, rule.keep, median_of(y));
    case SelectRule::Kind::closest_to_trimmed_mean:
    case SelectRule::Kind::sign_vote:  // is votes.cuh's
    case SelectRule::Kind::none:       // is mixed.cuh's
      break;
  }
  return closest_mean_of(y, rule.keep, trimmed_mean_of(y, rule.f));
}

}  // namespace bragg::detail::cuda
