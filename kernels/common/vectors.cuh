// SPDX-License-Identifier: Apache-2.0
// 16 bytes of a row at a time: what a load holds, and storing runs of results.
#pragma once

#include "kernels/common/values.cuh"

namespace bragg::detail::cuda {

/// Elements of 16 bytes.
template <DType dtype>
inline constexpr int vector_elements = 16 / static_cast<int>(sizeof(Bits<dtype>));

BRAGG_DEVICE std::uint32_t word_of(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/// Element i; i is known at compile time wherever loops are unrolled.
template <DType dtype>
BRAGG_DEVICE Bits<dtype> element_of(const uint4& v, int i) {
  if constexpr (sizeof(Bits<dtype>) == 8) {
    return static_cast<std::uint64_t>(word_of(v, 2 * i + 1)) << 32 | word_of(v, 2 * i);
  } else if constexpr (sizeof(Bits<dtype>) == 4) {
    return word_of(v, i);
  } else {
    return static_cast<std::uint16_t>(word_of(v, i / 2) >> (16 * (i % 2)));
  }
}

/// Its value.
template <DType dtype>
BRAGG_DEVICE Value<dtype> value_at(const uint4& v, int i) {
  if constexpr (dtype == DType::bf16) {
    const std::uint32_t word = word_of(v, i / 2);
    return simt::float_of(i % 2 == 0 ? word << 16 : word & 0xFFFF0000u);
  } else {
    return value_of<dtype>(element_of<dtype>(v, i));
  }
}

/// Rounds `count` values (2, 4 or 8) and stores them at an address that is a multiple of their bytes or of
/// 16.
template <DType dtype, int count>
BRAGG_DEVICE void store_run(unsigned char* to, const double* values) {
  constexpr int words = count * static_cast<int>(sizeof(Bits<dtype>)) / 4;
  std::uint32_t word[words] = {};
  BRAGG_UNROLL
  for (int i = 0; i < count; ++i) {
    const Bits<dtype> bits = round_to<dtype>(values[i]);
    if constexpr (sizeof(Bits<dtype>) == 8) {
      word[2 * i] = static_cast<std::uint32_t>(bits);
      word[2 * i + 1] = static_cast<std::uint32_t>(bits >> 32);
    } else if constexpr (sizeof(Bits<dtype>) == 4) {
      word[i] = bits;
    } else {
      word[i / 2] |= static_cast<std::uint32_t>(bits) << (16 * (i % 2));
    }
  }
  if constexpr (words == 1) {
    *reinterpret_cast<std::uint32_t*>(to) = word[0];
  } else if constexpr (words == 2) {
    simt::store8(to, uint2{word[0], word[1]});
  } else {
    BRAGG_UNROLL
    for (int i = 0; i < words; i += 4) {
      simt::store16(to + 4 * i, uint4{word[i], word[i + 1], word[i + 2], word[i + 3]});
    }
  }
}

}  // namespace bragg::detail::cuda
