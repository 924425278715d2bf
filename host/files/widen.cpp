// SPDX-License-Identifier: Apache-2.0
#include "host/files/widen.hpp"

#include <bit>
#include <cmath>
#include <cstring>

namespace bragg::detail {

namespace {

double from_f16(std::uint16_t bits) noexcept {
  const int exponent = bits >> 10 & 0x1F;
  const int fraction = bits & 0x3FF;
  double value = 0;
  if (exponent == 0x1F) {
    value = fraction == 0 ? INFINITY : NAN;
  } else {
    value = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(fraction + 0x400, exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

double from_bf16(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// Element i of T is read before anything is written over it: writing goes up from below, and meets it last.
template <class T, class F>
void widen(std::byte* begin, std::int64_t count, F convert) noexcept {
  const std::byte* from = begin + count * static_cast<std::int64_t>(8 - sizeof(T));
  for (std::int64_t i = 0; i < count; ++i) {
    T narrow;
    std::memcpy(&narrow, from + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    const double wide = convert(narrow);
    std::memcpy(begin + i * 8, &wide, 8);
  }
}

}  // namespace

void widen_to_f64(std::byte* begin, std::int64_t count, DType dtype) noexcept {
  switch (dtype) {
    case DType::f32:
      return widen<float>(begin, count, [](float x) { return static_cast<double>(x); });
    case DType::f16:
      return widen<std::uint16_t>(begin, count, from_f16);
    case DType::bf16:
      return widen<std::uint16_t>(begin, count, from_bf16);
    case DType::f64:
      return;
  }
}

}  // namespace bragg::detail
