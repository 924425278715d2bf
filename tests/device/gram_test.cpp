// SPDX-License-Identifier: Apache-2.0
// The Gram pass of the device against sums in long double, and against itself where bits must agree.
#include "kernels/gram/gram.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <string>

#include "tests/device/device_rows.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

using detail::cuda::Alignment;
using detail::cuda::GramArguments;

constexpr std::array all_dtypes{DType::f32, DType::f16, DType::bf16, DType::f64};
constexpr std::array all_alignments{Alignment::vector, Alignment::element, Alignment::byte};
const std::vector<int> row_counts{1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 15, 16,  17,  23,  24,  25,
                                  31, 32, 33, 40, 41, 47, 48, 49, 63, 64, 65, 127, 128, 129, 200, 300};
constexpr double infinity = std::numeric_limits<double>::infinity();

struct GramRequest {
  std::int64_t chunk = 256;
  std::int64_t batch = 0;  ///< 0: gram_batch
  bool per_tensor = false;
  bool products = true;
  bool pairs = true;
  bool add = false;
  std::vector<double> before = {};  ///< products before the pass; empty: NaN
  bool nonfinite = true;
  bool max_abs = true;
  std::vector<double> scale = {};  ///< per part; empty: none
  std::vector<int> skip = {};      ///< per part; empty: none
};

struct GramResult {
  std::size_t rows = 0;
  std::vector<double> products;  ///< part after part
  std::vector<unsigned long long> nonfinite;
  std::vector<unsigned long long> max_abs;

  double at(int i, int j, std::size_t part = 0) const {
    return products[part * rows * rows + static_cast<std::size_t>(i) * rows + static_cast<std::size_t>(j)];
  }
  bool operator==(const GramResult& other) const {
    const auto same = [](double a, double b) {
      return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
    };
    return std::equal(products.begin(), products.end(), other.products.begin(), other.products.end(), same) &&
           nonfinite == other.nonfinite && max_abs == other.max_abs;
  }
};

GramResult run(DeviceRows& data, const GramRequest& request = {}) {
  const std::size_t rows = static_cast<std::size_t>(data.shape.count());
  const std::size_t parts = request.per_tensor ? data.shape.sizes.size() : 1;
  // A part's arrays lie one behind the other: products, counts, magnitudes, scale, skip.
  const std::size_t counts_at = rows * rows;
  const std::size_t max_abs_at = counts_at + rows;
  const std::size_t scale_at = max_abs_at + rows;
  const std::size_t skip_at = scale_at + 1;
  const std::size_t stride = skip_at + 1;
  std::vector<std::uint64_t> words(parts * stride);
  for (std::size_t p = 0; p < parts; ++p) {
    for (std::size_t k = 0; k < rows * rows; ++k) {
      const double before = request.before.empty() ? std::numeric_limits<double>::quiet_NaN()
                                                   : request.before[p * rows * rows + k];
      words[p * stride + k] = std::bit_cast<std::uint64_t>(before);
    }
    if (!request.scale.empty()) {
      words[p * stride + scale_at] = std::bit_cast<std::uint64_t>(request.scale[p]);
    }
    if (!request.skip.empty()) words[p * stride + skip_at] = static_cast<std::uint64_t>(request.skip[p]);
  }
  const DeviceArray<std::uint64_t> memory(words);
  GramArguments arguments;
  arguments.rows = data.rows();
  arguments.chunks = data.cut(request.chunk);
  arguments.parts = {request.per_tensor, stride * 8};
  arguments.batch = request.batch > 0 ? request.batch
                                      : detail::cuda::gram_batch(data.shape.count(), arguments.chunks.pieces,
                                                                 request.pairs);
  const std::size_t per_chunk = request.pairs ? rows * (rows + 1) / 2 : 2 * rows;
  const detail::cuda::DeviceMemory partial(static_cast<std::size_t>(arguments.batch) * per_chunk * 8);
  arguments.partial = static_cast<double*>(partial.data());
  if (request.products) arguments.products = reinterpret_cast<double*>(memory.data());
  arguments.pairs = request.pairs;
  arguments.add = request.add;
  if (request.nonfinite) {
    arguments.nonfinite = reinterpret_cast<unsigned long long*>(memory.data() + counts_at);
  }
  if (request.max_abs) arguments.max_abs = reinterpret_cast<unsigned long long*>(memory.data() + max_abs_at);
  if (!request.scale.empty()) arguments.scale = reinterpret_cast<double*>(memory.data() + scale_at);
  if (!request.skip.empty()) arguments.skip = reinterpret_cast<int*>(memory.data() + skip_at);
  detail::cuda::gram(arguments, nullptr);

  words = memory.values();
  GramResult result;
  result.rows = rows;
  for (std::size_t p = 0; p < parts; ++p) {
    const std::uint64_t* const at = words.data() + p * stride;
    for (std::size_t k = 0; k < rows * rows; ++k) result.products.push_back(std::bit_cast<double>(at[k]));
    result.nonfinite.insert(result.nonfinite.end(), at + counts_at, at + max_abs_at);
    result.max_abs.insert(result.max_abs.end(), at + max_abs_at, at + scale_at);
  }
  for (const DeviceTensor& tensor : data.tensors) EXPECT_TRUE(tensor.is_intact());
  return result;
}

