// SPDX-License-Identifier: Apache-2.0
// Data for tests, and the library's results on them for host/verify to judge.
#pragma once

#include <gtest/gtest.h>
#include <bragg/plan.hpp>

#include <cstdlib>
#include <random>
#include <string>

#include "host/plan/bounded_distances.hpp"
#include "host/verify/judge.hpp"
#include "tests/support/seed.hpp"
#include "tests/support/values.hpp"

namespace bragg::test {

/// One case in how many is run; BRAGG_TEST_SHARE, 1 where it is not set.
inline unsigned test_share() {
  const char* const given = std::getenv("BRAGG_TEST_SHARE");
  return given != nullptr ? std::max(1u, static_cast<unsigned>(std::strtoul(given, nullptr, 10))) : 1;
}

/// The same for tests of few cases, or of quick ones.
inline unsigned larger_share() { return std::max(1u, test_share() / 5); }

inline Rows normal_rows(std::mt19937_64& random, int n, int d, double mean, double deviation) {
  std::normal_distribution<double> normal(mean, deviation);
  Rows rows(static_cast<std::size_t>(n), std::vector<long double>(static_cast<std::size_t>(d)));
  for (auto& row : rows) {
    for (auto& value : row) value = normal(random);
  }
  return rows;
}

/// One aggregation by the library, on the backend under test. Half of all sessions try products in f32 on
/// shapes that are too small to gain by it.
inline Outcome run_library(const Pipeline& pipeline, Request request) {
  if (session_seed() % 2 == 1) detail::f32_limits() = {.rows = 2, .coordinates = 1};
#if defined(BRAGG_TEST_CUDA)
  request.options.device = Device::cuda;
#endif
  Outcome outcome = run(pipeline, request);
  EXPECT_EQ(outcome.trespass, "");
  return outcome;
}

}  // namespace bragg::test
