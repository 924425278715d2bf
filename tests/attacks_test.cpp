// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <bragg/attacks.hpp>
#include <bragg/plan.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "tests/support/seed.hpp"

namespace bragg::attacks {
namespace {

template <class T>
std::span<const T> view(const std::vector<T>& values) {
  return values;
}

using Rows = std::vector<std::vector<double>>;

Updates updates(const Rows& rows) {
  std::vector<const void*> pointers;
  for (const std::vector<double>& row : rows) pointers.push_back(row.data());
  return Updates::rows(pointers, static_cast<std::int64_t>(rows[0].size()), DType::f64);
}

/// Rows of one spread about a mean that is `offset` times as long.
Rows random_rows(int n, std::size_t d, double offset, test::Generator& random) {
  std::normal_distribution<double> normal;
  std::vector<double> centre(d);
  for (double& x : centre) x = offset * normal(random);
  Rows rows;
  for (int i = 0; i < n; ++i) {
    rows.push_back(centre);
    for (double& x : rows.back()) x += normal(random);
  }
  return rows;
}

std::vector<long double> mean_of(const Rows& rows) {
  std::vector<long double> mean(rows[0].size());
  for (const std::vector<double>& row : rows) {
    for (std::size_t k = 0; k < mean.size(); ++k) mean[k] += row[k];
  }
  for (long double& x : mean) x /= static_cast<long double>(rows.size());
  return mean;
}

/// p, from its definition.
std::vector<long double> direction_of(const Rows& rows, Direction direction) {
  std::vector<long double> mean = mean_of(rows), p(mean.size());
  long double squares = 0;
  for (const long double x : mean) squares += x * x;
  for (std::size_t k = 0; k < p.size(); ++k) {
    long double variance = 0;
    for (const std::vector<double>& row : rows) variance += (row[k] - mean[k]) * (row[k] - mean[k]);
    p[k] = direction == Direction::unit   ? -mean[k] / std::sqrt(squares)
           : direction == Direction::sign ? (mean[k] > 0   ? -1
                                             : mean[k] < 0 ? 1
                                                           : 0)
                                          : -std::sqrt(variance / static_cast<long double>(rows.size()));
  }
  return p;
}

template <class A, class B>
long double squared_distance(const A& a, const B& b) {
  long double sum = 0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    const long double difference = static_cast<long double>(a[k]) - static_cast<long double>(b[k]);
    sum += difference * difference;
  }
  return sum;
}

constexpr Direction directions[] = {Direction::unit, Direction::std, Direction::sign};

TEST(Moments, AreThoseOfEachCoordinate) {
  // Columns 1 3 8 and −1 −1 −1: means 4 and −1, variances (9 + 1 + 16)/3 and 0.
  const std::vector<float> rows = {1, -1, 3, -1, 8, -1};
  const Moments found = moments(Updates::matrix(rows.data(), 3, 2, DType::f32));
  EXPECT_EQ(found.mean, (std::vector<double>{4, -1}));
  EXPECT_DOUBLE_EQ(found.deviation[0], std::sqrt(26.0 / 3));
  EXPECT_EQ(found.deviation[1], 0);
}

TEST(Moments, OfATensorListAreInItsOrder) {
  const std::vector<double> a = {1, 2}, b = {10}, c = {3, 4}, e = {30};
  const std::vector<std::vector<const void*>> rows = {{a.data(), b.data()}, {c.data(), e.data()}};
  const std::vector<std::int64_t> sizes = {2, 1};
  const Moments found = moments(Updates::tensors(rows, sizes, DType::f64));
  EXPECT_EQ(found.mean, (std::vector<double>{2, 3, 20}));
  EXPECT_EQ(found.deviation, (std::vector<double>{1, 1, 10}));
}

TEST(Moments, ReadSixteenBitTypes) {
  // f16: 1.5, the largest 65504, the least denormal 2^-24, −2.
  const std::vector<std::uint16_t> f16 = {0x3E00, 0x7BFF, 0x0001, 0xC000};
  EXPECT_EQ(moments(Updates::matrix(f16.data(), 1, 4, DType::f16)).mean,
            (std::vector<double>{1.5, 65504, 0x1p-24, -2}));
  const std::vector<std::uint16_t> f16_special = {0x7C00, 0xFC00, 0x7E00};
  const Moments special = moments(Updates::matrix(f16_special.data(), 1, 3, DType::f16));
  EXPECT_EQ(special.mean[0], INFINITY);
  EXPECT_EQ(special.mean[1], -INFINITY);
  EXPECT_TRUE(std::isnan(special.mean[2]));
  const std::vector<std::uint16_t> bf16 = {0x3FC0, 0xC000};
  EXPECT_EQ(moments(Updates::matrix(bf16.data(), 1, 2, DType::bf16)).mean, (std::vector<double>{1.5, -2}));
}

TEST(Attack, SignFlipScalesAndNegates) {
  const std::vector<float> x = {1, -2, 0.5F};
  EXPECT_EQ(sign_flip(view(x)), (std::vector<float>{-1, 2, -0.5F}));
  EXPECT_EQ(sign_flip(view(x), 10), (std::vector<float>{-10, 20, -5}));
  EXPECT_EQ(sign_flip<double>(Moments{{1, -2}, {5, 5}}, 3), (std::vector<double>{-3, 6}));
}

TEST(Attack, InnerProductManipulationIsAgainstTheMean) {
  EXPECT_EQ(inner_product_manipulation<double>(Moments{{1, -4}, {9, 9}}, 0.25),
            (std::vector<double>{-0.25, 1}));
}

TEST(Attack, ALittleIsEnoughIsZDeviationsFromTheMean) {
  EXPECT_EQ(a_little_is_enough<float>(Moments{{1, -4}, {2, 0.5}}, 1.5), (std::vector<float>{-2, -4.75F}));
}

TEST(Attack, StrengthsThatAreNoneAreRefused) {
  const Moments honest{{1, 2}, {1, 1}};
  const std::vector<double> x = {1, 2};
  const std::span<const double> row = x;
  for (const double none : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_THROW(sign_flip<double>(honest, none), Error);
    EXPECT_THROW(sign_flip<double>(row, none), Error);
    EXPECT_THROW(inner_product_manipulation<double>(honest, none), Error);
    EXPECT_THROW(a_little_is_enough<double>(honest, none), Error);
    EXPECT_THROW(rop<double>(honest, row, none), Error);
    EXPECT_THROW(gaussian<double>(2, none, 1), Error);
  }
  EXPECT_THROW(gaussian<double>(2, -1, 1), Error);
  EXPECT_EQ(gaussian<double>(2, 0, 1), (std::vector<double>{0, 0}));
}

TEST(Attack, ALittleIsEnoughTakesZFromTheNormalQuantile) {
  // (50, 24): s = 2, Φ⁻¹(24/26). The quantiles are those of Python's statistics.NormalDist.
  EXPECT_NEAR(alie_z(50, 24), 1.4260768722, 1e-9);
  EXPECT_NEAR(alie_z(11, 2), 0.1397102989, 1e-9);
  EXPECT_NEAR(alie_z(4, 1), -0.4307272993, 1e-9);
  EXPECT_NEAR(alie_z(5, 1), 0, 1e-15);
  EXPECT_THROW(alie_z(4, 2), Error);
  EXPECT_THROW(alie_z(5, -1), Error);
  EXPECT_THROW(alie_z(2, 0), Error);
}

TEST(Attack, MimicIsACopy) {
  const std::vector<double> x = {1, -2, 3};
  EXPECT_EQ(mimic(view(x)), x);
}

TEST(Attack, OrthogonalPerturbationTurnsAgainstTheMean) {
  // μ = (3, 4), r along the first axis: q = (0, −1), and ‖μ‖ = 5.
  const Moments honest{{3, 4}, {1, 1}};
  const std::vector<double> r = {2, 0};
  const std::vector<double> against = rop(honest, view(r), 180);
  EXPECT_NEAR(against[0], 3 - 5, 1e-14);
  EXPECT_NEAR(against[1], 4, 1e-14);
  const std::vector<double> right = rop(honest, view(r));
  EXPECT_NEAR(right[0], 3, 1e-15);
  EXPECT_EQ(right[1], -1);
  const std::vector<double> between = rop(honest, view(r), 120);
  EXPECT_NEAR(between[0], 3 - 2.5, 1e-14);
  EXPECT_NEAR(between[1], 4 - 5 * std::sqrt(0.75), 1e-14);
}

TEST(Attack, OrthogonalPerturbationHasNoPartWithoutADirection) {
  const Moments honest{{3, 4}, {1, 1}};
  const std::vector<double> parallel = {-6, -8}, nothing = {0, 0};
  EXPECT_EQ(rop(honest, view(nothing)), (std::vector<double>{0, 0}));
  const std::vector<double> kept = rop(honest, view(parallel));
  EXPECT_NEAR(kept[0], 3, 1e-15);
  EXPECT_NEAR(kept[1], 4, 1e-15);
  EXPECT_EQ(rop(Moments{{0, 0}, {1, 1}}, view(parallel)), nothing);
}

TEST(Attack, OrthogonalPerturbationRefusesWhatIsNoReference) {
  const Moments honest{{3, 4}, {1, 1}};
  const std::vector<double> r = {1, 0}, longer = {1, 0, 0}, bad = {NAN, 0};
  EXPECT_THROW(rop(honest, view(longer)), Error);
  EXPECT_THROW(rop(honest, view(bad)), Error);
  EXPECT_THROW(rop(honest, view(r), INFINITY), Error);
  EXPECT_THROW(rop(Moments{{INFINITY, 4}, {1, 1}}, view(r)), Error);
}

TEST(MinMax, OfThreeRowsByHand) {
  // μ = (2, 0), rows at 0, 2 and 4 on the first axis: diameter 4. Along −μ/‖μ‖ the row at 4 is met at γ = 2;
  // σ = (√(8/3), 0).
  const Rows rows = {{0, 0}, {2, 0}, {4, 0}};
  const auto unit = min_max<double>(updates(rows), Direction::unit);
  EXPECT_NEAR(unit.strength, 2, 1e-14);
  EXPECT_NEAR(unit.row[0], 0, 1e-14);
  EXPECT_EQ(unit.row[1], 0);
  EXPECT_NEAR(min_max<double>(updates(rows)).strength, 2 / std::sqrt(8.0 / 3), 1e-14);
  // Σ of squares to the outer rows: 4 + 16 = 20 ≥ 3γ² + 8: γ = 2.
  EXPECT_NEAR(min_sum<double>(updates(rows), Direction::sign).strength, 2, 1e-14);
}

TEST(MinMax, GoesAsFarAsTheDefinitionLets) {
  test::Generator random = test::generator("min_max");
  for (const double offset : {0.0, 1.0, 1e4}) {
    for (const int n : {2, 3, 9}) {
      const Rows rows = random_rows(n, 300, offset, random);  // more than one block
      const std::vector<long double> mean = mean_of(rows);
      long double diameter = 0, greatest = 0;
      for (const std::vector<double>& row : rows) {
        long double sum = 0;
        for (const std::vector<double>& other : rows) {
          diameter = std::max(diameter, squared_distance(row, other));
          sum += squared_distance(row, other);
        }
        greatest = std::max(greatest, sum);
      }
      for (const Direction direction : directions) {
        const std::vector<long double> p = direction_of(rows, direction);
        const auto at = [&](long double gamma) {
          std::vector<long double> row(mean);
          for (std::size_t k = 0; k < row.size(); ++k) row[k] += gamma * p[k];
          return row;
        };
        const auto farthest = [&](long double gamma) {
          long double most = 0;
          for (const std::vector<double>& row : rows) most = std::max(most, squared_distance(at(gamma), row));
          return most;
        };
        const auto sum = [&](long double gamma) {
          long double all = 0;
          for (const std::vector<double>& row : rows) all += squared_distance(at(gamma), row);
          return all;
        };
        // Rounding: of the frame's vectors, 1e-15 of the mean's length against the spread.
        const long double slack = 1e-12L * (1 + offset);
        const auto max = min_max<double>(updates(rows), direction);
        EXPECT_LE(farthest(max.strength * (1 - slack)), diameter);
        EXPECT_GT(farthest(max.strength * (1 + slack)), diameter);
        const auto least = min_sum<double>(updates(rows), direction);
        EXPECT_LE(sum(least.strength * (1 - slack)), greatest);
        EXPECT_GT(sum(least.strength * (1 + slack)), greatest);
        const std::vector<long double> row = at(max.strength);
        for (std::size_t k = 0; k < row.size(); ++k)
          EXPECT_NEAR(max.row[k], static_cast<double>(row[k]), 1e-10 * (1 + offset));
      }
    }
  }
}

TEST(MinMax, WithoutADirectionIsTheMean) {
  const Rows alike = {{1, 2}, {1, 2}, {1, 2}};
  EXPECT_EQ(min_max<double>(updates(alike)).row, alike[0]);
  EXPECT_EQ(min_max<double>(updates(alike)).strength, 0);
  EXPECT_EQ(min_max<double>(updates(alike), Direction::unit).row, alike[0]);
  EXPECT_EQ(min_sum<double>(updates(alike)).row, alike[0]);
  const Rows opposite = {{1, -2}, {-1, 2}};
  for (const Direction direction : {Direction::unit, Direction::sign}) {
    EXPECT_EQ(min_max<double>(updates(opposite), direction).row, (std::vector<double>{0, 0}));
    EXPECT_EQ(min_sum<float>(updates(opposite), direction).row, (std::vector<float>{0, 0}));
  }
  EXPECT_TRUE(min_max<double>(Updates::rows(std::vector<const void*>{nullptr}, 0, DType::f32)).row.empty());
}

TEST(MinMax, TakesTensorsOfSixteenBits) {
  // f16 rows (1, 2) and (−1, 2) beside a float 3: σ = (1, 0, 0), diameter 2.
  const std::vector<std::uint16_t> a = {0x3C00, 0x4000}, b = {0xBC00, 0x4000};
  const float three = 3;
  const std::vector<std::vector<const void*>> rows = {{a.data(), &three}, {b.data(), &three}};
  const std::vector<std::int64_t> sizes = {2, 1};
  const std::vector<DType> dtypes = {DType::f16, DType::f32};
  const auto found = min_max<float>(Updates::tensors(rows, sizes, dtypes));
  EXPECT_NEAR(found.strength, 1, 1e-15);
  EXPECT_EQ(found.row, (std::vector<float>{-1, 2, 3}));
}

TEST(MinMax, RefusesRowsThatAreNotFinite) {
  for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY), 1e200}) {
    const Rows rows = {{1, 2}, {1, bad}, {0, 0}};
    try {
      min_max<double>(updates(rows));
      FAIL() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::invalid_argument);
      EXPECT_NE(std::string(error.what()).find("row 1"), std::string::npos) << error.what();
    }
    EXPECT_THROW(min_sum<float>(updates(rows)), Error);
  }
  const std::vector<float> matrix = {1, 2};
  const Updates device = Updates::matrix(matrix.data(), 2, 1, DType::f32, -1, MemorySpace::cuda);
  EXPECT_THROW(min_max<float>(device), Error);
  EXPECT_THROW(moments(device), Error);
}

