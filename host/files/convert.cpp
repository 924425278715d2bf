// SPDX-License-Identifier: Apache-2.0
#include "host/files/convert.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "host/base/dtype.hpp"

namespace bragg::detail {

namespace {

/// A binary floating-point format of up to 16 bits, by its fields below the sign.
struct Format {
  int exponent_bits, mantissa_bits;
  std::uint16_t largest;  ///< the bits of the largest finite value
  std::uint16_t beyond;   ///< what stands for values above: infinity, or NaN where there is none
  std::uint16_t nan;

  constexpr int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  constexpr int least_exponent() const { return 1 - bias(); }
};

constexpr Format f16{5, 10, 0x7BFF, 0x7C00, 0x7E00};
constexpr Format bf16{8, 7, 0x7F7F, 0x7F80, 0x7FC0};
constexpr Format f8_e5m2{5, 2, 0x7B, 0x7C, 0x7F};
constexpr Format f8_e4m3{4, 3, 0x7E, 0x7F, 0x7F};  // no infinity: one code of the last exponent is NaN

constexpr double power_of_two(int exponent) noexcept {
  return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52);
}

template <Format kFormat>
std::uint16_t rounded(double value) noexcept {
  constexpr int sign_at = kFormat.exponent_bits + kFormat.mantissa_bits;
  const auto sign = static_cast<std::uint16_t>(std::signbit(value) ? 1u << sign_at : 0u);
  if (std::isnan(value)) return sign | kFormat.nan;
  const double magnitude = std::abs(value);
  // E4M3 has values above 2^(bias + 1).
  if (magnitude >= power_of_two(kFormat.bias() + 2)) return sign | kFormat.beyond;
  const int own = static_cast<int>(std::bit_cast<std::uint64_t>(magnitude) >> 52) - 1023;
  const int exponent = std::max(own, kFormat.least_exponent());
  // In units of the last place; adding 2^52 rounds to an integer, half-way to even.
  const double units = magnitude * power_of_two(kFormat.mantissa_bits - exponent) + 0x1p52 - 0x1p52;
  // A subnormal's exponent field is one less than its exponent says, as its mantissa has no leading one. A
  // mantissa that rounds up to the next power of two carries into the field.
  const auto bits = static_cast<std::uint32_t>(
      static_cast<std::int32_t>(units) + ((exponent - kFormat.least_exponent()) << kFormat.mantissa_bits));
  return static_cast<std::uint16_t>(sign | (bits > kFormat.largest ? kFormat.beyond : bits));
}

template <class T, class F>
std::int64_t narrow_to(std::byte* begin, std::int64_t count, F convert, bool (*is_finite)(T)) noexcept {
  std::int64_t beyond = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    double wide = 0;
    std::memcpy(&wide, begin + i * 8, 8);
    const T narrow = convert(wide);
    std::memcpy(begin + i * static_cast<std::int64_t>(sizeof(T)), &narrow, sizeof(T));
    beyond += !is_finite(narrow) && std::isfinite(wide) ? 1 : 0;
  }
  return beyond;
}

template <class T, Format kFormat>
std::int64_t narrow_to(std::byte* begin, std::int64_t count) noexcept {
  return narrow_to<T>(
      begin, count, [](double x) { return static_cast<T>(rounded<kFormat>(x)); },
      [](T bits) {
        constexpr unsigned magnitude = (1u << (kFormat.exponent_bits + kFormat.mantissa_bits)) - 1;
        return (bits & magnitude) <= kFormat.largest;
      });
}

/// Of `count` narrow values that end where as many wide ones from `begin` on would end: the first.
template <class WideT>
std::byte* first_narrow(std::byte* begin, std::int64_t count, std::int64_t bytes) noexcept {
  return begin + count * (static_cast<std::int64_t>(sizeof(WideT)) - bytes);
}

/// The f16 of the same value: an E5M2 is the upper half of one.
std::uint16_t f16_of_e5m2(std::uint8_t bits) noexcept { return static_cast<std::uint16_t>(bits << 8); }

std::uint16_t f16_of_e4m3(std::uint8_t bits) noexcept {
  const auto sign = static_cast<std::uint16_t>((bits & 0x80u) << 8);
  const std::uint32_t magnitude = bits & 0x7Fu;
  if (magnitude == f8_e4m3.nan) return sign | f16.nan;
  if (magnitude >= 8) {  // the exponents' biases differ by 8
    constexpr int up = f16.mantissa_bits - f8_e4m3.mantissa_bits;
    return static_cast<std::uint16_t>(sign | ((magnitude << up) + (8u << f16.mantissa_bits)));
  }
  if (magnitude == 0) return sign;
  // A subnormal m · 2^−9 is a normal f16: its leading one goes into the exponent.
  const int leading = std::bit_width(magnitude) - 1;
  const auto exponent = static_cast<std::uint32_t>(leading - 9 + f16.bias());
  const std::uint32_t mantissa = (magnitude << (f16.mantissa_bits - leading)) & 0x3FFu;
  return static_cast<std::uint16_t>(sign | exponent << f16.mantissa_bits | mantissa);
}

template <class F>
void widen_f8(std::byte* begin, std::int64_t count, DType to, F f16_of) noexcept {
  if (to == DType::f16) {
    const std::byte* const from = first_narrow<std::uint16_t>(begin, count, 1);
    return widen_each<std::uint8_t, std::uint16_t>(from, count, begin, f16_of);
  }
  widen_each<std::uint8_t, double>(first_narrow<double>(begin, count, 1), count, begin,
                                   [&](std::uint8_t bits) { return float_of<DType::f16>(f16_of(bits)); });
}

}  // namespace

void widen(std::byte* begin, std::int64_t count, const ElementType& from, DType to) noexcept {
  if (from.name == "F8_E4M3") return widen_f8(begin, count, to, f16_of_e4m3);
  if (from.name == "F8_E5M2") return widen_f8(begin, count, to, f16_of_e5m2);
  if (from.dtype != to)
    widen_to_f64(from.dtype, first_narrow<double>(begin, count, from.bytes), count, begin);
}

std::int64_t narrow(std::byte* begin, std::int64_t count, const ElementType& to) noexcept {
  if (to.name == "F8_E4M3") return narrow_to<std::uint8_t, f8_e4m3>(begin, count);
  if (to.name == "F8_E5M2") return narrow_to<std::uint8_t, f8_e5m2>(begin, count);
  if (to.dtype == DType::f16) return narrow_to<std::uint16_t, f16>(begin, count);
  if (to.dtype == DType::bf16) return narrow_to<std::uint16_t, bf16>(begin, count);
  if (to.dtype == DType::f64) return 0;
  return narrow_to<float>(
      begin, count, [](double x) { return static_cast<float>(x); }, [](float x) { return std::isfinite(x); });
}

}  // namespace bragg::detail
