// SPDX-License-Identifier: Apache-2.0
// Pass 2 of coordinate-wise rules on the device, against sorting. Bits are those of the definition: values
// in order, sums in f64, ascending, rounded once; only sums of weighted rules and of more points than a
// network takes are in another order.
#include "kernels/select/select.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bragg/error.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>

#include "host/cpu/passes.hpp"
#include "tests/device/device_rows.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

using detail::SelectRule;
using detail::cuda::Alignment;
using detail::cuda::SelectArguments;
using detail::cuda::SumUnit;
using Kind = SelectRule::Kind;

constexpr std::array all_dtypes{DType::f32, DType::f16, DType::bf16, DType::f64};
constexpr std::array all_alignments{Alignment::vector, Alignment::element, Alignment::byte};
constexpr std::array all_units{SumUnit::f64, SumUnit::double_float};
constexpr std::array all_even{EvenMedian::midpoint, EvenMedian::lower, EvenMedian::upper};
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr long double untouched = 42;

// What the pass is asked for ---------------------------------------------------------------------------

/// One part's arrays, by row or mixed point.
struct Part {
  std::vector<int> chosen = {};
  std::vector<double> mix = {};  ///< [mixed point][row]
  std::vector<std::uint8_t> infinite = {};
  std::vector<double> weights = {};
};

struct Request {
  SelectRule rule;
  int points = 0;
  std::vector<Part> parts = std::vector<Part>(1);
  bool per_tensor = false;
  bool nonfinite = true;
  std::optional<DType> out_dtype = {};
  int out_row = -1;  ///< the row that the output lies on; −1: none
  bool copy = false;
  int status = -1;  ///< −1: no gate
  OnFailure on_failure = OnFailure::keep;
  std::optional<SumUnit> unit = {};  ///< one or the other: results are the same

  const Part& part(std::size_t tensor) const { return parts[per_tensor ? tensor : 0]; }
};

struct Result {
  std::vector<std::vector<long double>> out;  ///< per tensor
  std::vector<std::vector<long double>> copy;
  std::vector<unsigned long long> nonfinite;  ///< part after part
};

/// Arrays of parts that lie `stride` bytes apart in one piece of device memory.
class PartMemory {
 public:
  template <class T>
  std::size_t add(const std::vector<T>& values) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + (values.size() * sizeof(T) + 7) / 8 * 8);
    if (!values.empty()) std::memcpy(bytes_.data() + at, values.data(), values.size() * sizeof(T));
    return at;
  }
  std::size_t size() const { return bytes_.size(); }
  void upload() { device_ = DeviceArray<unsigned char>(bytes_); }
  template <class T>
  T* at(std::size_t offset) const {
    return reinterpret_cast<T*>(device_.data() + offset);
  }
  template <class T>
  std::vector<T> read(std::size_t offset, std::size_t count) const {
    std::vector<T> values(count);
    const std::vector<unsigned char> all = device_.values();
    std::memcpy(values.data(), all.data() + offset, count * sizeof(T));
    return values;
  }

 private:
  std::vector<unsigned char> bytes_;
  DeviceArray<unsigned char> device_;
};

Result run(DeviceRows& data, const Request& request) {
  const RowsShape& shape = data.shape;
  const auto rows = static_cast<std::size_t>(shape.count());
  const DType out_dtype = request.out_dtype.value_or(shape.dtype);
  PartMemory memory;
  std::array<std::size_t, 5> at{};
  std::size_t stride = 0;
  for (const Part& part : request.parts) {
    const std::size_t begin = memory.size();
    const std::array<std::size_t, 5> placed{memory.add(part.chosen), memory.add(part.mix),
                                            memory.add(part.infinite), memory.add(part.weights),
                                            memory.add(std::vector<unsigned long long>(rows, 1))};
    if (begin == 0) at = placed;
    stride = memory.size() - begin;
  }
  memory.upload();

  std::vector<DeviceTensor> outs, copies;
  std::vector<void*> out_pointers, copy_pointers;
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    const std::vector<long double> before(static_cast<std::size_t>(shape.sizes[t]), untouched);
    outs.emplace_back(before, out_dtype, shift_of(shape.alignment, out_dtype, t + 1));
    copies.emplace_back(before, out_dtype, 0);
    out_pointers.push_back(request.out_row < 0 ? outs.back().data()
                                               : data.tensors[data.slot(t, request.out_row)].data());
    copy_pointers.push_back(copies.back().data());
  }
  const DeviceArray<void*> out_table(out_pointers), copy_table(copy_pointers);
  const DeviceArray<int> status(std::vector<int>{request.status});

  SelectArguments a;
  a.rows = data.rows();
  a.tiles = data.cut(detail::cuda::tile_length);
  a.parts = {request.per_tensor, stride};
  a.out = {out_table.data(), request.copy ? copy_table.data() : nullptr, out_dtype};
  if (request.status >= 0) a.gate = {status.data(), request.on_failure};
  a.rule = request.rule;
  a.points = request.points;
  const Part& first = request.parts[0];
  if (!first.chosen.empty()) a.chosen = memory.at<int>(at[0]);
  if (!first.mix.empty()) a.mix = memory.at<double>(at[1]);
  if (!first.infinite.empty()) a.infinite = memory.at<std::uint8_t>(at[2]);
  if (!first.weights.empty()) a.weights = memory.at<double>(at[3]);
  if (request.nonfinite && first.mix.empty()) a.nonfinite = memory.at<unsigned long long>(at[4]);
  const detail::cuda::DeviceMemory workspace(detail::cuda::select_workspace_bytes(a));
  a.workspace = workspace.data();
  static Generator chance = generator("units of select");
  a.unit = request.unit.value_or(all_units[chance() % 2]);
  detail::cuda::select(a, nullptr);
  detail::cuda::synchronize(nullptr);

  Result result;
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    const DeviceTensor& target = request.out_row < 0 ? outs[t] : data.tensors[data.slot(t, request.out_row)];
    result.out.push_back(target.values(out_dtype));
    result.copy.push_back(copies[t].values(out_dtype));
    EXPECT_TRUE(outs[t].is_intact() && copies[t].is_intact()) << "bytes before the output were written to";
  }
  for (std::size_t p = 0; p < request.parts.size(); ++p) {
    for (const unsigned long long count : memory.read<unsigned long long>(p * stride + at[4], rows)) {
      result.nonfinite.push_back(count - 1);
    }
  }
  return result;
}