TEST(FangTrimmed, DrawsBeyondTheHonestValuesAgainstTheMean) {
  // Of each column: the two honest values, and where the attack lies.
  struct Column {
    double a, b, low, high;
  };
  const Column columns[] = {{2, 6, 1, 2},     {-1, 6, -2, -1}, {0, 6, 0, 0},  {-6, 1, 1, 2},
                            {-6, -2, -2, -1}, {-6, 0, 0, 0},   {-3, 3, 3, 6}, {0, 0, 0, 0}};
  constexpr std::size_t each = 2000;
  for (const Column& column : columns) {
    const Rows rows = {std::vector<double>(each, column.a), std::vector<double>(each, column.b)};
    const std::vector<double> row = fang_trimmed<double>(updates(rows), 7);
    double sum = 0;
    for (const double x : row) {
      ASSERT_GE(x, column.low);
      ASSERT_LE(x, column.high);
      sum += x;
    }
    // Five standard errors of a uniform number's mean.
    const double width = column.high - column.low;
    EXPECT_NEAR(sum / each, (column.low + column.high) / 2, 5 * width / std::sqrt(12.0 * each));
  }
  const Rows rows = {std::vector<double>(300, 1), std::vector<double>(300, 2)};
  EXPECT_EQ(fang_trimmed<double>(updates(rows), 1), fang_trimmed<double>(updates(rows), 1));
  EXPECT_NE(fang_trimmed<double>(updates(rows), 1), fang_trimmed<double>(updates(rows), 2));
  for (const float x : fang_trimmed<float>(updates(rows), 1, 4)) EXPECT_TRUE(0.25F <= x && x <= 1);
  EXPECT_THROW(fang_trimmed<double>(updates(rows), 1, 1), Error);
  EXPECT_THROW(fang_trimmed<double>(updates(rows), 1, INFINITY), Error);
  EXPECT_THROW(fang_trimmed<double>(updates({{1, 2}, {1, NAN}}), 1), Error);
}

