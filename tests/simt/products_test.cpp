// SPDX-License-Identifier: Apache-2.0
// What `bragg bench --gram all` measures and compares on a device.
#include <gtest/gtest.h>
#include <bragg/bragg.hpp>

#include <map>

#include "host/bench/device_products.hpp"
#include "host/bench/gram_choices.hpp"
#include "tests/device/device_rows.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

using detail::cuda::GramUnit;

/// Rows that lie one behind the other, and begin anywhere.
std::vector<std::uint8_t> draw_rows(Generator& random, int n, std::int64_t d, DType dtype) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(n * d) * size_of(dtype));
  for (std::size_t k = 0; k < static_cast<std::size_t>(n * d); ++k) {
    store(dtype, bytes.data(), k, std::normal_distribution<double>(0, 1)(random));
  }
  return bytes;
}

/// Of row i with itself.
double square_of(const std::vector<std::uint8_t>& bytes, int i, std::int64_t d, DType dtype) {
  long double square = 0;
  for (std::int64_t k = 0; k < d; ++k) {
    const long double x = load(dtype, bytes.data(), static_cast<std::size_t>(i * d + k));
    square += x * x;
  }
  return static_cast<double>(square);
}

TEST(Products, OfEveryChoiceAgree) {
  Generator random = generator("products by every choice");
  for (const int n : {2, 7, 20, 50}) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      const std::int64_t d = 1500 + static_cast<std::int64_t>(random() % 200);
      const std::vector<std::uint8_t> bytes = draw_rows(random, n, d, dtype);
      const DeviceArray<std::uint8_t> rows(bytes);
      const detail::cuda::OwnStream stream;
      std::vector<double> first;
      for (const std::string& choice : bench::gram_choices()) {
        const GramUnit unit = detail::cuda::gram_unit_of(choice.c_str());
        const detail::cuda::GramUnitScope by(unit);
        ASSERT_EQ(detail::cuda::gram_unit(0, n), unit);
        const bench::DeviceProducts pass(rows.data(), n, d, dtype, true, stream.get());
        pass.enqueue(stream.get());
        const std::vector<double> products = pass.take(stream.get());
        if (first.empty()) first = products;
        EXPECT_LE(bench::share_of_bound(products, first, n), 1) << choice << ", n = " << n;
        for (int i = 0; i < n; ++i) {  // products of these rows, and not of others
          EXPECT_NEAR(products[static_cast<std::size_t>(i * n + i)], square_of(bytes, i, d, dtype), 1e-9)
              << choice << ", row " << i;
        }
        // The scope is what chooses. Sums of few products of 16 bits are often exact whoever makes them.
        if (unit == GramUnit::tensor || !has_kernel(unit, n, dtype)) {
          EXPECT_EQ(products, first) << choice;
        } else if (dtype == DType::f32 && n > 2) {
          EXPECT_NE(products, first) << choice;
        }
      }
    }
  }
}

/// Whoever is asked for, there are two kernels: f64's, and that of pairs of floats.
TEST(Products, OfRowsWithThemselvesAgreeAndAreAllThereIs) {
  Generator random = generator("lengths by every choice");
  for (const int n : {1, 6, 50}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::f64}) {
      const std::int64_t d = 1500 + static_cast<std::int64_t>(random() % 200);
      const std::vector<std::uint8_t> bytes = draw_rows(random, n, d, dtype);
      const DeviceArray<std::uint8_t> rows(bytes);
      const detail::cuda::OwnStream stream;
      std::map<GramUnit, std::vector<double>> by_kernel;
      for (const std::string& choice : bench::gram_choices()) {
        SCOPED_TRACE(testing::Message() << choice << ", n = " << n << ", " << to_string(dtype));
        const GramUnit unit = detail::cuda::gram_unit_of(choice.c_str());
        const detail::cuda::GramUnitScope by(unit);
        const bench::DeviceProducts pass(rows.data(), n, d, dtype, false, stream.get());
        pass.enqueue(stream.get());
        const std::vector<double> lengths = pass.take(stream.get());
        for (int i = 0; i < n; ++i) {
          for (int j = 0; j < n; ++j) {
            EXPECT_NEAR(lengths[static_cast<std::size_t>(i * n + j)],
                        i == j ? square_of(bytes, i, d, dtype) : 0, i == j ? 1e-9 : 0)
                << i << ", " << j;
          }
        }
        const auto [known, is_new] = by_kernel.emplace(unit_of_lengths(unit, dtype), lengths);
        EXPECT_EQ(known->second, lengths);
        EXPECT_LE(bench::share_of_bound(lengths, by_kernel.at(GramUnit::tensor), n), 1);
        if (is_new && unit != GramUnit::tensor && dtype == DType::f32 && n == 50) {
          EXPECT_NE(lengths, by_kernel.at(GramUnit::tensor));
        }
      }
      EXPECT_EQ(by_kernel.size(), dtype == DType::f64 ? 1U : 2U);
    }
  }
}