/// Which coordinates a part is made of.
std::vector<std::size_t> tensors_of(const DeviceRows& data, bool per_tensor, std::size_t part) {
  if (per_tensor) return {part};
  std::vector<std::size_t> all;
  for (std::size_t t = 0; t < data.shape.sizes.size(); ++t) all.push_back(t);
  return all;
}

/// Products within the error of summing in any order, (terms + 1) units of the sum of magnitudes; counts and
/// magnitudes exactly.
void expect_right(const DeviceRows& data, const GramRequest& request, const GramResult& got) {
  const int rows = data.shape.count();
  const std::size_t parts = request.per_tensor ? data.shape.sizes.size() : 1;
  for (std::size_t p = 0; p < parts; ++p) {
    const bool skipped = !request.skip.empty() && request.skip[p] != 0;
    const std::vector<std::size_t> tensors = tensors_of(data, request.per_tensor, p);
    std::vector<std::vector<double>> x(static_cast<std::size_t>(rows));
    std::vector<unsigned long long> nonfinite(static_cast<std::size_t>(rows));
    for (int r = 0; r < rows; ++r) {
      const std::size_t row = static_cast<std::size_t>(r);
      const bool wide = data.shape.dtype_of(r) == DType::f64;
      const double scale = wide && !request.scale.empty() ? request.scale[p] : 1.0;
      double most = 0;
      for (const std::size_t t : tensors) {
        for (const long double value : data.values[data.slot(t, r)]) {
          const auto v = static_cast<double>(value);
          nonfinite[row] += std::isfinite(v) ? 0 : 1;
          if (wide && std::isfinite(v)) most = std::max(most, std::fabs(v));
          x[row].push_back(v * scale);
        }
      }
      const std::size_t at = p * static_cast<std::size_t>(rows) + row;
      ASSERT_EQ(got.nonfinite[at], skipped || !request.nonfinite ? 0 : nonfinite[row]) << "row " << r;
      ASSERT_EQ(std::bit_cast<double>(got.max_abs[at]), skipped || !request.max_abs ? 0 : most)
          << "row " << r;
    }
    for (int i = 0; request.products && i < rows; ++i) {
      for (int j = 0; j <= i; ++j) {
        const std::size_t k =
            p * static_cast<std::size_t>(rows * rows) + static_cast<std::size_t>(i * rows + j);
        const double before = request.before.empty() ? 0 : request.before[k];
        if (skipped) {
          ASSERT_EQ(got.at(i, j, p), before);
          continue;
        }
        ASSERT_EQ(std::bit_cast<std::uint64_t>(got.at(i, j, p)),
                  std::bit_cast<std::uint64_t>(got.at(j, i, p)))
            << i << ", " << j;
        if (!request.pairs && i != j && i < data.shape.inputs) {
          ASSERT_EQ(got.at(i, j, p), request.add ? before : 0) << "pair " << i << ", " << j << ", not wanted";
          continue;
        }
        if (nonfinite[static_cast<std::size_t>(i)] + nonfinite[static_cast<std::size_t>(j)] > 0) continue;
        const std::vector<double>& a = x[static_cast<std::size_t>(i)];
        const std::vector<double>& b = x[static_cast<std::size_t>(j)];
        long double sum = request.add ? before : 0;
        long double magnitude = std::fabs(sum);
        for (std::size_t c = 0; c < a.size(); ++c) {
          const long double product = static_cast<long double>(a[c]) * b[c];
          sum += product;
          magnitude += std::fabs(product);
        }
        const long double allowed = static_cast<long double>(a.size() + 1) * 0x1p-53L * magnitude;
        ASSERT_LE(std::fabs(got.at(i, j, p) - sum), allowed)
            << "pair " << i << ", " << j << " of " << rows << ", part " << p << ": got " << got.at(i, j, p)
            << ", want " << static_cast<double>(sum);
      }
    }
  }
}

