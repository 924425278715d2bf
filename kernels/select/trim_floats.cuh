// SPDX-License-Identifier: Apache-2.0
// Trimmed means of sorted registers in f32, where a device's f64 is slow: the bits of trim.cuh.
//
// Sum        Of k values, 2^L ≥ k, the largest below 2^(e+1). `first` starts at 1.5·2^c, c = e + L + 3; so it
//            stays below 2^(c+1) and above each value, and three operations add a value and give exactly what
//            that lost. `second` starts at 1.5·2^(c+L−22) and adds up those losses in the same way, `third`
//            the rests that this leaves. Eight operations a value. A value of 16 bits hardly ever leaves a
//            rest: there is no `third`, and seven.
// Else       f64 is off by less than 2^(c−55) in the mean, `third` by 2^(c−56): together less than
//            σ·2⁻⁵⁴, σ = 1.5·2^c. Without `third`, rests of up to 2^(c+L−46) are left out: σ·2^(L−46).
// Quotient   With u = 2⁻²⁴, sum = h + l: q = h·(1/k) is off by 2u of itself, so h − q·k is exact, and the
//            second quotient r, of h − q·k + l, at most 3u of q. Its roundings, at most three, that of adding
//            the slack and that of l are 13u² of q together, and f64's quotient is off by 2⁻⁵³ of it: 16u².
// Exact      If no value left a rest, all are multiples of g = 2^(c+L−45), and so are sums, which are below
//            2^(c−2): f64 adds them exactly, too. A mean that is not half-way between two numbers, m, is
//            g/k ≥ 2^(c−45) or more from there, or 2⁻³² of itself where m is no multiple of g: more than its
//            error, 13u²·2^(c−2)/k. A mean m is q + r: k·(m − q) has few bits, and so has m − q, which two
//            steps of division find. So the slack is 0.
// Rounding   A mean is sure if it is rounded alike with its slack added and taken away: f64's, which is no
//            farther, then rounds to the same. A warp with a lane that is not does as trim.cuh. So do
//            infinities, what overflows, and means far below their values. To 16 bits: first to f32, and to
//            the odd one of its two neighbours if it is between them.
// Cost       Of k values of f32 2k f64 operations and conversions become 8k f32 operations and about 70 more.
// Measured   not yet run on hardware.
#pragma once

#include "kernels/common/double_float.cuh"
#include "kernels/select/trim.cuh"

namespace bragg::detail::cuda {

/// f(index) with the index as a constant, kFirst ≤ index < kEnd. One branch for all lanes.
template <int kFirst, int kEnd, class F>
BRAGG_DEVICE void at_rank(int index, const F& f) {
  if constexpr (kEnd - kFirst == 1) {
    f(Number<kFirst>());
  } else {
    constexpr int middle = (kFirst + kEnd) / 2;
    if (index < middle) {
      at_rank<kFirst, middle>(index, f);
    } else {
      at_rank<middle, kEnd>(index, f);
    }
  }
}

BRAGG_DEVICE float power_of_two(int exponent) {
  return simt::float_of(static_cast<std::uint32_t>(127 + exponent) << 23);
}

/// What means of as many ranks need.
struct KeptFloats {
  float count, reciprocal;
  float first;   ///< the start of `first`, of a largest value from 1 on and below 2
  float second;  ///< that of `second`, by that of `first`
  float slack;   ///< by the start of `first`
};
template <DType dtype>
BRAGG_DEVICE KeptFloats kept_floats_by(const SelectRule& rule, int points) {
  const int count = points - 2 * rule.f;
  int log = 0;
  while (1 << log < count) ++log;
  const auto k = static_cast<float>(count);
  return {k, 1.0f / k, 1.5f * power_of_two(log + 3), power_of_two(log - 22),
          power_of_two(dtype == DType::f32 ? -54 : log - 46)};
}

/// high + low, off by `slack` at most. Where that is 0, high + low is on the same side of every number that
/// is half-way between two of a dtype.
struct MeanOfFloats {
  float high, low, slack;
};

/// A mean of values below this is not exact where they have bits far below it: f64 looks at those.
inline constexpr float least_largest = 0x1p-50f;

/// Where an accumulator started, which has kept its exponent; NaN of what overflowed.
BRAGG_DEVICE float start_of(float accumulator) {
  return simt::float_of((simt::bits_of(accumulator) & 0x7F800000u) | 0x00400000u);
}

/// Sums of kCount coordinates.
template <DType dtype, int kCount>
struct FloatSums {
  static constexpr bool has_third = dtype == DType::f32;
  float first[kCount], second[kCount], third[has_third ? kCount : 1];
  std::uint32_t rests = 0;  ///< not 0 or a sign: some value left one

