// SPDX-License-Identifier: Apache-2.0
// The oracle against results worked out by hand. Most data is one-dimensional: the arithmetic is in the
// comments.
#include "host/reference/oracle.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

namespace bragg::reference {
namespace {

constexpr long double inf = std::numeric_limits<long double>::infinity();
constexpr long double nan = std::numeric_limits<long double>::quiet_NaN();
constexpr double nan_weight = std::numeric_limits<double>::quiet_NaN();

Input rows(std::vector<Vector> values) { return {.rows = std::move(values)}; }

/// Rows of one coordinate.
Input line(const Vector& values) {
  Input input;
  for (const long double x : values) input.rows.push_back({x});
  return input;
}

Input weighted(Input input, std::vector<double> weights) {
  input.weights = std::move(weights);
  return input;
}

Input about(Input input, Vector reference) {
  input.reference = std::move(reference);
  return input;
}

Input after(Input input, Vector previous) {
  input.previous = std::move(previous);
  return input;
}

/// Values of size 1 to 10 computed in long double: a few units of 2^-64 of them.
void expect_out(const Result& result, const Vector& expected) {
  ASSERT_EQ(result.status, Status::ok);
  ASSERT_EQ(result.out.size(), expected.size());
  for (std::size_t c = 0; c < expected.size(); ++c) {
    if (std::isfinite(expected[c])) {
      EXPECT_LE(std::abs(result.out[c] - expected[c]), 1e-17L)
          << static_cast<double>(result.out[c]) << " for " << static_cast<double>(expected[c]);
    } else {
      EXPECT_EQ(result.out[c], expected[c]);
    }
  }
}

void expect_out(const Pipeline& pipeline, const Input& input, const Vector& expected) {
  expect_out(aggregate(pipeline, input), expected);
}

void expect_status(const Pipeline& pipeline, const Input& input, Status status) {
  EXPECT_EQ(aggregate(pipeline, input).status, status);
}

void expect_error(const Pipeline& pipeline, const Input& input) {
  EXPECT_THROW(aggregate(pipeline, input), std::invalid_argument);
}

// Coordinate-wise rules ------------------------------------------------------------------------------------

TEST(OracleMean, AveragesAndWeighs) {
  const Input two = rows({{1, 2}, {3, 6}});
  expect_out(Mean{}, two, {2, 4});
  expect_out(Mean{}, weighted(two, {1, 3}), {2.5L, 5});  // (1 + 9)/4, (2 + 18)/4
}

TEST(OracleMean, LetsNonfiniteValuesThrough) {
  EXPECT_TRUE(std::isnan(aggregate(Mean{}, line({1, nan, 2})).out[0]));
  expect_out(Mean{}, line({1, inf}), {inf});
  EXPECT_TRUE(std::isnan(aggregate(Mean{}, line({-inf, inf})).out[0]));
  expect_out(Mean{}, weighted(line({1, nan, 3}), {1, -1, 1}), {2});  // an invalid weight takes the row out

  const Mean skip{.nonfinite = Mean::Nonfinite::skip};
  expect_out(skip, line({1, 3}), {2});
  expect_out(skip, line({1, nan, 2, -inf}), {1.5L});
  expect_out(skip, weighted(line({1, nan, 2, 9}), {3, 5, 1, -1}), {1.25L});
  expect_out(skip, weighted(line({1, nan, 2}), {1e-320, 1e300, 1e-320}), {1.5L});
  expect_status(skip, line({nan, inf}), Status::too_many_nonfinite);
  expect_out(Bucketing{.s = 2, .permutation = {0, 1, 2, 3}} | skip, line({nan, inf, 3, 5}), {4});
}

TEST(OracleMedian, TakesTheMiddle) {
  expect_out(Median{}, line({3, 1, 2}), {2});
  const Input four = line({4, 1, 3, 2});
  expect_out(Median{}, four, {2.5L});
  expect_out(Median{.even = EvenMedian::lower}, four, {2});
  expect_out(Median{.even = EvenMedian::upper}, four, {3});
  expect_out(Median{}, rows({{5}}), {5});
}

TEST(OracleMedian, OrdersNonfiniteValues) {
  expect_out(Median{}, line({1, nan, 2}), {2});
  expect_out(Median{}, line({-nan, 1}), {inf});
  expect_out(Median{}, line({inf, -inf}), {-inf});
  expect_out(Median{}, line({nan, nan, 1}), {inf});
  EXPECT_FALSE(std::signbit(aggregate(Median{}, line({-0.0L})).out[0]));
}

TEST(OracleMedian, Weighs) {
  const Input three = line({3, 1, 2});
  // Σp = 4, Σ_{≤1} = 1, Σ_{≤2} = 2 = ½Σp: between 2 and 3.
  expect_out(Median{}, weighted(three, {2, 1, 1}), {2.5L});
  expect_out(Median{.even = EvenMedian::lower}, weighted(three, {2, 1, 1}), {2});
  expect_out(Median{.even = EvenMedian::upper}, weighted(three, {2, 1, 1}), {3});
  expect_out(Median{}, weighted(three, {3, 1, 1}), {3});
  // 0.1 + 0.2 and 0.3 are equal but for rounding.
  expect_out(Median{}, weighted(three, {0.3, 0.1, 0.2}), {2.5L});
  // The row of weight 0 is not there, the invalid one weighs nothing.
  expect_out(Median{}, weighted(line({1, 2, 100, 50}), {1, 1, 0, nan_weight}), {1.5L});
}

TEST(OracleTrimmedMean, DropsBothEnds) {
  const Input five = line({1, 2, 3, 100, -5});
  expect_out(TrimmedMean{.f = 1}, five, {2});                                 // (1 + 2 + 3)/3
  expect_out(TrimmedMean{.f = 1}, weighted(five, {1, 1, 2, 9, 9}), {2.25L});  // (1 + 2 + 6)/4
  expect_out(TrimmedMean{.f = 2}, five, {2});
  expect_out(TrimmedMean{.f = 1}, line({nan, 1, 2, 3, -inf}), {2});
}

TEST(OracleTrimmedMean, KeepsInfinitiesApart) {
  expect_out(TrimmedMean{.f = 1}, line({1, inf, nan}), {inf});
  expect_out(TrimmedMean{.f = 1}, line({-inf, -inf, inf, inf, 0}), {-inf});
}

TEST(OracleMeamed, AveragesAroundTheMedian) {
  expect_out(Meamed{.f = 1}, line({0, 1, 2, 10}), {1});  // median 1.5 drops 10
  expect_out(Meamed{.f = 1}, line({4, 2, 0}), {1});      // 0 and 4 tie about 2: the smaller
  expect_out(Meamed{.f = 1}, line({1, inf, nan}), {inf});
  expect_out(Meamed{.f = 2}, line({1, 2, 4, -inf, inf}), {7 / 3.0L});
}

TEST(OraclePhocas, AveragesAroundTheTrimmedMean) {
  // Trimmed mean (1 + 2 + 10)/3 = 13/3: 30 is the farthest.
  expect_out(Phocas{.f = 1}, line({0, 1, 2, 10, 30}), {3.25L});
  // Trimmed mean (0 + 3 + 3)/3 = 2: 9 goes.
  expect_out(Phocas{.f = 1}, line({0, 9, 0, 3, 3}), {1.5L});
  expect_out(Phocas{.f = 1}, line({-inf, -inf, 5}), {-inf});
}

// Geometric rules ------------------------------------------------------------------------------------------

// Squared distances of 0, 1, 3, 7, 100: 0–1: 1, 0–3: 9, 0–7: 49, 1–3: 4, 1–7: 36, 3–7: 16.
const Vector spread{0, 1, 3, 7, 100};

TEST(OracleKrum, TakesTheLeastScore) {
  // Two neighbours: 1+9, 1+4, 4+9, 16+36, …
  const Result result = aggregate(Krum{.f = 1}, line(spread));
  expect_out(result, {1});
  EXPECT_EQ(result.row_weight, (Vector{0, 1, 0, 0, 0}));
  // Nearest rival in terms of rounding: row 2, 13 − 5 over (9 + 1) + (9 + 0).
  EXPECT_LE(std::abs(result.margin - 8 / 19.0L), 1e-17L);
  // Three: 1+9+49 = 59, 1+4+36 = 41, 4+9+16 = 29.
  expect_out(Krum{.f = 1, .neighbors = 3}, line(spread), {3});
}

TEST(OracleKrum, GivesTiesToTheLowestIndex) {
  // Two neighbours: 5, 2, 2, 5.
  const Result result = aggregate(Krum{.f = 1}, line({0, 2, 1, 3, 50}));
  expect_out(result, {2});
  EXPECT_GT(result.margin, 0);  // equal numbers are equal in any arithmetic: a tie is clear
  EXPECT_EQ(aggregate(Krum{.f = 1}, line({4, 4, 4, 4, 4})).margin, inf);  // any is as good
}

TEST(OracleKrum, PutsNonfiniteRowsInfinitelyFar) {
  expect_out(Krum{.f = 1}, line({0, 1, 3, 7, nan}), {1});
  expect_out(Krum{.f = 1}, rows({{0, 0}, {1, 0}, {3, 0}, {7, 0}, {1, inf}}), {1, 0});
  expect_status(Krum{.f = 1}, line({0, 1, 3, nan, inf}), Status::too_many_nonfinite);
}

TEST(OracleKrum, TakesHugeFloat64RowsForInfinite) {
  Input input = line({0, 1, 3, std::ldexp(1.0L, 501), -std::ldexp(1.0L, 501)});
  input.f64 = true;
  expect_status(Krum{.f = 1}, input, Status::too_many_nonfinite);
  input.f64 = false;
  expect_out(Krum{.f = 1}, input, {1});
}

TEST(OracleMultiKrum, AveragesTheBestRows) {
  expect_out(MultiKrum{.f = 1, .m = 2}, line(spread), {0.5L});
  expect_out(MultiKrum{.f = 1}, line(spread), {2.75L});
  expect_out(MultiKrum{.f = 1, .m = 2}, weighted(line(spread), {1, 3, 1, 1, 1}), {0.75L});
  expect_out(MultiKrum{.f = 1, .m = 5}, line({0, 1, nan, 3, 7}),
             {2.75L});  // the infinite one has coefficient 0
}

TEST(OracleGeometricMedian, FindsTheArgmin) {
  const long double root3 = std::sqrt(3.0L);
  // Equilateral: the centre. An angle above 120°: its vertex. Convex quadrilateral: where the diagonals
  // cross, y = x and y = (4 − x)/2.
  expect_out(GeometricMedian{}, rows({{0, 0}, {1, 0}, {0.5L, root3 / 2}}), {0.5L, root3 / 6});
  expect_out(GeometricMedian{}, rows({{1, 0}, {0, 0}, {-1, 0.1L}}), {0, 0});
  expect_out(GeometricMedian{}, rows({{0, 0}, {4, 0}, {3, 3}, {0, 2}}), {4 / 3.0L, 4 / 3.0L});
  expect_out(GeometricMedian{.start = GeometricMedian::Start::mean}, rows({{0, 0}, {4, 0}, {3, 3}, {0, 2}}),
             {4 / 3.0L, 4 / 3.0L});
  expect_out(GeometricMedian{}, line({0, 1, 10}), {1});
  expect_out(GeometricMedian{}, line({7, 7, 7}), {7});
  expect_out(GeometricMedian{}, weighted(line({0, 1, 10}), {1, 1, 3}), {10});
}

TEST(OracleGeometricMedian, AsksForItsStartFirst) {
  const GeometricMedian from_base{.start = GeometricMedian::Start::origin};
  const long double none = std::numeric_limits<long double>::quiet_NaN();
  expect_status(from_base, about(line({1, none, none}), {none}), Status::nonfinite_base);
  expect_status(from_base, about(line({1, none, none}), {0}), Status::too_many_nonfinite);
  expect_status(GeometricMedian{}, about(line({1, none, none}), {none}), Status::too_many_nonfinite);
}

TEST(OracleSignVote, StepsTowardsTheMajority) {
  expect_out(SignVote{}, line({1, 2, -3}), {1});
  expect_out(SignVote{.step = 0.5}, line({-1, 100, -3}), {-0.5L});
  expect_out(SignVote{}, line({1, 0, -3}), {0});  // a draw; 0 has no vote
  expect_out(SignVote{}, line({nan, inf, -3}), {1});
  expect_out(SignVote{.step = 2}, about(rows({{2, 1}, {1, 4}, {1, 0}}), {1, 1}), {3, 1});
  expect_out(SignVote{}, weighted(line({1, 2, -3}), {0.1, 0.2, 0.3}), {0});  // but for rounding
  expect_out(SignVote{}, weighted(line({1, 2, -3}), {0.1, 0.2, 0.31}), {-1});
  expect_out(SignVote{}, weighted(line({1, 2, -3}), {-1, nan, 0.1}), {-1});  // of no valid weight, no vote
  expect_out(SignVote{}, weighted(line({1, 2}), {-1, nan}), {0});
}

TEST(OracleHuber, PullsNoHarderThanAtTau) {
  expect_out(Huber{.tau = 1}, line({0, 0.5L, 10}), {0.75L});  // v + (v − 1/2) = 1
  expect_out(Huber{.tau = 4}, line({0, 1, 10}), {2.5L});      // v + (v − 1) = 4
  expect_out(Huber{.tau = 100}, line({0, 1, 11}), {4});
  expect_out(Huber{.tau = 1}, weighted(line({0, 10}), {3, 1}), {1 / 3.0L});
  expect_out(Huber{.tau = 1}, rows({{0, 0}, {0, 0}, {3, 4}}), {0.3L, 0.4L});
  expect_out(Huber{.tau = 10}, line({nan, 1, 3}), {2});
  // From a row within tau steps are next to nothing beside what they lead to.
  expect_out(Huber{.tau = 1e-20, .start = GeometricMedian::Start::origin}, line({0, 1, 2}), {1});
  expect_out(Huber{.tau = 1, .start = GeometricMedian::Start::mean}, line({0, 10}), {5});
  // From o: the pulls of 3 and 9 are as long.
  expect_out(Huber{.tau = 2, .max_iters = 1, .tol = 0, .start = GeometricMedian::Start::origin}, line({3, 9}),
             {4.5L});  // (3/3 + 9/9)/(1/3 + 1/9)
  expect_status(Huber{.tau = 1}, line({nan, 3}), Status::too_many_nonfinite);
  expect_status(Huber{.tau = 1, .start = GeometricMedian::Start::origin}, about(line({2, 3}), {nan}),
                Status::nonfinite_base);
}

TEST(OracleAutoGm, WeighsByDistance) {
  const long double root3 = std::sqrt(3.0L);
  expect_out(AutoGm{.lam = 10}, rows({{0, 0}, {1, 0}, {0.5L, root3 / 2}}), {0.5L, root3 / 6});
  // From 1: α = (2.7, 3.6, 3.7, 0, 0)/10, η = 11.1/3. From 0.9: (2.77, 3.67, 3.57, 0, 0)/10.
  const Input five = line({0, 0.9L, 1, 5, 6});
  expect_out(AutoGm{.lam = 10}, five, {0.9L});
  expect_out(AutoGm{.lam = 10, .max_iters = 1}, five, {1});
  expect_out(AutoGm{.lam = 1e30}, five, {1});
  expect_out(AutoGm{.lam = 1e-30}, five, {1});
  expect_out(AutoGm{.lam = 1}, line({nan, 1, 1, 7}), {1});
  expect_out(AutoGm{.lam = 1}, line({7, 7}), {7});
  expect_status(AutoGm{.lam = 1}, line({nan, 3}), Status::too_many_nonfinite);
}

TEST(OracleAutoGm, DecidesNothingBetweenTwoEnds) {
  EXPECT_EQ(aggregate(AutoGm{.lam = 1}, line({0, 1})).margin, 0);
  // Of the two rows in the middle either is as good. Weights as far off as distances may be, from one of
  // them, choose the other, and from there the first: which is the last is chance.
  const Result middle =
      aggregate(AutoGm{.lam = 1}, line({0x4EDp-149L, -0x112p-149L, -0x2EDp-149L, 0x11Dp-149L, 0x48Fp-149L,
                                        0x150p-149L, 0x56Cp-149L, 0x504p-149L, 0x714p-149L, 0x6C7p-149L}));
  EXPECT_EQ(middle.margin, 0);
  // Two groups of three, of which the right one is a little nearer together.
  const auto groups = [](long double off) {
    return rows({{-9, 1}, {-9, -1}, {-10, 0}, {9 + off, 1}, {9 + off, -1}, {10, 0}});
  };
  EXPECT_EQ(aggregate(AutoGm{.lam = 8}, groups(0x1p-59L)).margin, 0);
  EXPECT_EQ(aggregate(AutoGm{.lam = 8}, groups(0.5L)).margin, inf);
  expect_out(AutoGm{.lam = 8}, groups(0.5L), {10, 0});
}

TEST(OracleGeometricMedian, BalancesUnitVectors) {
  std::mt19937_64 random(2024);
  std::normal_distribution<double> normal;
  Input input;
  for (int i = 0; i < 9; ++i) {
    input.rows.emplace_back();
    for (int c = 0; c < 4; ++c) input.rows.back().push_back(normal(random));
  }
  const Result result = aggregate(GeometricMedian{}, input);
  Vector sum(4, 0);
  for (const Vector& row : input.rows) {
    long double squared = 0;
    for (int c = 0; c < 4; ++c) squared += (row[c] - result.out[c]) * (row[c] - result.out[c]);
    for (int c = 0; c < 4; ++c) sum[c] += (row[c] - result.out[c]) / std::sqrt(squared);
  }
  for (const long double x : sum) EXPECT_LE(std::abs(x), 1e-16L);
  EXPECT_LE(std::abs(std::accumulate(result.row_weight.begin(), result.row_weight.end(), 0.0L) - 1), 1e-17L);
}

TEST(OracleGeometricMedian, IsTheLimitFromItsStartWhereNotUnique) {
  const Input four = line({0, 1, 5, 6});
  expect_out(GeometricMedian{}, four, {1});  // Σ|x_i − x_j| = 12, 10, 10, 12: row 1, and it is optimal
  expect_out(GeometricMedian{.start = GeometricMedian::Start::mean}, four, {3});
  // At row 0 the pull of the others is 3: T = 3/(1 + 1/5 + 1/6) = 90/41, v = (1 − 1/3)·T, then nothing pulls.
  expect_out(GeometricMedian{.start = GeometricMedian::Start::origin}, four, {60 / 41.0L});
}

/// The objective at v less that at the other, row by row.
long double objective_change(const Input& input, const Vector& v, const Vector& other) {
  long double change = 0;
  for (const Vector& row : input.rows) {
    long double to_v = 0, to_other = 0, product = 0;
    for (std::size_t c = 0; c < row.size(); ++c) {
      to_v += (row[c] - v[c]) * (row[c] - v[c]);
      to_other += (row[c] - other[c]) * (row[c] - other[c]);
      product += (other[c] - v[c]) * ((row[c] - v[c]) + (row[c] - other[c]));
    }
    if (to_v + to_other > 0) change += product / (std::sqrt(to_v) + std::sqrt(to_other));
  }
  return change;
}

TEST(OracleGeometricMedian, LeavesRowsThatAreNearlyZero) {
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  for (int round = 0; round < 60; ++round) {
    const int n = 7 + round % 14;
    const int f = 2 + round % ((n - 3) / 2);
    Input input;
    for (int i = 0; i < n; ++i) {
      input.rows.emplace_back();
      for (int c = 0; c < 4; ++c) {
        input.rows.back().push_back(i < f ? normal(random) * 1e-20L * std::pow(1000.0L, -i)
                                          : 0.5L + normal(random));
      }
    }
    const Result result = aggregate(GeometricMedian{}, input);
    ASSERT_EQ(result.status, Status::ok);
    EXPECT_LE(result.gap, 1e-12L) << n << " " << f;
    for (const Vector& row : input.rows) EXPECT_LE(objective_change(input, result.out, row), 1e-12L);
    // The same rows with the nearly equal ones equal: the objective differs by next to nothing.
    Input merged = input;
    for (int i = 0; i < f; ++i) merged.rows[i].assign(4, 0);
    const Vector other = aggregate(GeometricMedian{}, merged).out;
    EXPECT_LE(std::abs(objective_change(input, result.out, other)), 1e-12L) << n << " " << f;
  }
}

TEST(OracleGeometricMedian, GoesOnFromTheMedoidWhereTheStartIsFar) {
  expect_out(GeometricMedian{.start = GeometricMedian::Start::mean},
             rows({{0, 0}, {1, 0}, {-1, 0}, {0, 1}, {0, -1}, {1e30L, 0}, {-1e30L, 3}}), {0, 0});
  // All between 1 and 2 are minimisers; from afar it is the medoid, of the lowest index.
  expect_out(GeometricMedian{.start = GeometricMedian::Start::origin}, about(line({0, 1, 2, 3}), {1e9}), {1});
}

TEST(OracleGeometricMedian, TakesStepsAsDefined) {
  // From the mean 1.5 distances are 1.5, 1, 2.5.
  const Input three = line({0, 0.5L, 4});
  const auto once = [](double nu) {
    return GeometricMedian{.nu = nu, .max_iters = 1, .tol = 0, .start = GeometricMedian::Start::mean};
  };
  expect_out(once(0), three, {31.5L / 31});    // (0.5 + 1.6)/(2/3 + 1 + 2/5)
  expect_out(once(2), three, {1.85L / 1.4L});  // (0.25 + 1.6)/(1/2 + 1/2 + 2/5)
  expect_out(GeometricMedian{.max_iters = 1, .tol = 0, .start = GeometricMedian::Start::origin},
             about(line({1, 3}), {2}), {2});
}

TEST(OracleGeometricMedian, ToleratesLessThanHalf) {
  expect_out(GeometricMedian{}, line({0, nan, 1, inf, 10}), {1});
  expect_status(GeometricMedian{}, line({0, nan, 1, inf}), Status::too_many_nonfinite);
  expect_status(GeometricMedian{}, weighted(line({0, nan, 1}), {1, 2, 1}), Status::too_many_nonfinite);
  expect_out(GeometricMedian{}, weighted(line({0, nan, 1}), {1, 2.5, 2}), {1});
  expect_status(GeometricMedian{.start = GeometricMedian::Start::origin}, about(line({1, 2}), {nan}),
                Status::nonfinite_base);
  expect_out(GeometricMedian{}, about(line({1, 2, 3}), {nan}), {2});
}

TEST(OracleCenteredClipping, MovesByClippedDifferences) {
  const Input three = line({0.5L, 3, -2});
  expect_out(CenteredClipping{.tau = 1}, three, {1 / 6.0L});               // (0.5 + 1 − 1)/3
  expect_out(CenteredClipping{.tau = 1, .iters = 2}, three, {5 / 18.0L});  // + (1/3 + 1 − 1)/3
  expect_out(CenteredClipping{.tau = 1}, after(three, {3}), {7 / 3.0L});   // 3 + (−1 + 0 − 1)/3
  expect_out(CenteredClipping{.tau = 1}, about(three, {1}), {5 / 6.0L});   // 1 + (−0.5 + 1 − 1)/3
  expect_out(CenteredClipping{.tau = 1}, about(after(three, {3}), {1}), {7 / 3.0L});
  expect_out(CenteredClipping{.tau = 1, .start = CenteredClipping::Start::reference},
             about(after(three, {3}), {1}), {5 / 6.0L});
  expect_out(CenteredClipping{.tau = 1}, weighted(three, {1, 2, 1}), {0.375L});  // (0.5 + 2 − 1)/4
}

TEST(OracleCenteredClipping, CountsInfiniteRowsWithoutMoving) {
  expect_out(CenteredClipping{.tau = 1}, line({0.5L, nan, -2}), {-1 / 6.0L});
  expect_out(CenteredClipping{.tau = 1}, line({nan, nan}), {0});
  expect_out(CenteredClipping{.tau = 1}, weighted(line({0.5L, 1, -2}), {1, -3, 1}), {-0.25L});
  expect_status(CenteredClipping{.tau = 1}, after(line({1}), {inf}), Status::nonfinite_base);
}

TEST(OracleCenteredClipping, DecidesNothingWhereHugeRowsCancelInAPoint) {
  const Pipeline pipeline = Nnm{.f = 3} | CenteredClipping{.tau = 1};
  // The last row's point is the mean of the first six.
  EXPECT_EQ(aggregate(pipeline, line({1, 2, 1e30L, -1e30L, 3, 4, 5, 6, nan})).margin, 0);
  EXPECT_GT(aggregate(pipeline, line({1, 2, 9, -1, 3, 4, 5, 6, nan})).margin, 1e-6L);
}

TEST(OracleCenteredClipping, StartsAtThePivot) {
  const CenteredClipping own{.tau = 1, .start = CenteredClipping::Start::pivot, .pivot = 2};
  expect_out(own, line({1, 9, 3}), {3});  // 3 + (−1 + 1 + 0)/3
  expect_out(own, about(line({2.5L, 9, 3}), {7}), {19 / 6.0L});
  expect_out(own, line({nan, 9, 3}), {10 / 3.0L});
  expect_out(own, weighted(line({1, 9, 3}), {1, 2, 1}), {3.25L});
  expect_out(own, weighted(line({1, 9, 3}), {0, 1, 1}), {3.5L});
  expect_out(CenteredClipping{.tau = 1, .iters = 2, .start = CenteredClipping::Start::pivot}, line({0, 3, 4}),
             {10 / 9.0L});  // 2/3, then + (−2/3 + 1 + 1)/3
  expect_status(own, line({1, 9, nan}), Status::nonfinite_pivot);
  expect_status(Clip{.c = 1} | own, line({1, 9, nan}), Status::nonfinite_pivot);
}

TEST(OracleBalance, TakesRowsNearTheTrustedOne) {
  expect_out(Balance{.gamma = 1}, line({2, 3, 5, 0}), {1.75L});  // (2 + (3 + 0)/2)/2: no farther than 2
  expect_out(Balance{.gamma = 1, .alpha = 0.25}, line({2, 3, 5, 4}), {3.125L});
  expect_out(Balance{.gamma = 1, .alpha = 0}, line({2, 3, 5, 4}), {3.5L});
  expect_out(Balance{.gamma = 0.25, .alpha = 0}, line({2, 3, 5, 4}), {2});  // none
  expect_out(Balance{.gamma = 1, .pivot = 2}, line({9, nan, 2, 3, inf}), {2.5L});
  expect_out(Balance{.gamma = 1}, about(line({2, 3, 4}), {1}), {2.5L});
  expect_out(Balance{.gamma = 1}, weighted(line({2, 3, 1}), {9, 3, 1}), {2.25L});
  expect_out(Balance{.gamma = 5}, line({0, 0, 1}), {0});  // at o only rows that are there
  expect_status(Balance{.gamma = 1, .pivot = 1}, line({2, nan}), Status::nonfinite_pivot);
  expect_status(Balance{.gamma = 1}, about(line({2, 3}), {nan}), Status::nonfinite_base);
}

TEST(OracleFlTrust, FollowsRowsThatPointAsTheTrustedOne) {
  const long double root = std::sqrt(2.0L);
  expect_out(FlTrust{.pivot = 0}, rows({{2, 0}, {0, 5}, {1, 1}, {-1, 0}}), {root, root});
  expect_out(FlTrust{.pivot = 0}, rows({{2, 0}, {3, 3}, {8, 0}}),
             {6 - 3 * root, 2 - root});  // (√½(√2, √2) + (2, 0))/(√½ + 1)
  expect_out(FlTrust{.pivot = 1}, line({-4, -3, 1, nan}), {-3});
  expect_out(FlTrust{.pivot = 0}, line({1, -5, 0}), {0});  // none points as it does: o
  expect_out(FlTrust{.pivot = 0}, line({0, 5, 6}), {0});
  expect_out(FlTrust{.pivot = 0}, rows({{0, 3}, {4, 3}, {0, 1e-6L}}), {2.4L, 1.8L});  // too short
  expect_out(FlTrust{.pivot = 0}, about(line({3, 9, 1}), {2}), {3});
  expect_out(FlTrust{.pivot = 0}, line({2, inf, nan}), {0});
  expect_status(FlTrust{.pivot = 1}, line({2, inf, nan}), Status::nonfinite_pivot);
  expect_status(QuantileClip{} | FlTrust{.pivot = 1}, line({2, inf, nan}), Status::nonfinite_pivot);
}

TEST(OracleFoolsGold, TakesTheWeightOfCopies) {
  expect_out(FoolsGold{}, rows({{1, 0}, {0, 3}}), {0.5L, 1.5L});
  expect_out(FoolsGold{}, rows({{1, 0}, {2, 0}, {0, 3}}), {0, 3});
  expect_out(FoolsGold{}, rows({{1, 0}, {-1, 0}}), {0, 0});
  expect_out(FoolsGold{}, rows({{1, 0}, {nan, 0}, {0, 3}, {0, inf}}), {0.5L, 1.5L});
  expect_out(FoolsGold{}, line({nan, 5}), {5});  // compared with none
  expect_out(FoolsGold{}, about(rows({{2, 1}, {1, 4}}), {1, 1}), {1.5L, 2.5L});
  // Cosines 0.6 and 0.8 with the third row: 0.4 and 0.2, the first pardoned to 0.6·0.6/0.8 = 0.45 of it;
  // shares of 0.55: 1, 4/11 (below the logarithm's zero) and 4/11.
  expect_out(FoolsGold{}, rows({{1, 0}, {0, 1}, {0.6L, 0.8L}}), {1, 0});
  expect_status(FoolsGold{}, line({1, 2, 3}), Status::no_majority);
  expect_status(FoolsGold{}, line({nan, inf}), Status::too_many_nonfinite);
}

TEST(OracleMajorityCluster, JoinsRowsByAngle) {
  expect_out(MajorityCluster{}, rows({{1, 0}, {2, 0.25L}, {0, 1}, {-1, 0}, {3, -0.25L}}), {2, 0});
  expect_out(MajorityCluster{}, rows({{1, 0}, {0, 1}, {0, 0}}), {0.5L, 0.5L});  // all are orthogonal: (0, 1)
  expect_out(MajorityCluster{}, line({nan, 1, 2}), {1.5L});
  expect_out(MajorityCluster{}, about(line({1, 3, 6}), {2}), {4.5L});
  expect_out(MajorityCluster{}, weighted(line({1, 2, -6}), {1, 3, 9}), {1.75L});
  expect_out(MajorityCluster{}, line({4, 2}), {3});
  expect_status(MajorityCluster{}, line({nan, 1, inf}), Status::too_many_nonfinite);
  expect_status(MajorityCluster{}, line({nan, 1}), Status::too_many_nonfinite);
}

// (0, 0), (1, 0) and the third corner make an equilateral triangle: diameter 1, covariance I/6.
// (0, 0), (0, 0), (−0.9, 0): diameter 0.9, top eigenvalue 2/9 · 0.81 = 0.18.
const std::vector<Vector> triangle{{0, 0}, {1, 0}, {0.5L, std::sqrt(3.0L) / 2}, {0, 0}, {-0.9L, 0}};

TEST(OracleMda, TakesTheLeastDiameter) {
  expect_out(Mda{.f = 1}, line({0, 1, 10, 2}), {1});
  expect_out(Mda{.f = 2}, rows(triangle), {-0.3L, 0});
  // Rows {0, 1, 3} = 5, 0, 1 and {0, 2, 3} = 5, 6, 1 tie at 25: the first in lexicographic order.
  const Result tie = aggregate(Mda{.f = 2}, line({5, 0, 6, 1, 100}));
  expect_out(tie, {2});
  EXPECT_GT(tie.margin, 0);
  expect_out(Mda{.f = 1}, weighted(line({0, 1, 10, 2}), {1, 1, 1, 2}), {1.25L});
  expect_out(Mda{.f = 1}, line({0, nan, 1, 2}), {1});
  expect_status(Mda{.f = 1}, line({0, nan, 1, nan}), Status::too_many_nonfinite);
}

TEST(OracleFaba, RemovesTheFarthestFromTheMean) {
  expect_out(Faba{.f = 0}, line({1, 2, 6}), {3});
  expect_out(Faba{.f = 1}, line({0, 1, 10, 2}), {1});
  // The mean is 4, and 20 goes; then it is 0, and of −4 and 4 the latter, of the higher index.
  expect_out(Faba{.f = 2}, line({-4, 0, 20, 4, 0}), {-4 / 3.0L});
  // Of equal rows 5 is farthest from the mean, by weight 0 is.
  expect_out(Faba{.f = 1}, line({0, 2, 5}), {1});
  expect_out(Faba{.f = 1}, weighted(line({0, 2, 5}), {1, 1, 3}), {4.25L});
  expect_out(Faba{.f = 1}, line({0, nan, 1, 2}), {1});  // infinite rows first
  expect_out(Faba{.f = 2}, line({0, nan, 1, 2, 9}), {1});
  expect_status(Faba{.f = 1}, line({0, nan, 1, nan}), Status::too_many_nonfinite);
}

TEST(OracleDnc, DropsWhatSticksOutAlongTheTopEigenvector) {
  expect_out(Dnc{.f = 0}, line({1, 2, 6}), {3});
  expect_out(Dnc{.f = 1}, line({0, 1, 10, 2}), {1});
  // Of rows as far from the mean that of the higher index goes.
  expect_out(Dnc{.f = 1}, line({0, 1, -1}), {0.5L});
  // The mean is 3.4: 10 and 0 are farthest from it, ⌈1.5⌉ rows.
  expect_out(Dnc{.f = 1, .c = 1.5}, line({0, 1, 2, 10, 4}), {7 / 3.0L});
  // Across the first coordinate, along which rows differ most, nobody looks.
  expect_out(Dnc{.f = 1}, rows({{-4, 0}, {4, 0}, {-4, 0}, {4, 0}, {0, 3}, {0, -3}}), {-0.8L, 0});
  expect_out(Dnc{.f = 1}, line({0, nan, 1, 2}), {1});  // infinite rows first
  expect_out(Dnc{.f = 2}, line({0, nan, 1, 2, 9}), {1});
  expect_status(Dnc{.f = 1}, line({0, nan, 1, nan}), Status::too_many_nonfinite);
  expect_status(Dnc{.f = 5, .c = 0.1}, line({nan, inf}), Status::too_many_nonfinite);
}

TEST(OracleDnc, KeepsWhatMostSamplesKeep) {
  // A sample is one coordinate of three: by two of them the last row sticks out, by the other the first.
  const Input input = rows({{0, 0, 9}, {0, 1, 1}, {9, 8, 2}});
  expect_out(Dnc{.f = 1, .iters = 31, .sample = 1, .seed = 1}, input, {0, 1, 1});
  expect_out(Dnc{.f = 1, .iters = 31, .seed = 1}, input, {0, 0.5L, 5});
}

TEST(OracleSmea, TakesTheLeastTopEigenvalue) {
  expect_out(Smea{.f = 1}, line({0, 1, 10, 2}), {1});
  expect_out(Smea{.f = 2}, rows(triangle), {0.5L, std::sqrt(3.0L) / 6});
  expect_out(Smea{.f = 1}, line({0, 4, 5, 9}), {3});  // {0, 4, 5} and {4, 5, 9} tie at 14/3
  expect_out(Smea{.f = 1}, line({0, nan, 1, 2}), {1});
  expect_out(Smea{.f = 0}, line({3}), {3});
  expect_status(Smea{.f = 1}, line({0, nan, 1, nan}), Status::too_many_nonfinite);
}

TEST(OracleCaf, FiltersAlongTheTopEigenvector) {
  expect_out(Caf{.f = 0}, line({0, 1, 5}), {2});
  // μ = 2, λ = 16, τ = 4 and 64: c = 15/16 four times and 0. Then all that is left is 0.
  expect_out(Caf{.f = 1}, line({0, 0, 10, 0, 0}), {0});
  // μ = 2, λ = 14/3, τ = 4, 1, 9: c = 5/9, 8/9, 0. μ = 8/13, λ = 40/169; then Σc = (8/9)(39/64) < 1.
  expect_out(Caf{.f = 1}, line({0, 1, 5}), {8 / 13.0L});
  // The same in a plane, and in a plane with an infinite row: Σc starts at 3 of n = 4, and ends below 2.
  expect_out(Caf{.f = 1}, rows({{0, 0}, {3, 4}, {15, 20}}), {24 / 13.0L, 32 / 13.0L});
  expect_out(Caf{.f = 1}, rows({{0, 0}, {3, 4}, {nan, 0}, {15, 20}}), {6, 8});
  expect_status(Caf{.f = 1}, line({0, nan, nan}), Status::too_many_nonfinite);
}

TEST(OracleCaf, ResolvesAnEigenspaceByTheLongestProjection) {
  // A triangle about 0 with corners at distance 10, and four rows 0: covariance I·150/7, and all corners
  // project alike. v is along row 0: τ = 100, 25, 25, so c = 0, 3/4, 3/4, 1, 1, 1, 1: Σc = 5.5 > 5. μ =
  // −(15/11)·(row 0)/10, λ = 112.5/5.5, which is less; then the other two corners go, Σc = 4.
  const long double y = 5 * std::sqrt(3.0L);
  const Vector zero{0, 0};
  expect_out(Caf{.f = 1}, rows({{10, 0}, {-5, y}, {-5, -y}, zero, zero, zero, zero}), {-15 / 11.0L, 0});
  expect_out(Caf{.f = 1}, rows({{-5, y}, {10, 0}, {-5, -y}, zero, zero, zero, zero}),
             {7.5L / 11, -1.5L * y / 11});
  // f = 2 goes on to the four zeros, λ = 0.
  expect_out(Caf{.f = 2}, rows({{10, 0}, {-5, y}, {-5, -y}, zero, zero, zero, zero}), zero);
}

TEST(OracleMonna, AveragesAroundThePivot) {
  expect_out(Monna{.f = 2, .pivot = 1}, line({0, 5, 6, 7, 100}), {6});
  expect_out(Monna{.f = 1, .pivot = 1}, line({4, 5, 6}), {4.5L});  // 4 and 6 tie: the lower index
  expect_status(Monna{.f = 2, .pivot = 0}, line({nan, 5, 6, 7, 100}), Status::nonfinite_pivot);
  expect_status(Clip{.c = 9} | Monna{.f = 1, .pivot = 2}, line({5, 6, inf}), Status::nonfinite_pivot);
  expect_status(Monna{.f = 0, .pivot = 1}, weighted(line({4, 5, 6}), {1, -1, 1}), Status::nonfinite_pivot);
  expect_out(Monna{.f = 1, .pivot = 1}, weighted(line({4, 5, 9}), {3, 1, 1}), {4.25L});
  expect_out(Monna{.f = 1, .pivot = 3}, weighted(line({4, 9, 6, 5}), {1, 1, 0, 1}),
             {4.5L});  // the caller's row 3
}

TEST(OracleCge, KeepsTheLeastNorms) {
  const Input three = rows({{3, 4}, {0, 1}, {1, 0}});
  expect_out(Cge{.f = 1}, three, {0.5L, 0.5L});
  expect_out(Cge{.f = 1}, about(three, {3, 4}), {1.5L, 2.5L});  // norms 0, √18, √20
  expect_out(Cge{.f = 1}, weighted(three, {1, 3, 1}), {0.25L, 0.75L});
  expect_out(Cge{.f = 1}, line({1, -1, nan}), {0});
  expect_status(Cge{.f = 1}, about(three, {nan, 0}), Status::nonfinite_base);
}

TEST(OracleBulyan, SelectsThenAveragesAroundTheMedian) {
  // Four neighbours: 30, 15, 10, 10, …: 2. Three, of 0 1 3 4 5 100: 26, 14, 9, 11, 21: 3. Two, of 0 1 4 5
  // 100: 17, 10, 10, 17: 1. One, of 0 4 5 100: 16, 1, 1: 4. One, of 0 5 100: 25, 25: 0. S = {0, …, 4}, three
  // about the median 2.
  expect_out(Bulyan{.f = 1}, line({0, 1, 2, 3, 4, 5, 100}), {2});
  // Ties go by the caller's order, and NaN is never near: 2, 3, 1, then 5 before 4, then 0: median 2, and 1,
  // 2, 3.
  expect_out(Bulyan{.f = 1}, line({5, 0, 1, 2, 3, 4, nan}), {2});
  // Rounds: 4 (54), 2 (54), 1 (65), 0 (81, as 9), 9. S has the median 2; 0 and 4 are as close: the smaller.
  expect_out(Bulyan{.f = 1}, line({0, 1, 2, 4, 9, 100, 1000}), {1});
  expect_out(Bulyan{.f = 0}, line({0, 1, 5}), {2});
  expect_status(Bulyan{.f = 1}, line({0, 1, nan, 3, 4, 5, nan}), Status::too_many_nonfinite);
}

// Pre-aggregators ------------------------------------------------------------------------------------------

TEST(OracleNnm, MixesNeighbours) {
  const Input three = line({0, 1, 10});  // z = 0.5, 0.5, 5.5
  expect_out(Nnm{.f = 1} | Median{}, three, {0.5L});
  expect_out(Nnm{.f = 1} | Mean{}, three, {6.5L / 3});
  expect_out(Nnm{.f = 1} | Mean{}, weighted(three, {1, 3, 1}),
             {4.75L / 3});  // 0.75, 0.75, 3.25, then unweighted
  expect_out(Nnm{.f = 1} | Meamed{.f = 0}, weighted(three, {1, 3, 1}), {4.75L / 3});
  expect_out(Nnm{.f = 1} | Median{.even = EvenMedian::lower}, line({0, 1, 2}), {0.5L});  // 1 takes 0, not 2
  expect_out(Nnm{.f = 1} | Mean{}, line({nan, 0, 1}), {0.5L});
  expect_status(Nnm{.f = 1} | Median{}, line({nan, 0, inf}), Status::too_many_nonfinite);
}

TEST(OracleBucketing, AveragesGroups) {
  const Bucketing pairs{.s = 2, .permutation = {2, 0, 1}};
  expect_out(pairs | Median{}, line({0, 1, 4}), {1.5L});  // buckets 2 and 1
  expect_out(pairs | Mean{}, weighted(line({0, 1, 4}), {1, 2, 3}),
             {14 / 6.0L});                                // (12/4 at p = 4, 1 at p = 2)
  expect_out(pairs | Mean{}, line({nan, 1, 4}), {2.5L});  // mean of the finite rows of each
  const Bucketing singles{.s = 1, .permutation = {0, 1}};
  expect_out(singles | Median{.even = EvenMedian::lower}, line({nan, 3}), {3});
  expect_out(singles | Median{}, line({nan, 3}), {inf});
  expect_status(singles | GeometricMedian{}, line({nan, 3}), Status::too_many_nonfinite);
  expect_out(Bucketing{.s = 2, .permutation = {0, 1, 2, 3}} | Monna{.f = 0, .pivot = 1}, line({0, 2, 4, 6}),
             {3});
  expect_status(singles | Monna{.f = 0, .pivot = 0}, line({nan, 3}), Status::too_many_nonfinite);
}

TEST(OracleBucketing, DrawsItsPermutationFromPhilox) {
  using Words = std::array<std::uint32_t, 4>;
  // Known answers of the Random123 distribution.
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
  // Those words are 0.399, 0.881, 0.736, 0.606 of 2^32: j = 1 of 5, 3 of 4, 2 of 3, 1 of 2.
  EXPECT_EQ(draw_permutation(5, 0, 0), (std::vector<int>{0, 4, 2, 3, 1}));
  // Seed and round matter in all their bits.
  const std::uint64_t high = std::uint64_t{1} << 32;
  EXPECT_NE(draw_permutation(40, 0, 0), draw_permutation(40, 1, 0));
  EXPECT_NE(draw_permutation(40, 0, 0), draw_permutation(40, high, 0));
  EXPECT_NE(draw_permutation(40, 0, 0), draw_permutation(40, 0, 1));
  EXPECT_NE(draw_permutation(40, 0, 1), draw_permutation(40, 0, high));
  Input input = line({0, 10, 20, 30, 40});  // buckets of two: (0, 40), (20, 30), (10)
  expect_out(Bucketing{.s = 2} | Median{}, input, {20});
}

TEST(OracleClip, ScalesAboutTheReference) {
  const Input two = rows({{3, 4}, {1, 0}});
  expect_out(Clip{.c = 2} | Mean{}, two, {1.1L, 0.8L});  // (1.2, 1.6) and (1, 0)
  expect_out(Clip{.c = 0} | Mean{}, two, {0, 0});
  expect_out(Clip{.c = 2} | Mean{}, about(rows({{3, 4}}), {3, 0}), {3, 2});
  expect_out(Clip{.c = 2} | Mean{}, rows({{3, 4}, {nan, 0}}), {0.6L, 0.8L});
  expect_out(Clip{.c = 2} | Mean{}, line({nan, nan}), {0});
  expect_out(Clip{.c = 2} | Mean{}, weighted(rows({{3, 4}, {1, 0}}), {3, 1}), {1.15L, 1.2L});
  expect_status(Clip{.c = 2} | Mean{}, about(two, {inf, 0}), Status::nonfinite_base);
}

TEST(OracleQuantileClip, ClipsToAQuantileOfTheNorms) {
  expect_out(QuantileClip{} | Mean{}, line({1, -10, 2, 3}), {0.75L});  // the second norm: −10 becomes −2
  expect_out(QuantileClip{.q = 1} | Mean{}, line({1, -10, 2, 3}), {-1});
  expect_out(QuantileClip{.q = 1e-12} | Mean{}, line({1, -10, 2, 3}), {0.5L});  // the first at least
  expect_out(QuantileClip{} | Mean{}, line({0, 0, 5, 7}), {0});
  expect_out(QuantileClip{} | Mean{}, about(line({4, 9, 0}), {3}), {10 / 3.0L});  // 4, 6 and 0
  expect_out(QuantileClip{} | Mean{}, weighted(line({3, 1}), {3, 1}), {1});
  expect_out(QuantileClip{} | Mean{}, line({1, nan, 3}), {4 / 3.0L});
  expect_out(QuantileClip{} | Mean{}, line({nan, nan, 4}), {4 / 3.0L});  // to +inf: finite rows stay
  expect_out(QuantileClip{} | Krum{.f = 0}, line({nan, nan, nan}), {0});
  expect_status(QuantileClip{} | Mean{}, about(line({1, 2}), {inf}), Status::nonfinite_base);
  std::vector<long double> twenty;
  for (int i = 1; i <= 20; ++i) twenty.push_back(i);
  // 0.55·20 is a little more than 11 in f64, and means 11: (1 + … + 11 + 9·11)/20.
  expect_out(QuantileClip{.q = 0.55} | Mean{}, line(twenty), {8.25L});
}

TEST(OracleArc, ClipsToTheNextNorm) {
  expect_out(Arc{.f = 1} | Mean{}, line({1, -10, 2, 3}), {0.75L});  // k = ⌊2·3/4⌋ = 1: −10 becomes −3
  expect_out(Arc{.f = 1} | Mean{}, line({1, nan, 2, 3}), {1.5L});   // the infinite row becomes 0
  expect_out(Arc{.f = 2} | Mean{}, line({1, 8, 9, 2, 3}), {2.4L});  // k = ⌊4·3/5⌋ = 2: 8 and 9 become 3
  expect_out(Arc{.f = 1} | Mean{}, about(line({1, 20, 12, 13}), {11}), {11.75L});  // 1 becomes 2
  expect_status(Arc{.f = 1} | Mean{}, line({1, nan, 2, inf}), Status::too_many_nonfinite);
  expect_status(Arc{.f = 1} | Mean{}, about(line({1, 2, 3}), {nan}), Status::nonfinite_base);
}

// Client weights and arguments -----------------------------------------------------------------------------

TEST(OracleWeights, RemovesRowsBeforeCounting) {
  expect_out(Median{}, weighted(line({1, 2, 100}), {1, 1, 0}), {1.5L});
  expect_error(Mean{}, weighted(line({1, 2}), {0, 0}));
  expect_error(Monna{.f = 0, .pivot = 2}, weighted(line({1, 2, 100}), {1, 1, 0}));
}

TEST(OracleWeights, MarksRowsOfInvalidWeightInfinite) {
  for (const double bad : {-1.0, nan_weight, std::numeric_limits<double>::infinity()}) {
    expect_out(MultiKrum{.f = 1}, weighted(line({0, 1, 3, 7, 2}), {1, 1, 1, 1, bad}), {2.75L});
    expect_out(TrimmedMean{.f = 1}, weighted(line({1, 2, -50}), {1, 1, bad}), {2});  // it reads +inf
    expect_status(Cge{.f = 0}, weighted(line({1, 2}), {1, bad}), Status::too_many_nonfinite);
  }
}

TEST(OracleWeights, CapsShares) {
  Input input = weighted(line({0, 1, 2}), {1, 1, 8});
  input.max_weight_share = 0.5;
  expect_out(Mean{}, input, {1.25L});  // 8 → 5 → 3.5 → … → 2, half of 1 + 1 + 2
  input.max_weight_share = 1 / 3.0;
  expect_out(Mean{}, input, {1});
  input.max_weight_share = 0.2;
  expect_error(Mean{}, input);
}

TEST(OracleWeights, AreConsumedByNnm) {
  const Input seven = weighted(line({0, 1, 2, 3, 4, 5, 6}), {1, 1, 1, 1, 1, 1, 1});
  for (const Aggregator& rule : std::vector<Aggregator>{Meamed{.f = 1}, Phocas{.f = 1}, Krum{.f = 1},
                                                        Smea{.f = 1}, Caf{.f = 1}, Bulyan{.f = 1}}) {
    EXPECT_EQ(aggregate(Pipeline({Nnm{.f = 1}}, rule), seven).status, Status::ok);
  }
  expect_error(Mean{}, weighted(line({1, 2}), {1}));
}

TEST(OracleArguments, FitEachOther) {
  const Input four = line({0, 1, 2, 3});
  expect_error(Mean{}, rows({}));
  expect_error(Mean{}, rows({{1}, {1, 2}}));
  expect_error(Mean{}, about(four, {1, 2}));
}

TEST(OracleArguments, MayBeOfNoCoordinates) {
  const Input empty = rows({{}, {}, {}, {}, {}, {}, {}});
  for (const Aggregator& rule : std::vector<Aggregator>{Mean{},
                                                        Median{},
                                                        TrimmedMean{.f = 1},
                                                        Meamed{.f = 1},
                                                        Phocas{.f = 1},
                                                        SignVote{},
                                                        Krum{.f = 1},
                                                        MultiKrum{.f = 1},
                                                        GeometricMedian{},
                                                        Huber{.tau = 1},
                                                        AutoGm{.lam = 1},
                                                        CenteredClipping{.tau = 1},
                                                        Mda{.f = 1},
                                                        Smea{.f = 1},
                                                        Caf{.f = 1},
                                                        Monna{.f = 1},
                                                        Cge{.f = 1},
                                                        Faba{.f = 1},
                                                        Dnc{.f = 1},
                                                        Balance{.gamma = 1},
                                                        FlTrust{},
                                                        FoolsGold{},
                                                        MajorityCluster{},
                                                        Bulyan{.f = 1}}) {
    expect_out(rule, empty, {});
    expect_out(Pipeline({Nnm{.f = 1}, Clip{.c = 1}, Arc{.f = 1}}, rule), empty, {});
  }
}

TEST(OracleMargin, IsInfiniteWhereNothingIsDecided) {
  EXPECT_EQ(aggregate(Median{}, line({1, 2, 3})).margin, inf);
  EXPECT_EQ(aggregate(Clip{.c = 1} | TrimmedMean{.f = 1}, line({1, 2, 3})).margin, inf);
  // meamed: distances from 1.5 are 1.5 (kept) and 8.5 (not), of values up to 10.
  EXPECT_LE(std::abs(aggregate(Meamed{.f = 1}, line({0, 1, 2, 10})).margin - 0.7L), 1e-17L);
}

}  // namespace
}  // namespace bragg::reference