// What is right ------------------------------------------------------------------------------------------

struct Answer {
  long double value = 0;  // not rounded: between two denormals every digit decides
  long double tolerance = 0;
};

bool is_wide(DType dtype) { return dtype == DType::f64; }
int most_in_registers(DType dtype) {
#if defined(BRAGG_FEWER_NETWORKS)
  constexpr int most = 32;
#else
  constexpr int most = 128;
#endif
  return is_wide(dtype) ? std::min(most, 64) : most;
}

double clamped_mean(const std::vector<double>& summed, double low, double high) {
  if (low == -infinity) return low;
  if (high == infinity) return high;
  const bool large = std::max(std::abs(low), std::abs(high)) >= 0x1p1000;
  const double scale = large ? 0x1p-64 : 1;
  double sum = 0;
  for (const double v : summed) sum += v * scale;
  const double mean = std::clamp(sum / static_cast<double>(summed.size()), low * scale, high * scale);
  return std::clamp(mean / scale, low, high);
}

double mean_of(const std::vector<double>& y, std::size_t first, std::size_t count) {
  return clamped_mean({y.begin() + static_cast<std::ptrdiff_t>(first),
                       y.begin() + static_cast<std::ptrdiff_t>(first + count)},
                      y[first], y[first + count - 1]);
}

double middle_of(const std::vector<double>& y, EvenMedian even) {
  const double low = y[(y.size() - 1) / 2];
  const double high = y[y.size() / 2];
  if (even == EvenMedian::lower) return low;
  if (even == EvenMedian::upper) return high;
  if (std::isinf(low) || std::isinf(high)) return std::isinf(low) ? low : high;
  return std::midpoint(low, high);
}

/// The mean of the `keep` closest: the window of ranks that moves on while that brings it strictly closer.
double closest_mean_of(const std::vector<double>& y, std::size_t keep, double centre) {
  if (!std::isfinite(centre)) return centre;
  const auto moves_on = [&](std::size_t s) {
    if (s + keep == y.size()) return false;
    const double left = y[s];
    const double right = y[s + keep];
    if (std::max(std::abs(left), std::abs(right)) < 0x1p1000) return right - centre < centre - left;
    return right / 2 - centre / 2 < centre / 2 - left / 2;
  };
  std::size_t first = 0;
  while (moves_on(first)) ++first;
  std::vector<double> kept(keep);  // summed in the order of ranks modulo `keep`
  for (std::size_t i = first; i < first + keep; ++i) kept[i % keep] = y[i];
  return clamped_mean(kept, y[first], y[first + keep - 1]);
}

double largest_of(const std::vector<double>& values) {
  double most = 0;
  for (const double v : values) most = std::isfinite(v) ? std::max(most, std::abs(v)) : most;
  return most;
}

/// `values` of the points, NaN read as +inf.
Answer answer_of(const SelectRule& rule, std::vector<double> values, bool exact) {
  const auto n = values.size();
  const auto f = static_cast<std::size_t>(rule.f);
  const auto keep = static_cast<std::size_t>(rule.keep);
  std::sort(values.begin(), values.end());
  const double tolerance = exact ? 0 : static_cast<double>(n + 4) * 0x1p-53 * largest_of(values);
  switch (rule.kind) {
    case Kind::median:
      return {middle_of(values, rule.even), 0};
    case Kind::trimmed_mean:
      return {mean_of(values, f, n - 2 * f), tolerance};
    case Kind::closest_to_median:
      return {closest_mean_of(values, keep, middle_of(values, EvenMedian::midpoint)), tolerance};
    default:
      return {closest_mean_of(values, keep, mean_of(values, f, n - 2 * f)), tolerance};
  }
}

Answer weighted_answer_of(const SelectRule& rule, const std::vector<double>& values,
                          const std::vector<double>& weights) {
  const auto n = values.size();
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto i, auto j) { return values[i] < values[j]; });
  std::vector<double> y, w;
  for (const std::size_t i : order) y.push_back(values[i]), w.push_back(weights[i]);
  const auto f = static_cast<std::size_t>(rule.f);
  if (rule.kind == Kind::trimmed_mean) {
    y.erase(y.begin(), y.begin() + static_cast<std::ptrdiff_t>(f));
    w.erase(w.begin(), w.begin() + static_cast<std::ptrdiff_t>(f));
    y.resize(n - 2 * f), w.resize(n - 2 * f);
  }
  double total = std::accumulate(w.begin(), w.end(), 0.0);
  if (total == 0) std::fill(w.begin(), w.end(), 1.0), total = static_cast<double>(w.size());
  std::vector<double> kept;
  long double sum = 0, below = 0;
  std::optional<double> half;
  for (std::size_t k = 0; k < y.size(); ++k) {
    if (w[k] == 0) continue;
    if (half)
      return {rule.even == EvenMedian::upper ? y[k] : middle_of({*half, y[k]}, EvenMedian::midpoint), 0};
    kept.push_back(y[k]);
    sum += static_cast<long double>(w[k] / total) * y[k];
    below += w[k];
    if (rule.kind != Kind::median || 2 * below < total) continue;
    if (2 * below > total || rule.even == EvenMedian::lower) return {y[k], 0};
    half = y[k];
  }
  if (half) return {*half, 0};
  if (std::isinf(kept.front())) return {kept.front(), 0};
  if (std::isinf(kept.back())) return {kept.back(), 0};
  return {sum, static_cast<long double>(n + 4) * 0x1p-52L * largest_of(kept)};
}

