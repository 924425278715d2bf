// SPDX-License-Identifier: Apache-2.0
// Minimum-diameter averaging, El Mhamdi et al. 2018: which rows to average. Host only.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

/// What the search for the subset may cost, in machine words of adjacency read: a few seconds.
inline constexpr std::int64_t mda_work_limit = 2'000'000'000;

/// keep[i] = 1 for the m−f finite points of least diameter, the lexicographically first set of those that
/// share it, else 0. `squared_distances`: m × m, symmetric, row stride ld, read between finite points only.
/// At most f points are infinite, 2f < m. too_large: mda_work_limit is spent, nothing is kept.
Status solve_mda(const double* squared_distances, int m, int ld, const std::uint8_t* infinite, int f,
                 std::uint8_t* keep);

/// `distances`: scratch, m².
Status search(const Mda& rule, const Points& points, double* distances, std::uint8_t* keep);

template <>
struct RuleOf<Mda> : SearchedRule<Mda> {
  static constexpr RuleText text{
      .name = "mda",
      .definition = "mean of the n−f rows whose largest distance from each other is least, exactly",
      .needs = "n ≥ 2f+1",
      .guarantee = "(f, κ)-robust",
      .source = "El Mhamdi et al. 2018; Farhadkhani et al. 2022"};
  static constexpr std::tuple parameters{tolerated(&Mda::f, "0 ≤ f, 2f < n")};
  static constexpr bool takes_weights = true;
  static constexpr std::array examples = {"mda(f=F)"};

  static void check(const Mda& rule, const StagePoints& points) { need_majority(text.name, rule.f, points); }
};

}  // namespace bragg::detail
