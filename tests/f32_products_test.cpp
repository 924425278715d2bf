// SPDX-License-Identifier: Apache-2.0
// Products in f32 where the order of distances decides: results are those of products in f64, bit for bit,
// and f32 is taken where it tells them.
#include "host/plan/bounded_distances.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <limits>

#include "host/cpu/kernels.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

using detail::f32_limits;
using detail::F32Limits;
using verify::Layout;

/// Limits for as long as it lives.
class Limits {
 public:
  explicit Limits(F32Limits limits) { f32_limits() = limits; }
  Limits(const Limits&) = delete;
  Limits& operator=(const Limits&) = delete;
  ~Limits() { f32_limits() = {}; }
};
constexpr F32Limits always{.rows = 2, .coordinates = 1};
constexpr F32Limits never{.rows = std::numeric_limits<int>::max(), .coordinates = 1};

/// Above what products in f64 err by, below what those in f32 do.
constexpr double between = 0x1p-20;

struct Compared {
  int f32 = 0;      ///< results that products in f32 told
  int f64 = 0;      ///< that took all products in f64
  int results = 0;  ///< that there were at all
};

void compare(const std::string& text, const Request& request, Compared& seen) {
  const Pipeline pipeline = parse(text);
  Outcome ranked, exact;
  {
    const Limits limits(always);
    ranked = run(pipeline, request);
  }
  {
    const Limits limits(never);
    exact = run(pipeline, request);
  }
  const std::string where = text + ", n = " + std::to_string(request.rows.size());
  ASSERT_EQ(ranked.status, exact.status) << where;
  EXPECT_EQ(ranked.bytes, exact.bytes) << where;
  ASSERT_EQ(ranked.reports.size(), exact.reports.size());
  for (std::size_t p = 0; p < exact.reports.size(); ++p) {
    const Report& a = ranked.reports[p];
    const Report& b = exact.reports[p];
    EXPECT_EQ(a.recentred, b.recentred) << where;
    EXPECT_LE(b.distance_error, between) << where;
    if (b.status == Status::ok) ++(a.distance_error > between ? seen.f32 : seen.f64);
    for (std::size_t i = 0; i < b.rows.size(); ++i) {
      EXPECT_EQ(a.rows[i].weight, b.rows[i].weight) << where << ", row " << i;
      EXPECT_EQ(a.rows[i].selected, b.rows[i].selected) << where << ", row " << i;
      EXPECT_EQ(a.rows[i].nonfinite, b.rows[i].nonfinite) << where << ", row " << i;
      EXPECT_EQ(std::isfinite(a.rows[i].score), std::isfinite(b.rows[i].score)) << where << ", row " << i;
      if (std::isfinite(b.rows[i].score)) {
        EXPECT_NEAR(a.rows[i].score, b.rows[i].score, 1e-4 * std::abs(b.rows[i].score)) << where;
      }
    }
  }
  seen.results += exact.status == Status::ok ? 1 : 0;
}

std::vector<std::string> pipelines(int f) {
  const std::string F = std::to_string(f);
  return {"krum(f=" + F + ")",
          "krum(f=" + F + ", neighbors=1)",
          "multi_krum(f=" + F + ")",
          "multi_krum(f=" + F + ", m=2)",
          "nnm(f=" + F + ") | mean",
          "nnm(f=" + F + ") | median",
          "nnm(f=" + F + ") | trimmed_mean(f=" + F + ")"};
}

Request request_of(Rows rows, DType dtype) {
  Request request;
  request.rows = std::move(rows);
  request.dtype = dtype;
  return request;
}

/// By all pipelines that tolerate f bad rows.
void compare_all(const Request& request, int f, Compared& seen) {
  for (const std::string& text : pipelines(f)) compare(text, request, seen);
}

/// The same in every dtype whose products f32 may take.
void compare_narrow(const Rows& rows, int f, Compared& seen) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16})
    compare_all(request_of(rows, dtype), f, seen);
}

class F32Products : public testing::Test {
 protected:
  void SetUp() override {
    if (!detail::cpu::has_gram_f32()) GTEST_SKIP() << "this processor has no fused multiply-add";
  }
  std::mt19937_64 random{session_seed()};
};

