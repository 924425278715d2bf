// SPDX-License-Identifier: Apache-2.0
// Uniform numbers from a counter.
#pragma once

#include <cstdint>

#include "rules/bucketing.hpp"

namespace bragg::detail {

/// Four numbers in (0, 1), never 0, whose logarithm Box–Muller takes: Philox4x32-10 of the seed.
inline void draw_uniform(std::uint64_t seed, std::uint64_t block, double (&to)[4]) {
  std::uint32_t words[4] = {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), 0, 0};
  philox(words, static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
  for (int k = 0; k < 4; ++k) to[k] = (static_cast<double>(words[k]) + 0.5) * 0x1p-32;
}

/// The k-th of them all.
inline double uniform_at(std::uint64_t seed, std::uint64_t k) {
  double drawn[4];
  draw_uniform(seed, k / 4, drawn);
  return drawn[k % 4];
}

}  // namespace bragg::detail
