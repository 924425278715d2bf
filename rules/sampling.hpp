// SPDX-License-Identifier: Apache-2.0
// Which coordinates a rule judges points by that judges them by some, drawn afresh each run.
#pragma once

#include <cstdint>

#include "rules/philox.hpp"

namespace bragg::detail {

/// `count` samples of `size` distinct coordinates each, or of all where there are no more; count 0: none.
struct Sampling {
  int count = 0;
  std::int64_t size = 0;
  std::uint64_t seed = 0;

  BRAGG_HD std::int64_t of(std::int64_t d) const { return d < size ? d : size; }
};

/// Coordinate number k of sample t of [0, d): k itself where all are taken, else its image under a
/// permutation of [0, d). That is a Feistel network of six rounds on the least even number of bits, at least
/// 2, that d−1 fits in, walked until it is back in [0, d). Its round function: the first word of
/// Philox4x32-10 for the counter (half, 1 + 6t + Feistel round, run) and the seed as the key.
BRAGG_HD inline std::int64_t sampled_coordinate(const Sampling& sampling, std::uint64_t run, int t,
                                                std::int64_t d, std::int64_t k) {
  constexpr std::uint32_t rounds = 6;
  if (sampling.of(d) == d) return k;
  int half = 1;
  while (half < 32 && (std::uint64_t{1} << (2 * half)) < static_cast<std::uint64_t>(d)) ++half;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  auto x = static_cast<std::uint64_t>(k);
  do {
    std::uint64_t left = x >> half;
    std::uint64_t right = x & mask;
    BRAGG_HD_UNROLL(1)
    for (std::uint32_t round = 0; round < rounds; ++round) {
      std::uint32_t words[4] = {static_cast<std::uint32_t>(right),
                                1 + rounds * static_cast<std::uint32_t>(t) + round,
                                static_cast<std::uint32_t>(run), static_cast<std::uint32_t>(run >> 32)};
      philox(words, static_cast<std::uint32_t>(sampling.seed),
             static_cast<std::uint32_t>(sampling.seed >> 32));
      const std::uint64_t next = (left ^ words[0]) & mask;
      left = right;
      right = next;
    }
    x = left << half | right;
  } while (x >= static_cast<std::uint64_t>(d));
  return static_cast<std::int64_t>(x);
}

}  // namespace bragg::detail
