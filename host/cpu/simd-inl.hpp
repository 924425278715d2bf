// SPDX-License-Identifier: Apache-2.0
// Element types as f64 vectors: loads, stores that round once, tests for non-finite values. Compiled once per
// target.
#if defined(BRAGG_HOST_CPU_SIMD_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef BRAGG_HOST_CPU_SIMD_INL_HPP_
#undef BRAGG_HOST_CPU_SIMD_INL_HPP_
#else
#define BRAGG_HOST_CPU_SIMD_INL_HPP_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "host/base/dtype.hpp"
#include "host/cpu/fused.hpp"
#include "host/cpu/targets.hpp"

#undef BRAGG_NATIVE_F16
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
#define BRAGG_NATIVE_F16 1
#else
#define BRAGG_NATIVE_F16 0
#endif

#undef BRAGG_FUSED
#if (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2 && !defined(HWY_DISABLE_BMI2_FMA)) || \
    (HWY_ARCH_ARM_A64 && HWY_TARGET < HWY_EMU128)
#define BRAGG_FUSED 1
#else
#define BRAGG_FUSED 0
#endif

// GCC would fold a load into each of its uses; the load ports are what a register tile must spare.
#undef BRAGG_KEEP_IN_REGISTER
#if defined(__GNUC__) && HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
#define BRAGG_KEEP_IN_REGISTER(vector) __asm__("" : "+v"((vector).raw))
#else
#define BRAGG_KEEP_IN_REGISTER(vector) static_cast<void>(vector)
#endif

#undef BRAGG_INLINED
#if defined(__GNUC__)
#define BRAGG_INLINED HWY_ATTR __attribute__((always_inline))
#else
#define BRAGG_INLINED HWY_ATTR
#endif

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Wide = hn::ScalableTag<double>;
using WideVector = hn::Vec<Wide>;
using Narrow = hn::Rebind<float, Wide>;  // as many lanes as Wide

// f(constant 0), …, f(constant N−1). An array of vectors stays in registers only if its indices are constants
// from the start: GCC unrolls loops too late.
template <class F, int... kI>
HWY_INLINE void each(std::integer_sequence<int, kI...>, const F& f) {
  (f(std::integral_constant<int, kI>()), ...);
}
template <int kN, class F>
HWY_INLINE void each(const F& f) {
  each(std::make_integer_sequence<int, kN>(), f);
}

// Highway's unaligned loads and stores copy bytes, whatever the pointer's type says.
template <class LaneT>
HWY_INLINE const LaneT* lanes_at(const unsigned char* bytes) {
  return reinterpret_cast<const LaneT*>(bytes);
}
template <class LaneT>
HWY_INLINE LaneT* lanes_at(unsigned char* bytes) {
  return reinterpret_cast<LaneT*>(bytes);
}

template <class DF>
HWY_INLINE hn::Vec<DF> widen_f16(DF df, hn::Vec<hn::Rebind<std::uint16_t, DF>> bits) {
#if BRAGG_NATIVE_F16
  return hn::PromoteTo(df, hn::BitCast(hn::Rebind<hwy::float16_t, DF>(), bits));
#else
  // Highway's fallback does not know infinity and NaN.
  const hn::Rebind<std::uint32_t, DF> du;
  const auto wide = hn::PromoteTo(du, bits);
  const auto magnitude = hn::And(wide, hn::Set(du, 0x7FFFu));
  const auto scaled =
      hn::Mul(hn::BitCast(df, hn::ShiftLeft<13>(magnitude)), hn::Set(df, 5.192296858534828e33f));  // 2^112
  const auto special = hn::BitCast(df, hn::Or(hn::ShiftLeft<13>(magnitude), hn::Set(du, 0x7F800000u)));
  const auto value = hn::IfThenElse(hn::Ge(scaled, hn::Set(df, 65536.0f)), special, scaled);
  return hn::Or(value, hn::BitCast(df, hn::ShiftLeft<16>(hn::And(wide, hn::Set(du, 0x8000u)))));
#endif
}

/// 16-bit floats as f32.
template <DType kTypeT, class DF>
HWY_INLINE hn::Vec<DF> f32_of_bits(DF df, hn::Vec<hn::Rebind<std::uint16_t, DF>> bits) {
  if constexpr (kTypeT == DType::f16) {
    return widen_f16(df, bits);
  } else {
    const hn::Rebind<std::uint32_t, DF> du;
    return hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
  }
}

