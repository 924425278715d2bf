// SPDX-License-Identifier: Apache-2.0
// Bucketing, Karimireddy et al. 2022.
#pragma once

#include "rules/philox.hpp"
#include "rules/rule.hpp"

namespace bragg::detail {

/// Bucketing as a solver needs it: which permutation, or how to draw it.
struct BucketingDraw {
  int s = 1;
  std::uint64_t seed = 0;
  std::uint64_t round = 0;
  const std::uint64_t* rounds = nullptr;  ///< where the round is read from instead, or null
  const int* permutation = nullptr;       ///< null: drawn
};

/// Fisher–Yates from the top: the word for position i is word n−1−i of the stream of counters (k/4, 0,
/// round).
BRAGG_HD inline void draw_permutation(const BucketingDraw& draw, int n, int* permutation) {
  std::uint32_t words[4] = {};
  const std::uint64_t turn = draw.rounds != nullptr ? *draw.rounds : draw.round;
  // Not words[k]: such an index would put them into a kernel's local memory.
  const auto word = [&](int k) {
    return k == 0 ? words[0] : k == 1 ? words[1] : k == 2 ? words[2] : words[3];
  };
  BRAGG_HD_UNROLL(1)
  for (int i = 0; i < n; ++i) permutation[i] = i;
  BRAGG_HD_UNROLL(1)
  for (int i = n - 1, k = 0; i > 0; --i, ++k) {
    if (k % 4 == 0) {
      words[0] = static_cast<std::uint32_t>(k / 4);
      words[1] = 0;
      words[2] = static_cast<std::uint32_t>(turn);
      words[3] = static_cast<std::uint32_t>(turn >> 32);
      philox(words, static_cast<std::uint32_t>(draw.seed), static_cast<std::uint32_t>(draw.seed >> 32));
    }
    const auto j = static_cast<int>(
        (static_cast<std::uint64_t>(word(k % 4)) * (static_cast<std::uint64_t>(i) + 1)) >> 32);
    const int other = permutation[i];
    permutation[i] = permutation[j];
    permutation[j] = other;
  }
}

template <class TeamT>
BRAGG_HD Status transform(TeamT team, const BucketingDraw& draw, const Points& points, Scratch scratch,
                          Transform& out) {
  const int m = points.count;
  const int* permutation = draw.permutation;
  if (permutation == nullptr) {
    int* const drawn = scratch.take_ints(static_cast<std::size_t>(m));
    team.single([&] { draw_permutation(draw, m, drawn); });
    permutation = drawn;
  }
  const int s = draw.s < m ? draw.s : m;
  out.count = (m + s - 1) / s;
  out.weighted = points.weights != nullptr;
  team.parallel_for(out.count, [&](int b) {
    const int* const bucket = permutation + static_cast<std::size_t>(b) * s;
    const int length = (b + 1) * s <= m ? s : m - b * s;
    mean_of(points, bucket, length, out.coefficients + static_cast<std::size_t>(b) * points.size);
    double finite_weight = 0;
    double weight = 0;
    bool any_finite = false;
    BRAGG_HD_UNROLL(1)
    for (int k = 0; k < length; ++k) {
      weight += points.weight(bucket[k]);
      if (!points.finite(bucket[k])) continue;
      any_finite = true;
      finite_weight += points.weight(bucket[k]);
    }
    out.infinite[b] = !any_finite;
    if (out.weighted) out.weights[b] = any_finite ? finite_weight : weight;
  });
  return Status::ok;
}

template <>
struct RuleOf<Bucketing> : PreAggregatingRule<Bucketing> {
  static constexpr RuleText text{.name = "bucketing",
                                 .definition = "the rows, permuted, become ⌈n/s⌉ means of s rows each",
                                 .needs = "1 ≤ s ≤ n; the next rule must stand ⌈n/s⌉ rows",
                                 .guarantee = "that of the rule after it for ⌈n/s⌉ rows, f of them bad",
                                 .source = "Karimireddy et al. 2022"};
  static constexpr std::tuple parameters{
      required(&Bucketing::s, "s", "1 ≤ s ≤ n", "rows in a bucket"),
      parameter(&Bucketing::seed, "seed", "0 ≤ seed < 2^64", "of the permutations, one drawn each run"),
      derived(&Bucketing::permutation, "permutation", "drawn", "each of 0 to n−1 once",
              "the permutation to use")};
  static constexpr bool merges = true;
  static constexpr bool regroups = true;
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"bucketing(s=1, seed=7) | trimmed_mean(f=F)",
                                          "bucketing(s=2, seed=7) | median",
                                          "bucketing(s=2, seed=9) | geometric_median"};

  static void check(const Bucketing& rule, const StagePoints& points) {
    need_between(text.name, "s", rule.s, 1, points.n, "1 ≤ s ≤ n");
    need_permutation(text.name, "permutation", rule.permutation, points);
  }
  static Memory memory(const Bucketing&) { return Memory::round; }
  static int points_after(const Bucketing& rule, int n) {
    return rule.s < 1 ? n : n / rule.s + (n % rule.s != 0 ? 1 : 0);
  }
  static int points_in_one(const Bucketing& rule, int n) { return rule.s < n ? rule.s : n; }
  using OnBlock = BucketingDraw;
  static OnBlock on_block(const Bucketing& rule, const SequenceInputs& inputs, std::size_t stage) {
    const int* const own = rule.permutation.empty() ? nullptr : rule.permutation.data();
    return {.s = rule.s,
            .seed = rule.seed,
            .round = inputs.round,
            .rounds = inputs.rounds,
            .permutation = inputs.permutations.empty() ? own : inputs.permutations[stage]};
  }
};

}  // namespace bragg::detail