testing::AssertionResult matches(long double got, const Answer& want, DType dtype) {
  const long double low = round_to(dtype, want.value - want.tolerance);
  const long double high = round_to(dtype, want.value + want.tolerance);
  if (got >= low && got <= high && !(got == 0 && std::signbit(got))) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "got " << got << ", want " << want.value << " ± " << want.tolerance;
}

/// The points' values at a coordinate, and what rounding may have done to each mixed one.
struct Seen {
  std::vector<double> values;
  double error = 0;
};

Seen seen_by_rule(const DeviceRows& data, const Request& request, std::size_t tensor, std::size_t i) {
  const Part& part = request.part(tensor);
  const auto rows = static_cast<std::size_t>(data.shape.count());
  Seen seen;
  for (std::size_t p = 0; p < static_cast<std::size_t>(request.points); ++p) {
    const std::size_t index = part.chosen.empty() ? p : static_cast<std::size_t>(part.chosen[p]);
    long double v = 0;
    if (!part.infinite.empty() && part.infinite[index] != 0) {
      v = infinity;
    } else if (part.mix.empty()) {
      v = data.values[data.slot(tensor, static_cast<int>(index))][i];
    } else {
      long double magnitude = 0;
      for (std::size_t r = 0; r < rows; ++r) {
        const double c = part.mix[index * rows + r];
        if (c == 0) continue;
        v += c * data.values[data.slot(tensor, static_cast<int>(r))][i];
        magnitude += std::abs(c * data.values[data.slot(tensor, static_cast<int>(r))][i]);
      }
      const double relative = is_wide(data.shape.dtype) ? 0 : 0x1p-24;
      seen.error = std::max(
          seen.error, static_cast<double>(magnitude) * (relative + static_cast<double>(rows + 1) * 0x1p-53));
    }
    seen.values.push_back(std::isnan(v) ? infinity : static_cast<double>(v));
  }
  return seen;
}

void expect_right(DeviceRows& data, const Request& request) {
  static Generator chance = generator("share of select");
  if (chance() % test_share() != 0) return;
  const DType out_dtype = request.out_dtype.value_or(data.shape.dtype);
  const bool weighted = !request.parts[0].weights.empty();
  const bool exact = !weighted && request.points <= most_in_registers(data.shape.dtype);
  const Result result = run(data, request);
  for (std::size_t t = 0; t < data.shape.sizes.size(); ++t) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(data.shape.sizes[t]); ++i) {
      const Seen seen = seen_by_rule(data, request, t, i);
      Answer want;
      if (weighted) {
        std::vector<double> weights;
        const Part& part = request.part(t);
        for (std::size_t p = 0; p < seen.values.size(); ++p) {
          weights.push_back(part.weights[part.chosen.empty() ? p : static_cast<std::size_t>(part.chosen[p])]);
        }
        want = weighted_answer_of(request.rule, seen.values, weights);
      } else {
        want = answer_of(request.rule, seen.values, exact);
      }
      want.tolerance += seen.error;
      ASSERT_TRUE(matches(result.out[t][i], want, out_dtype)) << "tensor " << t << " at " << i;
      if (request.copy) {
        ASSERT_EQ(result.copy[t][i], result.out[t][i]);
      }
    }
  }
  if (!request.nonfinite || !request.parts[0].mix.empty()) return;
  const auto rows = static_cast<std::size_t>(data.shape.count());
  std::vector<unsigned long long> expected(request.parts.size() * rows, 0);
  for (std::size_t t = 0; t < data.shape.sizes.size(); ++t) {
    const Part& part = request.part(t);
    for (std::size_t p = 0; p < static_cast<std::size_t>(request.points); ++p) {
      const std::size_t row = part.chosen.empty() ? p : static_cast<std::size_t>(part.chosen[p]);
      for (const long double v : data.values[data.slot(t, static_cast<int>(row))]) {
        expected[(request.per_tensor ? t : 0) * rows + row] += std::isfinite(v) ? 0 : 1;
      }
    }
  }
  EXPECT_EQ(result.nonfinite, expected);
}

// Data -----------------------------------------------------------------------------------------------------

enum class Data { normal, integers, hostile };

DeviceRows::Values values_of(Data kind, DType dtype, std::mt19937_64& random) {
  return [kind, dtype, &random](int, std::int64_t) -> long double {
    const long double uniform = std::uniform_real_distribution<double>(-1, 1)(random);
    if (kind == Data::normal) return 1 + uniform;
    if (kind == Data::integers) return static_cast<long double>(random() % 9) - 4;
    const long double largest = test::largest(dtype);
    const long double smallest = spacing(dtype, 0);
    const long double sign = random() % 2 == 0 ? 1 : -1;
    switch (random() % 12) {
      case 0:
        return sign * std::numeric_limits<long double>::quiet_NaN();
      case 1:
        return infinity;
      case 2:
        return -infinity;
      case 3:
        return sign * 0.0L;
      case 4:
        return sign * smallest * static_cast<long double>(random() % 5);
      case 5:
        return sign * largest;
      case 6:
        return largest * uniform;
      default:
        return uniform;
    }
  };
}