std::string describe(const RowsShape& shape) {
  std::string text = std::to_string(shape.inputs) + " rows of " + to_string(shape.dtype);
  for (const DType dtype : shape.references) text += std::string(" + ") + to_string(dtype);
  return text + ", alignment " + std::to_string(static_cast<int>(shape.alignment));
}

DeviceRows::Values normal_values(std::mt19937_64& random) {
  return [&random](int, std::int64_t) {
    return static_cast<long double>(std::normal_distribution<double>(0.5, 1)(random));
  };
}

std::vector<std::int64_t> sizes_for(int rows) {
  if (rows > 130) return {75, 1, 0, 300};
  return {0, 261, 1, 0, 0, 300, 37, 0};
}

TEST(GramTest, MatchesExactSumsForEveryRowCountDtypeAndAlignment) {
  Generator random = generator("gram: exact sums");
  for (const int rows : row_counts) {
    for (const DType dtype : all_dtypes) {
      for (const Alignment alignment : all_alignments) {
        if (random() % test_share() != 0) continue;
        if (rows > 66 && alignment != all_alignments[random() % 3]) continue;  // for time
        const RowsShape shape{
            .dtype = dtype, .inputs = rows, .sizes = sizes_for(rows), .alignment = alignment};
        SCOPED_TRACE(describe(shape));
        DeviceRows data(shape, normal_values(random));
        const GramRequest request{.chunk = rows % 2 == 0 ? 256 : 1024};
        expect_right(data, request, run(data, request));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(GramTest, SmallIntegersAreExactWhateverTheAlignment) {
  Generator random = generator("gram: integers");
  for (const int rows : {1, 4, 7, 13, 20, 30, 37, 48, 70}) {
    for (const DType dtype : all_dtypes) {
      RowsShape shape{.dtype = dtype, .inputs = rows, .sizes = {700, 33}};
      std::vector<int> integers(static_cast<std::size_t>(rows) * 733);
      for (int& x : integers) x = static_cast<int>(random() % 201) - 100;
      const auto value = [&](int row, std::int64_t j) {
        return static_cast<long double>(integers[static_cast<std::size_t>(row * 733 + j)]);
      };
      for (const Alignment alignment : all_alignments) {
        if (random() % test_share() != 0) continue;
        shape.alignment = alignment;
        SCOPED_TRACE(describe(shape));
        DeviceRows data(shape, value);
        const GramResult got = run(data, {.chunk = 512});
        for (int i = 0; i < rows; ++i) {
          for (int j = 0; j < rows; ++j) {
            long long sum = 0;
            for (std::int64_t c = 0; c < 733; ++c) {
              sum += integers[static_cast<std::size_t>(i * 733 + c)] *
                     integers[static_cast<std::size_t>(j * 733 + c)];
            }
            ASSERT_EQ(got.at(i, j), static_cast<double>(sum));
          }
        }
      }
    }
  }
}

TEST(GramTest, BitsDoNotDependOnAlignmentBatchesOrTheRun) {
  Generator random = generator("gram: bits");
  for (const int rows : {2, 8, 16, 24, 32, 40, 48, 70, 130}) {
    for (const DType dtype : all_dtypes) {
      if (random() % test_share() != 0) continue;
      RowsShape shape{.dtype = dtype, .inputs = rows, .sizes = {600, 0, 129}};
      std::vector<long double> x(static_cast<std::size_t>(rows) * 729);
      for (long double& v : x) v = std::normal_distribution<double>(0, 1)(random);
      const auto value = [&](int row, std::int64_t j) { return x[static_cast<std::size_t>(row * 729 + j)]; };
      std::optional<GramResult> first;
      for (const Alignment alignment : all_alignments) {
        shape.alignment = alignment;
        SCOPED_TRACE(describe(shape));
        DeviceRows data(shape, value);
        for (const std::int64_t batch : alignment == Alignment::vector ? std::vector<std::int64_t>{0, 1, 3}
                                                                       : std::vector<std::int64_t>{2}) {
          const GramResult got = run(data, {.chunk = 128, .batch = batch});
          if (!first) first = got;
          ASSERT_TRUE(got == *first) << "batch " << batch;
        }
      }
    }
  }
}

TEST(GramTest, EqualRowsHaveEqualProducts) {
  Generator random = generator("gram: equal rows");
  for (const int rows : row_counts) {
    if (rows < 2) continue;
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      if (random() % larger_share() != 0) continue;
      // Two copies somewhere, wherever they fall in tiles.
      const int first = static_cast<int>(random() % static_cast<std::uint64_t>(rows));
      const int second =
          (first + 1 + static_cast<int>(random() % static_cast<std::uint64_t>(rows - 1))) % rows;
      std::vector<long double> copy(600);
      for (long double& v : copy) v = std::normal_distribution<double>(3, 1)(random);
      const auto value = [&](int row, std::int64_t j) {
        return row == first || row == second
                   ? copy[static_cast<std::size_t>(j)]
                   : static_cast<long double>(std::normal_distribution<double>(3, 1)(random));
      };
      const RowsShape shape{.dtype = dtype, .inputs = rows, .sizes = {599}};
      SCOPED_TRACE(describe(shape));
      DeviceRows data(shape, value);
      const GramResult got = run(data);
      ASSERT_EQ(got.at(first, first), got.at(first, second));
      ASSERT_EQ(got.at(first, first), got.at(second, second));
      for (int k = 0; k < rows; ++k) ASSERT_EQ(got.at(first, k), got.at(second, k));
    }
  }
}

TEST(GramTest, ReferencesOfTheirOwnDtypes) {
  Generator random = generator("gram: references");
  for (const int inputs : {1, 3, 7, 8, 15, 30, 47, 48, 63, 64, 127}) {
    for (const DType dtype : all_dtypes) {
      for (const DType other : all_dtypes) {
        for (int zeros = 0; zeros < 4; ++zeros) {
          if (random() % test_share() != 0) continue;
          const Alignment alignment = all_alignments[random() % 3];
          const RowsShape shape{.dtype = dtype,
                                .inputs = inputs,
                                .references = {other, dtype},
                                .zeros = {(zeros & 1) != 0, (zeros & 2) != 0},
                                .sizes = {133, 0, 70},
                                .alignment = alignment};
          SCOPED_TRACE(describe(shape) + ", zeros " + std::to_string(zeros));
          DeviceRows data(shape, normal_values(random));
          if (random() % 2 == 0) data.make_null(2, inputs);
          const GramRequest request{.chunk = 128};
          expect_right(data, request, run(data, request));
          if (HasFatalFailure()) return;
          if (inputs > 50 && zeros == 2) break;
        }
      }
    }
  }
}

TEST(GramTest, CountsHostileValuesAndKeepsThemToTheirPairs) {
  Generator random = generator("gram: hostile");
  const std::array hostile{std::numeric_limits<long double>::quiet_NaN(), static_cast<long double>(infinity),
                           -static_cast<long double>(infinity)};
  for (const int rows : row_counts) {
    for (const DType dtype : all_dtypes) {
      for (const Alignment alignment : all_alignments) {
        if (random() % test_share() != 0) continue;
        if (rows > 66 && alignment != all_alignments[random() % 3]) continue;  // for time
        const RowsShape shape{
            .dtype = dtype, .inputs = rows, .sizes = {1, 333, 0, 100}, .alignment = alignment};
        SCOPED_TRACE(describe(shape));
        const std::uint64_t rate = random() % 3 == 0 ? 2 : 97;
        const long double largest = std::ldexp(2.0L - std::ldexp(1.0L, 1 - format_of(dtype).precision),
                                               dtype == DType::f64 ? 490 : format_of(dtype).max_exponent);
        std::vector<bool> bad(static_cast<std::size_t>(rows));
        for (std::size_t r = 0; r < bad.size(); ++r) bad[r] = random() % 3 == 0;
        DeviceRows data(shape, [&](int row, std::int64_t) -> long double {
          if (bad[static_cast<std::size_t>(row)] && random() % rate == 0) return hostile[random() % 3];
          switch (random() % 8) {
            case 0:
              return largest;
            case 1:
              return -largest;
            case 2:
              return -0.0L;
            case 3:
              return std::ldexp(1.0L, format_of(dtype).min_exponent - format_of(dtype).precision + 1);
            default:
              return std::normal_distribution<double>(0, 1)(random);
          }
        });
        const GramRequest request{.chunk = 256};
        const GramResult got = run(data, request);
        // Denormal f64 products fall below what doubles hold.
        if (dtype != DType::f64) expect_right(data, request, got);
        GramRequest lengths = request;
        lengths.pairs = false;
        const GramResult of_lengths = run(data, lengths);
        if (dtype != DType::f64) expect_right(data, lengths, of_lengths);
        ASSERT_EQ(of_lengths.nonfinite, got.nonfinite);
        ASSERT_EQ(of_lengths.max_abs, got.max_abs);
        GramRequest statistics = request;
        statistics.products = false;
        const GramResult seen = run(data, statistics);
        expect_right(data, statistics, seen);
        ASSERT_EQ(seen.nonfinite, got.nonfinite);
        ASSERT_EQ(seen.max_abs, got.max_abs);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(GramTest, PartsHaveProductsOfTheirOwn) {
  Generator random = generator("gram: parts");
  for (const int rows : {3, 8, 20, 48, 66}) {
    for (const std::int64_t batch : {0, 1, 2, 5}) {
      if (random() % larger_share() != 0) continue;
      const RowsShape shape{.dtype = DType::f64, .inputs = rows, .sizes = {0, 300, 5, 0, 700, 128, 0}};
      SCOPED_TRACE(describe(shape) + ", batch " + std::to_string(batch));
      DeviceRows data(shape, normal_values(random));
      GramRequest request{.chunk = 128, .batch = batch, .per_tensor = true};
      expect_right(data, request, run(data, request));
      request.scale = {1, 0.5, 2, 1, 0x1p-60, 0x1p100, 1};
      expect_right(data, request, run(data, request));
      request.before.assign(7 * static_cast<std::size_t>(rows * rows), 42.0);
      request.skip = {0, 1, 0, 1, 0, 1, 0};
      request.add = true;
      expect_right(data, request, run(data, request));
      if (HasFatalFailure()) return;
    }
  }
}

TEST(GramTest, WindowsAddUpToTheBitsOfTheWhole) {
  Generator random = generator("gram: windows");
  for (const int rows : {5, 16, 30, 70}) {
    std::vector<long double> x(static_cast<std::size_t>(rows) * 1500);
    for (long double& v : x) v = std::normal_distribution<double>(0, 1)(random);
    const auto window = [&](std::int64_t from, std::int64_t size) {
      return DeviceRows(
          {.dtype = DType::f32, .inputs = rows, .sizes = {size}},
          [&, from](int row, std::int64_t j) { return x[static_cast<std::size_t>(row * 1500 + from + j)]; });
    };
    DeviceRows all = window(0, 1500);
    const GramResult whole = run(all, {.chunk = 128, .max_abs = false});
    DeviceRows first = window(0, 640);
    DeviceRows rest = window(640, 860);
    GramRequest request{.chunk = 128, .max_abs = false};
    request.before = run(first, request).products;
    request.add = true;
    ASSERT_EQ(run(rest, request).products, whole.products) << rows << " rows";
  }
}

TEST(GramTest, ScaleLeavesNarrowRowsAlone) {
  Generator random = generator("gram: scale");
  for (const int inputs : {2, 12, 60}) {
    for (const DType dtype : all_dtypes) {
      DeviceRows data({.dtype = dtype, .inputs = inputs, .references = {DType::f64}, .sizes = {300}},
                      normal_values(random));
      const GramRequest request{.scale = {0x1p-300}};
      expect_right(data, request, run(data, request));
      if (HasFatalFailure()) return;
    }
  }
}

TEST(GramTest, NoCoordinatesMakeZeros) {
  for (const std::vector<std::int64_t>& sizes : {std::vector<std::int64_t>{0}, {0, 0, 0}}) {
    for (const bool per_tensor : {false, true}) {
      DeviceRows data({.inputs = 5, .references = {DType::f32}, .zeros = {true}, .sizes = sizes},
                      [](int, std::int64_t) { return 1.0L; });
      GramRequest request{.per_tensor = per_tensor};
      for (const double product : run(data, request).products) ASSERT_EQ(product, 0.0);
      request.add = true;
      request.before.assign((per_tensor ? sizes.size() : 1) * 36, 7.0);
      for (const double product : run(data, request).products) ASSERT_EQ(product, 7.0);
      request.products = false;
      run(data, request);
    }
  }
}

TEST(GramTest, StatisticsAreOptional) {
  Generator random = generator("gram: optional");
  for (const int rows : {4, 20, 70}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      DeviceRows data({.dtype = dtype, .inputs = rows, .sizes = {200}}, [&](int row, std::int64_t) {
        return row == 1 ? static_cast<long double>(infinity)
                        : static_cast<long double>(std::normal_distribution<double>(0, 1)(random));
      });
      for (int wanted = 0; wanted < 4; ++wanted) {
        const GramRequest request{.nonfinite = (wanted & 1) != 0, .max_abs = (wanted & 2) != 0};
        expect_right(data, request, run(data, request));
        if (HasFatalFailure()) return;
      }
    }
  }
}

/// No reference; one that is zeros; one.
std::vector<RowsShape> with_each_reference(const RowsShape& shape) {
  std::vector<RowsShape> shapes(3, shape);
  shapes[1].references = shapes[2].references = {shape.dtype};
  shapes[1].zeros = {true};
  return shapes;
}

TEST(GramTest, LengthsAreThoseOfTheWholeAndOtherProductsAreZero) {
  Generator random = generator("gram: lengths");
  for (const int rows : row_counts) {
    for (const DType dtype : all_dtypes) {
      for (const Alignment alignment : all_alignments) {
        if (random() % test_share() != 0) continue;
        const RowsShape plain{
            .dtype = dtype, .inputs = rows, .sizes = sizes_for(rows), .alignment = alignment};
        for (const RowsShape& shape : with_each_reference(plain)) {
          SCOPED_TRACE(describe(shape));
          DeviceRows data(shape, normal_values(random));
          const GramRequest request{.chunk = rows % 2 == 0 ? 256 : 1024, .pairs = false};
          expect_right(data, request, run(data, request));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(GramTest, BitsOfLengthsDependOnValuesAlone) {
  Generator random = generator("gram: bits of lengths");
  for (const int rows : {1, 4, 6, 17, 70}) {
    for (const DType dtype : all_dtypes) {
      if (random() % larger_share() != 0) continue;
      // Rows 0 and the last are equal, and so is the reference.
      RowsShape shape{.dtype = dtype, .inputs = rows, .references = {dtype}, .sizes = {1100, 0, 129}};
      std::vector<long double> x(static_cast<std::size_t>(rows) * 1229);
      for (long double& v : x) v = std::normal_distribution<double>(0, 1)(random);
      const auto value = [&](int row, std::int64_t j) {
        return x[static_cast<std::size_t>(row >= rows - 1 ? j : row * 1229 + j)];
      };
      std::optional<GramResult> first;
      for (const Alignment alignment : all_alignments) {
        shape.alignment = alignment;
        SCOPED_TRACE(describe(shape));
        DeviceRows data(shape, value);
        for (const std::int64_t batch : {0, 1, 2}) {
          const GramResult got = run(data, {.chunk = 256, .batch = batch, .pairs = false});
          if (!first) first = got;
          ASSERT_TRUE(got == *first) << "batch " << batch;
        }
      }
      ASSERT_EQ(first->at(0, 0), first->at(rows - 1, rows - 1));
      ASSERT_EQ(first->at(0, 0), first->at(rows, rows));
      ASSERT_EQ(first->at(0, 0), first->at(rows, 0));
      ASSERT_EQ(first->at(0, 0), first->at(rows, rows - 1));
    }
  }
}

TEST(GramTest, LengthsOfPartsScaledSkippedAndAdded) {
  Generator random = generator("gram: lengths of parts");
  for (const int rows : {3, 8, 21}) {
    const RowsShape plain{.dtype = DType::f64, .inputs = rows, .sizes = {0, 300, 5, 0, 700, 128, 0}};
    for (const RowsShape& shape : with_each_reference(plain)) {
      for (const std::int64_t batch : {0, 1, 5}) {
        SCOPED_TRACE(describe(shape) + ", batch " + std::to_string(batch));
        DeviceRows data(shape, normal_values(random));
        GramRequest request{.chunk = 128, .batch = batch, .per_tensor = true, .pairs = false};
        request.scale = {1, 0.5, 2, 1, 0x1p-60, 0x1p100, 1};
        expect_right(data, request, run(data, request));
        request.before.assign(7 * static_cast<std::size_t>(shape.count() * shape.count()), 42.0);
        request.skip = {0, 1, 0, 1, 0, 1, 0};
        request.add = true;
        expect_right(data, request, run(data, request));
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(GramTest, BatchesAreBounded) {
  constexpr std::size_t most = std::size_t{1} << 23;
  for (const int rows : {1, 2, 48, 300, 4095, 4096, 65535}) {
    for (const std::int64_t chunks :
         {std::int64_t{0}, std::int64_t{1}, std::int64_t{100}, std::int64_t{1} << 40}) {
      for (const bool wants_pairs : {true, false}) {
        const std::int64_t batch = detail::cuda::gram_batch(rows, chunks, wants_pairs);
        const auto n = static_cast<std::size_t>(rows);
        const std::size_t products = wants_pairs ? n * (n + 1) / 2 : 2 * n;
        const std::size_t doubles = detail::cuda::gram_partial_doubles(rows, chunks, wants_pairs);
        EXPECT_GE(batch, 1);
        EXPECT_LE(batch, std::max<std::int64_t>(chunks, 1));
        EXPECT_EQ(doubles, static_cast<std::size_t>(batch) * products);
        EXPECT_LE(doubles, std::max(most, products));
      }
    }
  }
}

}  // namespace
}  // namespace bragg::test
