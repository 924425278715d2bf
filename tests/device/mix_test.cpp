// SPDX-License-Identifier: Apache-2.0
// Mixed points on the device, by themselves and under rules, in f64 and in pairs of floats: against sums in
// long double, within the bounds of kernels/select/mix_pairs.cuh and of f64.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>

#include "host/verify/run.hpp"
#include "kernels/select/select.hpp"
#include "tests/device/device_rows.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

using detail::SelectRule;
using detail::cuda::Alignment;
using detail::cuda::SelectArguments;
using detail::cuda::SumUnit;
using Kind = SelectRule::Kind;

constexpr std::array all_alignments{Alignment::vector, Alignment::element, Alignment::byte};
constexpr std::array all_units{SumUnit::f64, SumUnit::double_float};
constexpr std::array narrow_dtypes{DType::f32, DType::f16, DType::bf16};
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double largest_float = 0x1.fffffep127;

struct Mix {
  int points = 0;
  std::vector<double> coefficients;         ///< [point][row]
  std::vector<std::uint8_t> infinite = {};  ///< empty: none
};

/// What a rule makes of mixed points; of Kind::none tensor t of point p is at p · tensors + t.
std::vector<std::vector<long double>> run(DeviceRows& data, const Mix& mix, SumUnit unit,
                                          const SelectRule& rule, DType out_dtype) {
  const RowsShape& shape = data.shape;
  const int outputs = rule.kind == Kind::none ? mix.points : 1;
  std::vector<DeviceTensor> outs;
  std::vector<void*> pointers;
  for (int p = 0; p < outputs; ++p) {
    for (const std::int64_t size : shape.sizes) {
      const std::vector<long double> before(static_cast<std::size_t>(size), 42);
      outs.emplace_back(before, out_dtype, shift_of(shape.alignment, out_dtype, outs.size()));
      pointers.push_back(outs.back().data());
    }
  }
  const DeviceArray<void*> table(pointers);
  const DeviceArray<double> coefficients(mix.coefficients);
  const DeviceArray<std::uint8_t> infinite(mix.infinite);
  SelectArguments a;
  a.rows = data.rows();
  a.tiles = data.cut(detail::cuda::tile_length);
  a.out = {table.data(), nullptr, out_dtype};
  a.rule = rule;
  a.points = mix.points;
  a.mix = coefficients.data();
  a.infinite = mix.infinite.empty() ? nullptr : infinite.data();
  a.unit = unit;
  const detail::cuda::DeviceMemory workspace(detail::cuda::select_workspace_bytes(a));
  a.workspace = workspace.data();
  detail::cuda::select(a, nullptr);
  detail::cuda::synchronize(nullptr);
  std::vector<std::vector<long double>> values;
  for (const DeviceTensor& out : outs) {
    EXPECT_TRUE(out.is_intact());
    values.push_back(out.values(out_dtype));
  }
  return values;
}

/// The mixed points: values as they are sorted.
std::vector<std::vector<long double>> values_of(DeviceRows& data, const Mix& mix, SumUnit unit) {
  return run(data, mix, unit, {.kind = Kind::none}, DType::f32);
}