TEST_F(F32Products, F32TellsTheOrderOfOrdinaryRows) {
  Compared seen;
  for (int round = 0; round < 6; ++round) {
    const int n = 7 + static_cast<int>(random() % 30);
    const int d = 1 + static_cast<int>(random() % 3000);
    Rows rows = normal_rows(random, n, d, 0, 1);
    // Of unlike lengths, as gradients of unlike workers are.
    for (auto& row : rows) {
      const double length = std::exp2(static_cast<double>(random() % 1000) / 500);
      for (auto& x : row) x *= length;
    }
    compare_narrow(rows, (n - 3) / 2, seen);
  }
  EXPECT_GT(seen.f32, 4 * seen.f64);
}

/// Rows that are not finite are nobody's neighbours; the others are compared as ever.
TEST_F(F32Products, RowsThatAreNotFiniteDoNotMatter) {
  Compared seen;
  for (int round = 0; round < 12; ++round) {
    const int n = 9 + static_cast<int>(random() % 20);
    const int f = (n - 3) / 2;
    Rows rows = normal_rows(random, n, 1 + static_cast<int>(random() % 3000), 0, 1);
    // Up to f of them, and once more than a rule stands.
    const int bad = round == 0 ? n - 2 : 1 + static_cast<int>(random() % static_cast<unsigned>(f));
    for (int i = 0; i < bad; ++i) {
      auto& row = rows[static_cast<std::size_t>((i * 2) % n)];
      row[random() % row.size()] = i % 2 == 0 ? std::numeric_limits<long double>::quiet_NaN()
                                              : -std::numeric_limits<long double>::infinity();
    }
    compare_narrow(rows, f, seen);
  }
  EXPECT_GT(seen.f32, seen.f64);
}

/// Squares that f32 holds with few digits, or none.
TEST_F(F32Products, WhatUnderflowsIsLeftToF64) {
  Compared seen;
  for (int exponent = -80; exponent < -55; ++exponent) {
    const int n = 7 + static_cast<int>(random() % 10);
    Rows rows = normal_rows(random, n, 200, 0, std::ldexp(1.0, exponent));
    compare_all(request_of(rows, DType::f32), (n - 3) / 2, seen);
  }
  EXPECT_GT(seen.f64, 0);
}

/// Overflow is the largest float where a processor is set to round toward zero, and no infinity.
TEST_F(F32Products, OverflowThatIsFiniteIsLeftToF64) {
  Compared seen;
  std::fesetround(FE_TOWARDZERO);
  for (int round = 0; round < 6; ++round) {
    Rows rows = normal_rows(random, 9, 2000, 0, 1e20);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (auto& x : rows[i]) x *= 1 + 0.02L * static_cast<long double>(i);
    }
    Request request = request_of(rows, DType::f32);
    request.options.threads = 1;
    compare_all(request, 2, seen);
  }
  std::fesetround(FE_TONEAREST);
  EXPECT_EQ(seen.f32, 0);
  EXPECT_GT(seen.f64, 0);
}

/// Distances that differ by less than what f32 errs by.
TEST_F(F32Products, NearTiesAreSettledInF64) {
  Compared seen;
  for (int round = 0; round < 40; ++round) {
    const int n = 7 + static_cast<int>(random() % 10);
    const int d = 64 + static_cast<int>(random() % 600);
    Rows rows = normal_rows(random, n, d, 0, 1);
    // Twins of a row, moved by about 2^-20 of its length, and some not moved at all.
    const int twins = 2 + static_cast<int>(random() % static_cast<unsigned>(n - 3));
    for (int t = 1; t < twins; ++t) {
      rows[static_cast<std::size_t>(t)] = rows[0];
      for (auto& x : rows[static_cast<std::size_t>(t)]) {
        if (random() % 4 == 0) x += std::ldexp(static_cast<long double>(random() % 64) - 32, -24);
      }
    }
    std::shuffle(rows.begin(), rows.end(), random);
    compare_all(request_of(rows, DType::f32), (n - 3) / 2, seen);
  }
  EXPECT_GT(seen.f32, 0);
  EXPECT_GT(seen.f64, 0);
}

