// SPDX-License-Identifier: Apache-2.0
// Pass 2 of geometric rules on the device: in f64 bit for bit, fused multiply-adds in row order, rounded
// once; in pairs of floats within the bound that kernels/combine/pairs.cuh states.
#include "kernels/combine/combine.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <bragg/error.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "kernels/common/sum_unit.hpp"
#include "tests/device/device_rows.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

using detail::cuda::Alignment;
using detail::cuda::CombineArguments;
using detail::cuda::SumUnit;

constexpr std::array all_dtypes{DType::f32, DType::f16, DType::bf16, DType::f64};
constexpr std::array all_alignments{Alignment::vector, Alignment::element, Alignment::byte};
constexpr std::array all_units{SumUnit::f64, SumUnit::double_float};
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

struct CombineRequest {
  std::vector<double> coefficients;  ///< part after part
  DType out_dtype = DType::f32;
  int out_row = -1;  ///< the row that the output lies on; −1: none
  bool copy = false;
  bool per_tensor = false;
  std::vector<int> infinite = {};  ///< per part; empty: none
  bool nonfinite = false;
  int status = -1;  ///< −1: no gate
  OnFailure on_failure = OnFailure::keep;
  SumUnit unit = SumUnit::f64;
};

constexpr long double untouched = 42;

struct CombineResult {
  std::vector<std::vector<long double>> out;   ///< per tensor
  std::vector<std::vector<long double>> copy;  ///< per tensor
  std::vector<unsigned long long> nonfinite;   ///< part after part
};

CombineResult run(DeviceRows& data, const CombineRequest& request) {
  const RowsShape& shape = data.shape;
  const std::size_t rows = static_cast<std::size_t>(shape.count());
  const std::size_t parts = request.per_tensor ? shape.sizes.size() : 1;
  // A part's arrays lie one behind the other: coefficients, counts, infinite.
  const std::size_t counts_at = rows;
  const std::size_t infinite_at = 2 * rows;
  const std::size_t stride = infinite_at + 1;
  std::vector<std::uint64_t> words(parts * stride);
  for (std::size_t p = 0; p < parts; ++p) {
    for (std::size_t r = 0; r < rows; ++r) {
      words[p * stride + r] = std::bit_cast<std::uint64_t>(request.coefficients[p * rows + r]);
    }
    if (!request.infinite.empty()) {
      words[p * stride + infinite_at] = static_cast<std::uint64_t>(request.infinite[p]);
    }
  }
  const DeviceArray<std::uint64_t> memory(words);
  std::vector<DeviceTensor> out;
  std::vector<DeviceTensor> copy;
  std::vector<void*> out_pointers;
  std::vector<void*> copy_pointers;
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    const std::vector<long double> before(static_cast<std::size_t>(shape.sizes[t]), untouched);
    out.emplace_back(before, request.out_dtype, shift_of(shape.alignment, request.out_dtype, t + 1));
    copy.emplace_back(before, request.out_dtype, 0);
    out_pointers.push_back(request.out_row < 0 ? out.back().data()
                                               : data.tensors[data.slot(t, request.out_row)].data());
    copy_pointers.push_back(copy.back().data());
  }
  const DeviceArray<void*> out_table(out_pointers);
  const DeviceArray<void*> copy_table(copy_pointers);
  const DeviceArray<int> status(std::vector<int>{request.status});

  CombineArguments arguments;
  arguments.rows = data.rows();
  arguments.tiles = data.cut(detail::cuda::tile_length);
  arguments.parts = {request.per_tensor, stride * 8};
  arguments.out = {out_table.data(), request.copy ? copy_table.data() : nullptr, request.out_dtype};
  if (request.status >= 0) arguments.gate = {status.data(), request.on_failure};
  arguments.unit = request.unit;
  arguments.coefficients = reinterpret_cast<const double*>(memory.data());
  if (request.nonfinite) {
    arguments.nonfinite = reinterpret_cast<unsigned long long*>(memory.data() + counts_at);
  }
  if (!request.infinite.empty()) {
    arguments.infinite = reinterpret_cast<const int*>(memory.data() + infinite_at);
  }
  detail::cuda::combine(arguments, nullptr);

  CombineResult result;
  words = memory.values();
  for (std::size_t p = 0; p < parts; ++p) {
    const std::uint64_t* const at = words.data() + p * stride;
    result.nonfinite.insert(result.nonfinite.end(), at + counts_at, at + infinite_at);
  }
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    const DeviceTensor& target = request.out_row < 0 ? out[t] : data.tensors[data.slot(t, request.out_row)];
    EXPECT_TRUE(target.is_intact());
    result.out.push_back(target.values(request.out_dtype));
    result.copy.push_back(copy[t].values(request.out_dtype));
  }
  for (int r = 0; r < shape.count(); ++r) {
    if (r == request.out_row) continue;
    for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
      const DeviceTensor& tensor = data.tensors[data.slot(t, r)];
      EXPECT_TRUE(tensor.is_intact());
      const std::vector<long double> now = tensor.values(shape.dtype_of(r));
      for (std::size_t i = 0; data.pointers[data.slot(t, r)] != nullptr && i < now.size(); ++i) {
        const long double was = data.values[data.slot(t, r)][i];
        EXPECT_TRUE(now[i] == was || (std::isnan(now[i]) && std::isnan(was)))
            << "row " << r << " was written to";
      }
    }
  }
  return result;
}

