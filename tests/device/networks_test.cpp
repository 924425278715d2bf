// SPDX-License-Identifier: Apache-2.0
// The comparator networks that kernels have as constants, and those of the CPU, by the 0–1 principle: a
// network selects a rank of every input if it does of every input of zeros and ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "kernels/common/registers.cuh"
#include "rules/networks/network.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

using detail::Comparator;
using Words = std::vector<std::uint64_t>;  ///< a wire each; every bit is an input of its own

/// A network and the ranks that it is for.
struct Network {
  int points;
  int first;
  int last;
  std::vector<Comparator> list;
};

template <int kPoints, int kFirst, int kLast>
Network of_constant() {
  constexpr const auto& constant = detail::network::constant<kPoints, kFirst, kLast>;
  return {kPoints, kFirst, kLast, {constant.items, constant.items + constant.length}};
}

/// The networks that the kernels use.
std::vector<Network> constants() {
  std::vector<Network> networks;
  const auto add = [&]<int... kIndices>(std::integer_sequence<int, kIndices...>) {
    (networks.push_back(
         of_constant<detail::cuda::buckets[kIndices], 0, detail::cuda::buckets[kIndices] - 1>()),
     ...);
    (networks.push_back(of_constant<detail::cuda::buckets[kIndices], detail::cuda::buckets[kIndices] / 2 - 1,
                                    detail::cuda::buckets[kIndices] / 2>()),
     ...);
  };
  add(std::make_integer_sequence<int, static_cast<int>(std::size(detail::cuda::buckets))>());
  networks.push_back(of_constant<31, 0, 30>());
  networks.push_back(of_constant<63, 0, 62>());
  return networks;
}

Network at_run_time(int points, int first, int last) {
  std::vector<Comparator> list, other;
  std::vector<bool> needed(static_cast<std::size_t>(points));
  detail::network::make_selection(list, other, needed, points, first, last);
  return {points, first, last, list};
}

void apply(const Network& network, Words& wires) {
  for (const Comparator& c : network.list) {
    const std::uint64_t x = wires[c.low];
    const std::uint64_t y = wires[c.high];
    wires[c.low] = c.need_low ? x & y : ~x;  // what is not computed must not be read
    wires[c.high] = c.need_high ? x | y : ~y;
  }
}

void expect_selects(const Network& network, const Words& inputs) {
  std::array<int, 64> ones{};
  for (const std::uint64_t word : inputs) {
    for (std::size_t bit = 0; bit < 64; ++bit) ones[bit] += static_cast<int>((word >> bit) & 1);
  }
  Words wires = inputs;
  apply(network, wires);
  for (int rank = network.first; rank <= network.last; ++rank) {
    std::uint64_t want = 0;
    for (std::size_t bit = 0; bit < 64; ++bit) {
      if (rank >= network.points - ones[bit]) want |= std::uint64_t{1} << bit;
    }
    ASSERT_EQ(wires[static_cast<std::size_t>(rank)], want) << network.points << " points, rank " << rank;
  }
}

/// All 2^points inputs.
void expect_selects_all(const Network& network) {
  const std::uint64_t inputs = std::uint64_t{1} << network.points;
  for (std::uint64_t base = 0; base < inputs; base += 64) {
    Words wires(static_cast<std::size_t>(network.points));
    for (std::size_t w = 0; w < wires.size(); ++w) {
      for (std::uint64_t bit = 0; bit < 64; ++bit) wires[w] |= (((base + bit) % inputs) >> w & 1) << bit;
    }
    ASSERT_NO_FATAL_FAILURE(expect_selects(network, wires));
  }
}