void expect_right(DeviceRows& data, const Mix& mix, SumUnit unit) {
  const std::vector<std::vector<long double>> got = values_of(data, mix, unit);
  const RowsShape& shape = data.shape;
  const auto rows = static_cast<std::size_t>(shape.count());
  const std::size_t tensors = shape.sizes.size();
  const long double relative = unit == SumUnit::f64 ? verify::f64_sum_error : verify::mixed_sum_error;
  for (std::size_t p = 0; p < static_cast<std::size_t>(mix.points); ++p) {
    for (std::size_t t = 0; t < tensors; ++t) {
      for (std::size_t i = 0; i < static_cast<std::size_t>(shape.sizes[t]); ++i) {
        const long double value = got[p * tensors + t][i];
        SCOPED_TRACE("point " + std::to_string(p) + " tensor " + std::to_string(t) + " at " +
                     std::to_string(i) + " unit " + std::to_string(static_cast<int>(unit)));
        if (!mix.infinite.empty() && mix.infinite[p] != 0) {
          ASSERT_EQ(value, infinity);
          continue;
        }
        long double sum = 0, magnitude = 0;
        for (std::size_t r = 0; r < rows; ++r) {
          const double c = mix.coefficients[p * rows + r];
          if (c == 0) continue;
          const long double term = c * data.values[data.slot(t, static_cast<int>(r))][i];
          sum += term;
          magnitude += std::abs(term);
        }
        const long double error = std::max(static_cast<long double>(rows) * relative * magnitude, 0x1p-1074L);
        ASSERT_TRUE(std::isfinite(value));
        const auto rounded = [](long double x) {
          const long double most = largest_float;  // a finite value never becomes infinite
          return round_to(DType::f32, std::clamp(x, -most, most));
        };
        const long double low = rounded(sum - error);
        const long double high = rounded(sum + error);
        ASSERT_GE(value, low) << static_cast<double>(sum) << " of " << static_cast<double>(magnitude);
        ASSERT_LE(value, high) << static_cast<double>(sum) << " of " << static_cast<double>(magnitude);
        ASSERT_FALSE(magnitude == 0 && std::signbit(value));
      }
    }
  }
}

/// Coefficients as means of rows have them, and rows that nobody has one for.
Mix draw_mix(int points, int rows, int unused, std::mt19937_64& random) {
  Mix mix{.points = points, .coefficients = {}};
  for (int p = 0; p < points; ++p) {
    for (int r = 0; r < rows; ++r) {
      const bool none = r == unused || random() % 4 == 0;
      mix.coefficients.push_back(none ? 0 : std::uniform_real_distribution<double>(-1, 1)(random) / rows);
    }
  }
  return mix;
}

enum class Data { normal, cancelling, sparse, tiny, mixed_scales, huge };
constexpr std::array all_data{Data::normal, Data::cancelling,   Data::sparse,
                              Data::tiny,   Data::mixed_scales, Data::huge};

/// A row's value at a coordinate. Neighbours are of other kinds of numbers.
long double value_at(Data kind, DType dtype, int row, std::int64_t i, std::mt19937_64& random) {
  const long double normal = std::normal_distribution<double>(0, 1)(random);
  const long double smallest = spacing(dtype, 0);
  switch (kind) {
    case Data::normal:
      return normal;
    case Data::cancelling:  // with coefficients that are alike
      return (row % 2 == 0 ? 1 : -1) * (1 + static_cast<long double>(i % 7) / 7) +
             spacing(dtype, 1) * static_cast<long double>(random() % 3);
    case Data::sparse:
      return i % 3 == 0 || random() % 8 != 0 ? 0 : normal;
    case Data::tiny:
      return i % 2 == 0 ? smallest * static_cast<long double>(random() % 9) - 4 * smallest : normal;
    case Data::mixed_scales:
      return std::ldexp(normal, static_cast<int>(random() % 24) - 20 - (dtype == DType::f16 ? 0 : 2 * row));
    case Data::huge:
      break;
  }
  if (i % 3 == 2) return normal;
  return std::clamp(normal, -1.0L, 1.0L) * largest(dtype) * (i % 3 == 0 ? 1 : 0x1p-10L);
}

DeviceRows make_rows(RowsShape shape, Data kind, int unused, std::uint64_t seed) {
  const DType dtype = shape.dtype;
  std::mt19937_64 random(seed);
  return {std::move(shape), [&, kind, dtype, unused](int row, std::int64_t i) -> long double {
            const long double value = value_at(kind, dtype, row, i, random);
            return row == unused ? nan : value;
          }};
}

