// SPDX-License-Identifier: Apache-2.0
// The random numbers that updates are made of, the same on the CPU and on a CUDA device.
#pragma once

#include <bragg/updates.hpp>
#include <cstdint>
#include <type_traits>

#include "rules/solve/team.hpp"

namespace bragg::bench {

/// Four uniform numbers of 16 bits added up, of mean 0 and deviation 1: bell-shaped enough.
BRAGG_HD inline float bell(std::uint64_t index) {
  std::uint64_t bits = index * 0x9E3779B97F4A7C15U;
  bits = (bits ^ (bits >> 30U)) * 0xBF58476D1CE4E5B9U;  // SplitMix64's output function
  bits = (bits ^ (bits >> 27U)) * 0x94D049BB133111EBU;
  bits ^= bits >> 31U;
  const auto sum = static_cast<double>((bits & 0xFFFFU) + ((bits >> 16U) & 0xFFFFU) +
                                       ((bits >> 32U) & 0xFFFFU) + (bits >> 48U));
  constexpr double mean = 2 * 65535.0;
  constexpr double deviation = 65536 * 0.5773502691896258;  // √(4/12) of a uniform number's range
  return static_cast<float>((sum - mean) / deviation);
}

/// Deviation of a row; row 0 has neither the smallest nor the largest.
BRAGG_HD inline float deviation_of(int row, int n) {
  const auto place = static_cast<int>((std::int64_t{row} * 7 + 3) % n);
  return static_cast<float>(1 + 0.5 * place / n);
}

/// Cut rather than rounded, and small ones to zero: any value is as random as another.
BRAGG_HD inline std::uint16_t to_f16(float value) {
  const auto bits = __builtin_bit_cast(std::uint32_t, value);
  const std::uint32_t sign = (bits >> 16U) & 0x8000U;
  const int exponent = static_cast<int>((bits >> 23U) & 0xFFU) - 127;
  if (exponent < -14) return static_cast<std::uint16_t>(sign);
  return static_cast<std::uint16_t>(sign | (static_cast<std::uint32_t>(exponent + 15) << 10U) |
                                    ((bits >> 13U) & 0x3FFU));
}

/// The type that holds a value of the dtype: a number, or the bits of one.
template <DType dtype>
using Bits = std::conditional_t<dtype == DType::f32, float,
                                std::conditional_t<dtype == DType::f64, double, std::uint16_t>>;

template <DType dtype>
BRAGG_HD Bits<dtype> bits_of(float value) {
  if constexpr (dtype == DType::f16) {
    return to_f16(value);
  } else if constexpr (dtype == DType::bf16) {
    return static_cast<std::uint16_t>(__builtin_bit_cast(std::uint32_t, value) >> 16U);
  } else {
    return value;
  }
}

}  // namespace bragg::bench