/// Rows on a circle about 0 are in ties that rounding decides.
TEST_F(F32Products, TiesAreThoseOfF64) {
  Compared seen;
  for (int round = 0; round < 30; ++round) {
    const int n = 7 + static_cast<int>(random() % 20);
    const int d = 2 + static_cast<int>(random() % 40);
    Rows rows(static_cast<std::size_t>(n), std::vector<long double>(static_cast<std::size_t>(d)));
    for (auto& row : rows) {
      for (auto& x : row) x = static_cast<long double>(random() % 3) - 1;
    }
    compare_narrow(rows, (n - 3) / 2, seen);
  }
}

TEST_F(F32Products, WhatF32CannotHoldIsLeftToF64) {
  const long double values[] = {1e30L, 1e-30L, 3e38L, 1e-44L, 0, 1, -1e19L, 2e-20L};
  Compared seen;
  for (int round = 0; round < 40; ++round) {
    const int n = 7 + static_cast<int>(random() % (round % 4 == 0 ? 60 : 8));
    const int d = 1 + static_cast<int>(random() % 200);
    Rows rows = normal_rows(random, n, d, 0, 1);
    const int odd = 1 + static_cast<int>(random() % static_cast<unsigned>(n));
    for (int i = 0; i < odd; ++i) {
      const long double scale = values[random() % std::size(values)];
      for (auto& x : rows[static_cast<std::size_t>(i)]) x *= scale;
    }
    if (round % 3 == 0) rows.back()[0] = std::numeric_limits<long double>::quiet_NaN();
    if (round % 5 == 0)
      rows[n / 2][static_cast<std::size_t>(d) - 1] = -std::numeric_limits<long double>::infinity();
    compare_all(request_of(rows, DType::f32), (n - 3) / 2, seen);
  }
  EXPECT_GT(seen.results, 0);
}

TEST_F(F32Products, ACommonOffsetIsLeftToF64) {
  Compared seen;
  const Rows rows = normal_rows(random, 12, 300, 1000, 1);
  compare_all(request_of(rows, DType::f32), 3, seen);
  EXPECT_EQ(seen.f32, 0);
  EXPECT_GT(seen.f64, 0);
}

/// Several tensors, of several dtypes, some not judged, per tensor or whole.
TEST_F(F32Products, TensorsAndScopes) {
  Compared seen;
  for (int round = 0; round < 10; ++round) {
    const int n = 9 + static_cast<int>(random() % 12);
    Request request = request_of(normal_rows(random, n, 700, 0, 1), DType::f32);
    request.layout = round % 3 == 0 ? Layout::rows : Layout::tensors;
    request.options.scope = round % 2 == 0 ? Scope::whole : Scope::per_tensor;
    request.options.threads = 1 + round % 3;
    compare_all(request, (n - 3) / 2, seen);
  }
  EXPECT_GT(seen.f32, 0);
}

/// What the bounds promise of products in f32, and that they have the same bits on every instruction set.
TEST_F(F32Products, ProductsInF32KeepTheirBound) {
  for (int round = 0; round < 20; ++round) {
    const int n = 1 + static_cast<int>(random() % 40);
    const auto d = static_cast<std::int64_t>(1 + random() % 20000);
    std::vector<float> data(static_cast<std::size_t>(n * d));
    for (float& x : data)
      x = std::ldexp(static_cast<float>(random() % 2001) - 1000, static_cast<int>(random() % 8));
    std::vector<const void*> rows;
    for (int i = 0; i < n; ++i) rows.push_back(data.data() + i * d);
    const detail::RowTable table{.inputs = n, .rows = n, .sizes = {&d, 1}, .data = rows.data()};
    detail::CpuPasses passes(n, 1 + round % 2);
    detail::GramSums exact, narrow_sums;
    exact.reset(n, true, 1);
    passes.gram(table, exact);
    narrow_sums.reset(n, true, 1);
    narrow_sums.f32 = true;
    passes.gram(table, narrow_sums);
    EXPECT_LT(narrow_sums.rounding, 0x1p-18);
    for (std::size_t i = 0; i < exact.products.size(); ++i) {
      const auto row = i / static_cast<std::size_t>(n);
      const auto column = i % static_cast<std::size_t>(n);
      const auto square = [&](std::size_t r) { return exact.products[r * static_cast<std::size_t>(n) + r]; };
      const double bound = (narrow_sums.rounding + exact.rounding) * std::sqrt(square(row) * square(column));
      EXPECT_LE(std::abs(narrow_sums.products[i] - exact.products[i]), bound);
    }
  }
}

}  // namespace
}  // namespace bragg::test
