// SPDX-License-Identifier: Apache-2.0
// Smallest maximum eigenvalue averaging, Allouah et al. 2023: which rows to average. Host only.
#pragma once

#include <bragg/error.hpp>
#include <cstdint>

namespace bragg::detail {

/// Subsets of n−f rows that may have to be compared, C(n, f).
inline constexpr double smea_subset_limit = 2e6;
/// And their cost in the worst case, C(n, f)·(n−f)³: some tens of seconds. It binds above n ≈ 64.
inline constexpr double smea_work_limit = 1.5e11;

/// Whether n rows, f of them bad, are beyond either limit.
bool smea_is_too_large(int n, int f);

/// keep[i] = 1 for the m−f finite points whose covariance has the least top eigenvalue, the lexicographically
/// first set of those within a relative 1e-12 of it, else 0. `gram`: inner products, symmetric, row stride
/// ld, read between finite points only. At most f points are infinite, 2f < m. too_large: as
/// smea_is_too_large(m, f).
Status solve_smea(const double* gram, int m, int ld, const std::uint8_t* infinite, int f, std::uint8_t* keep);

}  // namespace bragg::detail