/// x rounded once to what the output holds; zero has no sign.
long double rounded(DType dtype, double x) {
  const long double result = round_to(dtype, x);
  return result == 0 ? 0 : result;
}

bool same(long double got, long double want) {
  if (std::isnan(want)) return std::isnan(got);
  return got == want && std::signbit(got) == std::signbit(want);
}

/// How far a sum of so many terms may be off: none of f64, in the order that is asked for.
double bound_of(const RowsShape& shape, SumUnit unit, double sum, double magnitude, int terms) {
  if (unit == SumUnit::f64 || shape.dtype == DType::f64 || !std::isfinite(sum)) return 0;
  // Or what f64 sums of other order are off by, where a sum is near 0.
  return 18.0 * terms * 0x1p-48 * magnitude;
}

void expect_right(const DeviceRows& data, const CombineRequest& request, const CombineResult& got) {
  const RowsShape& shape = data.shape;
  const std::size_t rows = static_cast<std::size_t>(shape.count());
  const bool failed = request.status > 0;
  std::vector<unsigned long long> nonfinite(got.nonfinite.size());
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    const std::size_t part = request.per_tensor ? t : 0;
    const bool infinite = !request.infinite.empty() && request.infinite[part] != 0;
    for (std::size_t i = 0; i < static_cast<std::size_t>(shape.sizes[t]); ++i) {
      double sum = 0;
      double magnitude = 0;
      int terms = 0;
      for (std::size_t r = 0; r < rows && !infinite && !failed; ++r) {
        const double c = request.coefficients[part * rows + r];
        const std::size_t slot = data.slot(t, static_cast<int>(r));
        if (c == 0 || data.pointers[slot] == nullptr) continue;
        const auto x = static_cast<double>(data.values[slot][i]);
        sum = std::fma(c, x, sum);
        magnitude += std::fabs(c * x);
        ++terms;
        if (request.nonfinite && !std::isfinite(x)) ++nonfinite[part * rows + r];
      }
      const double off = bound_of(shape, request.unit, sum, magnitude, terms);
      long double want = rounded(request.out_dtype, infinite ? infinity : sum);
      // Rounding is monotonic: what is off by less than that is rounded to one of these, or between.
      const long double least = rounded(request.out_dtype, sum - off);
      const long double most = rounded(request.out_dtype, sum + off);
      if (off > 0 && !infinite && !failed && got.out[t][i] >= least && got.out[t][i] <= most)
        want = got.out[t][i];
      if (failed) {
        const long double before =
            request.out_row < 0 ? untouched : data.values[data.slot(t, request.out_row)][i];
        want = request.on_failure == OnFailure::keep   ? before
               : request.on_failure == OnFailure::zero ? 0
                                                       : static_cast<long double>(nan);
      }
      ASSERT_TRUE(same(got.out[t][i], want))
          << "tensor " << t << ", coordinate " << i << ": got " << got.out[t][i] << ", want " << want;
      const long double copied = request.copy && !failed ? want : untouched;
      ASSERT_TRUE(same(got.copy[t][i], copied)) << "copy, tensor " << t << ", coordinate " << i;
    }
  }
  ASSERT_EQ(got.nonfinite, nonfinite);
}

