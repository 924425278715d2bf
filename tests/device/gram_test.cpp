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
#include "tests/device/test_library.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

using detail::cuda::Alignment;
using detail::cuda::Center;
using detail::cuda::GramArguments;
using detail::cuda::GramUnit;

constexpr std::array all_dtypes{DType::f32, DType::f16, DType::bf16, DType::f64};
constexpr std::array all_units{GramUnit::tensor, GramUnit::double_float, GramUnit::int8, GramUnit::cublas};
constexpr std::array all_alignments{Alignment::vector, Alignment::element, Alignment::byte};
const std::vector<int> row_counts{1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 15, 16,  17,  23,  24,  25,
                                  31, 32, 33, 40, 41, 47, 48, 49, 63, 64, 65, 127, 128, 129, 200, 300};
constexpr double infinity = std::numeric_limits<double>::infinity();

GramUnit any_unit(Generator& random) {
  const GramUnit unit = all_units[random() % all_units.size()];
  return unit == GramUnit::cublas && !has_library() ? GramUnit::tensor : unit;
}

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
  Center center = Center::none;
  int center_row = 0;
  std::vector<bool> left_out = {};   ///< part after part, [inputs] each; empty: none
  std::vector<double> weights = {};  ///< [inputs]; empty: none
  bool keeps_low = false;
  std::vector<double> low_before = {};  ///< as `before`
  bool keeps_records = false;           ///< chunks are added up here, with keeps_low
  GramUnit unit = GramUnit::automatic;
};

