// SPDX-License-Identifier: Apache-2.0
// Element types: from one that is known at run time to code that is compiled for each, and from 16 bits to a
// float.
#pragma once

#include <bit>
#include <bragg/updates.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bragg::detail {

/// body.operator()<dtype>(), for a dtype that is one of DType's. Always inlined, so that a body compiled for
/// an instruction set can be inlined as well.
template <class BodyT>
[[gnu::always_inline]] inline decltype(auto) with_dtype(DType dtype, const BodyT& body) {
  switch (dtype) {
    case DType::f32:
      return body.template operator()<DType::f32>();
    case DType::f16:
      return body.template operator()<DType::f16>();
    case DType::bf16:
      return body.template operator()<DType::bf16>();
    case DType::f64:
      break;
  }
  return body.template operator()<DType::f64>();
}

/// The bits of +inf of a 16-bit type.
constexpr std::uint16_t infinity_bits(DType dtype) noexcept { return dtype == DType::f16 ? 0x7C00 : 0x7F80; }

/// The value of a 16-bit type's bits, exactly.
template <DType kTypeT>
constexpr float float_of(std::uint16_t bits) noexcept {
  static_assert(size_of(kTypeT) == 2);
  if constexpr (kTypeT == DType::bf16) {
    return std::bit_cast<float>(std::uint32_t{bits} << 16);
  } else {
    const std::uint32_t magnitude = bits & 0x7FFFu;
    const bool is_finite = magnitude < infinity_bits(DType::f16);
    const float value = is_finite ? std::bit_cast<float>(magnitude << 13) * 0x1p112f
                                  : std::bit_cast<float>(magnitude << 13 | 0x7F800000u);
    return (bits & 0x8000u) != 0 ? -value : value;
  }
}

/// Turns `count` values of type T, which need not be aligned, into values of type Wide. They may lie at the
/// end of the place of the wide ones: value i is read before anything is written over it.
template <class T, class Wide, class F>
void widen_each(const void* values, std::int64_t count, void* wide, const F& convert) noexcept {
  const auto* const from = static_cast<const std::byte*>(values);
  auto* const to = static_cast<std::byte*>(wide);
  for (std::int64_t i = 0; i < count; ++i) {
    T narrow;
    std::memcpy(&narrow, from + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    const Wide value = convert(narrow);
    std::memcpy(to + i * static_cast<std::int64_t>(sizeof(Wide)), &value, sizeof(Wide));
  }
}

/// The same of values of a dtype as f64, exactly.
inline void widen_to_f64(DType dtype, const void* values, std::int64_t count, void* wide) noexcept {
  with_dtype(dtype, [&]<DType kTypeT>() {
    if constexpr (kTypeT == DType::f64) {
      if (values != wide) widen_each<double, double>(values, count, wide, [](double x) { return x; });
    }
    if constexpr (kTypeT == DType::f32)
      widen_each<float, double>(values, count, wide, [](float x) { return x; });
    if constexpr (size_of(kTypeT) == 2)
      widen_each<std::uint16_t, double>(values, count, wide, float_of<kTypeT>);
  });
}

}  // namespace bragg::detail