DeviceRows make_rows(DType dtype, int n, std::vector<std::int64_t> sizes, Alignment alignment, Data kind,
                     std::mt19937_64& random) {
  RowsShape shape;
  shape.dtype = dtype;
  shape.inputs = n;
  shape.sizes = std::move(sizes);
  shape.alignment = alignment;
  return {std::move(shape), values_of(kind, dtype, random)};
}

std::vector<SelectRule> rules_for(int n) {
  std::vector<SelectRule> rules;
  for (const EvenMedian even : all_even) rules.push_back({Kind::median, even, 0, 0});
  std::vector<int> counts{0, 1, (n - 1) / 2};
  for (const int f : counts) {
    if (2 * f < n) rules.push_back({Kind::trimmed_mean, EvenMedian::midpoint, f, 0});
  }
  const int f = (n - 1) / 3;
  rules.push_back({Kind::closest_to_median, EvenMedian::midpoint, 0, n - f});
  rules.push_back({Kind::closest_to_median, EvenMedian::midpoint, 0, 1});
  rules.push_back({Kind::closest_to_trimmed_mean, EvenMedian::midpoint, f, n - f});
  return rules;
}

std::string name_of(const SelectRule& rule) {
  return "kind " + std::to_string(static_cast<int>(rule.kind)) + " even " +
         std::to_string(static_cast<int>(rule.even)) + " f " + std::to_string(rule.f) + " keep " +
         std::to_string(rule.keep);
}

const std::vector<int> bucket_borders{1,  2,  3,  7,  8,  9,  15, 16, 17, 23, 24,  25,  31, 32,
                                      33, 47, 48, 49, 63, 64, 65, 95, 96, 97, 127, 128, 129};

// Tests ----------------------------------------------------------------------------------------------------

class SelectTest : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, SelectTest, testing::ValuesIn(all_dtypes),
                         [](const auto& chosen) { return std::string(to_string(chosen.param)); });

/// Sorted, added up from the smallest that is kept in double precision, divided, rounded: the bits.
TEST_P(SelectTest, TrimmedMeansWhateverIsDropped) {
  Generator random = generator("select dropped");
  const DType dtype = GetParam();
  int fewer = 0;
  for (const int bucket : {8, 16, 24, 32, 48, 64, 96, 128}) {
    if (bucket > most_in_registers(dtype)) break;  // sums of more points go by chunks
    const int between = fewer + 1 + static_cast<int>(random() % static_cast<std::uint64_t>(bucket - fewer));
    for (const int n : {bucket, between, fewer + 1}) {
      DeviceRows data = make_rows(dtype, n, {5}, Alignment::element, Data::normal, random);
      for (int f = 0; 2 * f < n; ++f) {
        if (f > 8 && random() % test_share() != 0) continue;
        const Request request{.rule = {Kind::trimmed_mean, EvenMedian::midpoint, f, 0}, .points = n};
        SCOPED_TRACE(name_of(request.rule) + " n " + std::to_string(n));
        const Result result = run(data, request);
        for (std::size_t i = 0; i < 5; ++i) {
          std::vector<double> values = seen_by_rule(data, request, 0, i).values;
          std::sort(values.begin(), values.end());
          const double sum = std::accumulate(values.begin() + f, values.end() - f, 0.0);
          ASSERT_EQ(result.out[0][i], round_to(dtype, sum / (n - 2 * f)));
        }
      }
    }
    fewer = bucket;
  }
}

/// Values whose means lie half-way between two of the dtype, or nearly; cancel; or leave the range of floats.
enum class Aimed { halves, nearly_halves, beside_halves, cancelling, spread, tiny, huge, equal };
constexpr std::array all_aimed{Aimed::halves, Aimed::nearly_halves, Aimed::beside_halves, Aimed::cancelling,
                               Aimed::spread, Aimed::tiny,          Aimed::huge,          Aimed::equal};

DeviceRows::Values values_aimed_at_means(Aimed kind, DType dtype, std::mt19937_64& random) {
  const auto any = [&random](int one_of) { return static_cast<long double>(random() % one_of); };
  return [=, &random](int row, std::int64_t i) -> long double {
    const long double sign = random() % 2 == 0 ? 1 : -1;
    switch (kind) {
      case Aimed::halves:
        return 1 + spacing(dtype, 1) * (any(8) + (i % 3 == 0 ? row : 0));
      case Aimed::nearly_halves:
        return row % 7 == 0 ? spacing(dtype, 0x1p-9L) * any(3) : 1 + spacing(dtype, 1) * any(8);
      case Aimed::beside_halves: {  // three rows, of 1 + half a unit and a little
        const long double unit = spacing(dtype, 1);
        if (row % 3 == 0) return (i % 2 == 0 ? 2 + 2 * unit : -2 - 2 * unit);
        if (row % 3 == 1) return (i % 2 == 0 ? 1 - unit / 2 : unit / 2 - 1);
        return std::ldexp(i % 4 < 2 ? 1.0L : -1.0L,
                          dtype == DType::f16 ? -24 : -24 - static_cast<int>(i % 30));
      }
      case Aimed::cancelling:
        return sign * (1 + (i % 2 == 0 ? spacing(dtype, 1) * any(2) : 0));
      case Aimed::spread:
        return sign *
               std::ldexp(1 + any(100) / 128, static_cast<int>(any(dtype == DType::f16 ? 24 : 90)) - 14);
      case Aimed::tiny:
        return sign * spacing(dtype, 0) * any(1000);
      case Aimed::huge:
        return sign * largest(dtype) * (1 - any(4) / 8);
      case Aimed::equal:
        break;
    }
    return i % 4 == 0 ? 0.0L : static_cast<long double>(i) / 128;
  };
}