  /// `largest`: of the magnitudes of what is added.
  BRAGG_DEVICE void start(int k, float largest, const KeptFloats& kept) {
    const float clamped = fmaxf(largest, least_largest);
    first[k] = simt::float_of(simt::bits_of(clamped) & 0x7F800000u) * kept.first;
    second[k] = first[k] * kept.second;
    if constexpr (has_third) third[k] = 0;
  }
  BRAGG_DEVICE void add(int k, float x) {
    const float sum = first[k] + x;
    const float lost = x - (sum - first[k]);
    first[k] = sum;
    const float low = second[k] + lost;
    const float rest = lost - (low - second[k]);
    second[k] = low;
    if constexpr (has_third) third[k] += rest;
    rests |= simt::bits_of(rest);
  }
  BRAGG_DEVICE MeanOfFloats mean(int k, const KeptFloats& kept) const {
    const float start = start_of(first[k]);
    float lost = 0;
    float high = two_sum(first[k] - start, second[k] - start_of(second[k]), lost);
    if constexpr (has_third) lost += third[k];
    float low = 0;
    high = two_sum(high, lost, low);
    const bool is_exact = (rests & 0x7FFFFFFFu) == 0;
    const float quotient = high * kept.reciprocal;
    const float left = simt::fma(-quotient, kept.count, high) + low;
    const float guess = left * kept.reciprocal;
    const float rest = simt::fma(simt::fma(-guess, kept.count, left), kept.reciprocal, guess);
    return {quotient, rest, is_exact ? 0.0f : simt::fma(fabsf(quotient), 0x1p-44f, start * kept.slack)};
  }
};

/// Rounds a mean to a value of the type; false: f64 may round to another.
template <DType out>
BRAGG_DEVICE bool round_mean(const MeanOfFloats& mean, float& rounded) {
  if constexpr (out == DType::f32) {
    rounded = mean.high + (mean.low - mean.slack);
    return rounded == mean.high + (mean.low + mean.slack);
  } else {
    const float near = mean.high + mean.low;
    const float behind = mean.low - (near - mean.high);
    std::uint32_t bits = simt::bits_of(near);
    if (behind != 0 && bits % 2 == 0) bits += (simt::bits_of(behind) ^ bits) >> 31 != 0 ? ~0u : 1u;
    rounded = simt::float_of(bits);
    return mean.slack == 0 || fabsf(behind) > mean.slack;
  }
}

/// Trimmed means of sorted registers, as two floats each.
template <DType dtype, int kVectors, int kPoints>
BRAGG_DEVICE void add_up_in_floats(const typename Register<dtype>::Type (&v)[kVectors][kPoints], int points,
                                   const SelectRule& rule, const KeptFloats& kept,
                                   MeanOfFloats (&means)[kVectors * Register<dtype>::width]) {
  using R = Register<dtype>;
  constexpr int results = kVectors * R::width;
  constexpr int most_dropped = (kPoints - 1) / 2;
  constexpr int least_last = least_points<kPoints> / 2;
  const int last = points - rule.f;
  const auto value = [&](auto i, auto k) { return R::value(v[k / R::width][i], k % R::width); };
  float largest[results];
  at_rank<0, most_dropped + 1>(
      rule.f, [&](auto i) { each<results>([&](auto k) { largest[k] = fabsf(value(i, k)); }); });
  at_rank<least_last, kPoints>(last - 1, [&](auto i) {
    each<results>([&](auto k) { largest[k] = fmaxf(largest[k], fabsf(value(i, k))); });
  });
  FloatSums<dtype, results> sums;
  each<results>([&](auto k) { sums.start(k, largest[k], kept); });
  each_between<kPoints, most_dropped, least_last + 1>(
      rule.f, last, [&](auto i) { each<results>([&](auto k) { sums.add(k, value(i, k)); }); });
  each<results>([&](auto k) { means[k] = sums.mean(k, kept); });
}

/// Trimmed means of sorted registers, in floats that round to `out`, f32 or `dtype`, as those of trim.cuh do.
template <DType dtype, int kVectors, int kPoints>
BRAGG_DEVICE void trimmed_means_of_floats(const typename Register<dtype>::Type (&v)[kVectors][kPoints],
                                          int points, const SelectRule& rule, const KeptFloats& kept,
                                          DType out, float (&x)[kVectors * Register<dtype>::width]) {
  constexpr int results = kVectors * Register<dtype>::width;
  MeanOfFloats means[results];
  add_up_in_floats<dtype>(v, points, rule, kept, means);
  const bool is_f32 = dtype == DType::f32 || out == DType::f32;
  bool is_sure = true;
  each<results>([&](auto k) {
    const bool alike = is_f32 ? round_mean<DType::f32>(means[k], x[k]) : round_mean<dtype>(means[k], x[k]);
    is_sure = is_sure && alike;
  });
  if (!simt::any(!is_sure)) return;
  double again[results];
  trimmed_means<dtype>(v, points, rule.f, kept_by(rule, points), again);
  each<results>([&](auto k) {
    x[k] = is_f32 ? static_cast<float>(again[k]) : value_of<dtype>(round_to<dtype>(again[k]));
  });
}

/// The trimmed mean of sorted floats: what rounds to `out`, of any type, as that of trim.cuh does.
template <int kPoints>
BRAGG_DEVICE double trimmed_mean_rounding_to(DType out, const float (&v)[1][kPoints], int points,
                                             const SelectRule& rule, const KeptFloats& kept) {
  MeanOfFloats mean[1];
  add_up_in_floats<DType::f32>(v, points, rule, kept, mean);
  float x = 0;
  const bool is_sure = out == DType::f32 ? round_mean<DType::f32>(mean[0], x)
                                         : round_mean<DType::f16>(mean[0], x) && out != DType::f64;
  if (!simt::any(!is_sure)) return static_cast<double>(x);
  double again[1];
  trimmed_means<DType::f32>(v, points, rule.f, kept_by(rule, points), again);
  return again[0];
}

}  // namespace bragg::detail::cuda