TEST(Products, AreComparedWithThoseOfTheirKind) {
  bench::FirstProducts first;
  std::vector<double>& pairs = first.of(parse("krum(f=1)"), 3);
  std::vector<double>& lengths = first.of(parse("cge(f=1)"), 3);
  EXPECT_NE(&pairs, &lengths);
  EXPECT_EQ(&first.of(parse("geometric_median"), 3), &pairs);
  EXPECT_EQ(&first.of(parse("clip(c=1) | median"), 3), &lengths);
  EXPECT_EQ(&first.of(parse("nnm(f=1) | cge(f=1)"), 3), &pairs);
  EXPECT_TRUE(lengths.empty());
  // Kernels of lengths are held against those of pairs, if these came first.
  pairs = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  EXPECT_EQ(first.of(parse("cge(f=1)"), 3), (std::vector<double>{1, 0, 0, 0, 5, 0, 0, 0, 9}));
  lengths = {7};
  EXPECT_EQ(first.of(parse("cge(f=1)"), 3), std::vector<double>{7});
  EXPECT_EQ(pairs.size(), 9U);
}

/// Who computes the products of a plan is decided when it is made.
TEST(Products, OfAPlanAreByTheChoiceThatItWasMadeWith) {
  Generator random = generator("a plan's choice");
  constexpr int n = 20;
  constexpr std::int64_t d = 1500;
  std::vector<float> values(n * d);
  for (float& x : values) x = std::normal_distribution<float>(0, 1)(random);
  const DeviceArray<float> rows(values), out{std::vector<float>(d)};
  const Updates updates = Updates::matrix(rows.data(), n, d, DType::f32, -1, MemorySpace::cuda);
  const detail::cuda::OwnStream stream;
  const auto made_by = [](GramUnit unit) {
    const detail::cuda::GramUnitScope by(unit);
    return Plan(parse("krum(f=4)"), {.n = n, .sizes = {d}}, {.device = Device::cuda});
  };
  const auto scores_of = [&](Plan plan) {
    plan.run(updates, Output(out.data()), stream.get());
    EXPECT_EQ(plan.wait(stream.get()), Status::ok);
    std::vector<double> scores;
    for (const RowReport& row : plan.report().rows) scores.push_back(row.score);
    return scores;
  };
  const std::vector<double> by_tensor = scores_of(made_by(GramUnit::tensor));
  const std::vector<double> by_floats = scores_of(made_by(GramUnit::double_float));
  EXPECT_NE(by_tensor, by_floats);
  const GramUnit own = detail::cuda::gram_unit(0, n);
  EXPECT_EQ(scores_of(made_by(GramUnit::automatic)), scores_of(made_by(own)));
  Plan made_by_none = made_by(GramUnit::automatic);
  const std::vector<double> by_none = scores_of(made_by(GramUnit::automatic));
  const GramUnit other = own == GramUnit::tensor ? GramUnit::int8 : GramUnit::tensor;
  const detail::cuda::GramUnitScope others(other);
  EXPECT_EQ(scores_of(made_by(GramUnit::tensor)), by_tensor);
  EXPECT_EQ(scores_of(std::move(made_by_none)), by_none);
}

TEST(Products, AScopeEndsWithItself) {
  const GramUnit before = detail::cuda::gram_unit(0, 20);
  {
    const detail::cuda::GramUnitScope outer(GramUnit::double_float);
    {
      const detail::cuda::GramUnitScope inner(GramUnit::tensor);
      EXPECT_EQ(detail::cuda::gram_unit(0, 20), GramUnit::tensor);
    }
    EXPECT_EQ(detail::cuda::gram_unit(0, 20), GramUnit::double_float);
    const detail::cuda::GramUnitScope none(GramUnit::automatic);
    EXPECT_EQ(detail::cuda::gram_unit(0, 20), before);
  }
  EXPECT_EQ(detail::cuda::gram_unit(0, 20), before);
}

}  // namespace
}  // namespace bragg::test