TEST(MixTest, ValuesAreWithinTheirBounds) {
  Generator random = generator("mix values");
  for (const int points : {1, 5, 8, 9, 16, 17, 40, 70}) {
    for (const int rows : {1, 3, 8, 9, 16, 20, 33}) {
      for (const Data kind : all_data) {
        if (random() % test_share() != 0) continue;
        const DType dtype = narrow_dtypes[random() % 3];
        const int unused = rows > 2 ? static_cast<int>(random() % static_cast<std::uint64_t>(rows)) : -1;
        Mix mix = draw_mix(points, rows, unused, random);
        if (kind == Data::cancelling) {
          for (double& c : mix.coefficients) c = c == 0 ? 0 : 1.0 / (rows + 2);
        }
        if (points > 3) {
          mix.infinite.assign(static_cast<std::size_t>(points), 0);
          mix.infinite[2] = 1;
          std::fill_n(mix.coefficients.begin() + 2 * rows, rows, 0.0);
          // A coefficient that two floats do not hold, and one that makes values beyond the largest float.
          mix.coefficients[static_cast<std::size_t>(rows) - (unused == rows - 1 ? 2 : 1)] = 0x1.5p-70;
          mix.coefficients[static_cast<std::size_t>(2 * rows) - (unused == rows - 1 ? 2 : 1)] = 3;
        }
        const std::uint64_t seed = random();
        for (const SumUnit unit : all_units) {
          std::vector<std::vector<long double>> first;
          for (const Alignment alignment : all_alignments) {
            SCOPED_TRACE(std::string(to_string(dtype)) + " points " + std::to_string(points) + " rows " +
                         std::to_string(rows) + " data " + std::to_string(static_cast<int>(kind)) +
                         " alignment " + std::to_string(static_cast<int>(alignment)));
            DeviceRows data =
                make_rows({.dtype = dtype, .inputs = rows, .sizes = {37, 0, 140}, .alignment = alignment},
                          kind, unused, seed);
            const auto got = values_of(data, mix, unit);
            if (first.empty()) {
              first = got;
              ASSERT_NO_FATAL_FAILURE(expect_right(data, mix, unit));
            }
            ASSERT_EQ(got, first);
          }
        }
      }
    }
  }
}

TEST(MixTest, CoefficientsMayBeOfAnySize) {
  Generator random = generator("mix coefficients");
  for (const double size : {0x1p-140, 0x1p-125, 0x1p-61, 0x1p-60, 0x1p14, 0x1p20, 0x1p100}) {
    const Mix mix{.points = 2, .coefficients = {size * 1.2345, 0, 0, -size / 3, size / 7, size}};
    DeviceRows data({.inputs = 3, .sizes = {100}}, [&](int row, std::int64_t i) -> long double {
      const double normal = std::normal_distribution<double>(0, 1)(random);
      return row == 1 && i % 4 == 0 ? 0 : std::clamp(std::ldexp(normal, static_cast<int>(i)), -3e38, 3e38);
    });
    for (const SumUnit unit : all_units) ASSERT_NO_FATAL_FAILURE(expect_right(data, mix, unit));
  }
}

/// What pairs are off by is seen where rows cancel: it is not f64 that computes them.
TEST(MixTest, PairsAreNotF64) {
  Generator random = generator("mix pairs");
  for (const auto& [points, rows] : {std::pair{5, 16}, {30, 16}, {96, 96}, {200, 60}}) {
    Mix mix{.points = points,
            .coefficients = std::vector<double>(static_cast<std::size_t>(points * rows), 1.0 / 3)};
    const Mix even = mix;
    DeviceRows data = make_rows({.inputs = rows, .sizes = {300}}, Data::cancelling, -1, random());
    EXPECT_NE(values_of(data, mix, SumUnit::double_float), values_of(data, mix, SumUnit::f64));
    // Nor where huge rows were clipped.
    for (std::size_t k = 0; k < mix.coefficients.size(); ++k) {
      mix.coefficients[k] *= k % static_cast<std::size_t>(rows) < 4 ? 0x1p-70 : 1;
    }
    DeviceRows huge({.inputs = rows, .sizes = {300}}, [&data](int row, std::int64_t i) {
      return data.values[data.slot(0, row)][static_cast<std::size_t>(i)] * (row < 4 ? 0x1p70L : 1);
    });
    EXPECT_EQ(values_of(huge, mix, SumUnit::double_float), values_of(data, even, SumUnit::double_float));
    EXPECT_NE(values_of(huge, mix, SumUnit::double_float), values_of(huge, mix, SumUnit::f64));
  }
}

