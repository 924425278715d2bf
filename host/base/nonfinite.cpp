// SPDX-License-Identifier: Apache-2.0
#include "host/base/nonfinite.hpp"

#include <cstddef>
#include <cstring>

namespace bragg::detail {

namespace {

/// Values whose exponent has all bits set.
template <class BitsT>
std::int64_t count_full(const void* data, std::int64_t count, BitsT exponent) noexcept {
  const auto* const values = static_cast<const std::byte*>(data);
  std::int64_t full = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    BitsT bits = 0;
    std::memcpy(&bits, values + i * static_cast<std::int64_t>(sizeof(BitsT)), sizeof(BitsT));
    full += (bits & exponent) == exponent ? 1 : 0;
  }
  return full;
}

}  // namespace

std::int64_t count_nonfinite(DType dtype, const void* values, std::int64_t count) noexcept {
  switch (dtype) {
    case DType::f32:
      return count_full<std::uint32_t>(values, count, 0x7F800000);
    case DType::f16:
      return count_full<std::uint16_t>(values, count, 0x7C00);
    case DType::bf16:
      return count_full<std::uint16_t>(values, count, 0x7F80);
    case DType::f64:
      break;
  }
  return count_full<std::uint64_t>(values, count, 0x7FF0000000000000);
}

}  // namespace bragg::detail
