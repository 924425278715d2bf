// SPDX-License-Identifier: Apache-2.0
// The coordinate-wise rules' means of the values that they keep, Lanes(Wide) coordinates at a time.
// Compiled once per target.
#if defined(BRAGG_HOST_CPU_MEANS_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef BRAGG_HOST_CPU_MEANS_INL_HPP_
#undef BRAGG_HOST_CPU_MEANS_INL_HPP_
#else
#define BRAGG_HOST_CPU_MEANS_INL_HPP_
#endif

#include <hwy/highway.h>

#include <type_traits>

#include "host/cpu/simd-inl.hpp"
#include "rules/means.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {

constexpr int wide_lanes = static_cast<int>(hn::MaxLanes(Wide()));

/// Aligned values, as f64.
template <class ValueT>
HWY_INLINE WideVector load_wide(const ValueT* values) {
  if constexpr (std::is_same_v<ValueT, float>) {
    return hn::PromoteTo(Wide(), hn::Load(Narrow(), values));
  } else {
    return hn::Load(Wide(), values);
  }
}

// Twins of rules/means.hpp.

// Lanes where a plain f64 sum of values between low and high might overflow.
HWY_INLINE hn::Mask<Wide> is_large(WideVector low, WideVector high) {
  const Wide d;
  const auto most = hn::Max(hn::Abs(low), hn::Abs(high));
  return hn::Ge(most, hn::Set(d, large_value));
}

/// sum / count as division rounds it, of f32 values' sums: three operations for a division's 16 cycles.
/// q = fl(sum·fl(1/count)) is off by less than two units u of its last place, so the remainder sum − q·count
/// is a multiple of u below 2·count·u: exact. So is what is added to q but for 2⁻⁵² u. sum / count is no
/// midpoint of two f64, and u/(2·count) or farther from any, so the last rounding is that of the quotient.
/// What is infinite becomes NaN.
HWY_INLINE WideVector divide_by_count(WideVector sum, int count) {
  const Wide d;
  const auto divisor = hn::Set(d, static_cast<double>(count));
  const auto inverse = hn::Set(d, 1 / static_cast<double>(count));
  const auto q = hn::Mul(sum, inverse);
  return hn::MulAdd(hn::NegMulAdd(q, divisor, sum), inverse, q);
}

// sum/count of ValueT's, inside [low, high]; −inf where the least value is −inf.
template <class ValueT>
HWY_INLINE WideVector finish_mean(WideVector sum, int count, WideVector low, WideVector high) {
  const Wide d;
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  // Where the mean is NaN, Min is high: right for +inf. (AVX2 divides as fast.)
  const auto mean = std::is_same_v<ValueT, float> ? divide_by_count(sum, count)
                                                  : hn::Div(sum, hn::Set(d, static_cast<double>(count)));
#else
  const auto mean = hn::Div(sum, hn::Set(d, static_cast<double>(count)));
#endif
  const auto clamped = hn::Max(hn::Min(mean, high), low);
  return hn::IfThenElse(hn::Eq(low, hn::Neg(hn::Inf(d))), low, clamped);
}

// The same, where the sum is that of values times `shrink`.
HWY_INLINE WideVector finish_shrunk_mean(WideVector sum, int count, WideVector low, WideVector high) {
  const auto scale = hn::Set(Wide(), shrink);
  const auto scaled = finish_mean<double>(sum, count, hn::Mul(low, scale), hn::Mul(high, scale));
  return hn::Max(hn::Min(hn::Div(scaled, scale), high), low);
}

/// As std::midpoint, of values that ValueT holds.
template <class ValueT>
HWY_INLINE WideVector midpoint(WideVector low, WideVector high) {
  const Wide d;
  const auto half = hn::Set(d, 0.5);
  const auto sum = hn::Add(low, high);
  auto middle = hn::Mul(sum, half);
  if constexpr (std::is_same_v<ValueT, double>) {
    const auto of_halves = hn::Add(hn::Mul(low, half), hn::Mul(high, half));
    middle = hn::IfThenElse(is_finite(d, sum), middle, of_halves);
  }
  return hn::IfThenElse(hn::IsNaN(middle), low, middle);  // NaN: −inf and +inf
}

}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