/// Points of a few rows each, of more rows than a block has room for at a time: in blocks of many pieces.
TEST(MixTest, CoefficientsMayBeMoreThanABlockHolds) {
  Generator random = generator("mix many coefficients");
  for (const auto& [points, rows] : {std::pair{200, 60}, {33, 300}, {40, 450}}) {
    if (random() % test_share() != 0) continue;
    SCOPED_TRACE("points " + std::to_string(points) + " rows " + std::to_string(rows));
    Mix mix{.points = points,
            .coefficients = std::vector<double>(static_cast<std::size_t>(points * rows)),
            .infinite = std::vector<std::uint8_t>(static_cast<std::size_t>(points))};
    const int last = points - 2;
    mix.infinite[static_cast<std::size_t>(last)] = 1;
    for (int p = 0; p < points; ++p) {
      double* const c = mix.coefficients.data() + p * rows;
      for (int k = 0; k < 4 && p != last; ++k) {
        c[random() % static_cast<std::uint64_t>(rows)] =
            std::uniform_real_distribution<double>(-1, 1)(random);
      }
      // A row that was clipped from afar, in the last group of points alone.
      c[7] = p != last && p / 16 == last / 16 ? 0x1.8p-66 : 0;
    }
    DeviceRows data =
        make_rows({.dtype = narrow_dtypes[random() % 3], .inputs = rows, .sizes = {37, 0, 5000}},
                  all_data[random() % all_data.size()], -1, random());
    ASSERT_NO_FATAL_FAILURE(expect_right(data, mix, SumUnit::double_float));
  }
}

/// The same under a rule, which takes the tensors one after another.
TEST(MixTest, RulesMayHaveMoreCoefficientsThanABlockHolds) {
#if defined(BRAGG_FEWER_NETWORKS)
  GTEST_SKIP() << "so many points are no network's";
#endif
  Generator random = generator("mix many coefficients of a rule");
  for (const auto& [points, rows] : {std::pair{100, 100}, {81, 81}, {128, 225}, {20, 400}}) {
    if (random() % test_share() != 0) continue;
    SCOPED_TRACE("points " + std::to_string(points) + " rows " + std::to_string(rows));
    const Mix mix = draw_mix(points, rows, -1, random);
    DeviceRows data = make_rows({.inputs = rows, .sizes = {130, 0, 150}}, Data::cancelling, -1, random());
    const auto values = values_of(data, mix, SumUnit::double_float);
    const auto medians =
        run(data, mix, SumUnit::double_float, {Kind::median, EvenMedian::lower, 0, 0}, DType::f32);
    for (std::size_t t = 0; t < 3; ++t) {
      for (std::size_t i = 0; i < medians[t].size(); ++i) {
        std::vector<long double> sorted;
        for (std::size_t p = 0; p < static_cast<std::size_t>(points); ++p)
          sorted.push_back(values[3 * p + t][i]);
        std::sort(sorted.begin(), sorted.end());
        ASSERT_EQ(medians[t][i], sorted[static_cast<std::size_t>(points - 1) / 2]) << t << " at " << i;
      }
    }
  }
}

/// Losses of equal terms are equal, and add up; the last row takes the sum away.
TEST(MixTest, PairsLoseLittleOfManyRows) {
  for (const int rows : {17, 100, 250}) {
    Mix mix{.points = 3, .coefficients = {}};
    for (int p = 0; p < 3; ++p) {
      for (int r = 0; r < rows - 1; ++r) mix.coefficients.push_back(1.0 / (p + 3));
      mix.coefficients.push_back(-(rows - 1.0) / (p + 3));
    }
    DeviceRows data({.inputs = rows, .sizes = {200}},
                    [](int, std::int64_t i) { return static_cast<long double>(2 * i + 1) / 7; });
    expect_right(data, mix, SumUnit::double_float);
    if (HasFatalFailure()) return;
  }
}