struct GramResult {
  std::size_t rows = 0;
  std::vector<double> products;  ///< part after part
  std::vector<double> low;       ///< the same
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

/// What gram_records left in `partial`, added in the order of chunks to what place_of(tensor, entry) says:
/// the words of a sum, and of what that lost.
template <class PlaceF>
void add_records(const DeviceRows& data, const GramRequest& request,
                 const detail::cuda::DeviceMemory& partial, PlaceF place_of) {
  std::vector<double> records(partial.bytes() / 8);
  detail::cuda::copy_to_host(records.data(), partial.data(), partial.bytes(), nullptr);
  detail::cuda::synchronize(nullptr);
  const bool centered = request.center != Center::none;
  const double* record = records.data();
  for (std::size_t t = 0; t < data.shape.sizes.size(); ++t) {
    for (std::int64_t begin = 0; begin < data.shape.sizes[t]; begin += request.chunk) {
      for (const auto& entry : detail::cuda::gram_record(data.rows(), request.pairs, centered)) {
        const auto add = [&](int row, int column) {
          const auto [sum, low] = place_of(t, static_cast<std::size_t>(row * data.shape.count() + column));
          const auto before = std::bit_cast<double>(*sum);
          const double total = before + record[entry.place];
          const double taken = total - before;
          const double lost = (before - (total - taken)) + (record[entry.place] - taken);
          *sum = std::bit_cast<std::uint64_t>(total);
          *low = std::bit_cast<std::uint64_t>(std::bit_cast<double>(*low) + lost);
        };
        add(entry.row, entry.column);
        if (entry.row != entry.column) add(entry.column, entry.row);
      }
      record += detail::cuda::gram_record_doubles(data.rows(), request.pairs, centered);
    }
  }
}

GramResult run(DeviceRows& data, const GramRequest& request = {}) {
  const std::size_t rows = static_cast<std::size_t>(data.shape.count());
  const std::size_t parts = request.per_tensor ? data.shape.sizes.size() : 1;
  // A part's arrays lie one behind the other: products, low parts, counts, magnitudes, scale, skip, left out.
  const std::size_t low_at = rows * rows;
  const std::size_t counts_at = low_at + rows * rows;
  const std::size_t max_abs_at = counts_at + rows;
  const std::size_t scale_at = max_abs_at + rows;
  const std::size_t skip_at = scale_at + 1;
  const std::size_t left_out_at = skip_at + 1;
  const std::size_t stride = left_out_at + (rows + 7) / 8;
  std::vector<std::uint64_t> words(parts * stride);
  for (std::size_t p = 0; p < parts; ++p) {
    for (std::size_t k = 0; k < rows * rows; ++k) {
      const double before = request.before.empty() ? std::numeric_limits<double>::quiet_NaN()
                                                   : request.before[p * rows * rows + k];
      words[p * stride + k] = std::bit_cast<std::uint64_t>(before);
      const double low = request.low_before.empty() ? std::numeric_limits<double>::quiet_NaN()
                                                    : request.low_before[p * rows * rows + k];
      words[p * stride + low_at + k] = std::bit_cast<std::uint64_t>(low);
    }
    for (std::size_t r = 0; !request.left_out.empty() && r < static_cast<std::size_t>(data.shape.inputs);
         ++r) {
      if (!request.left_out[p * static_cast<std::size_t>(data.shape.inputs) + r]) continue;
      words[p * stride + left_out_at + r / 8] |= std::uint64_t{1} << (8 * (r % 8));
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
  const std::int64_t kept = request.keeps_records ? arguments.chunks.pieces : arguments.batch;
  const detail::cuda::DeviceMemory partial((static_cast<std::size_t>(kept) * per_chunk + rows) * 8);
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
  arguments.unit = request.unit;
  arguments.center = request.center;
  arguments.center_row = request.center_row;
  if (!request.left_out.empty()) {
    arguments.left_out = reinterpret_cast<std::uint8_t*>(memory.data() + left_out_at);
  }
  const DeviceArray<double> weights(request.weights);
  if (!request.weights.empty()) arguments.weights = weights.data();
  const detail::cuda::DeviceMemory centers(
      detail::cuda::gram_center_bytes(arguments.rows, arguments.chunks, request.pairs, request.unit));
  arguments.centers = centers.data();
  if (request.keeps_low) arguments.low = reinterpret_cast<double*>(memory.data() + low_at);
  const TestLibrary library(arguments);
  if (request.keeps_records) {
    detail::cuda::set_bytes(partial.data(), 0, partial.bytes(), nullptr);
    detail::cuda::gram_records(arguments, nullptr, library.get());
  } else {
    detail::cuda::gram(arguments, nullptr, library.get());
  }

  words = memory.values();
  if (request.keeps_records) {
    for (std::size_t p = 0; p < parts; ++p) std::fill_n(words.data() + p * stride, 2 * rows * rows, 0);
    add_records(data, request, partial, [&](std::size_t tensor, std::size_t entry) {
      std::uint64_t* const at = words.data() + (request.per_tensor ? tensor * stride : 0) + entry;
      return std::pair(at, at + low_at);
    });
  }
  GramResult result;
  result.rows = rows;
  for (std::size_t p = 0; p < parts; ++p) {
    const std::uint64_t* const at = words.data() + p * stride;
    for (std::size_t k = 0; k < rows * rows; ++k) result.products.push_back(std::bit_cast<double>(at[k]));
    for (std::size_t k = 0; request.keeps_low && k < rows * rows; ++k) {
      result.low.push_back(std::bit_cast<double>(at[low_at + k]));
    }
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

/// What is taken from coordinate `k` of a tensor of a part.
long double center_of(const DeviceRows& data, const GramRequest& request, std::size_t part,
                      std::size_t tensor, std::size_t k) {
  const auto value = [&](int row) { return data.values[data.slot(tensor, row)][k]; };
  if (request.center == Center::none) return 0;
  long double center = 0;
  if (request.center == Center::row) {
    center = value(request.center_row);
  } else {
    std::vector<std::pair<long double, long double>> counted;
    long double weights = 0;
    for (int r = 0; r < data.shape.inputs; ++r) {
      const auto row = static_cast<std::size_t>(r);
      const bool out = !request.left_out.empty() &&
                       request.left_out[part * static_cast<std::size_t>(data.shape.inputs) + row];
      const long double weight = out ? 0.0L : request.weights.empty() ? 1.0L : request.weights[row];
      if (weight > 0) counted.emplace_back(value(r), weight);
      weights += weight;
    }
    std::sort(counted.begin(), counted.end());
    long double reached = 0;
    for (const auto& [v, weight] : counted) {
      center = v;
      reached += weight;
      if (reached >= weights / 2) break;
    }
  }
  return std::isfinite(center) ? center : 0.0L;
}

/// Who computes the products.
GramUnit unit_of(const DeviceRows& data, const GramRequest& request) {
  int rows = 0;
  const bool is_centered = request.center != Center::none;
  bool is_narrow = data.shape.dtype != DType::f64;
  for (int r = 0; r < data.shape.count(); ++r) {
    if (data.shape.is_zeros(r) && !is_centered) continue;
    ++rows;
    is_narrow = is_narrow && (data.shape.is_zeros(r) || data.shape.dtype_of(r) == data.shape.dtype);
  }
  const GramUnit unit = request.unit != GramUnit::automatic
                            ? request.unit
                            : detail::cuda::preferred_gram_unit(
                                  detail::cuda::compute_capability(detail::cuda::current_device()), rows);
  if (!is_narrow || unit == GramUnit::tensor) return GramUnit::tensor;
  if (!request.pairs) return unit == GramUnit::cublas ? GramUnit::tensor : GramUnit::double_float;
  if (rows < 3) return GramUnit::tensor;
  return !is_centered ? unit : unit == GramUnit::cublas ? GramUnit::tensor : GramUnit::int8;
}

/// Products within the error of summing in any order, (terms + 1) units of the sum of magnitudes, and two
/// more where a difference is rounded; or within that of pairs of floats, 73 · 2⁻⁴⁸ of that sum (of
/// differences 93) and 2⁻¹⁵⁰ of the rows' lengths; or within that of bytes, 2231 · 2⁻⁵³ of the lengths (of
/// differences 2959), and four units more for sums of chunks. Counts and magnitudes exactly.
void expect_right(const DeviceRows& data, const GramRequest& request, const GramResult& got) {
  const int rows = data.shape.count();
  const std::size_t parts = request.per_tensor ? data.shape.sizes.size() : 1;
  const GramUnit unit = unit_of(data, request);
  for (std::size_t p = 0; p < parts; ++p) {
    const bool skipped = !request.skip.empty() && request.skip[p] != 0;
    const std::vector<std::size_t> tensors = tensors_of(data, request.per_tensor, p);
    std::vector<std::vector<long double>> x(static_cast<std::size_t>(rows));
    std::vector<long double> centers;
    for (const std::size_t t : tensors) {
      for (std::size_t k = 0; k < static_cast<std::size_t>(data.shape.sizes[t]); ++k) {
        centers.push_back(center_of(data, request, p, t, k));
      }
    }
    std::vector<unsigned long long> nonfinite(static_cast<std::size_t>(rows));
    for (int r = 0; r < rows; ++r) {
      const std::size_t row = static_cast<std::size_t>(r);
      // Zeros have the dtype of the rows.
      const bool wide = (data.shape.is_zeros(r) ? data.shape.dtype : data.shape.dtype_of(r)) == DType::f64;
      const double scale = wide && !request.scale.empty() ? request.scale[p] : 1.0;
      double most = 0;
      for (const std::size_t t : tensors) {
        for (const long double value : data.values[data.slot(t, r)]) {
          const auto v = static_cast<double>(value);
          nonfinite[row] += std::isfinite(v) ? 0 : 1;
          const auto difference = static_cast<double>(value - centers[x[row].size()]);
          if (wide && std::isfinite(difference)) most = std::max(most, std::fabs(difference));
          x[row].push_back((value - centers[x[row].size()]) * scale);
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
        const std::vector<long double>& a = x[static_cast<std::size_t>(i)];
        const std::vector<long double>& b = x[static_cast<std::size_t>(j)];
        long double sum = request.add ? before : 0;
        long double magnitude = std::fabs(sum);
        long double squares[2] = {};
        for (std::size_t c = 0; c < a.size(); ++c) {
          const long double product = a[c] * b[c];
          sum += product;
          magnitude += std::fabs(product);
          squares[0] += a[c] * a[c];
          squares[1] += b[c] * b[c];
        }
        const std::size_t units = a.size() + (request.center == Center::none ? 1 : 3);
        const long double lengths = std::sqrt(squares[0] * squares[1]);
        const long double allowed =
            unit == GramUnit::double_float
                ? (request.center == Center::none ? 73 : 93) * 0x1p-48L * magnitude + 0x1p-150L * lengths
            : unit == GramUnit::int8
                ? 0x1p-53L * ((request.center == Center::none ? 2231 : 2959) * lengths + 4 * magnitude)
                : static_cast<long double>(units) * 0x1p-53L * magnitude;
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
        const GramRequest request{.chunk = rows % 2 == 0 ? 256 : 1024, .unit = any_unit(random)};
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
        const GramResult got = run(data, {.chunk = 512, .unit = any_unit(random)});
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
      RowsShape shape{.dtype = dtype, .inputs = rows, .sizes = {1300, 0, 129}};
      std::vector<long double> x(static_cast<std::size_t>(rows) * 1429);
      for (long double& v : x) v = std::normal_distribution<double>(0, 1)(random);
      const auto value = [&](int row, std::int64_t j) { return x[static_cast<std::size_t>(row * 1429 + j)]; };
      std::optional<GramResult> first;
      const GramUnit unit = any_unit(random);
      for (const Alignment alignment : all_alignments) {
        shape.alignment = alignment;
        SCOPED_TRACE(describe(shape));
        DeviceRows data(shape, value);
        for (const std::int64_t batch : alignment == Alignment::vector ? std::vector<std::int64_t>{0, 1, 3}
                                                                       : std::vector<std::int64_t>{2}) {
          const GramResult got = run(data, {.chunk = 512, .batch = batch, .unit = unit});
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
      const GramRequest request{.chunk = 1024, .unit = any_unit(random)};
      const GramResult got = run(data, request);
      if (request.unit == GramUnit::cublas) {  // which may add up each pair in another order
        expect_right(data, request, got);
        continue;
      }
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
          const GramRequest request{.chunk = 128, .unit = any_unit(random)};
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
              return spacing(dtype, 0);
            default:
              return std::normal_distribution<double>(0, 1)(random);
          }
        });
        const GramRequest request{.chunk = 256, .unit = any_unit(random)};
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

/// Of seven parts.
void expect_parts_scaled_skipped_and_added(DeviceRows& data, GramRequest request) {
  const auto rows = static_cast<std::size_t>(data.shape.count());
  request.scale = {1, 0.5, 2, 1, 0x1p-60, 0x1p100, 1};
  expect_right(data, request, run(data, request));
  request.before.assign(7 * rows * rows, 42.0);
  request.skip = {0, 1, 0, 1, 0, 1, 0};
  request.add = true;
  expect_right(data, request, run(data, request));
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
      expect_parts_scaled_skipped_and_added(data, request);
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
    GramRequest request{.chunk = 128, .max_abs = false, .keeps_low = true, .unit = any_unit(random)};
    const GramResult whole = run(all, request);
    DeviceRows first = window(0, 640);
    DeviceRows rest = window(640, 860);
    const GramResult of_first = run(first, request);
    request.before = of_first.products;
    request.low_before = of_first.low;
    request.add = true;
    const GramResult got = run(rest, request);
    ASSERT_EQ(got.products, whole.products) << rows << " rows";
    ASSERT_EQ(got.low, whole.low) << rows << " rows";
  }
}

/// What many chunks add up to, to the last bit, where products of a chunk are whole numbers.
TEST(GramTest, SumsOfManyChunksAreRoundedOnce) {
  Generator random = generator("gram: many chunks");
  constexpr std::int64_t size = 128 * 700;
  for (const int rows : {2, 9}) {
    std::vector<long double> x(static_cast<std::size_t>(rows) * size);
    for (long double& v : x) v = static_cast<long double>((1 << 21) + random() % (1 << 21));
    const auto window = [&](std::int64_t from, std::int64_t count) {
      return DeviceRows(
          {.dtype = DType::f64, .inputs = rows, .sizes = {count}},
          [&, from](int row, std::int64_t j) { return x[static_cast<std::size_t>(row * size + from + j)]; });
    };
    std::vector<double> exact;
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j < rows; ++j) {
        std::uint64_t sum = 0;
        for (std::int64_t c = 0; c < size; ++c) {
          sum += static_cast<std::uint64_t>(x[static_cast<std::size_t>(i * size + c)] *
                                            x[static_cast<std::size_t>(j * size + c)]);
        }
        exact.push_back(static_cast<double>(sum));
      }
    }
    DeviceRows all = window(0, size);
    for (const std::int64_t batch : {0, 1, 130}) {
      if (batch == 1 && rows > 2) continue;  // for time
      ASSERT_EQ(run(all, {.chunk = 128, .batch = batch}).products, exact) << rows << " rows, batch " << batch;
    }
    GramRequest request{.chunk = 128, .batch = 100, .keeps_low = true};
    for (const auto& [from, count] : {std::pair<std::int64_t, std::int64_t>{0, 128 * 50},
                                      {128 * 50, 128 * 333},
                                      {128 * 383, 128 * 317}}) {
      DeviceRows part = window(from, count);
      const GramResult got = run(part, request);
      request.add = true;
      request.before = got.products;
      request.low_before = got.low;
    }
    for (std::size_t k = 0; k < exact.size(); ++k) {
      ASSERT_EQ(request.before[k] + request.low_before[k], exact[k]) << rows << " rows, windows";
    }
  }
}

/// Chunks of more coordinates than are added up one after another.
TEST(GramTest, LongChunksAreAddedUpInParts) {
  Generator random = generator("gram: long chunks");
  const std::array<std::pair<int, DType>, 4> cases{
      {{2, DType::f32}, {9, DType::f32}, {10, DType::bf16}, {5, DType::f64}}};
  for (const auto& [rows, dtype] : cases) {
    for (const Center center : {Center::none, Center::median}) {
      const std::int64_t size = 40000 + static_cast<std::int64_t>(random() % 3) * 7;
      RowsShape shape{.dtype = dtype, .inputs = rows, .sizes = {size}};
      if (dtype == DType::f64) shape.references = {DType::f32};  // by tiles
      SCOPED_TRACE(describe(shape));
      std::vector<std::vector<int>> x(static_cast<std::size_t>(shape.count()));
      for (std::vector<int>& row : x) {
        for (std::int64_t k = 0; k < size; ++k) row.push_back(static_cast<int>(random() % 21) - 10);
      }
      DeviceRows data(shape, [&](int row, std::int64_t k) {
        return static_cast<long double>(x[static_cast<std::size_t>(row)][static_cast<std::size_t>(k)]);
      });
      const GramRequest request{.chunk = 65536, .center = center, .unit = any_unit(random)};
      const GramResult got = run(data, request);
      for (std::size_t k = 0; k < static_cast<std::size_t>(size); ++k) {
        const auto c = static_cast<int>(center_of(data, request, 0, 0, k));
        for (std::vector<int>& row : x) row[k] -= c;
      }
      for (int i = 0; i < shape.count(); ++i) {
        for (int j = 0; j <= i; ++j) {
          long long sum = 0;
          for (std::size_t k = 0; k < static_cast<std::size_t>(size); ++k) {
            sum += x[static_cast<std::size_t>(i)][k] * x[static_cast<std::size_t>(j)][k];
          }
          ASSERT_EQ(got.at(i, j), static_cast<double>(sum)) << i << ", " << j;
        }
      }
    }
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

/// A random centre for rows; what is left out holds anything.
GramRequest centered_request(const RowsShape& shape, std::mt19937_64& random, std::size_t parts = 1) {
  GramRequest request;
  const auto inputs = static_cast<std::size_t>(shape.inputs);
  request.center = random() % 3 == 0 ? Center::row : Center::median;
  request.center_row = static_cast<int>(random() % static_cast<std::uint64_t>(shape.count()));
  if (random() % 3 != 0) {
    for (std::size_t k = 0; k < parts * inputs; ++k) request.left_out.push_back(random() % 4 == 0);
  }
  if (random() % 3 == 0) {
    // Sums are exact.
    for (std::size_t r = 0; r < inputs; ++r) {
      request.weights.push_back(static_cast<double>(random() % 5) * static_cast<double>(random() % 7) / 8);
    }
  }
  return request;
}

/// Values about a constant that dwarfs what they differ by, many of them equal.
DeviceRows::Values values_about_a_constant(DType dtype, std::mt19937_64& random) {
  const bool large = random() % 2 == 0;
  const long double constant = dtype == DType::f16   ? -6e4L
                               : dtype == DType::f64 ? (large ? -1e120L : -1e9L)
                                                     : (large ? -3.3e38L : -1e9L);
  const long double step = -constant * std::ldexp(1.0L, 1 - format_of(dtype).precision);
  const int most = dtype == DType::f64 ? 1000 : 5;
  return [constant, step, most, &random](int, std::int64_t) {
    const int steps = static_cast<int>(random() % static_cast<std::uint64_t>(2 * most + 1)) - most;
    return constant + step * static_cast<long double>(steps);
  };
}

TEST(GramTest, ProductsAboutACenterAreThoseOfDifferences) {
  Generator random = generator("gram: about a centre");
  const auto nan = std::numeric_limits<long double>::quiet_NaN();
  for (const int rows : row_counts) {
    for (const DType dtype : all_dtypes) {
      for (const Alignment alignment : all_alignments) {
        for (const bool pairs : {true, false}) {
          if (random() % test_share() != 0) continue;
          if (rows > 66 && alignment != all_alignments[random() % 3]) continue;  // for time
          RowsShape shape{.dtype = dtype, .inputs = rows, .sizes = sizes_for(rows), .alignment = alignment};
          switch (random() % 4) {
            case 0:
              break;
            case 1:
              shape.references = {dtype};
              shape.zeros = {true};
              break;
            case 2:
              shape.references = {dtype};
              break;
            default:
              shape.references = {dtype};
              if (pairs) shape.references = {all_dtypes[random() % 4], dtype};
              if (pairs) shape.zeros = {random() % 2 == 0, false};
          }
          GramRequest request = centered_request(shape, random);
          request.chunk = rows % 2 == 0 ? 256 : 1024;
          request.pairs = pairs;
          request.unit = any_unit(random);
          SCOPED_TRACE(describe(shape) + (pairs ? ", pairs, " : ", lengths, ") + to_string(request.unit) +
                       ", centre " + std::to_string(static_cast<int>(request.center)) + " " +
                       std::to_string(request.center_row) +
                       (request.left_out.empty() ? "" : ", some left out") +
                       (request.weights.empty() ? "" : ", weighted"));
          const bool is_normal = random() % 2 == 0;
          const bool is_infinite = random() % 3 == 0;
          const DeviceRows::Values plain =
              is_normal ? normal_values(random) : values_about_a_constant(dtype, random);
          DeviceRows data(shape, [&](int row, std::int64_t k) {
            const bool is_left_out = request.center == Center::median && row < rows &&
                                     !request.left_out.empty() &&
                                     request.left_out[static_cast<std::size_t>(row)];
            const bool is_center = request.center == Center::row && row == request.center_row;
            if ((is_left_out || (is_center && is_infinite)) && random() % 50 == 0)
              return random() % 2 == 0 ? nan : infinity * (k % 2 - 0.5L);
            return plain(row, k);
          });
          expect_right(data, request, run(data, request));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(GramTest, AConstantDrownsDistancesButNotAboutTheMedian) {
  Generator random = generator("gram: a constant");
  for (const int rows : {5, 8, 12, 20, 30, 40, 48, 60}) {
    for (const long double constant : {-1e9L, -3.3e38L}) {
      // As many rows as not are far away on one side, where they do not reach the median.
      const long double step = std::ldexp(-constant, -23);
      const int honest = rows / 2 + 1;
      DeviceRows data({.dtype = DType::f32, .inputs = rows, .sizes = {1200}}, [&](int row, std::int64_t) {
        const long double noise = step * static_cast<long double>(static_cast<int>(random() % 9) - 4);
        return row < honest ? constant + noise : constant / 2;
      });
      const GramUnit unit = random() % 2 == 0 ? GramUnit::tensor : GramUnit::int8;
      SCOPED_TRACE(to_string(unit));
      const GramResult plain = run(data, {.unit = unit});
      const GramResult centered = run(data, {.center = Center::median, .unit = unit});
      const auto distance = [](const GramResult& g, int i, int j) {
        return g.at(i, i) + g.at(j, j) - 2 * g.at(i, j);
      };
      double most_plain = 0;
      for (int i = 0; i < honest; ++i) {
        for (int j = 0; j < i; ++j) {
          long double exact = 0;
          for (std::size_t k = 0; k < 1200; ++k) {
            const long double x =
                data.values[static_cast<std::size_t>(i)][k] - data.values[static_cast<std::size_t>(j)][k];
            exact += x * x;
          }
          const auto right = static_cast<double>(exact);
          ASSERT_NEAR(distance(centered, i, j), right, 0x1p-40 * right) << i << ", " << j << " of " << rows;
          most_plain = std::max(most_plain, std::fabs(distance(plain, i, j) - right) / right);
        }
      }
      EXPECT_GT(most_plain, 0x1p-20) << rows << " rows";
    }
  }
}

TEST(GramTest, BitsAboutACenterDependOnValuesAlone) {
  Generator random = generator("gram: bits about a centre");
  for (const int rows : {2, 7, 8, 9, 16, 24, 31, 40, 48, 52, 70}) {
    for (const DType dtype : all_dtypes) {
      for (const bool pairs : {true, false}) {
        if (random() % test_share() != 0) continue;
        // Rows 0 and the last are equal, and so is the reference.
        RowsShape shape{.dtype = dtype, .inputs = rows, .references = {dtype}, .sizes = {600, 0, 129}};
        std::vector<long double> x(static_cast<std::size_t>(rows) * 729);
        for (long double& v : x) v = std::normal_distribution<double>(0, 1)(random);
        const auto value = [&](int row, std::int64_t j) {
          return x[static_cast<std::size_t>(row >= rows - 1 ? j : row * 729 + j)];
        };
        GramRequest request = centered_request(shape, random);
        request.chunk = 128;
        request.pairs = pairs;
        request.unit = any_unit(random);
        std::optional<GramResult> first;
        for (const Alignment alignment : all_alignments) {
          shape.alignment = alignment;
          SCOPED_TRACE(describe(shape));
          DeviceRows data(shape, value);
          for (const std::int64_t batch : {0, 2}) {
            request.batch = batch;
            const GramResult got = run(data, request);
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
}

TEST(GramTest, PartsHaveCentersOfTheirOwn) {
  Generator random = generator("gram: centres of parts");
  for (const int rows : {3, 8, 20, 33, 48, 66}) {
    for (const std::int64_t batch : {0, 1, 5}) {
      for (const DType dtype : {DType::f64, DType::f32}) {
        const RowsShape shape{
            .dtype = dtype, .inputs = rows, .references = {dtype}, .sizes = {0, 300, 5, 0, 700, 128, 0}};
        SCOPED_TRACE(describe(shape) + ", batch " + std::to_string(batch));
        DeviceRows data(shape, normal_values(random));
        GramRequest request = centered_request(shape, random, shape.sizes.size());
        request.chunk = 128;
        request.batch = batch;
        request.per_tensor = true;
        request.unit = any_unit(random);
        expect_parts_scaled_skipped_and_added(data, request);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(GramTest, CentersOfMoreRowsThanABlockHolds) {
  Generator random = generator("gram: centres of many rows");
  for (const auto& [rows, dtype] : {std::pair{390, DType::f64}, {800, DType::f32}, {1600, DType::f16}}) {
    for (const bool has_weights : {false, true}) {
      const RowsShape shape{.dtype = dtype, .inputs = rows, .sizes = {34}};
      SCOPED_TRACE(describe(shape));
      DeviceRows data(shape, normal_values(random));
      GramRequest request{.pairs = false, .center = Center::median, .unit = any_unit(random)};  // for time
      for (int r = 0; r < rows; ++r) {
        request.left_out.push_back(random() % 3 == 0);
        if (has_weights) request.weights.push_back(static_cast<double>(random() % 9));
      }
      expect_right(data, request, run(data, request));
      if (HasFatalFailure()) return;
    }
  }
}

TEST(GramTest, MemoryOfCentersIsBounded) {
  Generator random = generator("gram: batches of centres");
  // Of five chunks the medians of two are kept at a time.
  const RowsShape shape{.dtype = DType::f16, .inputs = 50, .sizes = {70, 1, 33, 0, 20, 100}};
  DeviceRows data(shape, normal_values(random));
  const std::int64_t chunk = std::int64_t{1} << 22;
  ASSERT_EQ(detail::cuda::gram_center_bytes(data.rows(), data.cut(chunk), true, GramUnit::tensor),
            std::size_t{1} << 24);
  const GramRequest request{.chunk = chunk, .center = Center::median, .unit = GramUnit::tensor};
  expect_right(data, request, run(data, request));
  // Blocks of bytes are few a chunk: more chunks at a time.
  EXPECT_EQ(detail::cuda::gram_center_bytes(data.rows(), data.cut(16 * chunk), true, GramUnit::int8),
            std::size_t{1} << 28);
  DeviceRows few({.dtype = DType::f16, .inputs = 48, .sizes = {70}}, normal_values(random));
  const auto bytes = [&](GramUnit unit) {
    return detail::cuda::gram_center_bytes(few.rows(), few.cut(chunk), true, unit);
  };
  for (const GramUnit unit : {GramUnit::tensor, GramUnit::cublas}) EXPECT_EQ(bytes(unit), 0u);
  for (const GramUnit unit : {GramUnit::double_float, GramUnit::int8}) {
    EXPECT_EQ(bytes(unit), std::size_t{1} << 23);
  }
}

TEST(GramTest, WhereNobodyCountsTheCenterIsZero) {
  Generator random = generator("gram: nobody counts");
  for (const int rows : {3, 20, 60}) {
    for (const DType dtype : all_dtypes) {
      DeviceRows data({.dtype = dtype, .inputs = rows, .sizes = {200}}, normal_values(random));
      const GramUnit unit = random() % 2 == 0 ? GramUnit::tensor : GramUnit::int8;
      GramRequest request{.center = Center::median, .unit = unit};
      if (random() % 2 == 0) {
        request.left_out.assign(static_cast<std::size_t>(rows), true);
      } else {
        request.weights.assign(static_cast<std::size_t>(rows), 0.0);
      }
      const GramResult got = run(data, request);
      ASSERT_TRUE(got == run(data, {.unit = unit}));
      expect_right(data, request, got);
      if (HasFatalFailure()) return;
    }
  }
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
          const GramRequest request{
              .chunk = rows % 2 == 0 ? 256 : 1024, .pairs = false, .unit = any_unit(random)};
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
      const GramUnit unit = any_unit(random);
      for (const Alignment alignment : all_alignments) {
        shape.alignment = alignment;
        SCOPED_TRACE(describe(shape));
        DeviceRows data(shape, value);
        for (const std::int64_t batch : {0, 1, 2}) {
          const GramResult got = run(data, {.chunk = 1024, .batch = batch, .pairs = false, .unit = unit});
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
        expect_parts_scaled_skipped_and_added(data, request);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(GramTest, RecordsOfChunksAddUpToTheBitsOfTheWhole) {
  Generator random = generator("gram: records");
  for (const int rows : row_counts) {
    if (random() % test_share() != 0 || rows > 130) continue;
    const bool pairs = random() % 3 != 0;
    RowsShape shape{.dtype = all_dtypes[random() % 4], .inputs = rows, .sizes = sizes_for(rows)};
    shape = with_each_reference(shape)[random() % 3];
    GramRequest request = random() % 2 == 0 ? centered_request(shape, random) : GramRequest{};
    request.left_out = {};
    request.chunk = 64;
    request.batch = 1 + static_cast<std::int64_t>(random() % 20);
    request.pairs = pairs;
    request.keeps_low = true;
    request.per_tensor = random() % 2 == 0;
    request.unit = any_unit(random);
    SCOPED_TRACE(describe(shape) + (pairs ? ", pairs" : ", lengths"));
    DeviceRows data(shape, normal_values(random));
    const GramResult whole = run(data, request);
    request.keeps_records = true;
    const GramResult added = run(data, request);
    ASSERT_TRUE(added == whole);
    ASSERT_EQ(added.low, whole.low);
  }
}

TEST(GramTest, UnitsAreTakenWhereTheyCanBe) {
  Generator random = generator("gram: units");
  const auto differ = [&](const RowsShape& shape, GramRequest request) {
    const GramUnit unit = random() % 2 == 0 ? GramUnit::double_float : GramUnit::int8;
    SCOPED_TRACE(describe(shape) + ", " + to_string(unit));
    // Of magnitudes so far apart that no f64 is exact, of products of 16-bit values neither.
    const DeviceRows::Values normal = normal_values(random);
    DeviceRows data(shape, [&](int row, std::int64_t k) {
      return std::ldexp(normal(row, k), static_cast<int>(random() % 27) - 13);
    });
    request.unit = GramUnit::tensor;
    const GramResult tensor = run(data, request);
    request.unit = unit;
    const GramResult other = run(data, request);
    expect_right(data, request, other);
    EXPECT_EQ(unit_of(data, request) != GramUnit::tensor, !(other == tensor));
    return !(other == tensor);
  };
  for (const int rows : {3, 8, 9, 16, 17, 33, 48, 49, 73}) {
    EXPECT_TRUE(differ({.dtype = DType::f32, .inputs = rows, .sizes = {700}}, {.chunk = 1024}));
  }
  EXPECT_TRUE(differ({.dtype = DType::bf16, .inputs = 12, .sizes = {5000}}, {.chunk = 8192}));
  EXPECT_TRUE(differ({.dtype = DType::f16, .inputs = 12, .sizes = {5000}}, {.chunk = 8192}));
  EXPECT_TRUE(differ({.dtype = DType::f32, .inputs = 47, .references = {DType::f32}, .sizes = {700}}, {}));
  EXPECT_FALSE(differ({.dtype = DType::f32, .inputs = 2, .sizes = {700}}, {}));
  EXPECT_FALSE(differ({.dtype = DType::f64, .inputs = 12, .sizes = {700}}, {}));
  EXPECT_FALSE(differ({.dtype = DType::f32, .inputs = 12, .references = {DType::f64}, .sizes = {700}}, {}));
  EXPECT_TRUE(differ({.dtype = DType::f32, .inputs = 12, .sizes = {700}}, {.pairs = false}));
  EXPECT_TRUE(differ({.dtype = DType::f32, .inputs = 1, .sizes = {700}}, {.chunk = 1024, .pairs = false}));
  EXPECT_FALSE(differ({.dtype = DType::f64, .inputs = 12, .sizes = {700}}, {.pairs = false}));
  for (const int rows : {3, 12, 49}) {
    const RowsShape shape{.dtype = DType::f32, .inputs = rows, .sizes = {700}};
    EXPECT_TRUE(differ(shape, {.center = Center::median}));
    DeviceRows data(shape, normal_values(random));
    EXPECT_TRUE(run(data, {.center = Center::median, .unit = GramUnit::int8}) ==
                run(data, {.center = Center::median, .unit = GramUnit::double_float}));
  }
  EXPECT_FALSE(differ({.dtype = DType::f32, .inputs = 2, .sizes = {700}}, {.center = Center::median}));
  EXPECT_FALSE(differ({.dtype = DType::f64, .inputs = 12, .sizes = {700}}, {.center = Center::median}));
  EXPECT_FALSE(differ({.dtype = DType::f32, .inputs = 12, .references = {DType::bf16}, .sizes = {700}},
                      {.center = Center::median}));
}

/// Values that make a sum's losses as large as they get: one that is large, others about its unit of
/// rounding, at any scale of each row, and signs that let products cancel.
TEST(GramTest, PairsOfFloatsKeepTheirBound) {
  Generator random = generator("gram: bound of floats");
  for (const int rows : {3, 8, 13, 16, 20, 27, 40, 48, 60}) {
    if (rows != 13 && random() % test_share() != 0) continue;
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const RowsShape shape{.dtype = dtype, .inputs = rows - 1, .references = {dtype}, .sizes = {2100}};
      SCOPED_TRACE(describe(shape));
      const int kind = static_cast<int>(random() % 3);
      const int least = 1 - format_of(dtype).max_exponent - format_of(dtype).precision;
      std::vector<int> scale;
      for (int r = 0; r < rows; ++r) {
        const int range = format_of(dtype).max_exponent - least;
        scale.push_back(least + static_cast<int>(random() % static_cast<std::uint64_t>(range)));
      }
      DeviceRows data(shape, [&](int row, std::int64_t k) -> long double {
        const long double one = 1 + std::uniform_real_distribution<double>(0, 1)(random);
        const bool is_negative = kind != 0 && random() % 2 == 0;
        // Of a lane's 16 coordinates of a span the first is large.
        const int exponent = kind == 1 || k % 512 < 128 ? 0 : -12 + static_cast<int>(random() % 3);
        const int at = std::max(scale[static_cast<std::size_t>(row)] + exponent, least);
        return std::ldexp(is_negative ? -one : one, at);
      });
      for (const bool pairs : {true, false}) {
        const GramRequest request{.chunk = 2048, .pairs = pairs, .unit = GramUnit::double_float};
        ASSERT_EQ(unit_of(data, request), GramUnit::double_float);
        expect_right(data, request, run(data, request));
        if (HasFatalFailure()) return;
      }
    }
  }
}

/// Differences that no float holds, that are the least ones beside coordinates of the largest size, that
/// need two floats, and of all three in one run.
TEST(GramTest, DifferencesOfAnySizeKeepTheirBound) {
  Generator random = generator("gram: bound of differences");
  for (const int rows : {2, 9, 21, 60}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const RowsShape shape{.dtype = dtype, .inputs = rows, .references = {dtype}, .sizes = {1400}};
      SCOPED_TRACE(describe(shape));
      const auto format = format_of(dtype);
      const long double largest =
          std::ldexp(2.0L - std::ldexp(1.0L, 1 - format.precision), format.max_exponent);
      const long double least = spacing(dtype, 0);
      const long double place = std::ldexp(1.0L, 1 - format.precision);
      std::vector<long double> reference;
      for (int k = 0; k < 1400; ++k) {
        const long double one = 1 + std::uniform_real_distribution<double>(0, 1)(random);
        reference.push_back(k % 4 == 0   ? largest
                            : k % 4 == 1 ? least * static_cast<long double>(random() % 5)
                            : k % 4 == 2 ? place * one / 2
                                         : std::floor(one / place) * place);
      }
      DeviceRows data(shape, [&](int row, std::int64_t k) -> long double {
        const long double c = reference[static_cast<std::size_t>(k)];
        if (row == rows) return c;
        const long double one = 1 + std::uniform_real_distribution<double>(0, 1)(random);
        switch (row % 4) {
          case 0:
            return k % 4 == 0 ? -c : one;
          case 1:
            return k % 4 == 1 ? c + least * static_cast<long double>(random() % 3) : c;
          case 2:
            return k % 4 == 0 ? c * (1 - place) : c;
          default:
            return k % 4 == 0 ? c : (random() % 2 == 0 ? -one : one);
        }
      });
      for (const bool pairs : {true, false}) {
        for (const GramUnit unit : all_units) {
          if (unit == GramUnit::cublas) continue;
          const GramRequest request{
              .chunk = 1024, .pairs = pairs, .center = Center::row, .center_row = rows, .unit = unit};
          expect_right(data, request, run(data, request));
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(GramTest, ProductsOfOneCoordinateAreExact) {
  Generator random = generator("gram: one coordinate");
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const GramUnit unit : all_units) {
      if (unit == GramUnit::cublas && !has_library()) continue;
      const RowsShape shape{.dtype = dtype, .inputs = 21, .sizes = {1}};
      SCOPED_TRACE(describe(shape) + ", " + to_string(unit));
      DeviceRows data(shape, normal_values(random));
      const GramResult got = run(data, {.unit = unit});
      for (int i = 0; i < 21; ++i) {
        for (int j = 0; j < 21; ++j) {
          const auto exact =
              static_cast<double>(data.values[data.slot(0, i)][0] * data.values[data.slot(0, j)][0]);
          ASSERT_EQ(got.at(i, j), exact) << i << ", " << j;
        }
      }
    }
  }
}

/// A row's integers of 48 bits have one digit that is not 0, but for a large value where each run begins: so
/// a product of two digits decides what that of two rows is.
TEST(GramTest, EveryProductOfBytesCounts) {
  Generator random = generator("gram: digits");
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const int rows : {12, 55, 96}) {
      const RowsShape shape{.dtype = dtype, .inputs = rows, .sizes = {1000}};
      SCOPED_TRACE(describe(shape));
      std::vector<int> scale;
      for (int r = 0; r < rows; ++r) scale.push_back(static_cast<int>(random() % 150) - 75);
      const int step = 5 + 2 * static_cast<int>(random() % 4);  // digits fall on all rows of a tile
      DeviceRows data(shape, [&](int row, std::int64_t k) -> long double {
        const int digit = row * step % 6 + 1;
        const long double x = k % 128 == 0 ? 0x1p46L : std::ldexp(127.0L, 8 * (6 - digit) - (digit == 1));
        return std::ldexp(row % 5 == 4 ? -x : x, scale[static_cast<std::size_t>(row)] - 46);
      });
      const GramRequest request{.chunk = 1024, .unit = GramUnit::int8};
      ASSERT_EQ(unit_of(data, request), GramUnit::int8);
      expect_right(data, request, run(data, request));
      if (HasFatalFailure()) return;
    }
  }
}

/// What is less than half of the last digit is lost, all on one side; the largest value of a run is next to
/// where its digits end, at any scale down to the least denormal number.
TEST(GramTest, BytesKeepTheirBound) {
  Generator random = generator("gram: bound of bytes");
  for (const int rows : {3, 16, 17, 40, 60, 100}) {
    if (rows != 17 && random() % test_share() != 0) continue;
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const RowsShape shape{.dtype = dtype, .inputs = rows, .sizes = {1400}};
      SCOPED_TRACE(describe(shape));
      const int precision = format_of(dtype).precision;
      const int least = 1 - format_of(dtype).max_exponent - precision + 2;
      const int range = format_of(dtype).max_exponent - least;
      // A row has one scale in all runs, or in each its own.
      std::vector<int> exponents;
      for (int row = 0; row < rows; ++row) {
        int exponent = 0;
        for (int r = 0; r < 11; ++r) {
          if (r == 0 || row % 2 == 0) {
            exponent = least + static_cast<int>(random() % static_cast<std::uint64_t>(range));
          }
          exponents.push_back(row % 8 == 1 ? least + r % 4 : exponent);
        }
      }
      // About 0x1.FDFDFDFDp0, in whole units of the row's last place.
      const long double unit = std::ldexp(1.0L, 1 - precision);
      const long double last = std::floor(0x1.FDFDFDFDp0L / unit) * unit;
      DeviceRows data(shape, [&](int row, std::int64_t k) -> long double {
        const int kind = row % 3;
        const int exponent = exponents[static_cast<std::size_t>(row * 11 + k / 128)];
        const auto scaled = [&](long double x, int power) {
          return std::ldexp(x, std::max(exponent + power, least - 1));
        };
        if (k % 128 == 0 || kind == 0) {
          return scaled(last + unit * static_cast<long double>(static_cast<int>(random() % 3) - 1), 0);
        }
        if (kind == 1) return exponent - 48 < least - 1 ? 0.0L : scaled(0.99L, -48);
        return scaled(-1 - std::uniform_real_distribution<double>(0, 1)(random),
                      -static_cast<int>(random() % 50));
      });
      const GramRequest request{.chunk = 1024, .unit = GramUnit::int8};
      ASSERT_EQ(unit_of(data, request), GramUnit::int8);
      expect_right(data, request, run(data, request));
      if (HasFatalFailure()) return;
    }
  }
}

/// The same about a centre: a difference is two floats, and what is lost of both is on one side, ¾ of the
/// last digit where another row is as large as it gets.
TEST(GramTest, BytesKeepTheirBoundAboutACenter) {
  Generator random = generator("gram: bound of bytes about a centre");
  for (const int rows : {3, 16, 17, 40, 60, 100}) {
    if (rows != 17 && random() % test_share() != 0) continue;
    const RowsShape shape{.dtype = DType::f32, .inputs = rows, .references = {DType::f32}, .sizes = {1400}};
    SCOPED_TRACE(describe(shape));
    const int exponent =
        static_cast<int>(random() % 190) - 125;  // in the least ones last digits are no floats
    std::vector<long double> center;
    for (int k = 0; k < 1400; ++k) {
      const auto even = 0x1p22L + 2 * static_cast<long double>(random() % (1 << 21));
      center.push_back(k % 128 == 0 ? 0.0L : -(even + 0.5L));
    }
    DeviceRows data(shape, [&](int row, std::int64_t k) -> long double {
      const auto in_last_digits = [&]() -> long double {
        if (row == rows) return center[static_cast<std::size_t>(k)];
        if (k % 128 == 0 || row % 3 == 0) return 0x1.FDFDFCp46L;
        if (row % 3 == 1) return 0.249L;
        return -std::ldexp(1 + std::uniform_real_distribution<double>(0, 1)(random),
                           46 - static_cast<int>(random() % 50));
      };
      return std::ldexp(in_last_digits(), exponent - 46);
    });
    const GramRequest request{
        .chunk = 1024, .center = Center::row, .center_row = rows, .unit = GramUnit::int8};
    ASSERT_EQ(unit_of(data, request), GramUnit::int8);
    const GramResult got = run(data, request);
    expect_right(data, request, got);
    if (HasFatalFailure()) return;
    // Every row has one scale, whose last digit is this: ¾ of it are lost of an integer, and not more.
    if (exponent < -100) continue;  // last digits are no floats
    const auto unit = std::ldexp(1.0L, exponent - 46);
    for (int i = 0; i < rows; ++i) {
      for (int j = 0; j <= i; ++j) {
        long double sum = 0, sizes = 0, magnitude = 0;
        for (std::size_t k = 0; k < 1400; ++k) {
          const long double c = data.values[data.slot(0, rows)][k];
          const long double x = data.values[data.slot(0, i)][k] - c;
          const long double y = data.values[data.slot(0, j)][k] - c;
          sum += x * y;
          sizes += std::fabs(x) + std::fabs(y);
          magnitude += std::fabs(x * y);
        }
        const long double left_out = 11 * (128 * 4 * 0x1p38L * 1.01L + 0x1p39L + 128) * unit * unit;
        ASSERT_LE(std::fabs(got.at(i, j) - sum), 0.75L * unit * sizes + left_out + 16 * 0x1p-53L * magnitude)
            << i << ", " << j;
      }
    }
  }
}

TEST(GramTest, UnitsHaveNames) {
  using detail::cuda::gram_unit_of;
  for (const GramUnit unit : all_units) EXPECT_EQ(gram_unit_of(detail::cuda::to_string(unit)), unit);
  EXPECT_EQ(gram_unit_of(nullptr), GramUnit::automatic);
  EXPECT_EQ(gram_unit_of(""), GramUnit::automatic);
  for (const char* const name : {"float", "tensor,", "Tensor", "automatic"}) {
    try {
      gram_unit_of(name);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::invalid_argument);
      EXPECT_EQ(std::string(error.what()),
                std::string("BRAGG_GRAM=") + name +
                    ": needs one of tensor, double_float, int8, cublas, or nothing: by device");
    }
  }
}

TEST(GramTest, DevicesWithFastFloat64TakeIt) {
  using detail::cuda::preferred_gram_unit;
  for (const int rows : {1, 8, 9, 48, 49, 1000}) {
    for (const int fast : {80, 90, 100}) EXPECT_EQ(preferred_gram_unit(fast, rows), GramUnit::tensor);
    for (const int slow : {86, 87, 89, 120, 121}) {
      EXPECT_EQ(preferred_gram_unit(slow, rows), rows < 9 ? GramUnit::double_float : GramUnit::int8);
    }
    for (const int slow : {75, 103, 110}) {
      EXPECT_EQ(preferred_gram_unit(slow, rows), rows < 49 ? GramUnit::double_float : GramUnit::int8);
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
        EXPECT_EQ(doubles, static_cast<std::size_t>(batch) * products + n);
        EXPECT_LE(doubles, std::max(most, products) + n);
      }
    }
  }
}

}  // namespace
}  // namespace bragg::test
