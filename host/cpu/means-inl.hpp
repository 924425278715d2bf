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

// sum/count, inside [low, high]; −inf where the least value is −inf.
HWY_INLINE WideVector finish_mean(WideVector sum, int count, WideVector low, WideVector high) {
  const Wide d;
  const auto mean = hn::Div(sum, hn::Set(d, static_cast<double>(count)));
  const auto clamped = hn::Max(hn::Min(mean, high), low);
  return hn::IfThenElse(hn::Eq(low, hn::Neg(hn::Inf(d))), low, clamped);
}

// The same, where the sum is that of values times `shrink`.
HWY_INLINE WideVector finish_shrunk_mean(WideVector sum, int count, WideVector low, WideVector high) {
  const auto scale = hn::Set(Wide(), shrink);
  const auto scaled = finish_mean(sum, count, hn::Mul(low, scale), hn::Mul(high, scale));
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
