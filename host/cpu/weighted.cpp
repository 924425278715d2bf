// SPDX-License-Identifier: Apache-2.0
// Weighted median and weighted trimmed mean. Weights break the symmetry that a comparator network lives on,
// so each coordinate is sorted by itself.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "host/cpu/select.hpp"
#include "rules/means.hpp"

namespace bragg::detail::cpu {
namespace {

// `weight(p)` in the order of the values; the total is positive.
template <class ValueT, class WeightT>
double weighted_median(EvenMedian even, int points, const ValueT* column, std::size_t stride,
                       const int* order, const WeightT& weight, double total) {
  const auto value = [&](int k) {
    return static_cast<double>(column[static_cast<std::size_t>(order[k]) * stride]);
  };
  double below = 0;
  int last = 0;
  for (int k = 0; k < points; ++k) {
    const double w = weight(order[k]);
    if (w == 0) continue;
    below += w;
    last = k;
    if (std::abs(below - (total - below)) <= 1e-12 * total) {
      int next = k + 1;
      while (next < points && weight(order[next]) == 0) ++next;
      if (next == points || even == EvenMedian::lower) return value(k);
      if (even == EvenMedian::upper) return value(next);
      return midpoint(value(k), value(next));
    }
    if (below > total - below) break;
  }
  return value(last);
}

template <class ValueT>
double weighted_trimmed_mean(int f, std::span<const double> weights, const ValueT* column, std::size_t stride,
                             const int* order) {
  const int first = f;
  const int last = static_cast<int>(weights.size()) - f;
  const auto weight = [&](int k) { return weights[static_cast<std::size_t>(order[k])]; };
  double total = 0;
  for (int k = first; k < last; ++k) total += weight(k);
  // Shares, not weights: sums of large values times weights could overflow.
  const auto share = [&](int k) { return total > 0 ? weight(k) / total : 1.0 / (last - first); };
  const auto value = [&](int k) {
    return static_cast<double>(column[static_cast<std::size_t>(order[k]) * stride]);
  };
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (int k = first; k < last; ++k) {
    if (share(k) == 0) continue;
    low = std::min(low, value(k));
    high = value(k);
  }
  if (std::isinf(low)) return low;
  const double lift =
      std::max(std::abs(low), std::abs(high)) < 0x1p-900 ? 0x1p200 : 1;  // shares of denormals
  double sum = 0;
  for (int k = first; k < last; ++k) {
    if (share(k) != 0) sum += share(k) * (value(k) * lift);
  }
  return std::clamp(sum / lift, low, high);
}

}  // namespace

template <class ValueT>
void select_weighted(const SelectRule& rule, const Weighted& weighted, const ValueT* values,
                     std::size_t stride, int count, double* results, int* order) {
  const auto points = static_cast<int>(weighted.weights.size());
  const auto equal = [](int) { return 1.0; };
  const auto given = [&](int p) { return weighted.weights[static_cast<std::size_t>(p)]; };
  for (int i = 0; i < count; ++i) {
    const ValueT* column = values + i;
    std::iota(order, order + points, 0);
    std::sort(order, order + points, [&](int a, int b) {
      const ValueT x = column[static_cast<std::size_t>(a) * stride];
      const ValueT y = column[static_cast<std::size_t>(b) * stride];
      return x < y || (x == y && a < b);
    });
    if (rule.kind == SelectRule::Kind::trimmed_mean) {
      results[i] = weighted_trimmed_mean(rule.f, weighted.weights, column, stride, order);
    } else if (weighted.total > 0) {
      results[i] = weighted_median(rule.even, points, column, stride, order, given, weighted.total);
    } else {
      results[i] =
          weighted_median(rule.even, points, column, stride, order, equal, static_cast<double>(points));
    }
  }
}

template void select_weighted(const SelectRule&, const Weighted&, const float*, std::size_t, int, double*,
                              int*);
template void select_weighted(const SelectRule&, const Weighted&, const double*, std::size_t, int, double*,
                              int*);

}  // namespace bragg::detail::cpu