/// Whether Krum, from its definition, chooses one of the f last rows.
bool krum_takes_a_bad_row(const Rows& rows, int f) {
  const std::size_t n = rows.size();
  std::size_t best = 0;
  long double least = INFINITY;
  for (std::size_t i = 0; i < n; ++i) {
    std::vector<long double> distances;
    for (std::size_t j = 0; j < n; ++j) {
      if (j != i) distances.push_back(squared_distance(rows[i], rows[j]));
    }
    std::sort(distances.begin(), distances.end());
    long double score = 0;
    for (std::size_t k = 0; k + static_cast<std::size_t>(f) + 2 < n; ++k) score += distances[k];
    if (score < least) best = i;
    least = std::min(least, score);
  }
  return best + static_cast<std::size_t>(f) >= n;
}

TEST(FangKrum, HalvesTheBoundUntilKrumTakesABadRow) {
  test::Generator random = test::generator("fang_krum");
  int taken = 0;
  for (const int f : {1, 3}) {
    const int n = 2 * f + 5, honest = n - f;
    Rows rows = random_rows(honest, 50, 0.02, random);
    const std::vector<long double> mean = mean_of(rows);
    long double least = INFINITY, farthest = 0;
    for (const std::vector<double>& row : rows) {
      std::vector<long double> distances;
      for (const std::vector<double>& other : rows) distances.push_back(squared_distance(row, other));
      std::sort(distances.begin(), distances.end());
      long double sum = 0;  // itself, and n−f−2 more
      for (int k = 0; k <= n - f - 2; ++k) sum += distances[static_cast<std::size_t>(k)];
      least = std::min(least, sum);
      farthest = std::max(farthest, squared_distance(row, std::vector<double>(50, 0.0)));
    }
    const long double bound = std::sqrt(least / (n - 2 * f - 1) / 50) + std::sqrt(farthest / 50);
    const Found<double> found = fang_krum<double>(updates(rows), f);
    const long double halvings = std::log2(bound / found.strength);
    EXPECT_NEAR(static_cast<double>(halvings), static_cast<double>(std::round(halvings)), 1e-12);
    for (std::size_t k = 0; k < 50; ++k)
      EXPECT_EQ(found.row[k], mean[k] > 0 ? -found.strength : found.strength);
    const auto takes = [&](double factor) {
      Rows all = rows;
      all.resize(rows.size() + static_cast<std::size_t>(f), found.row);
      for (std::size_t i = rows.size(); i < all.size(); ++i) {
        for (double& x : all[i]) x *= factor;
      }
      return krum_takes_a_bad_row(all, f);
    };
    EXPECT_EQ(takes(1), found.strength >= 1e-5);
    if (halvings > 0.5) {
      EXPECT_FALSE(takes(2));
    }
    taken += takes(1) ? 1 : 0;
  }
  EXPECT_GT(taken, 0);
}