/// Lanes(df) elements as floats; not for f64.
template <DType kTypeT, class DF>
HWY_INLINE hn::Vec<DF> load_f32(DF df, const unsigned char* bytes) {
  if constexpr (kTypeT == DType::f32) {
    return hn::LoadU(df, lanes_at<float>(bytes));
  } else {
    const hn::Rebind<std::uint16_t, DF> du16;
    return f32_of_bits<kTypeT>(df, hn::LoadU(du16, lanes_at<std::uint16_t>(bytes)));
  }
}

/// Lanes(Wide) elements as f64.
template <DType kTypeT>
HWY_INLINE WideVector load_f64(const unsigned char* bytes) {
  if constexpr (kTypeT == DType::f64) {
    return hn::LoadU(Wide(), lanes_at<double>(bytes));
  } else {
    return hn::PromoteTo(Wide(), load_f32<kTypeT>(Narrow(), bytes));
  }
}

#if !BRAGG_FUSED
// One copy of it is enough.
HWY_NOINLINE inline WideVector multiply_add_slowly(WideVector a, WideVector b, WideVector c) {
  const Wide d;
  HWY_ALIGN double x[hn::MaxLanes(d)], y[hn::MaxLanes(d)], sum[hn::MaxLanes(d)];
  hn::Store(a, d, x), hn::Store(b, d, y), hn::Store(c, d, sum);
  for (std::size_t i = 0; i < hn::Lanes(d); ++i) sum[i] = fused_multiply_add(x[i], y[i], sum[i]);
  return hn::Load(d, sum);
}
#endif

/// a·b + c, rounded once on every target: slowly where there is no such instruction. `exact`: the products
/// are f64, and rounded themselves or not, the sum is the same.
HWY_INLINE WideVector multiply_add(WideVector a, WideVector b, WideVector c, bool exact = false) {
#if BRAGG_FUSED
  static_cast<void>(exact);
  return hn::MulAdd(a, b, c);
#else
  return exact ? hn::MulAdd(a, b, c) : multiply_add_slowly(a, b, c);
#endif
}

HWY_INLINE hn::Vec<Narrow> round_to_f32(WideVector v) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  // Highway's own saturates infinity.
  HWY_ALIGN double wide[hn::MaxLanes(Wide())];
  HWY_ALIGN float narrow[hn::MaxLanes(Narrow())];
  hn::Store(v, Wide(), wide);
  for (std::size_t i = 0; i < hn::Lanes(Wide()); ++i) narrow[i] = static_cast<float>(wide[i]);
  return hn::Load(Narrow(), narrow);
#else
  return hn::DemoteTo(Narrow(), v);
#endif
}

/// v rounded, ties to even, to a multiple of the spacing that a type of `kFractionT` fraction bits and
/// smallest normal 2^kMinExponentT has at v. One rounding: a detour over f32 would be a second one.
template <int kFractionT, int kMinExponentT>
HWY_INLINE WideVector round_to_grid(WideVector v) {
  const Wide d;
  const hn::RebindToUnsigned<Wide> du;
  const auto exponent_bits = hn::Set(du, 0x7FF0000000000000ull);
  const auto power = hn::BitCast(d, hn::And(hn::BitCast(du, v), exponent_bits));
  const auto smallest = hn::BitCast(d, hn::Set(du, static_cast<std::uint64_t>(1023 + kMinExponentT) << 52));
  const auto largest = hn::BitCast(d, hn::Set(du, std::uint64_t{1023 + 200} << 52));
  const auto clamped = hn::Min(hn::Max(power, smallest), largest);
  // 1.5·2^52 times the spacing: adding it leaves no bits below the spacing.
  const auto shift = hn::BitCast(
      d, hn::Set(du, (static_cast<std::uint64_t>(1023 + 52 - kFractionT) << 52) | (std::uint64_t{1} << 51)));
  const auto offset = hn::Mul(clamped, shift);
  return hn::Sub(hn::Add(v, offset), offset);
}

