// SPDX-License-Identifier: Apache-2.0
// Comparator networks on registers. Every index is a constant, so that no array lands in memory.
#pragma once

#include <utility>

#include "kernels/common/values.cuh"
#include "rules/networks/network.hpp"

namespace bragg::detail::cuda {

/// A constant, as std::integral_constant, for the device.
template <int kNumber>
struct Number {
  BRAGG_DEVICE constexpr operator int() const { return kNumber; }
};

/// f(0), …, f(kCount − 1), the numbers as constants: unlike unrolled loops, arrays that they index never land
/// in memory.
template <int... kNumbers, class F>
BRAGG_DEVICE void each_of(std::integer_sequence<int, kNumbers...>, F f) {
  (f(Number<kNumbers>()), ...);
}
template <int kCount, class F>
BRAGG_DEVICE void each(F f) {
  each_of(std::make_integer_sequence<int, kCount>(), f);
}
/// A register of values to be sorted: one, or two of 16 bits. `least` and `greatest` are of numbers; `number`
/// makes one of NaN, +inf.
template <DType dtype>
struct Register;

template <>
struct Register<DType::f32> {
  using Type = float;
  static constexpr int width = 1;  ///< coordinates it holds

  BRAGG_DEVICE static float of(std::uint32_t bits) { return simt::float_of(bits); }
  BRAGG_DEVICE static std::uint32_t bits(float v) { return simt::bits_of(v); }
  BRAGG_DEVICE_REGISTERS static float least(float a, float b) { return fminf(a, b); }
  BRAGG_DEVICE_REGISTERS static float greatest(float a, float b) { return fmaxf(a, b); }
  BRAGG_DEVICE_REGISTERS static float number(float v) { return nan_to_infinity(v); }
  BRAGG_DEVICE static float infinity() { return infinity_of<float>(); }
  BRAGG_DEVICE static float value(float v, int) { return v; }
};

template <>
struct Register<DType::f64> {
  using Type = double;
  static constexpr int width = 1;

  BRAGG_DEVICE static double of(std::uint64_t bits) { return simt::double_of(bits); }
  BRAGG_DEVICE static std::uint64_t bits(double v) { return simt::bits_of(v); }
  // One comparison and four selections. fmin and fmax, which look for NaN, are 18 instructions on 9.0.
  BRAGG_DEVICE_REGISTERS static double least(double a, double b) { return b < a ? b : a; }
  BRAGG_DEVICE_REGISTERS static double greatest(double a, double b) { return b < a ? a : b; }
  BRAGG_DEVICE_REGISTERS static double number(double v) { return nan_to_infinity(v); }
  BRAGG_DEVICE static double infinity() { return infinity_of<double>(); }
  BRAGG_DEVICE static double value(double v, int) { return v; }
};

template <>
struct Register<DType::f16> {
  using Type = std::uint32_t;
  static constexpr int width = 2;

  BRAGG_DEVICE static std::uint32_t of(std::uint32_t bits) { return bits; }
  BRAGG_DEVICE static std::uint32_t bits(std::uint32_t v) { return v; }
  BRAGG_DEVICE_REGISTERS static std::uint32_t least(std::uint32_t a, std::uint32_t b) {
    return simt::min_f16x2(a, b);
  }
  BRAGG_DEVICE_REGISTERS static std::uint32_t greatest(std::uint32_t a, std::uint32_t b) {
    return simt::max_f16x2(a, b);
  }
  BRAGG_DEVICE_REGISTERS static std::uint32_t number(std::uint32_t v) { return least(v, infinity()); }
  BRAGG_DEVICE static std::uint32_t infinity() { return 0x7C007C00u; }
  BRAGG_DEVICE static float value(std::uint32_t v, int half) {
    return value_of<DType::f16>(static_cast<std::uint16_t>(v >> (16 * half)));
  }
};

template <>
struct Register<DType::bf16> {
  using Type = std::uint32_t;
  static constexpr int width = 2;

  BRAGG_DEVICE static std::uint32_t of(std::uint32_t bits) { return bits; }
  BRAGG_DEVICE static std::uint32_t bits(std::uint32_t v) { return v; }
  BRAGG_DEVICE_REGISTERS static std::uint32_t least(std::uint32_t a, std::uint32_t b) {
    return simt::min_bf16x2(a, b);
  }
  BRAGG_DEVICE_REGISTERS static std::uint32_t greatest(std::uint32_t a, std::uint32_t b) {
    return simt::max_bf16x2(a, b);
  }
  BRAGG_DEVICE_REGISTERS static std::uint32_t number(std::uint32_t v) { return least(v, infinity()); }
  BRAGG_DEVICE static std::uint32_t infinity() { return 0x7F807F80u; }
  BRAGG_DEVICE static float value(std::uint32_t v, int half) {
    return value_of<DType::bf16>(static_cast<std::uint16_t>(v >> (16 * half)));
  }
};

/// Whether some register was not finite, gathered at a multiply-add each (f64: three integer operations):
/// minima and maxima, which bound a selection, go by another pipe.
template <DType dtype>
struct NonfiniteTest {
  std::uint32_t seen = 0;