TEST(FangKrum, GivesUpBelowItsThresholdAndKnowsItsBounds) {
  // Honest rows that agree far from the origin, where no bad row is near them.
  const Rows alike(6, std::vector<double>{1, 1});
  const double strength = fang_krum<double>(updates(alike), 1).strength;
  EXPECT_LT(strength, 1e-5);
  EXPECT_NEAR(strength, 0x1p-17, 1e-18);  // from ‖x‖/√2 = 1
  const Rows opposite = {{1, -1}, {-1, 1}, {1, -1}, {-1, 1}};
  EXPECT_EQ(fang_krum<double>(updates(opposite), 1).row, (std::vector<double>{0, 0}));
  EXPECT_THROW(fang_krum<double>(updates(alike), 0), Error);
  EXPECT_THROW(fang_krum<double>(updates(alike), 4), Error);  // n = 10 < 11
  EXPECT_THROW(fang_krum<double>(updates({{1}, {2}, {3}, {NAN}}), 1), Error);
}

/// What the pipeline makes of the rows themselves: its distance from the honest mean.
double damage_of(const Rows& honest, const Pipeline& pipeline, int f, const std::vector<double>& bad) {
  Rows rows = honest;
  rows.resize(honest.size() + static_cast<std::size_t>(f), bad);
  std::vector<double> out(bad.size());
  aggregate(pipeline, updates(rows), Output(out));
  return static_cast<double>(std::sqrt(squared_distance(out, mean_of(honest))));
}

