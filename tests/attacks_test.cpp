// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <bragg/attacks.hpp>

#include <bit>
#include <cmath>

namespace bragg::attacks {
namespace {

template <class T>
std::span<const T> view(const std::vector<T>& values) {
  return values;
}

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