/// Sums in floats give the bits of f64, or say that they cannot tell.
TEST_P(SelectTest, TrimmedMeansInFloatsAreThoseOfF64) {
  const DType dtype = GetParam();
  if (dtype == DType::f64) return;
  Generator random = generator("select floats");
  for (const int n : {1, 2, 3, 6, 9, 16, 20, 31, 48, 64, 77, 128}) {
    if (n > most_in_registers(dtype)) break;
    for (const Aimed kind : all_aimed) {
      if (random() % test_share() != 0) continue;
      RowsShape shape;
      shape.dtype = dtype;
      shape.inputs = n;
      shape.sizes = {1111};
      shape.alignment = all_alignments[random() % 3];
      DeviceRows data(shape, values_aimed_at_means(kind, dtype, random));
      for (const int f : {0, (n - 1) / 5, (n - 1) / 2}) {
        Request request{.rule = {Kind::trimmed_mean, EvenMedian::midpoint, f, 0}, .points = n};
        if (random() % 2 == 0) request.out_dtype = DType::f32;
        SCOPED_TRACE(name_of(request.rule) + " n " + std::to_string(n) + " data " +
                     std::to_string(static_cast<int>(kind)));
        request.unit = SumUnit::f64;
        const Result want = run(data, request);
        request.unit = SumUnit::double_float;
        ASSERT_EQ(run(data, request).out, want.out);
      }
    }
  }
}

TEST_P(SelectTest, EveryRuleAtEveryBordersOfTheBuckets) {
  Generator random = generator("select buckets");
  std::size_t turn = 0;
  for (const int n : bucket_borders) {
    for (const Data kind : {Data::normal, Data::hostile}) {
      const Alignment alignment = all_alignments[turn++ % 3];
      DeviceRows data = make_rows(GetParam(), n, {37}, alignment, kind, random);
      for (const SelectRule& rule : rules_for(n)) {
        SCOPED_TRACE(name_of(rule) + " n " + std::to_string(n));
        ASSERT_NO_FATAL_FAILURE(expect_right(data, {.rule = rule, .points = n}));
      }
    }
  }
}

TEST_P(SelectTest, EveryAlignmentTailAndTensor) {
  Generator random = generator("select alignment");
  for (const Alignment alignment : all_alignments) {
    for (const int n : {5, 16, 20, 33}) {
      DeviceRows data = make_rows(GetParam(), n, {3, 0, 2049, 1, 0, 1023}, alignment, Data::hostile, random);
      for (const SelectRule& rule :
           {SelectRule{}, SelectRule{Kind::trimmed_mean, EvenMedian::midpoint, n / 4, 0},
            SelectRule{Kind::closest_to_median, EvenMedian::midpoint, 0, n - n / 4}}) {
        SCOPED_TRACE(name_of(rule) + " n " + std::to_string(n));
        ASSERT_NO_FATAL_FAILURE(expect_right(data, {.rule = rule, .points = n, .copy = true}));
      }
    }
  }
}

TEST_P(SelectTest, ManyPoints) {
  Generator random = generator("select many points");
  for (const int n : {129, 200, 300, 1000}) {
    for (const Data kind : {Data::normal, Data::integers, Data::hostile}) {
      DeviceRows data = make_rows(GetParam(), n, {33}, Alignment::element, kind, random);
      for (const SelectRule& rule : rules_for(n)) {
        // Sums in another order move the centre; ties of distances stay ties only where sums are exact.
        if (rule.kind == Kind::closest_to_trimmed_mean && kind == Data::hostile) continue;
        SCOPED_TRACE(name_of(rule) + " n " + std::to_string(n));
        ASSERT_NO_FATAL_FAILURE(expect_right(data, {.rule = rule, .points = n}));
      }
    }
  }
}

TEST_P(SelectTest, TheOutputMayBeARow) {
  Generator random = generator("select in place");
  for (const int n : {9, 40, 130}) {
    for (const SelectRule& rule :
         {SelectRule{}, SelectRule{Kind::closest_to_median, EvenMedian::midpoint, 0, n / 2}}) {
      for (const Alignment alignment : all_alignments) {
        DeviceRows data = make_rows(GetParam(), n, {1100, 3}, alignment, Data::hostile, random);
        ASSERT_NO_FATAL_FAILURE(expect_right(data, {.rule = rule, .points = n, .out_row = n / 2}));
      }
    }
  }
}

TEST_P(SelectTest, OutputsOfOtherTypes) {
  Generator random = generator("select out dtype");
  for (const DType out_dtype : all_dtypes) {
    for (const Alignment alignment : all_alignments) {
      DeviceRows data = make_rows(GetParam(), 12, {1030, 7}, alignment, Data::normal, random);
      for (const SelectRule& rule :
           {SelectRule{}, SelectRule{Kind::trimmed_mean, EvenMedian::midpoint, 2, 0}}) {
        ASSERT_NO_FATAL_FAILURE(
            expect_right(data, {.rule = rule, .points = 12, .out_dtype = out_dtype, .copy = true}));
      }
    }
  }
}

