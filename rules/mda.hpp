// SPDX-License-Identifier: Apache-2.0
// Minimum-diameter averaging, El Mhamdi et al. 2018: which rows to average. Host only.
#pragma once

#include <bragg/error.hpp>
#include <cstdint>

namespace bragg::detail {

/// What the search for the subset may cost, in machine words of adjacency read: a few seconds.
inline constexpr std::int64_t mda_work_limit = 2'000'000'000;

/// keep[i] = 1 for the m−f finite points of least diameter, the lexicographically first set of those that
/// share it, else 0. `squared_distances`: m × m, symmetric, row stride ld, read between finite points only.
/// At most f points are infinite, 2f < m. too_large: mda_work_limit is spent, nothing is kept.
Status solve_mda(const double* squared_distances, int m, int ld, const std::uint8_t* infinite, int f,
                 std::uint8_t* keep);

}  // namespace bragg::detail