/// Rounds once to the type, ties to even; zero is written +0.
template <DType kTypeT>
HWY_INLINE void store_f64(WideVector v, unsigned char* bytes) {
  if constexpr (kTypeT == DType::f64) {
    const Wide d;
    hn::StoreU(hn::Add(v, hn::Zero(d)), d, lanes_at<double>(bytes));
  } else if constexpr (kTypeT == DType::f32) {
    const Narrow df;
    hn::StoreU(hn::Add(round_to_f32(v), hn::Zero(df)), df, lanes_at<float>(bytes));
  } else {
    const Narrow df;
    const hn::Rebind<std::uint16_t, Wide> du16;
    const hn::Rebind<std::uint32_t, Wide> du;
    const hn::Rebind<std::int32_t, Wide> di;
    if constexpr (kTypeT == DType::bf16) {
      const auto exact = round_to_f32(round_to_grid<7, -126>(v));
      const auto high = hn::ShiftRight<16>(hn::BitCast(du, exact));
      hn::StoreU(hn::DemoteTo(du16, hn::BitCast(di, high)), du16, lanes_at<std::uint16_t>(bytes));
    } else {
      const auto exact = round_to_f32(round_to_grid<10, -14>(v));
#if BRAGG_NATIVE_F16
      const auto half = hn::DemoteTo(hn::Rebind<hwy::float16_t, Wide>(), exact);
      hn::StoreU(hn::BitCast(du16, half), du16, lanes_at<std::uint16_t>(bytes));
#else
      const auto sign = hn::And(hn::BitCast(du, exact), hn::Set(du, 0x80000000u));
      const auto scaled = hn::Mul(hn::Abs(exact), hn::Set(df, 1.925929944387236e-34f));  // 2^-112
      const auto finite =
          hn::Min(hn::BitCast(di, hn::ShiftRight<13>(hn::BitCast(du, scaled))), hn::Set(di, 0x7C00));
      const auto value = hn::IfThenElse(hn::RebindMask(di, hn::IsNaN(exact)), hn::Set(di, 0x7E00), finite);
      const auto bits = hn::Or(value, hn::BitCast(di, hn::ShiftRight<16>(sign)));
      hn::StoreU(hn::DemoteTo(du16, bits), du16, lanes_at<std::uint16_t>(bytes));
#endif
    }
  }
}

template <class DT>
HWY_INLINE hn::Mask<DT> is_finite(DT d, hn::Vec<DT> v) {
  return hn::Lt(hn::Abs(v), hn::Inf(d));
}

template <class DT>
HWY_INLINE hn::Vec<DT> nan_to_infinity(DT d, hn::Vec<DT> v) {
#if HWY_ARCH_X86
  return hn::Min(v, hn::Inf(d));  // the second operand where one is NaN
#else
  return hn::IfThenElse(hn::IsNaN(v), hn::Inf(d), v);
#endif
}

/// Sign-and-magnitude bits to two's complement and back: integers in the order of the floats.
template <class DI>
HWY_INLINE hn::Vec<DI> flip_magnitude(DI di, hn::Vec<DI> bits) {
  const auto magnitude = hn::Set(di, std::numeric_limits<hn::TFromD<DI>>::max());
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
  const auto sign = hn::VecFromMask(di, hn::Lt(bits, hn::Zero(di)));  // shifts are fewer than comparisons
#else
  const auto sign = hn::BroadcastSignBit(bits);
#endif
  return hn::Xor(bits, hn::And(sign, magnitude));
}

/// Rounds `count` values of an aligned tile to the type; the tile is whole vectors.
template <DType kTypeT>
void write_tile_as(const double* tile, int count, unsigned char* out) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  int i = 0;
  for (; i + lanes <= count; i += lanes) store_f64<kTypeT>(hn::Load(d, tile + i), out + i * size);
  if (i < count) {
    HWY_ALIGN unsigned char tail[vector_bytes];
    store_f64<kTypeT>(hn::Load(d, tile + i), tail);
    std::memcpy(out + i * size, tail, static_cast<std::size_t>((count - i) * size));
  }
}

HWY_INLINE void write_tile(const double* tile, int count, DType dtype, unsigned char* out) {
  with_dtype(dtype, [&]<DType kTypeT>() HWY_ATTR { write_tile_as<kTypeT>(tile, count, out); });
}

}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
