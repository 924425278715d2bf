// SPDX-License-Identifier: Apache-2.0
// The weighted median and the weighted trimmed mean of a coordinate, by bisection over the bits of values.
// Points are not sorted: every step goes over all of them, in row order.
#pragma once

#include "kernels/select/bisect.cuh"
#include "kernels/select/points.cuh"

namespace bragg::detail::cuda {

/// The points' weights; where they sum to nothing, equal ones.
struct Weights {
  const SelectArguments& a;
  int tensor;
  bool equal = false;

  BRAGG_DEVICE double operator[](int p) const {
    return equal ? 1.0 : a.parts.of(a.weights, tensor)[index_of(a, tensor, p)];
  }
};

/// The weight of the points that `has` holds for.
template <class ValueT, class F>
BRAGG_DEVICE double weight_of(Points<ValueT>& x, const Weights& weights, const F& has) {
  double sum = 0;
  for (int p = x.begin; p < x.end; ++p) {
    if (has(x.at(p))) sum += weights[p];
  }
  return x.team.sum(sum);
}

/// The least value with at least half the weight at or below it; where that is half of it to 1e-12 of the
/// total, the midpoint with the next value that has weight.
template <class ValueT>
BRAGG_DEVICE double weighted_median(Points<ValueT>& x, Weights weights, EvenMedian even) {
  double total = weight_of(x, weights, [](ValueT) { return true; });
  if (!(total > 0)) {
    weights.equal = true;
    total = weight_of(x, weights, [](ValueT) { return true; });
  }
  const ValueT low = SortKey<ValueT>::value(bisect<ValueT>([&](ValueT tried) {
    const double below = weight_of(x, weights, [&](ValueT v) { return !(v >= tried); });
    return below - (total - below) < -1e-12 * total;
  }));
  const double below = weight_of(x, weights, [&](ValueT v) { return v <= low; });
  double next = infinity_of<double>();
  bool found = false;
  for (int p = x.begin; p < x.end; ++p) {
    if (x.at(p) > low && weights[p] > 0) {
      next = fmin(next, static_cast<double>(x.at(p)));
      found = true;
    }
  }
  next = x.team.least(next);
  found = x.team.sum(found ? 1 : 0) > 0;
  if (even == EvenMedian::lower || !found || fabs(below - (total - below)) > 1e-12 * total) return low;
  return even == EvenMedian::upper ? next : midpoint(low, next);
}

/// f(p, value) for the warp's points of ranks [first, last), where equal values are in the order of the
/// points: `first_value` and `last_value` are those of ranks first and last − 1.
template <class ValueT>
struct KeptRanks {
  ValueT low, high;
  int skip;                   ///< points equal to low that are dropped: the first ones
  int take;                   ///< points equal to high that are kept: the first ones
  int equal_low, equal_high;  ///< points equal to low and high in the warps before

  template <class F>
  BRAGG_DEVICE void each_point(const Points<ValueT>& x, const F& f) const {
    int at_low = equal_low;
    int at_high = equal_high;
    for (int p = x.begin; p < x.end; ++p) {
      const ValueT v = x.at(p);
      const bool dropped =
          v < low || v > high || (v == low && at_low < skip) || (v == high && at_high >= take);
      at_low += v == low ? 1 : 0;
      at_high += v == high ? 1 : 0;
      if (!dropped) f(p, static_cast<double>(v));
    }
  }
};

/// Count of the points that `has` holds for.
template <class ValueT, class F>
BRAGG_DEVICE int count_of(Points<ValueT>& x, const F& has) {
  int count = 0;
  for (int p = x.begin; p < x.end; ++p) count += has(x.at(p)) ? 1 : 0;
  return count;
}

template <class ValueT>
BRAGG_DEVICE KeptRanks<ValueT> keep_ranks(Points<ValueT>& x, int first, int last) {
  const auto value_of = [&](int rank) {
    return SortKey<ValueT>::value(bisect<ValueT>([&](ValueT tried) {
      return x.team.sum(count_of(x, [&](ValueT v) { return !(v >= tried); })) <= rank;
    }));
  };
  KeptRanks<ValueT> kept;
  kept.low = value_of(first);
  kept.high = value_of(last - 1);
  kept.skip = first - static_cast<int>(x.team.sum(count_of(x, [&](ValueT v) { return v < kept.low; })));
  kept.take = last - static_cast<int>(x.team.sum(count_of(x, [&](ValueT v) { return v < kept.high; })));
  kept.equal_low = static_cast<int>(x.team.sum_before(count_of(x, [&](ValueT v) { return v == kept.low; })));
  kept.equal_high =
      static_cast<int>(x.team.sum_before(count_of(x, [&](ValueT v) { return v == kept.high; })));
  return kept;
}

/// Σ share·value over the kept ranks. Shares, not weights: sums of large values times weights could overflow.
template <class ValueT>
BRAGG_DEVICE double weighted_trimmed_mean(Points<ValueT>& x, Weights weights, int first, int last) {
  const KeptRanks<ValueT> kept = keep_ranks(x, first, last);
  double total = 0;
  kept.each_point(x, [&](int p, double) { total += weights[p]; });
  total = x.team.sum(total);
  if (!(total > 0)) {
    weights.equal = true;
    total = last - first;
  }
  double low = infinity_of<double>();
  double negative_high = infinity_of<double>();
  kept.each_point(x, [&](int p, double v) {
    if (weights[p] / total == 0) return;
    low = fmin(low, v);
    negative_high = fmin(negative_high, -v);
  });
  low = x.team.least(low);
  const double high = -x.team.least(negative_high);
  // Shares of denormals would be lost.
  const double lift = fmax(fabs(low), fabs(high)) < 0x1p-900 ? 0x1p200 : 1;
  double sum = 0;
  kept.each_point(x, [&](int p, double v) {
    const double share = weights[p] / total;
    if (share != 0) sum += share * (v * lift);
  });
  sum = x.team.sum(sum);
  if (!is_finite(low)) return low;
  return fmax(fmin(sum / lift, high), low);
}

}  // namespace bragg::detail::cuda
