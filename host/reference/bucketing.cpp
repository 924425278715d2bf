// SPDX-License-Identifier: Apache-2.0
// Bucketing, Karimireddy et al. 2022; its permutation by Fisher–Yates from Philox4x32-10, Salmon et al. 2011.
#include <algorithm>
#include <numeric>
#include <utility>

#include "host/reference/rules.hpp"

namespace bragg::reference {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t left = 0xD2511F53ULL * counter[0];
    const std::uint64_t right = 0xCD9E8D57ULL * counter[2];
    counter = {
        static_cast<std::uint32_t>(right >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(right),
        static_cast<std::uint32_t>(left >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(left)};
    key[0] += 0x9E3779B9U;
    key[1] += 0xBB67AE85U;
  }
  return counter;
}

std::vector<int> draw_permutation(int n, std::uint64_t seed, std::uint64_t round) {
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  const auto word = [&](std::uint32_t k) {
    return philox({k / 4, 0, low(round), high(round)}, {low(seed), high(seed)})[k % 4];
  };
  std::vector<int> permutation(static_cast<std::size_t>(n));
  std::iota(permutation.begin(), permutation.end(), 0);
  std::uint32_t k = 0;
  for (int i = n - 1; i >= 1; --i) {
    const std::uint64_t j = (std::uint64_t{word(k++)} * (static_cast<std::uint64_t>(i) + 1)) >> 32;
    std::swap(permutation[i], permutation[j]);
  }
  return permutation;
}

template <>
void apply(const Bucketing& rule, Stage& stage) {
  const int n = stage.n();
  const std::vector<int> permutation =
      rule.permutation.empty() ? draw_permutation(n, rule.seed, stage.round) : rule.permutation;
  std::vector<Point> buckets;
  for (int begin = 0; begin < n; begin += rule.s) {
    const std::vector<int> members(permutation.begin() + begin,
                                   permutation.begin() + std::min(begin + rule.s, n));
    Point bucket = mean_of(stage, members);
    // The bucket weighs what its finite rows weigh together; one of infinite rows only, what those weigh.
    bucket.infinite =
        std::all_of(members.begin(), members.end(), [&](int i) { return stage.points[i].infinite; });
    bucket.weight = 0;
    for (const int i : members) {
      if (stage.points[i].infinite == bucket.infinite) bucket.weight += stage.points[i].weight;
    }
    bucket.label = static_cast<int>(buckets.size());
    buckets.push_back(std::move(bucket));
  }
  stage.points = std::move(buckets);
}

}  // namespace bragg::reference