TEST_P(SelectTest, ChosenAndInfinitePointsOfEveryPart) {
  Generator random = generator("select chosen");
  for (const int n : {11, 70, 150}) {
    for (const bool per_tensor : {false, true}) {
      DeviceRows data =
          make_rows(GetParam(), n, {40, 0, 1, 70, 5, 33, 8}, Alignment::element, Data::hostile, random);
      Request request;
      request.per_tensor = per_tensor;
      request.points = n - 4;
      request.parts.resize(per_tensor ? 7 : 1);
      for (Part& part : request.parts) {
        std::vector<int> all(static_cast<std::size_t>(n));
        std::iota(all.begin(), all.end(), 0);
        std::shuffle(all.begin(), all.end(), random);
        part.chosen.assign(all.begin(), all.end() - 4);
        std::sort(part.chosen.begin(), part.chosen.end());
        for (int r = 0; r < n; ++r) part.infinite.push_back(random() % 5 == 0 ? 1 : 0);
      }
      for (const SelectRule& rule : rules_for(n - 4)) {
        if (rule.kind == Kind::closest_to_trimmed_mean && n > 128) continue;
        request.rule = rule;
        SCOPED_TRACE(name_of(rule) + " n " + std::to_string(n));
        ASSERT_NO_FATAL_FAILURE(expect_right(data, request));
      }
    }
  }
}

TEST_P(SelectTest, WeightedRules) {
  Generator random = generator("select weights");
  for (const int n : {1, 2, 5, 33, 130, 400}) {
    for (const Data kind : {Data::normal, Data::integers, Data::hostile}) {
      for (const bool some : {true, false}) {
        DeviceRows data = make_rows(GetParam(), n, {40, 9}, Alignment::vector, kind, random);
        Request request;
        request.points = n;
        request.per_tensor = n == 5;
        request.parts.resize(request.per_tensor ? 2 : 1);
        for (Part& part : request.parts) {
          // Small integers: halves of the total are met exactly.
          for (int r = 0; r < n; ++r) part.weights.push_back(some ? static_cast<double>(random() % 4) : 0);
        }
        const int f = (n - 1) / 3;
        std::vector<SelectRule> rules{{Kind::trimmed_mean, EvenMedian::midpoint, f, 0}};
        for (const EvenMedian even : all_even) rules.push_back({Kind::median, even, 0, 0});
        for (const SelectRule& rule : rules) {
          request.rule = rule;
          SCOPED_TRACE(name_of(rule) + " n " + std::to_string(n) + " data " +
                       std::to_string(static_cast<int>(kind)));
          ASSERT_NO_FATAL_FAILURE(expect_right(data, request));
        }
      }
    }
  }
}

/// Random coefficients of `points` points; row `bad` has none, and holds NaN.
Part mixed_part(int points, int rows, int bad, std::mt19937_64& random) {
  Part part;
  for (int p = 0; p < points; ++p) {
    for (int r = 0; r < rows; ++r) {
      const bool none = r == bad || random() % 3 == 0 || (points > 4 && p == 1);
      part.mix.push_back(none ? 0 : std::uniform_real_distribution<double>(0, 1)(random));
    }
    part.infinite.push_back(points > 4 && p == 1 ? 1 : 0);
  }
  return part;
}

TEST_P(SelectTest, MixedPoints) {
  Generator random = generator("select mix");
  std::size_t turn = 0;
  for (const int points : {1, 5, 16, 17, 40, 64, 65, 128, 129, 300}) {
    for (const int inputs : {7, 33}) {
      RowsShape shape;
      shape.dtype = GetParam();
      shape.inputs = inputs;
      shape.references = {DType::f32, GetParam()};
      shape.zeros = {turn % 2 == 0, false};
      shape.sizes = {45, 0, 133};
      shape.alignment = all_alignments[turn++ % 3];
      DeviceRows data(shape, [&](int row, std::int64_t) -> long double {
        if (row == 2) return std::numeric_limits<long double>::quiet_NaN();
        return 1 + std::uniform_real_distribution<double>(-1, 1)(random);
      });
      data.make_null(0, inputs + 1);
      Request request;
      request.points = points;
      request.per_tensor = points % 2 == 1;
      request.parts.clear();
      for (int part = 0; part < (request.per_tensor ? 3 : 1); ++part) {
        request.parts.push_back(mixed_part(points, inputs + 2, 2, random));
      }
      for (const SelectRule& rule :
           {SelectRule{}, SelectRule{Kind::trimmed_mean, EvenMedian::midpoint, (points - 1) / 4, 0}}) {
        request.rule = rule;
        SCOPED_TRACE(name_of(rule) + " points " + std::to_string(points) + " rows " + std::to_string(inputs));
        ASSERT_NO_FATAL_FAILURE(expect_right(data, request));
      }
    }
  }
}

TEST_P(SelectTest, MixedPointsOfIntegersAreExactWhateverTheRule) {
  Generator random = generator("select exact mix");
  for (const int points : {9, 64, 140}) {
    DeviceRows data = make_rows(GetParam(), 20, {77}, Alignment::vector, Data::integers, random);
    Request request;
    request.points = points - 2;
    request.out_row = 3;
    Part& part = request.parts[0];
    for (int p = 0; p < points; ++p) {
      for (int r = 0; r < 20; ++r) part.mix.push_back(static_cast<double>(random() % 3));
      if (p != 0 && p != 5) part.chosen.push_back(p);
      part.weights.push_back(static_cast<double>(random() % 3));
    }
    for (SelectRule rule : rules_for(points - 2)) {
      DeviceRows fresh = make_rows(GetParam(), 20, {77}, Alignment::vector, Data::integers, random);
      Request exact = request;
      exact.rule = rule;
      if (rule.kind == Kind::closest_to_median || rule.kind == Kind::closest_to_trimmed_mean) {
        exact.parts[0].weights.clear();
      }
      SCOPED_TRACE(name_of(rule) + " points " + std::to_string(points));
      ASSERT_NO_FATAL_FAILURE(expect_right(fresh, exact));
    }
  }
}

