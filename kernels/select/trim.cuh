// SPDX-License-Identifier: Apache-2.0
// Trimmed means of sorted registers: conversions and additions of what is kept, and nothing of what is not.
#pragma once

#include "kernels/common/registers.cuh"
#include "kernels/select/means.cuh"

namespace bragg::detail::cuda {

/// f(0), f(1), … until one is false.
template <int... kNumbers, class F>
BRAGG_DEVICE void each_of_while(std::integer_sequence<int, kNumbers...>, F f) {
  (f(Number<kNumbers>()) && ...);
}
template <int kCount, class F>
BRAGG_DEVICE void each_while(F f) {
  each_of_while(std::make_integer_sequence<int, kCount>(), f);
}

/// f(i) for i = first, …, end − 1 < kCount: straight code that is entered by one jump and left by one, so
/// that no question is asked of an element. `first` is kLatestFirst ≤ 63 at most, and `end` kEarliestEnd at
/// least.
template <int kCount, int kLatestFirst, int kEarliestEnd, class F>
BRAGG_DEVICE void each_between(int first, int end, F f) {
  static_assert(kLatestFirst < 64 && kLatestFirst < kCount);
  const auto step = [&](auto i) {
    if (i >= kEarliestEnd && i >= end) return false;
    f(i);
    return true;
  };
#define BRAGG_ENTER(i)                                                          \
  case (i):                                                                     \
    if ((i) < kLatestFirst && !step(Number<((i) < kCount ? (i) : 0)>())) break; \
    [[fallthrough]];
#define BRAGG_ENTER_4(i) BRAGG_ENTER(i) BRAGG_ENTER((i) + 1) BRAGG_ENTER((i) + 2) BRAGG_ENTER((i) + 3)
#define BRAGG_ENTER_16(i) \
  BRAGG_ENTER_4(i) BRAGG_ENTER_4((i) + 4) BRAGG_ENTER_4((i) + 8) BRAGG_ENTER_4((i) + 12)
  switch (first) {
    BRAGG_ENTER_16(0)
    BRAGG_ENTER_16(16)
    BRAGG_ENTER_16(32)
    BRAGG_ENTER_16(48)
    default:
      break;
  }
#undef BRAGG_ENTER_16
#undef BRAGG_ENTER_4
#undef BRAGG_ENTER
  each_while<kCount - kLatestFirst>([&](auto i) { return step(Number<kLatestFirst + i>()); });
}

/// finish_mean of up to 2¹⁴ values that f32 holds, bit for bit, given 1/count. Its bounds are left out: were
/// the mean beyond an extreme, by the error of a sum, the extremes would be within count² · 2⁻⁵³ of the
/// largest magnitude, which is less than a step of f32; so all values would be equal, and their mean exact.
/// And the quotient is rounded right: sum/count is 1/(2 count) units or more from the middle of two doubles,
/// the last addition less than 2⁻⁵⁰ units from sum/count.
BRAGG_DEVICE double narrow_mean(double sum, double count, double reciprocal) {
  const double guess = sum * reciprocal;
  const double mean = simt::fma(simt::fma(-guess, count, sum), reciprocal, guess);
  if (mean == mean) return mean;
  // Infinities, and where there are both signs −inf.
  return sum > 0 ? infinity_of<double>() : -infinity_of<double>();
}

/// How many ranks a trimmed mean keeps; of another rule anything.
struct Kept {
  double count, reciprocal;
};
BRAGG_DEVICE Kept kept_by(const SelectRule& rule, int points) {
  const auto count = static_cast<double>(points - 2 * rule.f);
  return {count, 1.0 / count};
}

/// x[k]: the mean of ranks [f, points − f) of coordinate k, of registers that are sorted: `points` values,
/// then what pads them. What is dropped is known only at run time, but never more than a half at either end.
/// `kept`: by the rule of the points.
template <DType dtype, int kVectors, int kPoints>
BRAGG_DEVICE void trimmed_means(const typename Register<dtype>::Type (&v)[kVectors][kPoints], int points,
                                int f, const Kept& kept, double (&x)[kVectors * Register<dtype>::width]) {
  using R = Register<dtype>;
  constexpr int results = kVectors * R::width;
  constexpr int most_dropped = (kPoints - 1) / 2;
  const int last = points - f;
  const auto each_kept = [&](const auto& add) {
    each_between<kPoints, most_dropped, least_points<kPoints> / 2 + 1>(f, last, [&](auto i) {
      each<results>([&](auto k) { add(i, k, R::value(v[k / R::width][i], k % R::width)); });
    });
  };
  each<results>([&](auto k) { x[k] = 0; });
  if constexpr (dtype != DType::f64) {
    each_kept([&](auto, auto k, float value) { x[k] += static_cast<double>(value); });
    each<results>([&](auto k) { x[k] = narrow_mean(x[k], kept.count, kept.reciprocal); });
  } else {
    double low[results] = {};
    double high[results] = {};
    each_kept([&](auto i, auto k, double value) {
      if (i <= most_dropped) low[k] = i <= f ? value : low[k];
      high[k] = value;
      x[k] += value;
    });
    const int count = last - f;
    bool large = false;
    each<results>([&](auto k) { large = large || is_large<double>(low[k], high[k]); });
    double shrunk[results] = {};
    if (large)
      each_kept([&](auto, auto k, double value) { shrunk[k] = simt::fma(value, shrink, shrunk[k]); });
    each<results>([&](auto k) {
      x[k] = is_large<double>(low[k], high[k]) ? finish_shrunk_mean(shrunk[k], count, low[k], high[k])
                                               : finish_mean(x[k], count, low[k], high[k]);
    });
  }
}

}  // namespace bragg::detail::cuda