TEST(Optimal, DoesTheMostDamageThatItSays) {
  test::Generator random = test::generator("optimal");
  constexpr int f = 2;
  for (const char* const text : {"mean",
                                 "krum(f=2)",
                                 "multi_krum(f=2)",
                                 "geometric_median",
                                 "centered_clipping(tau=3)",
                                 "mda(f=2)",
                                 "caf(f=2)",
                                 "monna(f=2)",
                                 "cge(f=2)",
                                 "faba(f=2)",
                                 "smea(f=2)",
                                 "nnm(f=2) | krum(f=2)",
                                 "bucketing(s=2, seed=3) | geometric_median",
                                 "clip(c=5) | mean",
                                 "arc(f=2) | multi_krum(f=2)",
                                 "median",
                                 "trimmed_mean(f=2)",
                                 "meamed(f=2)",
                                 "phocas(f=2)",
                                 "bulyan(f=2)",
                                 "nnm(f=2) | trimmed_mean(f=2)",
                                 "bucketing(s=2, seed=3) | median"}) {
    const Pipeline pipeline = parse(text);
    const Rows rows = random_rows(9, 40, 0.5, random);
    const Moments honest = moments(updates(rows));
    const auto check = [&](const Optimal<double>& found, const auto& attack) {
      EXPECT_NEAR(damage_of(rows, pipeline, f, found.row), found.damage, 1e-8 * found.damage) << text;
      EXPECT_EQ(found.row, attack(found.strength));
      EXPECT_LE(found.strength, 10);
      for (int k = 0; k < 16; ++k)
        EXPECT_LE(damage_of(rows, pipeline, f, attack(std::ldexp(10, -k))), found.damage * (1 + 1e-8))
            << text;
    };
    check(optimal_alie<double>(updates(rows), pipeline, f),
          [&](double z) { return a_little_is_enough<double>(honest, z); });
    check(optimal_ipm<double>(updates(rows), pipeline, f),
          [&](double epsilon) { return inner_product_manipulation<double>(honest, epsilon); });
  }
}

