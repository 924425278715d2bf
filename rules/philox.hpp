// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "rules/solve/team.hpp"

namespace bragg::detail {

/// Philox4x32-10 (Salmon et al. 2011): four words for one counter.
BRAGG_HD inline void philox(std::uint32_t (&counter)[4], std::uint32_t key0, std::uint32_t key1) {
  BRAGG_HD_UNROLL(1)
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = static_cast<std::uint64_t>(0xD2511F53u) * counter[0];
    const std::uint64_t b = static_cast<std::uint64_t>(0xCD9E8D57u) * counter[2];
    const std::uint32_t next[4] = {
        static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<std::uint32_t>(a)};
    for (int k = 0; k < 4; ++k) counter[k] = next[k];
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

}  // namespace bragg::detail
