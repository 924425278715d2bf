// SPDX-License-Identifier: Apache-2.0
// Scalar conversions of the four element types, to judge by: straight from the formats, sharing nothing with
// the library.
#pragma once

#include <bragg/updates.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace bragg::verify {

struct Format {
  int precision;     ///< bits of the significand, the hidden one included
  int min_exponent;  ///< of the smallest normal number
  int max_exponent;  ///< of the largest finite number
};

inline Format format_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return {11, -14, 15};
    case DType::bf16:
      return {8, -126, 127};
    case DType::f32:
      return {24, -126, 127};
    case DType::f64:
      break;
  }
  return {53, -1022, 1023};
}

/// 2^exponent, for exponents of and beyond all formats', from a table: std::ldexp takes ten times as long.
inline long double power_of_two(int exponent) {
  constexpr int least = -1100;
  static const std::array powers = [] {
    std::array<long double, 2201> made;
    for (std::size_t k = 0; k < made.size(); ++k) made[k] = std::ldexp(1.0L, least + static_cast<int>(k));
    return made;
  }();
  return powers.at(static_cast<std::size_t>(exponent - least));
}

/// Exponent of the distance between neighbouring values of a format at |x|; x is finite. Above the format's
/// range, of the first ones that it would have there.
inline int spacing_exponent(const Format& f, long double x) {
  const int exponent =
      x == 0 ? f.min_exponent : std::clamp(std::ilogb(x), f.min_exponent, f.max_exponent + 1);
  return exponent - f.precision + 1;
}

/// Distance between neighbouring values of `dtype` at |x|.
inline long double spacing(DType dtype, long double x) {
  return std::isfinite(x) ? power_of_two(spacing_exponent(format_of(dtype), x)) : 0;
}

/// The largest finite value of `dtype`.
inline long double largest(DType dtype) {
  const Format f = format_of(dtype);
  return (2 - power_of_two(1 - f.precision)) * power_of_two(f.max_exponent);
}

/// x rounded to the nearest value of `dtype`, ties to even.
inline long double round_to(DType dtype, long double x) {
  if (!std::isfinite(x)) return x;
  const int step = spacing_exponent(format_of(dtype), x);
  const long double rounded = std::rint(x * power_of_two(-step)) * power_of_two(step);
  if (std::fabs(rounded) > largest(dtype))
    return std::copysign(std::numeric_limits<long double>::infinity(), x);
  return rounded;
}

inline long double load(DType dtype, const void* data, std::size_t index) {
  const auto* bytes = static_cast<const unsigned char*>(data) + index * size_of(dtype);
  if (dtype == DType::f64) {
    double value;
    std::memcpy(&value, bytes, 8);
    return value;
  }
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, bytes, 4);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, bytes, 2);
  if (dtype == DType::bf16) {
    const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return value;
  }
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  const long double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) {
    return fraction != 0 ? std::numeric_limits<long double>::quiet_NaN()
                         : sign * std::numeric_limits<long double>::infinity();
  }
  return exponent == 0 ? sign * static_cast<long double>(fraction) * power_of_two(-24)
                       : sign * static_cast<long double>(1024 + fraction) * power_of_two(exponent - 25);
}

/// Stores x rounded to dtype; NaN keeps its sign.
inline void store(DType dtype, void* data, std::size_t index, long double x) {
  auto* bytes = static_cast<unsigned char*>(data) + index * size_of(dtype);
  const long double rounded = round_to(dtype, x);
  if (dtype == DType::f64) {
    const auto value = static_cast<double>(rounded);
    std::memcpy(bytes, &value, 8);
    return;
  }
  if (dtype == DType::f32 || dtype == DType::bf16) {
    const auto value = static_cast<float>(rounded);
    if (dtype == DType::f32) {
      std::memcpy(bytes, &value, 4);
      return;
    }
    std::uint32_t wide;
    std::memcpy(&wide, &value, 4);
    const auto bits = static_cast<std::uint16_t>((wide >> 16) | (std::isnan(value) ? 0x40 : 0));
    std::memcpy(bytes, &bits, 2);
    return;
  }
  std::uint16_t bits = std::signbit(rounded) ? 0x8000 : 0;
  const long double size = std::fabs(rounded);
  if (std::isnan(rounded)) {
    bits |= 0x7e00;
  } else if (std::isinf(rounded)) {
    bits |= 0x7c00;
  } else if (size < 0x1p-14L) {
    bits = static_cast<std::uint16_t>(bits | static_cast<std::uint16_t>(size * power_of_two(24)));
  } else {
    const int exponent = std::ilogb(size);
    const auto fraction = static_cast<int>(size * power_of_two(10 - exponent)) - 1024;
    bits = static_cast<std::uint16_t>(bits | ((exponent + 15) << 10) | fraction);
  }
  std::memcpy(bytes, &bits, 2);
}

}  // namespace bragg::verify