std::string describe(const RowsShape& shape, const CombineRequest& request) {
  std::string text = std::to_string(shape.inputs) + " rows of " + to_string(shape.dtype);
  for (const DType dtype : shape.references) text += std::string(" + ") + to_string(dtype);
  return text + ", out " + to_string(request.out_dtype) + ", alignment " +
         std::to_string(static_cast<int>(shape.alignment)) + ", sums in " +
         detail::cuda::to_string(request.unit);
}

std::vector<double> draw_coefficients(std::mt19937_64& random, std::size_t count) {
  std::vector<double> coefficients(count);
  for (double& c : coefficients) {
    c = random() % 3 == 0 ? 0.0 : std::normal_distribution<double>(0, 1)(random);
  }
  return coefficients;
}

DeviceRows::Values normal_values(std::mt19937_64& random) {
  return [&random](int, std::int64_t) {
    return static_cast<long double>(std::normal_distribution<double>(0, 1)(random));
  };
}

/// What a row of coefficient 0 holds must not matter.
DeviceRows::Values hostile_values(std::mt19937_64& random, std::uint64_t rate) {
  return [&random, rate](int, std::int64_t) -> long double {
    if (random() % rate != 0) return std::normal_distribution<double>(0, 1)(random);
    switch (random() % 6) {
      case 0:
        return nan;
      case 1:
        return infinity;
      case 2:
        return -infinity;
      case 3:
        return -0.0L;
      case 4:
        return 3e38L;
      default:
        return 1e-42L;
    }
  };
}

const std::vector<std::int64_t> odd_sizes{0, 1024, 1, 2048 + 77, 0, 0, 8, 130, 0};