TEST(Optimal, AgainstTheMeanIsTheLargest) {
  const Rows rows = {{3, 4}, {3, 4}, {3, 4}};
  // (3μ − 7μ)/4 is 2μ from μ, and ‖μ‖ = 5.
  const Optimal<double> found = optimal_ipm<double>(updates(rows), Mean{}, 1, 7);
  EXPECT_EQ(found.strength, 7);
  EXPECT_NEAR(found.damage, 10, 1e-13);
  EXPECT_EQ(found.row, (std::vector<double>{-21, -28}));
}

TEST(Optimal, FindsThePeakBetweenTheGridsValues) {
  // Ten rows of ±1.3 in turn: μ = 0, σ = 1.3, and the attack is at −1.3z.
  Rows rows;
  for (int i = 0; i < 10; ++i) rows.push_back({i % 2 == 0 ? 1.3 : -1.3});
  const Optimal<double> clipped = optimal_alie<double>(updates(rows), parse("clip(c=2.5) | mean"), 2);
  EXPECT_NEAR(clipped.damage, 2 * 2.5 / 12, 1e-12);
  // Up to z = 1 both bad rows are among the ten shortest, with eight honest ones that cancel: −2.6z/10.
  // Beyond it, and at it by their index, neither is. The grid has 7/8; sixteen steps from there end near 1.
  const Optimal<double> kept = optimal_alie<double>(updates(rows), parse("cge(f=2)"), 2, 7);
  EXPECT_GT(kept.strength, 0.99);
  EXPECT_LE(kept.strength, 1);
  EXPECT_NEAR(kept.damage, 0.26 * kept.strength, 1e-12);
}