/// Bits of a coordinate depend on no other, nor on where its tensor begins, nor on rows without coefficients.
TEST(MixTest, BitsDependOnTheCoordinateAlone) {
  Generator random = generator("mix neighbours");
  for (const SumUnit unit : all_units) {
    for (const int points : {6, 20}) {
      for (int turn = 0; turn < 4; ++turn) {
        const int rows = 10;
        const Mix mix = draw_mix(points, rows, 4, random);
        const std::int64_t size = 300;
        std::vector<std::vector<long double>> values(rows);
        for (auto& row : values) {
          for (std::int64_t i = 0; i < size; ++i)
            row.push_back(1 + std::uniform_real_distribution<double>(-1, 1)(random) * 0x1p-20);
        }
        // So that terms cancel, and each bit of the sums is seen.
        Mix cancelling = mix;
        for (double& c : cancelling.coefficients) c = c == 0 ? 0 : std::copysign(1.0 / 3, c);
        const auto of = [&](std::int64_t begin, std::vector<std::int64_t> sizes, bool hostile) {
          DeviceRows data({.inputs = rows, .sizes = std::move(sizes)},
                          [&](int row, std::int64_t i) -> long double {
                            if (hostile && row == 4) return i % 2 == 0 ? nan : infinity;
                            if (hostile && i % 5 == 1) return row % 2 == 0 ? largest_float : -largest_float;
                            if (hostile && i % 5 == 3) return row * 0x1p-149L;
                            return values[static_cast<std::size_t>(row)][static_cast<std::size_t>(begin + i)];
                          });
          std::vector<std::vector<long double>> all(static_cast<std::size_t>(points));
          const auto got = values_of(data, cancelling, unit);
          const std::size_t tensors = data.shape.sizes.size();
          for (std::size_t k = 0; k < got.size(); ++k) {
            all[k / tensors].insert(all[k / tensors].end(), got[k].begin(), got[k].end());
          }
          return all;
        };
        const auto whole = of(0, {size}, false);
        const auto parts = of(0, {1, 64, 3, 0, 129, 103}, false);
        const auto later = of(17, {size - 17}, false);
        const auto beside = of(0, {size}, true);
        for (std::size_t p = 0; p < whole.size(); ++p) {
          ASSERT_EQ(whole[p], parts[p]);
          for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
            if (i >= 17) {
              ASSERT_EQ(whole[p][i], later[p][i - 17]);
            }
            if (i % 5 != 1 && i % 5 != 3) {
              ASSERT_EQ(whole[p][i], beside[p][i]) << "point " << p << " at " << i;
            }
          }
        }
      }
    }
  }
}

/// Rules see the values that mixed points have, to the bit; means of them are those of f64, rounded once.
TEST(MixTest, RulesSeeTheValues) {
  Generator random = generator("mix rules");
  for (const int points : {1, 3, 8, 9, 16, 17, 30, 33, 50, 64, 70, 100, 128}) {
#if defined(BRAGG_FEWER_NETWORKS)
    if (points > 32) break;
#endif
    for (const Data kind : {Data::normal, Data::cancelling, Data::huge, Data::tiny}) {
      if (random() % test_share() != 0) continue;
      const int rows = 6 + static_cast<int>(random() % 20);
      const DType dtype = narrow_dtypes[random() % 3];
      const Mix mix = draw_mix(points, rows, 2, random);
      DeviceRows data = make_rows(
          {.dtype = dtype, .inputs = rows, .sizes = {150}, .alignment = all_alignments[random() % 3]}, kind,
          2, random());
      const SumUnit unit = all_units[random() % 2];
      const auto values = values_of(data, mix, unit);
      const int f = (points - 1) / 3;
      for (const DType out : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
        SCOPED_TRACE("points " + std::to_string(points) + " data " + std::to_string(static_cast<int>(kind)) +
                     " unit " + std::to_string(static_cast<int>(unit)) + " to " +
                     std::string(to_string(out)));
        const auto means = run(data, mix, unit, {Kind::trimmed_mean, EvenMedian::midpoint, f, 0}, out);
        const auto medians = run(data, mix, unit, {Kind::median, EvenMedian::lower, 0, 0}, out);
        for (std::size_t i = 0; i < 150; ++i) {
          std::vector<double> sorted;
          for (const auto& of_point : values) sorted.push_back(static_cast<double>(of_point[i]));
          std::sort(sorted.begin(), sorted.end());
          const double sum = std::accumulate(sorted.begin() + f, sorted.end() - f, 0.0);
          ASSERT_EQ(medians[0][i], round_to(out, sorted[static_cast<std::size_t>(points - 1) / 2]));
          ASSERT_EQ(means[0][i], round_to(out, sum / (points - 2 * f)));
        }
      }
    }
  }
}

}  // namespace
}  // namespace bragg::test