/// Inputs whose number of ones decides the ranks: in runs that begin at every wire, and anywhere.
void expect_selects_many(const Network& network, int random_rounds, std::mt19937_64& random) {
  const int n = network.points;
  for (int ones = 0; ones <= n; ++ones) {
    for (int base = 0; base < n; base += 64) {
      Words wires(static_cast<std::size_t>(n), 0);
      for (int bit = 0; bit < 64; ++bit) {
        for (int k = 0; k < ones; ++k) {
          wires[static_cast<std::size_t>((base + bit + k) % n)] |= std::uint64_t{1} << bit;
        }
      }
      ASSERT_NO_FATAL_FAILURE(expect_selects(network, wires));
    }
  }
  std::vector<int> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (int round = 0; round < random_rounds; ++round) {
    Words wires(static_cast<std::size_t>(n), 0);
    for (std::uint64_t bit = 0; bit < 64; ++bit) {
      const int near = n - (bit % 2 == 0 ? network.first : network.last) + static_cast<int>(random() % 5) - 2;
      const int ones =
          bit % 4 == 0 ? static_cast<int>(random() % static_cast<unsigned>(n + 1)) : std::clamp(near, 0, n);
      std::shuffle(order.begin(), order.end(), random);
      for (int k = 0; k < ones; ++k) {
        wires[static_cast<std::size_t>(order[static_cast<std::size_t>(k)])] |= std::uint64_t{1} << bit;
      }
    }
    ASSERT_NO_FATAL_FAILURE(expect_selects(network, wires));
  }
}

/// Where both halves are sorted there are few inputs of zeros and ones: all pairs of numbers of ones.
void expect_merges(int points) {
  const int half = 64;
  Network merge{points, 0, points - 1, {}};
  detail::network::append_merge(merge.list, 0, 1, 2 * half, points);
  for (int low = 0; low <= half; ++low) {
    Words wires(static_cast<std::size_t>(points), 0);
    for (int high = 0; high < 64; ++high) {  // 64 ones above, too: see below
      for (int k = half - low; k < half; ++k) wires[static_cast<std::size_t>(k)] |= std::uint64_t{1} << high;
      const int ones = std::min(high, points - half);
      for (int k = points - ones; k < points; ++k) {
        wires[static_cast<std::size_t>(k)] |= std::uint64_t{1} << high;
      }
    }
    ASSERT_NO_FATAL_FAILURE(expect_selects(merge, wires));
    for (int k = half; k < points; ++k) wires[static_cast<std::size_t>(k)] = ~std::uint64_t{0};
    ASSERT_NO_FATAL_FAILURE(expect_selects(merge, wires));
  }
}

TEST(NetworksTest, SelectEveryZeroOneInputOfUpToTwentyPoints) {
  for (int points = 1; points <= 20; ++points) {
    ASSERT_NO_FATAL_FAILURE(expect_selects_all(at_run_time(points, 0, points - 1)));
    ASSERT_NO_FATAL_FAILURE(expect_selects_all(at_run_time(points, (points - 1) / 2, points / 2)));
    if (points > 16) continue;
    for (int f = 1; 2 * f < points; ++f) {
      ASSERT_NO_FATAL_FAILURE(expect_selects_all(at_run_time(points, f, points - 1 - f)));
    }
  }
  for (const Network& network : constants()) {
    if (network.points > 20) continue;
    ASSERT_NO_FATAL_FAILURE(expect_selects_all(network));
  }
}

TEST(NetworksTest, OfEveryBucketSelect) {
  Generator random = generator("networks of buckets");
  for (const Network& network : constants()) {
    ASSERT_NO_FATAL_FAILURE(expect_selects_many(network, 400, random));
  }
}

TEST(NetworksTest, OfEveryNumberOfPointsSelect) {
  Generator random = generator("networks at run time");
  for (int points = 1; points <= 140; ++points) {
    for (const int f : {0, points / 5, (points - 1) / 2}) {
      ASSERT_NO_FATAL_FAILURE(
          expect_selects_many(at_run_time(points, f, points - 1 - f), points <= 64 ? 20 : 4, random));
    }
  }
}

// With the sorting networks of 64 points and fewer, this proves those above.
TEST(NetworksTest, MergesSortEveryInputOfSortedHalves) {
  for (int points = 65; points <= 128; ++points) ASSERT_NO_FATAL_FAILURE(expect_merges(points));
}

TEST(NetworksTest, AreTheSameAtRunTime) {
  for (const Network& network : constants()) {
    const Network other = at_run_time(network.points, network.first, network.last);
    ASSERT_EQ(network.list.size(), other.list.size());
    for (std::size_t k = 0; k < other.list.size(); ++k) {
      const Comparator& a = network.list[k];
      const Comparator& b = other.list[k];
      ASSERT_TRUE(a.low == b.low && a.high == b.high && a.need_low == b.need_low &&
                  a.need_high == b.need_high);
    }
  }
}

}  // namespace
}  // namespace bragg::test