TEST(Optimal, LeavesTensorsOutThatRowsAreNotJudgedBy) {
  // Judged by the first coordinate alone, in which all agree, krum(f=1) takes the first row: no damage that
  // the search could do. Judged by both, the bad row may be the nearest to the others.
  Rows rows;
  for (int i = 0; i < 6; ++i) rows.push_back({1, static_cast<double>(i)});
  std::vector<std::vector<const void*>> pointers;
  for (const std::vector<double>& row : rows) pointers.push_back({&row[0], &row[1]});
  const std::vector<std::int64_t> sizes = {1, 1};
  Updates judged = Updates::tensors(pointers, sizes, DType::f64);
  EXPECT_LT(optimal_alie<double>(judged, parse("krum(f=1)"), 1).damage, 2.5);
  judged.judge_by({true, false});
  EXPECT_EQ(optimal_alie<double>(judged, parse("krum(f=1)"), 1).damage, 2.5);
}

TEST(Optimal, RefusesBadArguments) {
  const Rows rows(5, std::vector<double>{1, 2});
  const Updates honest = updates(rows);
  EXPECT_THROW(optimal_alie<double>(honest, Median{}, 0), Error);
  EXPECT_THROW(optimal_alie<double>(honest, Median{}, 1, 0), Error);
  EXPECT_THROW(optimal_ipm<double>(honest, Median{}, 1, NAN), Error);
  EXPECT_THROW(optimal_ipm<double>(honest, parse("krum(f=3)"), 1), Error);
  for (const char* const text : {"median", "krum(f=1)"})
    EXPECT_THROW(optimal_ipm<double>(updates({{1}, {2}, {NAN}, {3}, {4}}), parse(text), 1), Error);
}

TEST(Attack, BitFlipFlipsTheMaskAndUndoesItself) {
  const std::vector<float> x = {1, -2};
  EXPECT_EQ(bit_flip(view(x), 0x80000000U), (std::vector<float>{-1, 2}));
  const std::vector<float> flipped = bit_flip(view(x), xie_bits);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(flipped[0]), 0x3F800000U ^ 0xE0200000U);
  EXPECT_EQ(bit_flip(view(flipped), xie_bits), x);
  const std::vector<double> y = {0.5};
  EXPECT_EQ(bit_flip(view(y), std::uint64_t{1} << 63), (std::vector<double>{-0.5}));
}

TEST(Attack, GaussianHasItsMomentsAndRepeats) {
  constexpr std::size_t d = 100001;
  const std::vector<double> row = gaussian<double>(d, 2, 7);
  ASSERT_EQ(row.size(), d);
  double sum = 0, squares = 0, fourths = 0;
  for (const double x : row) {
    sum += x;
    squares += x * x;
    fourths += x * x * x * x;
  }
  const auto count = static_cast<double>(d);
  // Five standard errors: 2/√d; 4·√2/√d; 16·√96/√d.
  EXPECT_NEAR(sum / count, 0, 5 * 2 / std::sqrt(count));
  EXPECT_NEAR(squares / count, 4, 5 * 4 * std::sqrt(2 / count));
  EXPECT_NEAR(fourths / count, 48, 5 * 16 * std::sqrt(96 / count));
  EXPECT_EQ(gaussian<double>(d, 2, 7), row);
  EXPECT_NE(gaussian<double>(d, 2, 8), row);
  EXPECT_EQ(gaussian<double>(10, 2, 7), std::vector<double>(row.begin(), row.begin() + 10));
}

TEST(Attack, HostileRowsHoldWhatTheySay) {
  for (const float x : hostile<float>(3, Hostile::nan)) EXPECT_TRUE(std::isnan(x) && !std::signbit(x));
  for (const double x : hostile<double>(3, Hostile::negative_nan))
    EXPECT_TRUE(std::isnan(x) && std::signbit(x));
  EXPECT_EQ(hostile<float>(2, Hostile::infinity), (std::vector<float>{INFINITY, INFINITY}));
  EXPECT_EQ(hostile<float>(1, Hostile::negative_infinity), (std::vector<float>{-INFINITY}));
  EXPECT_EQ(hostile<float>(1, Hostile::huge), (std::vector<float>{3e38F}));
  EXPECT_EQ(hostile<double>(3, Hostile::alternating_huge), (std::vector<double>{3e38, -3e38, 3e38}));
  EXPECT_TRUE(hostile<float>(0, Hostile::huge).empty());
  EXPECT_THROW(hostile<float>(1, static_cast<Hostile>(99)), Error);
}

}  // namespace
}  // namespace bragg::attacks
