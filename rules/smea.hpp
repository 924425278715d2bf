// SPDX-License-Identifier: Apache-2.0
// Smallest maximum eigenvalue averaging, Allouah et al. 2023: which rows to average. Host only.
#pragma once

#include "rules/rule.hpp"

namespace bragg::detail {

/// Subsets of n−f rows that may have to be compared, C(n, f).
inline constexpr double smea_subset_limit = 2e6;
/// And their cost in the worst case, C(n, f)·(n−f)³: some tens of seconds. It binds above n ≈ 64.
inline constexpr double smea_work_limit = 1.5e11;

/// That cost.
double smea_work(int n, int f);

/// Whether n rows, f of them bad, are beyond either limit.
bool smea_is_too_large(int n, int f);

/// @throws Error too_large if they are.
void need_few_subsets(const Smea& rule, const StagePoints& points);

/// keep[i] = 1 for the m−f finite points whose covariance has the least top eigenvalue, the lexicographically
/// first set of those within a relative 1e-12 of it, else 0. `gram`: inner products, symmetric, row stride
/// ld, read between finite points only. At most f points are infinite, 2f < m. too_large: as
/// smea_is_too_large(m, f).
Status solve_smea(const double* gram, int m, int ld, const std::uint8_t* infinite, int f, std::uint8_t* keep);

Status search(const Smea& rule, const Points& points, double* scratch, std::uint8_t* keep);

template <>
struct RuleOf<Smea> : SearchedRule<Smea> {
  static constexpr RuleText text{
      .name = "smea",
      .definition = "mean of the n−f rows whose covariance has the least top eigenvalue, exactly",
      .needs = "n ≥ 2f+1, at most 2000000 subsets of n−f rows",
      .guarantee = "(f, κ)-robust",
      .source = "Allouah et al. 2023"};
  static constexpr std::tuple parameters{tolerated(&Smea::f, "0 ≤ f, 2f < n")};
  static constexpr std::array examples = {"smea(f=F)"};

  static void check(const Smea& rule, const StagePoints& points) {
    need_majority(text.name, rule.f, points);
    need_few_subsets(rule, points);
  }
  static double work(const Smea& rule, int n) { return smea_work(n, rule.f); }
};

}  // namespace bragg::detail