  BRAGG_DEVICE void add(typename Register<dtype>::Type v) {
    if constexpr (dtype == DType::f64) {
      // One more than the largest exponent carries into the sign's place.
      const auto high = static_cast<std::uint32_t>(simt::bits_of(v) >> 32);
      seen |= (high & 0x7FF00000u) + 0x00100000u;
    } else if constexpr (dtype == DType::f16) {
      seen = simt::mark_nonfinite_f16x2(v, seen);
    } else {
      seen = simt::mark_nonfinite_bf16x2(v, seen);
    }
  }
  /// Zeros may have either sign.
  BRAGG_DEVICE bool any() const { return (seen & (dtype == DType::f64 ? 0x80000000u : 0x7FFF7FFFu)) != 0; }
};
template <>
struct NonfiniteTest<DType::f32> {
  float seen = 0;

  BRAGG_DEVICE void add(float v) { seen = simt::fma(v, 0.0f, seen); }
  BRAGG_DEVICE bool any() const { return seen != seen; }
};

/// The network as a type.
template <int kPoints, int kFirst, int kLast>
struct Network {
  static constexpr auto list = network::constant<kPoints, kFirst, kLast>;
};

template <DType dtype, class NetworkT, std::size_t kStep, int kPoints>
BRAGG_DEVICE_REGISTERS void exchange(typename Register<dtype>::Type (&v)[kPoints]) {
  constexpr Comparator c = NetworkT::list.items[kStep];
  const auto a = v[c.low];
  const auto b = v[c.high];
  if constexpr (c.need_low) v[c.low] = Register<dtype>::least(a, b);
  if constexpr (c.need_high) v[c.high] = Register<dtype>::greatest(a, b);
}

template <DType dtype, class NetworkT, int kPoints, std::size_t... kSteps>
BRAGG_DEVICE_REGISTERS void exchange_all(typename Register<dtype>::Type (&v)[kPoints],
                                         std::index_sequence<kSteps...>) {
  (exchange<dtype, NetworkT, kSteps>(v), ...);
}

/// Brings ranks kFirst … kLast to their places; no value is NaN.
template <DType dtype, int kFirst, int kLast, int kPoints>
BRAGG_DEVICE_REGISTERS void sort_registers(typename Register<dtype>::Type (&v)[kPoints]) {
  using NetworkT = Network<kPoints, kFirst, kLast>;
#if defined(__CUDACC__)
  exchange_all<dtype, NetworkT>(v, std::make_index_sequence<NetworkT::list.length>());
#else
  // The executor has no registers to name: a loop compiles in half the time.
  for (std::size_t k = 0; k < NetworkT::list.length; ++k) {
    const Comparator c = NetworkT::list.items[k];
    const auto a = v[c.low];
    const auto b = v[c.high];
    if (c.need_low) v[c.low] = Register<dtype>::least(a, b);
    if (c.need_high) v[c.high] = Register<dtype>::greatest(a, b);
  }
#endif
}

/// Networks exist for these numbers of points; fewer are padded with infinities.
inline constexpr int buckets[] = {8, 16, 24, 32, 48, 64, 96, 128};
/// The largest bucket of a dtype: what the registers hold. With sanitizers larger ones take minutes to
/// compile.
#if defined(BRAGG_FEWER_NETWORKS)
template <DType dtype>
inline constexpr int largest_bucket = 32;
#else
template <DType dtype>
inline constexpr int largest_bucket = dtype == DType::f64 ? 64 : 128;
#endif

/// Fewer points than this are padded to a smaller bucket than kPoints.
template <int kPoints>
inline constexpr int least_points = [] {
  int least = 1;
  for (const int bucket : buckets) {
    if (bucket < kPoints) least = bucket + 1;
  }
  return least;
}();

/// The bucket that follows.
template <int kPoints>
inline constexpr int bucket_after = [] {
  for (const int bucket : buckets) {
    if (bucket > kPoints) return bucket;
  }
  return kPoints;
}();

}  // namespace bragg::detail::cuda