TEST(SelectTest, AFiniteMixedValueNeverBecomesInfinite) {
  RowsShape shape;
  shape.inputs = 2;
  shape.sizes = {40};
  DeviceRows data(shape, [](int, std::int64_t i) {
    return (i % 2 == 0 ? 1.0L : -1.0L) * std::numeric_limits<float>::max();
  });
  Request request{.rule = {}, .points = 1};
  request.parts[0].mix = {0.6, 0.6};
  const Result result = run(data, request);
  for (std::size_t i = 0; i < 40; ++i) {
    EXPECT_EQ(std::abs(result.out[0][i]), std::numeric_limits<float>::max());
  }
}

TEST(SelectTest, AFailedRunKeepsOrFillsTheOutput) {
  Generator random = generator("select gate");
  for (const int n : {5, 140}) {
    for (const Kind kind : {Kind::median, Kind::closest_to_median}) {
      for (const Alignment alignment : all_alignments) {
        DeviceRows data = make_rows(DType::f32, n, {1030, 0, 9}, alignment, Data::normal, random);
        for (const OnFailure on_failure : {OnFailure::keep, OnFailure::nan, OnFailure::zero}) {
          Request request{.rule = {kind, EvenMedian::midpoint, 0, n / 2}, .points = n};
          request.copy = true;
          request.status = 1;
          request.on_failure = on_failure;
          const Result result = run(data, request);
          for (std::size_t t = 0; t < 3; ++t) {
            for (std::size_t i = 0; i < result.out[t].size(); ++i) {
              const long double got = result.out[t][i];
              ASSERT_EQ(result.copy[t][i], untouched);
              if (on_failure == OnFailure::nan) {
                ASSERT_TRUE(std::isnan(got));
              } else {
                ASSERT_EQ(got, on_failure == OnFailure::keep ? untouched : 0);
              }
            }
          }
          EXPECT_EQ(result.nonfinite, std::vector<unsigned long long>(static_cast<std::size_t>(n), 0));
          request.status = 0;
          ASSERT_NO_FATAL_FAILURE(expect_right(data, request));
        }
      }
    }
  }
}

// Distances beyond the largest f64 still have an order: below infinity's.
TEST(SelectTest, DistancesMayOverflow) {
  for (const int n : {20, 80}) {
    for (const bool infinite : {false, true}) {
      RowsShape shape;
      shape.dtype = DType::f64;
      shape.inputs = n;
      shape.sizes = {40};
      DeviceRows data(shape, [&](int row, std::int64_t) -> long double {
        if (row % 20 < 12) return -1.7e308L;
        if (row % 20 < 16) return 1.7e308L;
        return infinite ? -static_cast<long double>(infinity) : 0.9e308L;
      });
      const SelectRule rule{Kind::closest_to_median, EvenMedian::midpoint, 0, n * 3 / 4};
      ASSERT_NO_FATAL_FAILURE(expect_right(data, {.rule = rule, .points = n}));
    }
  }
}

/// The same of the CPU's pass.
std::vector<long double> on_cpu(const DeviceRows& data, const SelectRule& rule) {
  const int n = data.shape.inputs;
  std::vector<std::vector<unsigned char>> rows;
  std::vector<const void*> pointers;
  const auto size = static_cast<std::size_t>(data.shape.sizes[0]);
  for (int r = 0; r < n; ++r) {
    rows.emplace_back(size * size_of(data.shape.dtype));
    for (std::size_t i = 0; i < size; ++i) {
      store(data.shape.dtype, rows.back().data(), i, data.values[data.slot(0, r)][i]);
    }
  }
  for (const auto& row : rows) pointers.push_back(row.data());
  std::vector<int> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  detail::PointTable points;
  points.count = n;
  points.rows = order;
  std::vector<unsigned char> out(size * size_of(data.shape.dtype));
  void* target = out.data();
  detail::CpuPasses(n, 1).select(
      {data.shape.dtype, data.shape.dtype, n, n, data.shape.sizes, pointers.data()}, rule, points,
      {data.shape.dtype, &target}, {});
  std::vector<long double> values;
  for (std::size_t i = 0; i < size; ++i) values.push_back(load(data.shape.dtype, out.data(), i));
  return values;
}

TEST_P(SelectTest, BitsAreTheCpus) {
  Generator random = generator("select cpu");
  for (const int n : {1, 6, 13, 24, 50, 64, 100, 128, 200}) {
    for (const Data kind : {Data::normal, Data::hostile}) {
      DeviceRows data = make_rows(GetParam(), n, {101}, Alignment::vector, kind, random);
      for (const SelectRule& rule : rules_for(n)) {
        if (rule.kind != Kind::median && n > most_in_registers(GetParam())) continue;
        SCOPED_TRACE(name_of(rule) + " n " + std::to_string(n));
        ASSERT_EQ(run(data, {.rule = rule, .points = n}).out[0], on_cpu(data, rule));
      }
    }
  }
}

/// Of the kernel's own sums: o, and a step up or down from it as more weight lies above or below.
double vote_of(const DeviceRows& data, const Request& request, std::size_t tensor, std::size_t i) {
  const Part& part = request.part(tensor);
  std::vector<double> values = seen_by_rule(data, request, tensor, i).values;
  const auto o = static_cast<double>(data.values[data.slot(tensor, data.shape.inputs)][i]);
  double up = 0;
  double down = 0;
  for (std::size_t p = 0; p < values.size(); ++p) {
    const std::size_t index = part.chosen.empty() ? p : static_cast<std::size_t>(part.chosen[p]);
    if (!part.infinite.empty() && part.infinite[index] != 0) continue;
    const double weight = part.weights.empty() ? 1 : part.weights[index];
    if (values[p] > o) up += weight;
    if (values[p] < o) down += weight;
  }
  if (std::abs(up - down) <= 1e-12 * (up + down)) return o;
  return up > down ? o + request.rule.step : o - request.rule.step;
}

