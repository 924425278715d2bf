// SPDX-License-Identifier: Apache-2.0
// What the ranks of a job must have alike, and how tests cut rows among them.
#pragma once

#include <gtest/gtest.h>
#include <bragg/error.hpp>
#include <bragg/report.hpp>
#include <bragg/sharded.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <vector>

namespace bragg::test {

enum class Kind {
  normal,
  hostile,   ///< NaN, infinity, and values far away
  constant,  ///< what rows have in common is large: distances are taken about a centre
  extreme,   ///< f64 rows need another scale
};

/// Bit for bit, but for what products in f32 have left in the two figures of one of them
/// (docs/numerics.md#products-in-f32-where-order-alone-decides).
inline void expect_same(std::span<const Report> got, std::span<const Report> expected,
                        const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  const auto same = [](double a, double b) {
    return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
  };
  for (std::size_t p = 0; p < got.size(); ++p) {
    EXPECT_EQ(got[p].status, expected[p].status) << what;
    EXPECT_EQ(got[p].iterations, expected[p].iterations) << what;
    EXPECT_EQ(got[p].converged, expected[p].converged) << what;
    EXPECT_EQ(got[p].recentred, expected[p].recentred) << what;
    const bool has_f32 = !expected[p].recentred && expected[p].distance_error > 0x1p-20;
    if (!has_f32) {
      EXPECT_TRUE(same(got[p].distance_error, expected[p].distance_error)) << what;
    }
    EXPECT_TRUE(same(got[p].optimality_gap, expected[p].optimality_gap)) << what;
    ASSERT_EQ(got[p].rows.size(), expected[p].rows.size()) << what;
    for (std::size_t i = 0; i < got[p].rows.size(); ++i) {
      const RowReport& a = got[p].rows[i];
      const RowReport& b = expected[p].rows[i];
      EXPECT_EQ(a.nonfinite, b.nonfinite) << what << ", row " << i;
      EXPECT_EQ(a.selected, b.selected) << what << ", row " << i;
      EXPECT_TRUE(same(a.weight, b.weight) && same(a.clip_factor, b.clip_factor)) << what << ", row " << i;
      if (has_f32 && std::isfinite(b.score)) {
        EXPECT_NEAR(a.score, b.score, 1e-4 * std::abs(b.score)) << what << ", row " << i;
      } else {
        EXPECT_TRUE(same(a.score, b.score)) << what << ", row " << i;
      }
    }
  }
}

inline Sharding sharding_of(int kind, const std::vector<std::int64_t>& sizes, int ranks) {
  if (kind == 0) return Sharding::even(sizes, ranks);
  if (kind == 1) return Sharding::each_tensor(sizes, ranks);
  std::vector<int> owner;
  for (std::size_t t = 0; t < sizes.size(); ++t) owner.push_back(static_cast<int>(3 * t) % ranks);
  return Sharding::owners(sizes, owner, ranks);
}

using Thrown = std::vector<std::exception_ptr>;

inline void expect_all_fine(const Thrown& thrown, const std::string& what) {
  for (const std::exception_ptr& one : thrown) {
    if (!one) continue;
    try {
      std::rethrow_exception(one);
    } catch (const std::exception& error) {
      ADD_FAILURE() << what << ": " << error.what();
    }
  }
}

/// What every rank throws, where one of them throws what is not of the transport.
inline void expect_thrown(const Thrown& thrown, Status status, const std::string& part) {
  for (const std::exception_ptr& one : thrown) {
    ASSERT_TRUE(one) << part;
    try {
      std::rethrow_exception(one);
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), status) << error.what();
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
}

}  // namespace bragg::test