TEST(CombineTest, MatchesFusedSumsBitForBit) {
  Generator random = generator("combine: sums");
  for (const int rows : {1, 2, 3, 4, 5, 8, 9, 17, 64}) {
    for (const DType dtype : all_dtypes) {
      for (const DType out_dtype : all_dtypes) {
        for (const Alignment alignment : all_alignments) {
          if (random() % test_share() != 0) continue;
          if (rows > 9 && out_dtype != dtype) continue;
          const RowsShape shape{.dtype = dtype, .inputs = rows, .sizes = odd_sizes, .alignment = alignment};
          const CombineRequest request{
              .coefficients = draw_coefficients(random, static_cast<std::size_t>(rows)),
              .out_dtype = out_dtype,
              .copy = random() % 2 == 0,
              .nonfinite = random() % 2 == 0,
              .unit = all_units[random() % 2]};
          SCOPED_TRACE(describe(shape, request));
          DeviceRows data(shape, normal_values(random));
          expect_right(data, request, run(data, request));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(CombineTest, HostileValuesFollowIeeeAndAreCounted) {
  Generator random = generator("combine: hostile");
  for (const int rows : {1, 4, 11, 33}) {
    for (const DType dtype : all_dtypes) {
      for (const Alignment alignment : all_alignments) {
        if (random() % test_share() != 0) continue;
        for (const std::uint64_t rate : {1, 5, 700}) {
          const RowsShape shape{.dtype = dtype,
                                .inputs = rows,
                                .references = {DType::f64, dtype},
                                .sizes = odd_sizes,
                                .alignment = alignment};
          CombineRequest request{
              .coefficients = draw_coefficients(random, static_cast<std::size_t>(rows) + 2),
              .out_dtype = dtype,
              .nonfinite = true,
              .unit = all_units[random() % 2]};
          request.coefficients[0] = 1e-300;
          SCOPED_TRACE(describe(shape, request));
          DeviceRows data(shape, hostile_values(random, rate));
          expect_right(data, request, run(data, request));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(CombineTest, RowsBeyondAGroupAreAddedInOrder) {
  Generator random = generator("combine: groups");
  for (const int rows : {255, 256, 257, 300, 700}) {
    for (const Alignment alignment : all_alignments) {
      if (random() % test_share() != 0) continue;
      const RowsShape shape{.dtype = DType::bf16,
                            .inputs = rows,
                            .references = {DType::f32},
                            .sizes = {1030, 5},
                            .alignment = alignment};
      const CombineRequest request{
          .coefficients = draw_coefficients(random, static_cast<std::size_t>(rows) + 1),
          .out_dtype = DType::f32,
          .nonfinite = true,
          .unit = all_units[random() % 2]};
      SCOPED_TRACE(describe(shape, request));
      DeviceRows data(shape, hostile_values(random, 500));
      expect_right(data, request, run(data, request));
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CombineTest, ReferencesOfAnyDtypeAndZeros) {
  Generator random = generator("combine: references");
  for (const DType dtype : all_dtypes) {
    for (const DType first : all_dtypes) {
      for (const DType second : all_dtypes) {
        const Alignment alignment = all_alignments[random() % 3];
        const RowsShape shape{.dtype = dtype,
                              .inputs = 31,  // the references lie on both sides of a warp's border
                              .references = {first, second},
                              .zeros = {random() % 3 == 0, random() % 3 == 0},
                              .sizes = {3, 1500},
                              .alignment = alignment};
        CombineRequest request{.coefficients = draw_coefficients(random, 33),
                               .out_dtype = dtype,
                               .unit = all_units[random() % 2]};
        request.coefficients[31] = 0.25;
        request.coefficients[32] = -3;
        SCOPED_TRACE(describe(shape, request));
        DeviceRows data(shape, normal_values(random));
        if (random() % 2 == 0) data.make_null(1, 31);
        expect_right(data, request, run(data, request));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CombineTest, OutputMayLieOnARow) {
  Generator random = generator("combine: in place");
  for (const DType dtype : all_dtypes) {
    for (const Alignment alignment : all_alignments) {
      if (random() % test_share() != 0) continue;
      for (const int row : {0, 3, 5}) {
        const RowsShape shape{
            .dtype = dtype, .inputs = 5, .references = {dtype}, .sizes = odd_sizes, .alignment = alignment};
        const CombineRequest request{.coefficients = {0.5, -1, 0, 2, 0.125, 1},
                                     .out_dtype = dtype,
                                     .out_row = row,
                                     .copy = true,
                                     .nonfinite = true,
                                     .unit = all_units[random() % 2]};
        SCOPED_TRACE(describe(shape, request) + ", row " + std::to_string(row));
        DeviceRows data(shape, hostile_values(random, 300));
        expect_right(data, request, run(data, request));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CombineTest, AFailedRunKeepsOrFillsTheOutput) {
  Generator random = generator("combine: gate");
  for (const DType dtype : all_dtypes) {
    for (const OnFailure on_failure : {OnFailure::keep, OnFailure::nan, OnFailure::zero}) {
      for (const Status status : {Status::ok, Status::too_many_nonfinite}) {
        const RowsShape shape{.dtype = dtype, .inputs = 3, .sizes = odd_sizes};
        const CombineRequest request{.coefficients = {1, 2, 3},
                                     .out_dtype = dtype,
                                     .copy = true,
                                     .nonfinite = true,
                                     .status = static_cast<int>(status),
                                     .on_failure = on_failure,
                                     .unit = all_units[random() % 2]};
        SCOPED_TRACE(describe(shape, request));
        DeviceRows data(shape, normal_values(random));
        expect_right(data, request, run(data, request));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(CombineTest, PartsHaveCoefficientsOfTheirOwn) {
  Generator random = generator("combine: parts");
  for (const DType dtype : all_dtypes) {
    for (const Alignment alignment : all_alignments) {
      if (random() % test_share() != 0) continue;
      const RowsShape shape{.dtype = dtype, .inputs = 6, .sizes = odd_sizes, .alignment = alignment};
      const CombineRequest request{.coefficients = draw_coefficients(random, 6 * odd_sizes.size()),
                                   .out_dtype = dtype,
                                   .copy = true,
                                   .per_tensor = true,
                                   .infinite = {0, 0, 1, 0, 1, 0, 1, 0, 1},
                                   .nonfinite = true,
                                   .unit = all_units[random() % 2]};
      SCOPED_TRACE(describe(shape, request));
      DeviceRows data(shape, hostile_values(random, 300));
      expect_right(data, request, run(data, request));
      if (HasFatalFailure()) return;
    }
  }
}

TEST(CombineTest, SumsBeyondTheOutputsRangeAreInfinite) {
  for (const DType out_dtype : all_dtypes) {
    const RowsShape shape{.dtype = DType::f64, .inputs = 2, .sizes = {1030}};
    const CombineRequest request{.coefficients = {1, 1}, .out_dtype = out_dtype, .nonfinite = true};
    DeviceRows data(shape, [](int, std::int64_t i) { return i % 2 == 0 ? 1.7e308L : -3e-320L; });
    expect_right(data, request, run(data, request));
    if (HasFatalFailure()) return;
  }
}

/// Sums of the largest floats, of the smallest, and of both; coefficients that floats do not hold.
TEST(CombineTest, PairsOfFloatsHoldWhatF64Holds) {
  Generator random = generator("combine: range");
  constexpr double largest = 0x1.fffffep127;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for (const Alignment alignment : all_alignments) {
      for (int kind = 0; kind < 5; ++kind) {
        const int rows = 3 + static_cast<int>(random() % 30);
        const auto scale = [&, kind](int row) {
          const double powers[] = {1e38, 1e-30, 1e-44, row % 2 == 0 ? 1e38 : 1e-38, 1.0};
          return dtype == DType::f16 ? 1.0 : powers[kind];
        };
        const RowsShape shape{.dtype = dtype, .inputs = rows, .sizes = {1024, 300}, .alignment = alignment};
        CombineRequest request{.coefficients = draw_coefficients(random, static_cast<std::size_t>(rows)),
                               .out_dtype = random() % 2 == 0 ? DType::f32 : DType::f64,
                               .nonfinite = true,
                               .unit = SumUnit::double_float};
        if (kind == 3) {
          for (std::size_t r = 0; r < request.coefficients.size(); r += 2) request.coefficients[r] *= 1e-38;
        }
        if (kind == 4) {
          for (double& c : request.coefficients) c = std::ldexp(c, static_cast<int>(random() % 160) - 120);
        }
        SCOPED_TRACE(describe(shape, request) + ", kind " + std::to_string(kind));
        DeviceRows data(shape, [&](int row, std::int64_t i) -> long double {
          if (i % 5 == 0) return 0;
          if (kind == 0 && dtype == DType::f32 && i % 7 == 0) return row % 2 == 0 ? largest : -largest;
          return std::clamp(std::normal_distribution<double>(0, 1)(random) * scale(row), -3e38, 3e38);
        });
        expect_right(data, request, run(data, request));
        if (HasFatalFailure()) return;
      }
    }
  }
}

/// A mean of equal values, and one that cancels.
TEST(CombineTest, PairsOfFloatsKeepWhatAFloatWouldLose) {
  for (const int rows : {2, 16, 200}) {
    const RowsShape shape{.inputs = rows, .sizes = {2048}};
    const CombineRequest request{
        .coefficients = std::vector<double>(static_cast<std::size_t>(rows), 1.0 / rows),
        .out_dtype = DType::f64,
        .unit = SumUnit::double_float};
    DeviceRows data(shape, [&](int row, std::int64_t i) -> long double {
      const long double large = 1 + static_cast<long double>(i);
      return i % 2 == 0 ? large / 3 : row % 2 == 0 ? large : -large * (1 + 0x1p-22L);
    });
    expect_right(data, request, run(data, request));
    if (HasFatalFailure()) return;
  }
}

/// Equal terms lose the same each time, so that roundings add up.
TEST(CombineTest, PairsOfFloatsLoseLittleOfManyRows) {
  const int rows = 3000;
  const RowsShape shape{.inputs = rows, .sizes = {40}};
  const CombineRequest request{.coefficients = std::vector<double>(static_cast<std::size_t>(rows), 1.0 / 3),
                               .out_dtype = DType::f64,
                               .unit = SumUnit::double_float};
  DeviceRows data(shape, [](int, std::int64_t i) { return static_cast<long double>(2 * i + 1) / 7; });
  expect_right(data, request, run(data, request));
}

TEST(CombineTest, CoefficientsThatAreNotFiniteLeaveNoNumber) {
  for (const SumUnit unit : all_units) {
    for (const double bad : {infinity, -infinity, nan}) {
      const CombineRequest request{.coefficients = {0.5, bad, 2}, .nonfinite = true, .unit = unit};
      DeviceRows data({.inputs = 3, .sizes = {1024, 9}},
                      [](int, std::int64_t i) { return i % 3 == 0 ? 0 : 1.5L; });
      expect_right(data, request, run(data, request));
    }
  }
}

TEST(CombineTest, AlignmentChangesNoBits) {
  Generator random = generator("combine: alignment");
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const SumUnit unit : all_units) {
      const int rows = 21;
      std::vector<std::vector<long double>> first;
      const std::vector<double> coefficients = draw_coefficients(random, static_cast<std::size_t>(rows));
      const std::uint64_t seed = random();
      for (const Alignment alignment : all_alignments) {
        std::mt19937_64 values(seed);
        DeviceRows data({.dtype = dtype, .inputs = rows, .sizes = {1024, 77}, .alignment = alignment},
                        normal_values(values));
        const CombineRequest request{.coefficients = coefficients, .out_dtype = DType::f64, .unit = unit};
        const CombineResult got = run(data, request);
        if (first.empty()) first = got.out;
        EXPECT_EQ(got.out, first);
      }
    }
  }
}

TEST(CombineTest, TheUnitIsThatOfTheDeviceOrTheEnvironment) {
  using detail::cuda::preferred_sum_unit;
  using detail::cuda::sum_unit_of;
  for (const SumUnit unit : all_units) EXPECT_EQ(sum_unit_of(detail::cuda::to_string(unit)), unit);
  EXPECT_EQ(sum_unit_of(nullptr), SumUnit::automatic);
  EXPECT_EQ(sum_unit_of(""), SumUnit::automatic);
  EXPECT_THROW(sum_unit_of("f32"), Error);
  for (const int fast : {80, 90, 100}) EXPECT_EQ(preferred_sum_unit(fast), SumUnit::f64);
  for (const int slow : {86, 89, 103, 120}) EXPECT_EQ(preferred_sum_unit(slow), SumUnit::double_float);
}

TEST(CombineTest, NoRowsWithWeightGiveZerosAndNoCoordinatesNothing) {
  Generator random = generator("combine: nothing");
  DeviceRows data({.inputs = 3, .sizes = {1024, 10}}, hostile_values(random, 1));
  const CombineRequest request{.coefficients = {0, -0.0, 0}, .nonfinite = true};
  expect_right(data, request, run(data, request));
  DeviceRows empty({.inputs = 3, .sizes = {0}}, normal_values(random));
  expect_right(empty, request, run(empty, request));
}

}  // namespace
}  // namespace bragg::test