void expect_votes(DeviceRows& data, const Request& request) {
  const DType out_dtype = request.out_dtype.value_or(data.shape.dtype);
  std::vector<std::vector<long double>> want(data.shape.sizes.size());
  for (std::size_t t = 0; t < want.size(); ++t) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(data.shape.sizes[t]); ++i)
      want[t].push_back(round_to(out_dtype, vote_of(data, request, t, i)));
  }
  const Result result = run(data, request);
  for (std::size_t t = 0; t < want.size(); ++t) {
    for (std::size_t i = 0; i < want[t].size(); ++i) {
      const long double got = result.out[t][i];
      ASSERT_TRUE(std::isnan(want[t][i]) ? std::isnan(got) : got == want[t][i])
          << "tensor " << t << " at " << i << ": got " << got << ", want " << want[t][i];
      if (request.copy && !std::isnan(got)) {
        ASSERT_EQ(result.copy[t][i], got);
      }
    }
  }
  if (!request.nonfinite || !request.parts[0].mix.empty() || request.per_tensor) return;
  for (std::size_t p = 0; p < static_cast<std::size_t>(request.points); ++p) {
    const Part& part = request.parts[0];
    const std::size_t row = part.chosen.empty() ? p : static_cast<std::size_t>(part.chosen[p]);
    unsigned long long expected = 0;
    for (std::size_t t = 0; t < want.size(); ++t) {
      for (const long double v : data.values[data.slot(t, static_cast<int>(row))])
        expected += std::isfinite(v) ? 0 : 1;
    }
    EXPECT_EQ(result.nonfinite[row], expected);
  }
}

DeviceRows rows_about(DType dtype, DType reference, bool zeros, int n, Alignment alignment, Data kind,
                      std::mt19937_64& random) {
  RowsShape shape;
  shape.dtype = dtype;
  shape.inputs = n;
  shape.references = {reference};
  shape.zeros = {zeros};
  shape.sizes = {5, 0, 1100, 33};
  shape.alignment = alignment;
  return {std::move(shape), values_of(kind, dtype, random)};
}

TEST_P(SelectTest, VotesAreThoseOfTheRowsAboutO) {
  Generator random = generator("select votes");
  const SelectRule rule{.kind = Kind::sign_vote, .step = 0.375};
  for (const int n : {1, 2, 8, 9, 40}) {
    for (const Data kind : {Data::normal, Data::integers, Data::hostile}) {
      for (const Alignment alignment : all_alignments) {
        if (random() % test_share() != 0) continue;
        const DType reference = alignment == Alignment::element ? DType::f64 : GetParam();
        DeviceRows data = rows_about(GetParam(), reference, n == 8, n, alignment, kind, random);
        SCOPED_TRACE("n " + std::to_string(n) + " data " + std::to_string(static_cast<int>(kind)));
        Request request{.rule = rule, .points = n};
        request.copy = n == 9;
        ASSERT_NO_FATAL_FAILURE(expect_votes(data, request));
        Part& part = request.parts[0];
        for (int p = 0; p < n; ++p) {
          part.weights.push_back(static_cast<double>(random() % 4));
          part.infinite.push_back(random() % 4 == 0);
          if (p % 3 != 1) part.chosen.push_back(p);
        }
        request.points = static_cast<int>(part.chosen.size());
        ASSERT_NO_FATAL_FAILURE(expect_votes(data, request));
        if (n == 8) request.out_row = 2;
        request.parts = std::vector<Part>(4, part);
        request.per_tensor = true;
        for (double& w : request.parts[2].weights) w = static_cast<double>(random() % 3);
        ASSERT_NO_FATAL_FAILURE(expect_votes(data, request));
      }
    }
  }
}

TEST_P(SelectTest, VotesOfMixedPoints) {
  Generator random = generator("select mixed votes");
  for (const int points : {3, 16, 40}) {
    const int n = 20;
    DeviceRows data =
        rows_about(GetParam(), GetParam(), points == 16, n, Alignment::vector, Data::integers, random);
    Request request{.rule = {.kind = Kind::sign_vote, .step = 2}, .points = points};
    Part& part = request.parts[0];
    for (int p = 0; p < points; ++p) {
      for (int r = 0; r < n + 1; ++r) part.mix.push_back(random() % 4 == 0 ? 1 : 0);
      // The origin has no coefficient where it is zeros.
      if (points == 16) part.mix.back() = 0;
      part.infinite.push_back(random() % 8 == 0);
      part.weights.push_back(static_cast<double>(random() % 3));
    }
    for (std::size_t p = 0; p < part.infinite.size(); ++p) {
      for (std::size_t r = 0; r < n + 1 && part.infinite[p] != 0; ++r) part.mix[p * (n + 1) + r] = 0;
    }
    ASSERT_NO_FATAL_FAILURE(expect_votes(data, request));
    part.weights.clear();
    ASSERT_NO_FATAL_FAILURE(expect_votes(data, request));
  }
}

TEST(SelectTest, NothingToDoIsFine) {
  Generator random = generator("select nothing");
  for (const int n : {3, 200}) {
    DeviceRows data = make_rows(DType::f32, n, {0, 0}, Alignment::vector, Data::normal, random);
    ASSERT_NO_FATAL_FAILURE(expect_right(data, {.rule = {}, .points = n}));
  }
}

}  // namespace
}  // namespace bragg::test
