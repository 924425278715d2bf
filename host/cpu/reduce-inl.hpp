// SPDX-License-Identifier: Apache-2.0
// The rules on sorted values, Lanes(Wide) coordinates at a time. Compiled once per target.
#if defined(BRAGG_HOST_CPU_REDUCE_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef BRAGG_HOST_CPU_REDUCE_INL_HPP_
#undef BRAGG_HOST_CPU_REDUCE_INL_HPP_
#else
#define BRAGG_HOST_CPU_REDUCE_INL_HPP_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <type_traits>

#include "host/cpu/means-inl.hpp"
#include "host/cpu/simd-inl.hpp"
#include "rules/select_rule.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
namespace {

/// The sorted values of Lanes(Wide) columns.
template <class ValueT>
struct Sorted {
  const ValueT* values;
  std::ptrdiff_t stride;
  int first_rank;  // of those that there are

  HWY_INLINE WideVector operator[](int rank) const {
    return load_wide(values + (rank - first_rank) * stride);
  }
};

template <class ValueT>
WideVector median_of(const Sorted<ValueT>& y, int points) {
  if (points % 2 == 1) return y[points / 2];
  return midpoint<ValueT>(y[points / 2 - 1], y[points / 2]);
}

/// `sum` is that of the values kept.
template <class ValueT>
WideVector trimmed_mean_of(const Sorted<ValueT>& y, int points, int f, WideVector sum) {
  const Wide d;
  const auto low = y[f];
  const auto high = y[points - 1 - f];
  const int count = points - 2 * f;
  const auto mean = finish_mean<ValueT>(sum, count, low, high);
  if constexpr (std::is_same_v<ValueT, double>) {
    const auto large = is_large(low, high);
    if (!hn::AllFalse(d, large)) {
      const auto scale = hn::Set(d, shrink);
      auto scaled_sum = hn::Zero(d);
      for (int i = f; i < points - f; ++i) scaled_sum = multiply_add(y[i], scale, scaled_sum);
      return hn::IfThenElse(large, finish_shrunk_mean(scaled_sum, count, low, high), mean);
    }
  }
  return mean;
}

/// The next vector of columns.
template <class ValueT>
HWY_INLINE Sorted<ValueT> after(const Sorted<ValueT>& y, int vectors) {
  return {y.values + vectors * wide_lanes, y.stride, y.first_rank};
}

/// Of kVectorsT vectors of columns at once: one chain of additions would wait for itself.
template <int kVectorsT, class ValueT>
HWY_INLINE void trimmed_means(const Sorted<ValueT>& y, int points, int f, double* results) {
  const Wide d;
  WideVector sums[kVectorsT];
  for (int v = 0; v < kVectorsT; ++v) sums[v] = hn::Zero(d);
  for (int i = f; i < points - f; ++i) {
    for (int v = 0; v < kVectorsT; ++v) sums[v] = hn::Add(sums[v], after(y, v)[i]);
  }
  for (int v = 0; v < kVectorsT; ++v) {
    hn::Store(trimmed_mean_of(after(y, v), points, f, sums[v]), d, results + v * wide_lanes);
  }
}

template <class ValueT>
WideVector trimmed_mean_of(const Sorted<ValueT>& y, int points, int f) {
  auto sum = hn::Zero(Wide());
  for (int i = f; i < points - f; ++i) sum = hn::Add(sum, y[i]);
  return trimmed_mean_of(y, points, f, sum);
}

// The element of the closest `keep` whose rank is `first` modulo `keep`: the closest window contains one of
// each.
template <class ValueT>
HWY_INLINE WideVector closest_pick(const Sorted<ValueT>& y, int points, int keep, int first,
                                   WideVector centre) {
  const Wide d;
  auto left = y[first];
  auto pick = left;
  for (int t = first + keep; t < points; t += keep) {
    const auto right = y[t];
    auto above = hn::Sub(right, centre);
    auto below = hn::Sub(centre, left);
    auto closer = hn::Lt(above, below);
    if constexpr (std::is_same_v<ValueT, double>) {
      // Distances of huge values may overflow; half of them cannot.
      const auto half = hn::Set(d, 0.5);
      const auto half_centre = hn::Mul(centre, half);
      above = hn::Sub(hn::Mul(right, half), half_centre);
      below = hn::Sub(half_centre, hn::Mul(left, half));
      const auto huge = hn::Ge(hn::Max(hn::Abs(right), hn::Abs(left)), hn::Set(d, large_value));
      closer = hn::Or(hn::AndNot(huge, closer), hn::And(huge, hn::Lt(above, below)));
    }
    pick = hn::IfThenElse(closer, right, pick);
    left = right;
  }
  return pick;
}

template <class ValueT>
WideVector closest_mean_of(const Sorted<ValueT>& y, int points, int keep, WideVector centre) {
  const Wide d;
  auto low = hn::Inf(d);
  auto high = hn::Neg(low);
  auto sum = hn::Zero(d);
  for (int j = 0; j < keep; ++j) {
    const auto pick = closest_pick(y, points, keep, j, centre);
    low = hn::Min(low, pick);
    high = hn::Max(high, pick);
    sum = hn::Add(sum, pick);
  }
  auto mean = finish_mean<ValueT>(sum, keep, low, high);
  if constexpr (std::is_same_v<ValueT, double>) {
    const auto large = is_large(low, high);
    if (!hn::AllFalse(d, large)) {
      const auto scale = hn::Set(d, shrink);
      sum = hn::Zero(d);
      for (int j = 0; j < keep; ++j) {
        sum = multiply_add(closest_pick(y, points, keep, j, centre), scale, sum);
      }
      mean = hn::IfThenElse(large, finish_shrunk_mean(sum, keep, low, high), mean);
    }
  }
  return hn::IfThenElse(is_finite(d, centre), mean, centre);
}

/// The rule on `columns` sorted columns, a vector at a time.
template <class ValueT>
void apply_rule(const SelectRule& rule, int points, const Sorted<ValueT>& sorted, int columns,
                double* results) {
  const auto each_vector = [&](const auto& value_of) HWY_ATTR {
    for (int i = 0; i < columns; i += wide_lanes) {
      hn::Store(value_of(after(sorted, i / wide_lanes)), Wide(), results + i);
    }
  };
  const auto at_rank = [&](int rank) { each_vector([&](const auto& y) HWY_ATTR { return y[rank]; }); };
  switch (rule.kind) {
    case SelectRule::Kind::median:
      if (points % 2 == 1 || rule.even == EvenMedian::lower) return at_rank((points - 1) / 2);
      if (rule.even == EvenMedian::upper) return at_rank(points / 2);
      return each_vector([&](const auto& y) HWY_ATTR { return median_of(y, points); });
    case SelectRule::Kind::trimmed_mean: {
      int i = 0;
      for (; i + 4 * wide_lanes <= columns; i += 4 * wide_lanes) {
        trimmed_means<4>(after(sorted, i / wide_lanes), points, rule.f, results + i);
      }
      for (; i < columns; i += wide_lanes) {
        trimmed_means<1>(after(sorted, i / wide_lanes), points, rule.f, results + i);
      }
      return;
    }
    case SelectRule::Kind::closest_to_median:
      return each_vector([&](const auto& y) HWY_ATTR {
        return closest_mean_of(y, points, rule.keep, median_of(y, points));
      });
    case SelectRule::Kind::closest_to_trimmed_mean:
      return each_vector([&](const auto& y) HWY_ATTR {
        return closest_mean_of(y, points, rule.keep, trimmed_mean_of(y, points, rule.f));
      });
    case SelectRule::Kind::sign_vote:  // takes no sorted values
    case SelectRule::Kind::none:
      return;
  }
}

}  // namespace
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
