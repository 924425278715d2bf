// SPDX-License-Identifier: Apache-2.0
// Scalar conversions of the four element types, to judge by: straight from the formats, sharing nothing with
// the library.
#pragma once

#include <bragg/updates.hpp>
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

/// Distance between neighbouring values of `dtype` at |x|.
inline long double spacing(DType dtype, long double x) {
  const Format f = format_of(dtype);
  if (!std::isfinite(x)) return 0;
  const int exponent = x == 0 ? f.min_exponent : std::max(std::ilogb(x), f.min_exponent);
  return std::ldexp(1.0L, exponent - f.precision + 1);
}

/// x rounded to the nearest value of `dtype`, ties to even.
inline long double round_to(DType dtype, long double x) {
  if (!std::isfinite(x)) return x;
  const Format f = format_of(dtype);
  const long double step = spacing(dtype, x);
  const long double rounded = std::nearbyint(x / step) * step;
  const long double largest = std::ldexp(2.0L - std::ldexp(1.0L, 1 - f.precision), f.max_exponent);
  if (std::fabs(rounded) > largest) return std::copysign(std::numeric_limits<long double>::infinity(), x);
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
  return exponent == 0 ? sign * std::ldexp(static_cast<long double>(fraction), -24)
                       : sign * std::ldexp(static_cast<long double>(1024 + fraction), exponent - 25);
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
    bits = static_cast<std::uint16_t>(bits | static_cast<std::uint16_t>(std::ldexp(size, 24)));
  } else {
    const int exponent = std::ilogb(size);
    const auto fraction = static_cast<int>(std::ldexp(size, 10 - exponent)) - 1024;
    bits = static_cast<std::uint16_t>(bits | ((exponent + 15) << 10) | fraction);
  }
  std::memcpy(bytes, &bits, 2);
}

}  // namespace bragg::verify
