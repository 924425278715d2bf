// SPDX-License-Identifier: Apache-2.0
// Plans: state, scope, aliasing, threads, failures, arguments, weights, empty and tiny shapes, no allocation.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <bragg/plan.hpp>

#include <atomic>
#include <cfenv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <limits>
#include <new>
#include <optional>
#include <set>
#include <span>
#include <type_traits>

#ifdef __SSE2__
#include <xmmintrin.h>
#endif

#include "rules/sampling.hpp"
#include "tests/support/failure.hpp"
#include "tests/support/fixture.hpp"
#include "tests/support/long_rows.hpp"

namespace {
std::atomic<std::int64_t> allocations{0};
std::atomic<std::int64_t> failing_allocation{0};  // the number of the one that fails
}  // namespace

// AddressSanitizer has operators of its own.
#ifndef __SANITIZE_ADDRESS__
// Counts what the library allocates; the static library shares this operator. Not inlined: GCC would take the
// halves of an inlined pair for mismatched ones.
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (++allocations == failing_allocation) throw std::bad_alloc();
  if (void* p = std::malloc(size != 0 ? size : 1)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
#endif

namespace bragg::test {
namespace {

std::vector<float> random_matrix(std::mt19937_64& random, int n, std::int64_t d) {
  std::normal_distribution<float> normal(0.5f, 1.0f);
  std::vector<float> data(static_cast<std::size_t>(n) * static_cast<std::size_t>(d));
  for (float& x : data) x = normal(random);
  return data;
}

const char* const all_kinds[] = {"mean",
                                 "median",
                                 "trimmed_mean(f=2)",
                                 "meamed(f=2)",
                                 "phocas(f=2)",
                                 "krum(f=2)",
                                 "multi_krum(f=2)",
                                 "geometric_median",
                                 "centered_clipping(tau=3, iters=2, start=origin)",
                                 "mda(f=2)",
                                 "smea(f=2)",
                                 "caf(f=2)",
                                 "monna(f=2)",
                                 "cge(f=2)",
                                 "dnc(f=2, sample=200, iters=2)",
                                 "nnm(f=2) | dnc(f=2)",
                                 "bulyan(f=2)",
                                 "nnm(f=2) | trimmed_mean(f=2)",
                                 "nnm(f=2) | krum(f=2)",
                                 "bucketing(s=2, seed=4) | median",
                                 "clip(c=20) | mean",
                                 "arc(f=2) | geometric_median"};

// No stream is meant by 0, nullptr or {}.
static_assert(std::is_convertible_v<CUstream_st*, Stream>);
static_assert(!std::is_constructible_v<Stream, int> && !std::is_constructible_v<Stream, long>);
static_assert(!std::is_constructible_v<Stream, std::nullptr_t> && !std::is_default_constructible_v<Stream>);
template <class PlanT, class... StreamT>
concept RunsOn = requires(PlanT& plan, const Updates& updates, const Output& out, StreamT... stream) {
  plan.run(updates, out, stream...);
};
static_assert(RunsOn<Plan> && RunsOn<Plan, Stream> && RunsOn<Plan, RunArguments>);
static_assert(!RunsOn<Plan, int> && !RunsOn<Plan, std::nullptr_t>);

// No length is known of a pointer, and none is guessed.
static_assert(std::is_constructible_v<Output, std::vector<float>&> &&
              std::is_constructible_v<Row, double (&)[2]>);
static_assert(!std::is_constructible_v<Output, const std::vector<float>&>);
static_assert(!std::is_constructible_v<Output, std::vector<int>&> &&
              !std::is_constructible_v<Row, std::span<int>>);

TEST(Plan, RunsWithoutAStreamWhereBracesStandForOne) {
  std::vector<float> data = {1, 2, 9};
  std::vector<float> out(1);
  Plan plan(Median{}, {.n = 3, .sizes = {1}});
  plan.run(Updates::matrix(data, 3, 1), Output(out), {});
  EXPECT_EQ(plan.status(), Status::ok);
  EXPECT_EQ(out[0], 2);
  EXPECT_EQ(plan.wait(Stream::legacy_default()), Status::ok);
}

TEST(Plan, AggregatesSpansAsPointers) {
  Generator random = generator("spans");
  const int n = 5;
  const std::int64_t d = 7;
  const std::vector<float> f32 = random_matrix(random, n, d);
  const std::vector<double> f64(f32.begin(), f32.end());
  std::vector<float> out(7), expected(7);
  aggregate(parse("clip(c=1) | mean"), Updates::matrix(f32.data(), n, d, DType::f32), Output(expected.data()),
            {.base = Row(f32.data())});
  aggregate(parse("clip(c=1) | mean"), Updates::matrix(f32, n, d), Output(out),
            {.base = Row(std::span(f32).first(7))});
  EXPECT_EQ(out, expected);
  // Every other row of three.
  std::vector<double> strided(7), pointed(7);
  aggregate(Median{}, Updates::matrix(f64, 3, d, 2 * d), Output(strided));
  aggregate(Median{}, Updates::matrix(f64.data(), 3, d, DType::f64, 2 * d), Output(pointed.data()));
  EXPECT_EQ(strided, pointed);
  const std::vector<std::uint16_t> bits = {0x3C00, 0x4000, 0x4200};  // 1, 2, 3 as f16
  std::vector<std::uint16_t> half(1);
  aggregate(Median{}, Updates::matrix(bits, 3, 1, DType::f16), Output(half, DType::f16));
  EXPECT_EQ(half[0], 0x4000);
  aggregate(Median{}, Updates::matrix(bits, 3, 1, DType::f16), Output(std::span(out).first(1)), {},
            {.out_dtype = DType::f32});
  EXPECT_EQ(out[0], 2);
}

TEST(Plan, RefusesSpansThatDoNotFit) {
  const auto says = [](const std::string& message, const char* what) {
    EXPECT_NE(message.find(what), std::string::npos) << message;
  };
  const std::vector<float> data(12, 1);
  const std::vector<double> doubles(12, 1);
  const std::vector<std::uint16_t> bits(12);
  says(message_of([&] { Updates::matrix(data, 4, 4); }),
       "a span of 12 elements, too short for n = 4 rows of d = 4");
  says(message_of([&] { Updates::matrix(std::span(data).first(11), 4, 3); }), "11 elements, too short");
  says(message_of([&] { Updates::matrix(doubles, 13, 1); }), "too short");
  says(message_of([&] { Updates::matrix(data, 3, 3, 5); }),
       "too short for n = 3 rows of d = 3 with row_stride = 5");
  says(message_of([&] { Updates::matrix(bits, 5, 3, DType::bf16); }), "too short");
  says(message_of([&] { Updates::matrix(bits, 4, 3, DType::f32); }), "needs f16 or bf16");
  constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();
  says(message_of([&] { Updates::matrix(data, 3, 2, huge); }), "too short");
  says(message_of([&] { Updates::matrix(std::span<const float>(), 1, 1); }), "too short");
  says(message_of([&] { Updates::matrix(data, 0, 3); }), "needs at least 1 row");
  says(message_of([&] { Updates::matrix(data, 4, 3, 2); }), "rows would overlap");
  Updates::matrix(data, 3, 2, 5);  // its last row ends with the span
  Updates::matrix(std::span<const float>(), 3, 0);

  const Updates updates = Updates::matrix(data, 4, 3);
  std::vector<float> out(4, 42);
  std::vector<double> wide(3);
  says(message_of([&] { aggregate(Mean{}, updates, Output(std::span(out).first(2))); }),
       "out: a span of 2 elements; needs 3");
  says(message_of([&] { aggregate(Mean{}, updates, Output(out)); }), "out: a span of 4 elements; needs 3");
  says(message_of([&] { aggregate(Mean{}, updates, Output(wide)); }), "out: a span of f64; needs f32");
  std::vector<std::uint16_t> half(3);
  says(message_of(
           [&] { aggregate(Mean{}, Updates::matrix(bits, 4, 3, DType::f16), Output(half, DType::bf16)); }),
       "out: a span of bf16; needs f16");
  says(message_of([&] { Output(half, DType::f64); }), "needs f16 or bf16");
  says(message_of([&] { Row(bits, DType::f32); }), "needs f16 or bf16");
  const Output fits{std::span(out).first(3)};
  says(message_of([&] { aggregate(Mean{}, updates, fits, {.base = Row(data)}); }),
       "base: a span of 12 elements; needs 3");
  says(message_of([&] { aggregate(Mean{}, updates, fits, {.base = Row(wide)}); }),
       "base: a span of f64; needs f32");
  const std::vector<Output> points(4, Output(std::span(out).first(2)));
  says(message_of([&] { pre_aggregate(Clip{.c = 1}, updates, points); }),
       "out[0]: a span of 2 elements; needs 3");
  EXPECT_EQ(out, std::vector<float>(4, 42));
}

TEST(Plan, IsNotAskedForAnotherPlaceThanThatOfTheUpdates) {
  const std::vector<float> data(12, 1);
  std::vector<float> out(3);
  const Updates updates = Updates::matrix(data, 4, 3);
  aggregate(Mean{}, updates, Output(out), {}, {.device = Device::cpu});
  const char* const refused = "options.device = cuda, but the updates are in host memory";
  EXPECT_NE(message_of([&] {
              aggregate(Mean{}, updates, Output(out), {}, {.device = Device::cuda});
            }).find(refused),
            std::string::npos);
  const std::vector<Output> points(4, Output(out));
  EXPECT_NE(message_of([&] {
              pre_aggregate(Nnm{.f = 1}, updates, points, {}, {.device = Device::cuda});
            }).find(refused),
            std::string::npos);
}

TEST(Plan, IsTheSameBitsForAnyNumberOfThreads) {
  Generator random = generator("threads");
  const int n = 12;
  const std::int64_t d = 200003;
  const std::vector<float> data = random_matrix(random, n, d);
  for (const char* text : all_kinds) {
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 3, 7}) {
      std::vector<float> out(static_cast<std::size_t>(d));
      aggregate(parse(text), Updates::matrix(data.data(), n, d, DType::f32), Output(out.data()), {},
                {.threads = threads});
      results.push_back(out);
    }
    for (const auto& result : results) EXPECT_EQ(result, results[0]) << text;
  }
}

#ifdef __SSE2__
TEST(Plan, IsTheSameBitsHoweverTheCallersThreadRounds) {
  Generator random = generator("environment");
  const int n = 12;
  const std::int64_t d = 40000;  // enough for two threads
  std::vector<float> data = random_matrix(random, n, d);
  for (std::size_t i = 0; i < data.size(); i += 2) data[i] *= 0x1p-135f;  // denormals, most of them
  const Updates updates = Updates::matrix(data.data(), n, d, DType::f32);
  constexpr unsigned flush = 0x8040;  // outputs to zero, and inputs
  constexpr unsigned up = 0x4000;
  for (const char* text : all_kinds) {
    for (const int threads : {1, 2}) {
      std::vector<std::vector<float>> results;
      for (const unsigned changed : {0U, flush, up}) {
        std::vector<float> out(static_cast<std::size_t>(d));
        Plan plan(parse(text), Shape::of(updates), {.threads = threads});
        const unsigned before = _mm_getcsr();
        _mm_setcsr(before | changed);
        plan.run(updates, Output(out.data()));
        const unsigned after = _mm_getcsr();
        _mm_setcsr(before);
        EXPECT_EQ(after & (flush | up), (before | changed) & (flush | up)) << "the caller's is given back";
        results.push_back(std::move(out));
      }
      EXPECT_EQ(results[1], results[0]) << text << ", denormals flushed, threads = " << threads;
      EXPECT_EQ(results[2], results[0]) << text << ", rounding up, threads = " << threads;
    }
  }
  // Weights are scaled in long double, which has modes of its own; so have decimals.
  const std::vector<double> weights{.1, .2, .3, .1, .2, .3, .7, .1, .2, .3, .1, .3};
  std::vector<std::vector<float>> results;
  for (const int direction : {FE_TONEAREST, FE_DOWNWARD, FE_TOWARDZERO}) {
    std::vector<float> out(static_cast<std::size_t>(d));
    std::fesetround(direction);
    const Pipeline pipeline = parse("clip(c=0.1) | mean");
    aggregate(pipeline, updates, Output(out.data()), {.weights = weights});
    EXPECT_EQ(std::fegetround(), direction);
    std::fesetround(FE_TONEAREST);
    EXPECT_EQ(std::get<Clip>(pipeline.pre.at(0)).c, 0.1) << direction;
    results.push_back(std::move(out));
  }
  EXPECT_EQ(results[1], results[0]);
  EXPECT_EQ(results[2], results[0]);
}
#endif

TEST(Plan, MayWriteOverOneOfItsInputsOrTheBase) {
  Generator random = generator("alias");
  const int n = 11;
  const std::int64_t d = 30011;
  const std::vector<float> data = random_matrix(random, n, d);
  const std::vector<float> base = random_matrix(random, 1, d);
  for (const char* text : all_kinds) {
    std::vector<float> expected(static_cast<std::size_t>(d));
    const Updates updates = Updates::matrix(data.data(), n, d, DType::f32);
    aggregate(parse(text), updates, Output(expected.data()), {.base = Row(base.data())});
    for (const int row : {0, 5, 10}) {
      std::vector<float> copy = data;
      float* const target = copy.data() + row * d;
      aggregate(parse(text), Updates::matrix(copy.data(), n, d, DType::f32), Output(target),
                {.base = Row(base.data())});
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), target)) << text << " into row " << row;
    }
    std::vector<float> over = base;
    aggregate(parse(text), updates, Output(over.data()), {.base = Row(over.data())});
    EXPECT_EQ(over, expected) << text << " into the base";
  }
}

TEST(Plan, RefusesOtherOverlaps) {
  std::vector<float> data(100);
  const Updates updates = Updates::matrix(data.data(), 4, 10, DType::f32);
  for (float* target : {data.data() + 1, data.data() + 39, data.data() + 15}) {
    EXPECT_NE(message_of([&] { aggregate(Median{}, updates, Output(target)); }).find("overlap"),
              std::string::npos);
  }
  aggregate(Median{}, updates, Output(data.data() + 40));
  const std::vector<const void*> row = {data.data(), data.data() + 5};
  const std::vector<std::vector<const void*>> rows(3, row);
  const std::int64_t sizes[] = {5, 5};
  std::vector<float> out(10);
  const Updates tensors = Updates::tensors(rows, sizes, DType::f32);
  EXPECT_NE(message_of([&] {
              aggregate(Median{}, tensors, Output(std::vector<void*>{out.data(), out.data() + 4}));
            }).find("overlap"),
            std::string::npos);
}

TEST(Plan, PerTensorScopeIsEachTensorByItself) {
  Generator random = generator("scope");
  const int n = 11;
  const std::int64_t sizes[] = {40, 1, 0, 333};
  const std::int64_t d = 374;
  const std::vector<float> data = random_matrix(random, n, d);
  std::vector<std::vector<const void*>> rows;
  for (int i = 0; i < n; ++i) {
    const float* at = data.data() + i * d;
    rows.push_back({at, at + 40, at + 41, at + 41});
  }
  const Updates updates = Updates::tensors(rows, sizes, DType::f32);
  for (const char* text : all_kinds) {
    std::vector<float> out(static_cast<std::size_t>(d));
    const Output target(std::vector<void*>{out.data(), out.data() + 40, nullptr, out.data() + 41});
    const auto reports = aggregate(parse(text), updates, target, {}, {.scope = Scope::per_tensor});
    ASSERT_EQ(reports.size(), 4u);
    std::int64_t offset = 0;
    for (const std::int64_t size : sizes) {
      std::vector<float> alone(static_cast<std::size_t>(size) + 1);
      std::vector<const void*> parts;
      for (int i = 0; i < n; ++i) parts.push_back(data.data() + i * d + offset);
      aggregate(parse(text), Updates::rows(parts, size, DType::f32), Output(alone.data()));
      EXPECT_TRUE(std::equal(alone.begin(), alone.end() - 1, out.begin() + offset))
          << text << " at " << offset;
      offset += size;
    }
  }
}

/// Rows of tensors that differ in dtype, and the same values in f64.
struct MixedRows {
  static constexpr int n = 11;
  static constexpr std::int64_t d = 40 + 1 + 33000 + 7 + 50;
  std::vector<std::int64_t> sizes = {40, 1, 0, 33000, 7, 50};
  std::vector<DType> dtypes = {DType::f32, DType::bf16, DType::f64, DType::bf16, DType::f16, DType::f32};
  std::vector<std::vector<std::byte>> tensors;  // [row * sizes + tensor]
  std::vector<double> wide;

  MixedRows(std::mt19937_64& random, bool with_f64) {
    if (with_f64) dtypes[0] = DType::f64;
    std::normal_distribution<double> normal(0.5, 1.0);
    for (int i = 0; i < n; ++i) {
      for (std::size_t t = 0; t < sizes.size(); ++t) {
        std::vector<std::byte>& tensor = tensors.emplace_back(bytes(t));
        for (std::size_t k = 0; k < static_cast<std::size_t>(sizes[t]); ++k) {
          store(dtypes[t], tensor.data(), k, normal(random));
          wide.push_back(static_cast<double>(load(dtypes[t], tensor.data(), k)));
        }
      }
    }
  }
  std::size_t bytes(std::size_t t) const { return static_cast<std::size_t>(sizes[t]) * size_of(dtypes[t]); }
  std::vector<const void*> row(int i) const {
    std::vector<const void*> row;
    for (std::size_t t = 0; t < sizes.size(); ++t)
      row.push_back(tensors[static_cast<std::size_t>(i) * sizes.size() + t].data());
    return row;
  }
  /// Of the first `rows` rows.
  Updates updates(int rows = n) const {
    std::vector<std::vector<const void*>> all;
    for (int i = 0; i < rows; ++i) all.push_back(row(i));
    return Updates::tensors(all, sizes, dtypes);
  }
};

/// An output for mixed rows.
struct MixedOutput {
  explicit MixedOutput(const MixedRows& rows) : rows_(rows) {
    for (std::size_t t = 0; t < rows.sizes.size(); ++t) {
      tensors_.emplace_back(rows.bytes(t));
      output.tensors.push_back(tensors_.back().data());
    }
  }
  /// Each value is the one of f64, rounded; points of less than f64 have been rounded to f32 before.
  void expect_near(std::span<const double> wide, const std::string& text) const {
    std::size_t at = 0;
    for (std::size_t t = 0; t < rows_.sizes.size(); ++t) {
      const DType dtype = rows_.dtypes[t];
      const double half = dtype == DType::f64    ? 0
                          : dtype == DType::f32  ? 0x1p-24
                          : dtype == DType::bf16 ? 0x1.01p-8
                                                 : 0x1.01p-11;
      for (std::size_t k = 0; k < static_cast<std::size_t>(rows_.sizes[t]); ++k, ++at) {
        const auto got = static_cast<double>(load(dtype, tensors_[t].data(), k));
        ASSERT_NEAR(got, wide[at], half * std::abs(wide[at]) + (dtype == DType::f64 ? 1e-11 : 0x1p-22))
            << text << ", tensor " << t << " of " << to_string(dtype) << ", " << k;
      }
    }
  }
  std::vector<std::vector<std::byte>> bytes() const { return tensors_; }
  Output output;

 private:
  const MixedRows& rows_;
  std::vector<std::vector<std::byte>> tensors_;
};

TEST(Plan, TensorsMayDifferInDtype) {
  Generator random = generator("mixed dtypes");
  for (const bool with_f64 : {false, true}) {
    const MixedRows rows(random, with_f64);
    const Updates updates = rows.updates();
    EXPECT_EQ(updates.dtypes(), rows.dtypes);
    const Updates wide = Updates::matrix(std::span<const double>(rows.wide), rows.n, rows.d);
    const Row base(rows.row(3));
    const Row wide_base(std::span<const double>(rows.wide).subspan(3 * rows.d, rows.d));
    for (const char* text : all_kinds) {
      for (const bool based : {false, true}) {
        MixedOutput out(rows);
        std::vector<double> expected(rows.d);
        const auto reports = aggregate(parse(text), updates, out.output, {.base = based ? base : Row()});
        const auto judged =
            aggregate(parse(text), wide, Output(expected), {.base = based ? wide_base : Row()});
        out.expect_near(expected, text);
        ASSERT_EQ(reports.size(), 1u);
        for (std::size_t i = 0; i < rows.n; ++i)
          EXPECT_NEAR(reports[0].rows[i].weight, judged[0].rows[i].weight, 1e-9) << text << ", row " << i;
      }
    }
  }
}

TEST(Plan, TensorsThatDifferInDtypeHaveStateAndParts) {
  Generator random = generator("mixed dtypes, state");
  for (const bool with_f64 : {false, true}) {
    const MixedRows rows(random, with_f64);
    const Updates updates = rows.updates();
    const Updates wide = Updates::matrix(std::span<const double>(rows.wide), rows.n, rows.d);
    // Each run starts at what the one before has left.
    Plan plan(parse("centered_clipping(tau=3)"), Shape::of(updates));
    Plan exact(parse("centered_clipping(tau=3)"), Shape::of(wide));
    MixedOutput out(rows);
    std::vector<double> expected(rows.d);
    for (int round = 0; round < 2; ++round) {
      plan.run(updates, out.output);
      exact.run(wide, Output(expected));
      ASSERT_EQ(plan.status(), Status::ok);
      // What was rounded comes again as the start.
      if (round == 0) out.expect_near(expected, "centered_clipping");
    }
    EXPECT_NEAR(plan.report().rows[0].clip_factor, exact.report().rows[0].clip_factor, 1e-3);
    // Of each tensor what it would be alone.
    MixedOutput parts(rows);
    aggregate(parse("krum(f=2)"), updates, parts.output, {}, {.scope = Scope::per_tensor});
    for (std::size_t t = 0; t < rows.sizes.size(); ++t) {
      std::vector<const void*> tensor;
      for (int i = 0; i < rows.n; ++i) tensor.push_back(rows.row(i)[t]);
      std::vector<std::byte> alone(rows.bytes(t) + 1);
      aggregate(parse("krum(f=2)"), Updates::rows(tensor, rows.sizes[t], rows.dtypes[t]),
                Output(alone.data()));
      alone.pop_back();
      EXPECT_EQ(parts.bytes()[t], alone) << t;
    }
    // Points, each an output.
    MixedOutput first(rows), second(rows);
    const Output points[] = {first.output, second.output};
    std::vector<double> wide_first(rows.d), wide_second(rows.d);
    const Output wide_points[] = {Output(wide_first), Output(wide_second)};
    const PreSequence sequence = parse_pre_aggregators("bucketing(s=6, seed=3)");
    pre_aggregate(sequence, updates, points);
    pre_aggregate(sequence, wide, wide_points);
    first.expect_near(wide_first, "bucketing");
    second.expect_near(wide_second, "bucketing");
  }
}

TEST(Plan, RefusesDtypesThatCannotBe) {
  Generator random = generator("mixed dtypes, refused");
  const MixedRows rows(random, true);
  const Updates updates = rows.updates();
  MixedOutput out(rows);
  const auto message = [&](auto call) { return message_of(call); };
  EXPECT_EQ(message([&] { aggregate(Median{}, updates, out.output, {}, {.out_dtype = DType::f32}); }),
            "out_dtype = f32 for tensor 0 of f64; needs f64");
  EXPECT_EQ(message([&] {
              Plan(Median{}, {.n = 3, .sizes = {1, 2}, .dtype = DType::f32, .dtypes = {DType::f32}});
            }),
            "dtypes: 1 of them; needs one for each of 2 tensors");
  Shape shape = Shape::of(updates);
  EXPECT_NE(message([&] {
              Plan(Median{}, shape, {.device = Device::cuda});
            }).find("on a CUDA device all need one dtype"),
            std::string::npos);
  shape.dtypes[3] = DType::f16;
  EXPECT_EQ(message([&] { Plan(Median{}, shape).run(updates, out.output); }),
            "updates: tensor 3 is bf16; the plan is for f16");
  const std::vector<std::vector<const void*>> one = {rows.row(0)};
  const DType too_few[] = {DType::f32};
  EXPECT_EQ(message([&] { Updates::tensors(one, rows.sizes, too_few); }),
            "updates: dtypes has 1 entries, sizes has 6");
  // A tensor of another row, in part.
  MixedOutput overlapping(rows);
  overlapping.output.tensors[3] = const_cast<void*>(rows.row(2)[3]);
  aggregate(Median{}, updates, overlapping.output);
  overlapping.output.tensors[1] = const_cast<void*>(rows.row(4)[5]);
  EXPECT_NE(message([&] { aggregate(Median{}, updates, overlapping.output); }).find("overlap"),
            std::string::npos);
}

/// Rows of four tensors, of which the first and the last are judged.
struct JudgedRows {
  static constexpr int n = 11;
  std::vector<std::int64_t> sizes = {9000, 300, 0, 5};
  std::vector<bool> judged = {true, false, false, true};
  std::vector<float> data, base;

  explicit JudgedRows(std::mt19937_64& random)
      : data(random_matrix(random, n, d())), base(random_matrix(random, 1, d())) {}
  std::int64_t d() const { return 9305; }
  float* row(int i) { return data.data() + i * d(); }
  std::vector<const void*> tensors_of(const float* row) const {
    return {row, row + 9000, nullptr, row + 9300};
  }
  Updates updates() {
    std::vector<std::vector<const void*>> rows;
    for (int i = 0; i < n; ++i) rows.push_back(tensors_of(row(i)));
    return Updates::tensors(rows, sizes, DType::f32).judge_by(judged);
  }
  static Output output(std::vector<float>& out) {
    return Output(std::vector<void*>{out.data(), out.data() + 9000, nullptr, out.data() + 9300});
  }
  /// The judged tensors alone.
  Updates judged_alone() {
    std::vector<std::vector<const void*>> rows;
    for (int i = 0; i < n; ++i) rows.push_back({row(i), row(i) + 9300});
    return Updates::tensors(rows, std::vector<std::int64_t>{9000, 5}, DType::f32);
  }
};

TEST(Plan, JudgesByTheJudgedTensorsAndAggregatesAll) {
  Generator random = generator("judged");
  JudgedRows rows(random);
  // Nothing in the tensors that are not judged is near to what is in the others.
  for (int i = 0; i < rows.n; ++i) {
    for (std::int64_t j = 9000; j < 9300; ++j) rows.row(i)[j] *= 1e6f * static_cast<float>(i + 1);
  }
  for (const char* const text : all_kinds) {
    const Pipeline pipeline = parse(text);
    SCOPED_TRACE(text);
    std::vector<float> out(9305), alone(9005);
    const RunArguments about{.base = Row(rows.tensors_of(rows.base.data()))};
    const RunArguments about_alone{
        .base = Row(std::vector<const void*>{rows.base.data(), rows.base.data() + 9300})};
    const std::vector<Report> reports = aggregate(pipeline, rows.updates(), rows.output(out), about);
    const std::vector<Report> expected =
        aggregate(pipeline, rows.judged_alone(),
                  Output(std::vector<void*>{alone.data(), alone.data() + 9000}), about_alone);
    // The same rows are kept, to the bit, and the judged tensors are aggregated alike.
    for (std::size_t i = 0; i < JudgedRows::n; ++i) {
      EXPECT_EQ(reports[0].rows[i].weight, expected[0].rows[i].weight);
      EXPECT_EQ(reports[0].rows[i].clip_factor, expected[0].rows[i].clip_factor);
    }
    EXPECT_TRUE(std::equal(alone.begin(), alone.begin() + 9000, out.begin()));
    EXPECT_TRUE(std::equal(alone.begin() + 9000, alone.end(), out.begin() + 9300));
    // In memory of its own each thread count gives the same bits.
    std::vector<float> again(9305);
    aggregate(pipeline, rows.updates(), rows.output(again), about, {.threads = 1});
    EXPECT_EQ(again, out);
  }
}

TEST(Plan, JudgedByAllIsJudgedAsEver) {
  Generator random = generator("judged by all");
  JudgedRows rows(random);
  rows.judged.assign(4, true);
  for (const char* const text : all_kinds) {
    std::vector<float> out(9305), expected(9305);
    aggregate(parse(text), rows.updates(), rows.output(out));
    std::vector<std::vector<const void*>> plain;
    for (int i = 0; i < rows.n; ++i) plain.push_back(rows.tensors_of(rows.row(i)));
    aggregate(parse(text), Updates::tensors(plain, rows.sizes, DType::f32), rows.output(expected));
    EXPECT_EQ(out, expected) << text;
  }
}

TEST(Plan, AValueThatIsNotFiniteMakesItsRowInfiniteInAnyTensor) {
  Generator random = generator("nonfinite unjudged");
  for (const char* const text : all_kinds) {
    if (std::string(text) == "mean") continue;  // it is not robust
    SCOPED_TRACE(text);
    JudgedRows rows(random);
    rows.row(4)[9150] = std::nanf("");
    rows.row(7)[9299] = -std::numeric_limits<float>::infinity();
    std::vector<float> out(9305), expected(9305);
    const std::vector<Report> reports = aggregate(parse(text), rows.updates(), rows.output(out));
    EXPECT_EQ(reports[0].rows[4].nonfinite, 1);
    EXPECT_EQ(reports[0].rows[7].nonfinite, 1);
    EXPECT_TRUE(std::all_of(out.begin(), out.end(), [](float x) { return std::isfinite(x); }));
    // Not by that value: what else the rows hold is as far away.
    rows.row(4)[17] = std::numeric_limits<float>::infinity();
    rows.row(7)[18] = std::nanf("");
    const std::vector<Report> more = aggregate(parse(text), rows.updates(), rows.output(expected));
    if (reports[0].rows[4].weight == 0 && reports[0].rows[7].weight == 0) {
      EXPECT_TRUE(std::equal(out.begin(), out.end(), expected.begin()));
    }
    EXPECT_EQ(more[0].rows[4].nonfinite, 2);
  }
  // Of the base, where it is measured from.
  JudgedRows rows(random);
  rows.base[9100] = std::nanf("");
  std::vector<float> out(9305);
  const RunArguments about{.base = Row(rows.tensors_of(rows.base.data()))};
  message_of([&] { aggregate(parse("clip(c=1) | mean"), rows.updates(), rows.output(out), about); },
             Status::nonfinite_base);
  aggregate(parse("krum(f=2)"), rows.updates(), rows.output(out), about);
}

TEST(Plan, SaysWhatIsWrongWithJudgedTensors) {
  Generator random = generator("wrongly judged");
  JudgedRows rows(random);
  std::vector<float> out(9305);
  const Updates updates = rows.updates();
  EXPECT_NE(message_of([&] { rows.updates().judge_by({true}); }).find("1 marks; needs one for each of 4"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              rows.updates().judge_by({false, false, false, false});
            }).find("no tensor is"),
            std::string::npos);
  Shape shape = Shape::of(updates);
  shape.judged = {true};
  EXPECT_NE(message_of([&] { Plan(Krum{.f = 2}, shape); }).find("judged: 1 marks"), std::string::npos);
  shape.judged.assign(4, false);
  EXPECT_NE(message_of([&] { Plan(Krum{.f = 2}, shape); }).find("judged: no tensor"), std::string::npos);
  EXPECT_NE(message_of([&] {
              aggregate(Krum{.f = 2}, updates, rows.output(out), {}, {.scope = Scope::per_tensor});
            }).find("scope = per_tensor each is judged by itself"),
            std::string::npos);
  Plan plan(Krum{.f = 2}, {.n = rows.n, .sizes = rows.sizes});
  EXPECT_NE(message_of([&] { plan.run(updates, rows.output(out)); }).find("judged by other tensors"),
            std::string::npos);
}

TEST(Plan, OneFailingTensorLeavesTheWholeOutputUnwritten) {
  const int n = 5;
  std::vector<float> data(50, 1.0f);
  data[7] = data[17] = std::numeric_limits<float>::infinity();  // second tensor of rows 0 and 1
  std::vector<std::vector<const void*>> rows;
  for (int i = 0; i < n; ++i) rows.push_back({data.data() + i * 10, data.data() + i * 10 + 5});
  const std::int64_t sizes[] = {5, 5};
  std::vector<float> out(10, 42.0f);
  const Output target(std::vector<void*>{out.data(), out.data() + 5});
  const Updates updates = Updates::tensors(rows, sizes, DType::f32);
  for (const auto& [policy, expected] :
       {std::pair(OnFailure::keep, 42.0f), std::pair(OnFailure::zero, 0.0f)}) {
    Plan plan(parse("krum(f=1)"), Shape::of(updates), {.scope = Scope::per_tensor, .on_failure = policy});
    plan.run(updates, target);
    EXPECT_EQ(plan.status(), Status::too_many_nonfinite);
    EXPECT_EQ(plan.reports()[0].status, Status::ok);
    EXPECT_EQ(plan.reports()[1].status, Status::too_many_nonfinite);
    EXPECT_EQ(out, std::vector<float>(10, expected));
  }
  Plan plan(parse("krum(f=1)"), Shape::of(updates), {.on_failure = OnFailure::nan});
  plan.run(updates, target);
  for (const float x : out) EXPECT_TRUE(std::isnan(x));
  const std::string message =
      message_of([&] { aggregate(parse("krum(f=1)"), updates, target); }, Status::too_many_nonfinite);
  EXPECT_NE(message.find("rows 0 (1 value), 1 (1 value)"), std::string::npos) << message;
}

TEST(Plan, CenteredClippingGoesOnFromItsPreviousOutput) {
  Generator random = generator("previous");
  const int n = 7;
  const std::int64_t d = 50;
  for (const DType out_dtype : {DType::bf16, DType::f32}) {
    Plan plan(parse("centered_clipping(tau=0.5)"), {.n = n, .sizes = {d}, .dtype = DType::bf16},
              {.out_dtype = out_dtype});
    reference::Input input;
    for (int round = 0; round < 4; ++round) {
      Request request{.rows = normal_rows(random, n, static_cast<int>(d), 0.5, 1), .dtype = DType::bf16};
      if (round == 2) request.rows[1][3] = std::numeric_limits<long double>::quiet_NaN();
      GuardedRows rows(request.rows, DType::bf16, Layout::rows, 0);
      GuardedRows reference(normal_rows(random, 1, static_cast<int>(d), 0.2, 1), DType::bf16, Layout::rows,
                            0);
      std::vector<float> out(static_cast<std::size_t>(d));
      plan.run(rows.updates(), Output(out.data()), {.base = Row(reference.row(0))});
      ASSERT_EQ(plan.status(), Status::ok);
      input.rows = rows.values();
      input.reference = reference.values()[0];
      const reference::Result expected = reference::aggregate(plan.pipeline(), input);
      input.previous.clear();
      for (std::size_t j = 0; j < out.size(); ++j) {
        const long double got = load(out_dtype, out.data(), j);
        EXPECT_NEAR(static_cast<double>(got), static_cast<double>(expected.out[j]),
                    static_cast<double>(0.51L * spacing(out_dtype, expected.out[j]) + 1e-12L))
            << "round " << round;
        input.previous.push_back(got);
      }
    }
    // Forgotten: the next run starts from the origin.
    plan.reset();
    input.previous.clear();
    input.reference.clear();
    GuardedRows rows(normal_rows(random, n, static_cast<int>(d), 0.5, 1), DType::bf16, Layout::rows, 0);
    std::vector<float> out(static_cast<std::size_t>(d));
    plan.run(rows.updates(), Output(out.data()));
    input.rows = rows.values();
    const reference::Result expected = reference::aggregate(plan.pipeline(), input);
    EXPECT_NEAR(static_cast<double>(load(out_dtype, out.data(), 0)), static_cast<double>(expected.out[0]),
                static_cast<double>(spacing(out_dtype, expected.out[0])));
  }
}

TEST(Sampling, DrawsEachCoordinateOnceAndEachAsOften) {
  for (const std::int64_t d : {2, 3, 4, 5, 16, 17, 63, 64, 65, 1000}) {
    const detail::Sampling all_but_one{.count = 2, .size = d - 1, .seed = 5};
    std::set<std::int64_t> drawn;
    for (std::int64_t k = 0; k < d; ++k) drawn.insert(detail::sampled_coordinate(all_but_one, 3, 1, d, k));
    EXPECT_EQ(std::ssize(drawn), d);
    EXPECT_GE(*drawn.begin(), 0);
    EXPECT_LT(*drawn.rbegin(), d);
  }
  std::vector<int> first(10);
  constexpr int runs = 2000;
  for (int run = 0; run < runs; ++run) {
    const auto at =
        detail::sampled_coordinate({.count = 1, .size = 3, .seed = 1}, run, 0, std::ssize(first), 0);
    ++first[static_cast<std::size_t>(at)];
  }
  for (const int count : first) EXPECT_NEAR(count, 200, 5 * std::sqrt(200));
}

TEST(Plan, DncJudgesRowsByTheCoordinatesThatTheRunDraws) {
  constexpr int n = 5;
  constexpr std::int64_t d = 64;
  std::vector<float> data(n * d);  // by coordinate j row j mod n sticks out
  for (std::int64_t j = 0; j < d; ++j) data[static_cast<std::size_t>(j % n * d + j)] = 1;
  std::vector<float> out(d);
  const std::vector<std::int64_t> sizes{40, 24};
  Plan plan(Dnc{.f = 1, .sample = 1, .seed = 9}, {.n = n, .sizes = sizes});
  const auto run = [&] {
    std::vector<std::vector<const void*>> rows;
    for (int i = 0; i < n; ++i) rows.push_back({data.data() + i * d, data.data() + i * d + 40});
    plan.run(Updates::tensors(rows, sizes, DType::f32),
             Output(std::vector<void*>{out.data(), out.data() + 40}));
  };
  const auto drawn = [](std::uint64_t number) {
    return detail::sampled_coordinate({.count = 1, .size = 1, .seed = 9}, number, 0, d, 0);
  };
  std::set<std::int64_t> tried;
  for (std::uint64_t number = 0; number < 8; ++number) {
    run();
    tried.insert(drawn(number) % n);
    for (int i = 0; i < n; ++i)
      EXPECT_EQ(plan.report().rows[static_cast<std::size_t>(i)].selected, i != drawn(number) % n) << number;
  }
  EXPECT_GT(tried.size(), 2U);
  // A value that is not finite counts wherever it is.
  plan.reset();
  const std::int64_t other = (drawn(0) + 1) % d;
  const std::int64_t bad = (drawn(0) + 2) % n;
  data[static_cast<std::size_t>(bad * d + other)] = std::numeric_limits<float>::quiet_NaN();
  run();
  for (int i = 0; i < n; ++i) EXPECT_EQ(plan.report().rows[static_cast<std::size_t>(i)].selected, i != bad);
}

TEST(Plan, AFailedRunKeepsTheState) {
  const int n = 5;
  std::vector<float> good(static_cast<std::size_t>(n) * 4);
  for (std::size_t i = 0; i < good.size(); ++i) good[i] = static_cast<float>(i % 7);
  std::vector<float> bad = good;
  for (int i = 0; i < 3; ++i) bad[static_cast<std::size_t>(i) * 4] = std::numeric_limits<float>::quiet_NaN();
  const Pipeline pipeline = parse("bucketing(s=2, seed=5) | geometric_median");
  Plan with_failure(pipeline, {.n = n, .sizes = {4}});
  Plan without(pipeline, {.n = n, .sizes = {4}});
  std::vector<float> a(4);
  std::vector<float> b(4);
  const Updates updates = Updates::matrix(good.data(), n, 4, DType::f32);
  std::vector<std::vector<float>> seen;
  for (int round = 0; round < 6; ++round) {
    std::vector<float> everything_bad(static_cast<std::size_t>(n) * 4,
                                      std::numeric_limits<float>::quiet_NaN());
    with_failure.run(Updates::matrix(everything_bad.data(), n, 4, DType::f32), Output(a.data()));
    EXPECT_EQ(with_failure.status(), Status::too_many_nonfinite);
    with_failure.run(updates, Output(a.data()));
    without.run(updates, Output(b.data()));
    EXPECT_EQ(a, b);
    seen.push_back(b);
  }
  // The rounds draw different buckets.
  EXPECT_NE(std::count(seen.begin(), seen.end(), seen[0]), 6);
}

TEST(Plan, DoesNotAllocateOnceItHasRun) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "allocations cannot be counted under AddressSanitizer";
#endif
  Generator random = generator("allocation");
  const int n = 12;
  const std::int64_t d = 40000;  // enough for two threads
  const std::vector<float> data = random_matrix(random, n, d);
  std::vector<float> out(static_cast<std::size_t>(d));
  const Updates updates = Updates::matrix(data.data(), n, d, DType::f32);
  const Output target(out.data());
  for (const char* text : all_kinds) {
    const std::string name = text;
    if (name.starts_with("mda") || name.starts_with("smea"))
      continue;  // exact searches keep their own stacks
    Plan plan(parse(text), Shape::of(updates), {.threads = 2});
    for (int i = 0; i < 3; ++i) plan.run(updates, target);
    const std::int64_t before = allocations;
    for (int i = 0; i < 5; ++i) plan.run(updates, target);
    EXPECT_EQ(allocations - before, 0) << text;
  }
}

TEST(Plan, ShortageOfMemoryIsAnErrorThatLeavesThePlanAsItWas) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "allocations cannot fail on purpose under AddressSanitizer";
#endif
  Generator random = generator("shortage");
  const int n = 12;
  const std::int64_t d = 100;
  const std::vector<float> data = random_matrix(random, n, d);
  const Updates updates = Updates::matrix(data.data(), n, d, DType::f32);
  // `body`, with every allocation of it failing in turn, until none is left to fail: how many did.
  const auto fail_each = [](const char* text, const auto& prepare, const auto& body) {
    for (std::int64_t k = 1;; ++k) {
      prepare();
      failing_allocation = allocations + k;
      bool failed = false;
      try {
        body();
      } catch (const Error& error) {
        EXPECT_EQ(error.status(), Status::out_of_memory) << text << ": " << error.what();
        failed = true;
      }
      failing_allocation = 0;
      if (!failed) return k - 1;
    }
  };
  for (const char* text : all_kinds) {
    const Pipeline pipeline = parse(text);
    const Shape shape = Shape::of(updates);
    std::vector<float> expected(static_cast<std::size_t>(d));
    std::vector<float> second = expected;
    Plan undisturbed(pipeline, shape);
    undisturbed.run(updates, Output(expected.data()));
    undisturbed.run(updates, Output(second.data()));
    std::optional<Plan> made;
    Pipeline given;
    Shape given_shape;
    const auto prepare = [&] {
      given = pipeline;
      given_shape = shape;
    };
    const auto make = [&] { made.emplace(std::move(given), std::move(given_shape)); };
    EXPECT_GT(fail_each(text, prepare, make), 0) << text;
    std::vector<float> out(static_cast<std::size_t>(d));
    const Output target(out.data());
    const std::vector<float> before(static_cast<std::size_t>(d), 7);
    out = before;
    const auto look = [&] { EXPECT_EQ(out, before) << text << ": a failed run has written"; };
    EXPECT_GT(fail_each(text, look, [&] { made->run(updates, target); }), 0) << text;
    EXPECT_EQ(out, expected) << text << ": the first run that is not short of memory";
    made->run(updates, target);
    EXPECT_EQ(out, second) << text << ": the state went on once";
  }
}

TEST(Plan, WakesNoThreadsForALittleWork) {
  const std::filesystem::path tasks = "/proc/self/task";
  if (!std::filesystem::exists(tasks)) GTEST_SKIP() << "the system does not list threads";
  const auto threads = [&] {
    return std::distance(std::filesystem::directory_iterator(tasks), std::filesystem::directory_iterator());
  };
  Generator random = generator("little work");
  const int n = 12;
  const std::int64_t sizes[] = {100, 100, 100, 100};
  const std::vector<float> data = random_matrix(random, n, 400);
  std::vector<std::vector<const void*>> rows;
  for (int i = 0; i < n; ++i) {
    const float* const at = data.data() + i * 400;
    rows.push_back({at, at + 100, at + 200, at + 300});
  }
  const Updates updates = Updates::tensors(rows, sizes, DType::f32);
  std::vector<float> out(400);
  const Output target({out.data(), out.data() + 100, out.data() + 200, out.data() + 300});
  const auto before = threads();
  for (const char* text : all_kinds) {
    aggregate(parse(text), updates, target, {}, {.threads = 64});
    EXPECT_EQ(threads(), before) << text;
  }
}

TEST(Plan, AcceptsNothingToDo) {
  float dummy = 7;
  for (const char* text : all_kinds) {
    const std::vector<const void*> rows(11, nullptr);
    aggregate(parse(text), Updates::rows(rows, 0, DType::f32), Output(&dummy));
    const std::vector<std::vector<const void*>> no_tensors(11);
    for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
      aggregate(parse(text), Updates::tensors(no_tensors, {}, DType::f32), Output(std::vector<void*>{}), {},
                {.scope = scope});
    }
  }
  EXPECT_EQ(dummy, 7);
}

TEST(Plan, SaysWhichArgumentIsWrong) {
  std::vector<float> data(30, 1);
  std::vector<float> out(10);
  const Updates updates = Updates::matrix(data.data(), 3, 10, DType::f32);
  const Shape shape = Shape::of(updates);
  const auto says = [](const std::string& message, std::initializer_list<const char*> words) {
    for (const char* word : words)
      EXPECT_NE(message.find(word), std::string::npos) << message << "\n lacks: " << word;
  };
  says(message_of([&] { Plan(parse("krum(f=1)"), shape); }), {"krum", "n = 3", "5"});
  says(message_of([&] { Plan(parse("trimmed_mean(f=2)"), shape); }), {"trimmed_mean", "f = 2"});
  says(message_of([&] { Plan(Median{}, {.n = 0, .sizes = {1}}); }), {"n = 0"});
  says(message_of([&] { Plan(Median{}, {.n = 1, .sizes = {-1}}); }), {"sizes[0] = -1"});
  says(message_of([&] { Plan(Median{}, shape, {.out_dtype = DType::f64}); }), {"out_dtype", "f64"});
  says(message_of([&] { Plan(Median{}, shape, {.threads = -2}); }), {"threads = -2"});
  says(message_of([&] { Plan(Median{}, shape, {.max_weight_share = 1.5}); }), {"max_weight_share = 1.5"});
  Plan plan(Median{}, shape);
  const auto run = [&](const Updates& u, const Output& o, const RunArguments& a = {}) {
    return message_of([&] { plan.run(u, o, a); });
  };
  says(run(Updates::matrix(data.data(), 2, 10, DType::f32), Output(out.data())), {"n = 2", "n = 3"});
  says(run(Updates::matrix(data.data(), 3, 9, DType::f32), Output(out.data())), {"9 elements", "10"});
  says(run(Updates::matrix(data.data(), 3, 10, DType::bf16), Output(out.data())), {"bf16", "f32"});
  says(run(updates, Output(nullptr)), {"out", "null"});
  says(run(updates, Output(std::vector<void*>{})), {"out", "0 tensors"});
  const double weights[] = {1, 2};
  says(run(updates, Output(out.data()), {.weights = weights}), {"weights has 2", "n = 3"});
  const double zeros[] = {0, 0, 0};
  says(run(updates, Output(out.data()), {.weights = zeros}), {"weight 0"});
  Plan trimmed(parse("trimmed_mean(f=1)"), shape);
  const double one[] = {1, 0, 1};
  says(message_of([&] { trimmed.run(updates, Output(out.data()), {.weights = one}); }),
       {"1 of 3 rows", "trimmed_mean"});
  Plan krum(parse("phocas(f=1)"), shape);
  const double unit[] = {1, 1, 1};
  says(message_of([&] { krum.run(updates, Output(out.data()), {.weights = unit}); }), {"phocas", "weights"});
  Plan capped(Median{}, shape, {.max_weight_share = 0.2});
  says(message_of([&] { capped.run(updates, Output(out.data()), {.weights = unit}); }),
       {"max_weight_share = 0.2", "1/3"});
  says(message_of([&] { Updates::matrix(data.data(), 3, 10, DType::f32, 9); }), {"row_stride = 9", "d = 10"});
  // Of more bytes than can be counted.
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  says(message_of([&] { Updates::matrix(data.data(), 3, 4, DType::f32, std::int64_t{1} << 62); }),
       {"row_stride = 4611686018427387904", "n = 3"});
  says(message_of([&] { Updates::matrix(data.data(), 2, most, DType::f32); }), {"d = 9223372036854775807"});
  const std::vector<std::vector<const void*>> row = {{data.data(), data.data(), data.data()}};
  const std::int64_t sizes[] = {most / 64, 1, 4};
  says(message_of([&] { Updates::tensors(row, sizes, DType::f32); }), {"sizes[1] = 1", "sum"});
  says(message_of([&] { Plan(Median{}, {.n = 1, .sizes = {most, most, 4}}); }), {"sizes[0]", "sum"});
}

TEST(Plan, SettlesF64RowsOfEverySize) {
  // The largest is at 2^479, so the scale that the second pass asks for is 1; the least is too small for a
  // first one.
  const int exponents[] = {479, -440, -440, -461, -461};
  std::vector<double> data;
  for (const int exponent : exponents) data.push_back(std::ldexp(1.0, exponent));
  double out = 0;
  aggregate(parse("krum(f=1)"), Updates::matrix(data.data(), 5, 1, DType::f64), Output(&out));
  EXPECT_EQ(out, std::ldexp(1.0, -440));  // each pair of twins is as far from the other
  // 2^940 times as far from the centre as all but f of those that are not at it: infinite.
  data = {std::ldexp(1.0, 479), std::ldexp(1.0, -461), std::ldexp(1.5, -461), std::ldexp(1.0, -461)};
  aggregate(parse("krum(f=1, neighbors=2)"), Updates::matrix(data.data(), 4, 1, DType::f64), Output(&out));
  EXPECT_EQ(out, std::ldexp(1.0, -461));
  // Two of them are not both bad: beside the spread of an honest one the others are one row.
  data[3] = data[0];
  data.push_back(std::ldexp(1.75, -461));
  data[0] = std::ldexp(1.0, 478);
  aggregate(parse("krum(f=1, neighbors=2)"), Updates::matrix(data.data(), 5, 1, DType::f64), Output(&out));
  EXPECT_LE(out, 0x1p-460);
  // A bad row does not make infinite what is honest and far from a majority that is nearly one row.
  data = {1, 1 + 0x1p-52, 1, 1 + 0x1p-52, 2, 1e9};
  for (double& x : data) x = (x - 1) * 0x1p-1022 * 0x1p-52 + (x >= 2 ? x : 0);
  const Updates six = Updates::matrix(data.data(), 6, 1, DType::f64);
  aggregate(parse("krum(f=1)"), six, Output(&out));
  EXPECT_LE(out, 0x1p-1000);
}

std::vector<double> geometric_median_of(const std::vector<double>& rows, int n, std::int64_t d,
                                        const char* text, Report& report) {
  std::vector<double> out(static_cast<std::size_t>(d));
  const Updates updates = Updates::matrix(rows.data(), n, d, DType::f64);
  Plan plan(parse(text), Shape::of(updates));
  plan.run(updates, Output(out.data()));
  report = plan.report();
  return out;
}

// Five equal rows and six whose pull on them is a little too strong: the minimiser is beside the five, where
// Weiszfeld's own steps hardly move, and products of Newton's scales leave the range of f64.
TEST(Plan, TheGeometricMedianConvergesBesideARepeatedRowAtAnyLength) {
  constexpr int n = 11, d = 4;
  const double angle = std::acos(5.01 / 6);
  for (const double length : {1e-140, 1e-30, 1.0, 1e30, 1e100, 1e140}) {
    std::vector<double> rows(n * d, 0.0);
    for (std::size_t i = 5; i < n; ++i) {
      const std::size_t half = i / 2;
      const double size = length * (0.5 + 0.1 * static_cast<double>(half));
      rows[i * d] = size * std::cos(angle);
      rows[i * d + 1 + (i - 5) / 2] = size * std::sin(angle) * (i % 2 == 0 ? 1 : -1);
    }
    Report report;
    const std::vector<double> out = geometric_median_of(rows, n, d, "geometric_median", report);
    EXPECT_TRUE(report.converged) << length;
    std::vector<double> pull(d, 0.0);
    for (std::size_t i = 0; i < n; ++i) {
      double squared = 0;
      for (std::size_t j = 0; j < d; ++j) squared += std::pow((rows[i * d + j] - out[j]) / length, 2);
      ASSERT_GT(squared, 0) << length;
      for (std::size_t j = 0; j < d; ++j) {
        pull[j] += (rows[i * d + j] - out[j]) / length / std::sqrt(squared);
      }
    }
    for (const double p : pull) EXPECT_LT(std::abs(p), 1e-6) << length;
  }
}

double sum_of_distances(const std::vector<double>& rows, int n, const std::vector<double>& v) {
  double total = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
    double squared = 0;
    for (std::size_t j = 0; j < v.size(); ++j) squared += std::pow(rows[i * v.size() + j] - v[j], 2);
    total += std::sqrt(squared);
  }
  return total;
}

// Each of a few rows is a thousand times nearer to 0 than the last: any step from among them is as short as
// they are near, and the objective is 6 to 10 % above its minimum there.
TEST(Plan, TheGeometricMedianLeavesRowsThatAreNearlyZero) {
  Generator random = generator("nearly zero");
  const int shapes[][2] = {{7, 2}, {20, 3}, {50, 4}, {100, 5}, {150, 8}};
  for (const auto& [n, bad] : shapes) {
    for (const char* text :
         {"geometric_median", "geometric_median(start=mean)", "clip(c=1e6) | geometric_median"}) {
      const std::int64_t d = 40;
      std::vector<double> rows(static_cast<std::size_t>(n * d));
      std::normal_distribution<double> normal;
      for (double& x : rows) x = 0.5 + normal(random);
      for (int i = 0; i < bad; ++i) {
        for (std::size_t j = 0; j < 40; ++j) {
          rows[static_cast<std::size_t>(i) * 40 + j] = normal(random) * 1e-20 * std::pow(1000.0, -i);
        }
      }
      Report report;
      const std::vector<double> out = geometric_median_of(rows, n, d, text, report);
      EXPECT_TRUE(report.converged) << text << " of " << n;
      EXPECT_LE(report.optimality_gap, 1e-9) << text << " of " << n;
      std::vector<double> zeros(40, 0.0), merged = rows;
      std::fill(merged.begin(), merged.begin() + bad * d, 0.0);
      const std::vector<double> of_merged = geometric_median_of(merged, n, d, "geometric_median", report);
      const double found = sum_of_distances(rows, n, out);
      EXPECT_LE(found, sum_of_distances(rows, n, of_merged) * (1 + 2e-9)) << text << " of " << n;
      EXPECT_LT(found, sum_of_distances(rows, n, zeros) * 0.999) << text << " of " << n;
    }
  }
}

TEST(Plan, TheGapOfAGeometricMedianIsReportedWhereItRanToConvergence) {
  const std::vector<double> rows = {0, 0, 1, 0, 0, 1, 3, 3, 2, -1};
  Report report;
  geometric_median_of(rows, 5, 2, "geometric_median", report);
  EXPECT_GE(report.optimality_gap, 0);
  EXPECT_LE(report.optimality_gap, 1e-9);
  geometric_median_of(rows, 5, 2, "geometric_median(max_iters=3)", report);
  EXPECT_TRUE(std::isnan(report.optimality_gap));
  geometric_median_of(rows, 5, 2, "krum(f=1)", report);
  EXPECT_TRUE(std::isnan(report.optimality_gap));
  EXPECT_STREQ(to_string(Status::not_converged), "not_converged");
}

// Nearly half of the rows are far, and so is the mean; each step from there goes a share of the way.
TEST(Plan, TheGeometricMedianStartsFromTheMedoidWhereTheMeanIsFar) {
  Generator random = generator("half far");
  const int shapes[][2] = {{7, 3}, {41, 20}, {64, 31}};
  for (const auto& [n, bad] : shapes) {
    for (const double far : {3e38, 1e150}) {
      std::vector<double> rows(static_cast<std::size_t>(n) * 20, far);
      for (std::size_t i = 0; i < static_cast<std::size_t>(n - bad) * 20; ++i) {
        rows[i] = std::normal_distribution<double>()(random);
      }
      Report report;
      for (const double x : geometric_median_of(rows, n, 20, "geometric_median(start=mean)", report)) {
        ASSERT_LT(std::abs(x), 100) << n << " " << far;
      }
      EXPECT_TRUE(report.converged) << n << " " << far;
    }
  }
}

// Seen from a mean far away the honest rows are one point: all rows are on a line, on which there is no
// Newton step.
TEST(Plan, TheGeometricMedianComesBackFromAFarMean) {
  Generator random = generator("far mean");
  constexpr int n = 11, d = 9;
  for (const double far : {1e38, 1e100, 1e145, 1e150}) {
    for (int round = 0; round < 20; ++round) {
      std::vector<double> rows(n * d, far);
      for (std::size_t i = 0; i < (n - 2) * d; ++i) rows[i] = std::normal_distribution<double>()(random);
      Report report;
      for (const double x : geometric_median_of(rows, n, d, "geometric_median(start=mean)", report)) {
        ASSERT_LT(std::abs(x), 10) << far;
      }
      EXPECT_TRUE(report.converged) << far;
    }
  }
}

std::vector<double> shares_of(const std::vector<double>& weights, double most) {
  const int n = static_cast<int>(weights.size());
  const std::vector<float> rows(weights.size(), 1.0f);
  float out = 0;
  const Updates updates = Updates::matrix(rows.data(), n, 1, DType::f32);
  Plan plan(Mean{}, Shape::of(updates), {.max_weight_share = most});
  plan.run(updates, Output(&out), {.weights = weights});
  EXPECT_EQ(out, 1);
  std::vector<double> shares;
  for (const RowReport& row : plan.report().rows) shares.push_back(row.weight);
  return shares;
}

/// What clipped rows are made of is huge; what they are taken apart by is not.
TEST(Dnc, TellsRowsApartThatWereClippedFromAfar) {
  test::Generator random = test::generator("clipped from afar");
  constexpr int n = 21;
  const auto chosen_at = [](const std::vector<double>& values, int exponent) {
    std::vector<float> rows;
    for (const double x : values) rows.push_back(static_cast<float>(std::ldexp(x, exponent)));
    const Updates updates = Updates::matrix(rows, n, 3);
    std::vector<float> out(3);
    Plan plan(parse("clip(c=2) | dnc(f=9, sample=20)"), Shape::of(updates));
    plan.run(updates, Output(out));
    std::vector<int> chosen;
    for (int i = 0; i < n; ++i) {
      if (plan.report().rows[static_cast<std::size_t>(i)].weight > 0) chosen.push_back(i);
    }
    return chosen;
  };
  for (int k = 0; k < 20; ++k) {
    std::vector<double> values;
    for (int i = 0; i < 3 * n; ++i) {
      // Huge ones are alike, so that products are taken about a centre.
      const double x = 0.2 + static_cast<double>(random() % 1000) / 1000;
      values.push_back(i / 3 % 4 == 0 ? (i / 3 % 8 == 0 ? 0x1p60 : -0x1p60) : random() % 8 == 0 ? -x : x);
    }
    EXPECT_EQ(chosen_at(values, 67), chosen_at(values, 7)) << k;
  }
}

TEST(Plan, SamplesBeyondAllMemoryAreRefusedByName) {
  const std::vector<float> rows(3000);
  std::vector<float> out(1);
  try {
    aggregate(parse("dnc(f=1, iters=2147483647)"), Updates::matrix(rows, 3000, 1), Output(out));
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::out_of_memory) << error.what();
    EXPECT_NE(std::string(error.what()).find("dnc: iters = 2147483647 samples of sample = 10000 coordinates"),
              std::string::npos)
        << error.what();
  }
}

TEST(Plan, ACapOnWeightsHoldsAtAnyRatio) {
  for (const double big : {1e6, 1e19, 1e21, 1e25, 1e100, 1e290, 1.7e308}) {
    for (const double small : {1.0, 1e-10, 1e-290, 5e-324}) {
      // The others keep their shares of what the cap leaves.
      const std::vector<double> shares = shares_of({1 * small, big, 2 * small, 3 * small, 4 * small}, 0.5);
      EXPECT_DOUBLE_EQ(shares[1], 0.5) << big << " " << small;
      for (const std::size_t i : {0, 2, 3, 4}) {
        EXPECT_DOUBLE_EQ(shares[i], (i == 0 ? 1 : static_cast<double>(i)) / 20) << big << " " << small;
      }
      // Two far apart, both too large: 0.3 each, and 0.4 for the last two.
      const std::vector<double> two = shares_of({small, big, std::sqrt(big) * 100, small}, 0.3);
      EXPECT_DOUBLE_EQ(two[0], 0.2) << big << " " << small;
      EXPECT_DOUBLE_EQ(two[1], 0.3) << big << " " << small;
      EXPECT_DOUBLE_EQ(two[2], 0.3) << big << " " << small;
      EXPECT_DOUBLE_EQ(two[3], 0.2) << big << " " << small;
      // A share of 1/3 is as good for three rows beside one that hardly counts.
      const std::vector<double> three = shares_of({big, big, big, small}, 1 / 3.0);
      for (int i = 0; i < 3; ++i) EXPECT_DOUBLE_EQ(three[static_cast<std::size_t>(i)], (1 - three[3]) / 3);
      EXPECT_LT(three[3], 1e-5);
    }
  }
  for (const double weight : {5e-324, 1e-300, 1.0, 1.7e308}) {
    for (const int n : {1, 2, 3, 7, 49}) {
      for (const double share :
           shares_of(std::vector<double>(static_cast<std::size_t>(n), weight), 1.0 / n)) {
        EXPECT_EQ(share, 1.0 / n) << weight;
      }
    }
  }
}

TEST(Plan, ReportsWhoWasKeptAndWhy) {
  const float rows[5][2] = {{0, 0}, {1, 0}, {0, 1}, {1, 1}, {100, std::numeric_limits<float>::quiet_NaN()}};
  float out[2];
  const Updates updates = Updates::matrix(rows, 5, 2, DType::f32);
  const auto krum = aggregate(parse("multi_krum(f=1)"), updates, Output(out))[0];
  // Two nearest of each corner: 1 + 1.
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(krum.rows[i].score, 2);
    EXPECT_EQ(krum.rows[i].weight, 0.25);
    EXPECT_TRUE(krum.rows[i].selected);
  }
  EXPECT_FALSE(krum.rows[4].selected);
  EXPECT_EQ(krum.rows[4].nonfinite, 1);
  EXPECT_TRUE(std::isinf(krum.rows[4].score));
  const auto median = aggregate(Median{}, updates, Output(out))[0];
  EXPECT_EQ(median.rows[4].nonfinite, 1);
  EXPECT_EQ(median.rows[4].weight, 0.2);
  const auto clipped = aggregate(parse("clip(c=0.5) | mean"), updates, Output(out))[0];
  EXPECT_EQ(clipped.rows[0].clip_factor, 1);
  EXPECT_EQ(clipped.rows[1].clip_factor, 0.5);
  EXPECT_EQ(clipped.rows[4].clip_factor, 0);
  EXPECT_FALSE(clipped.rows[4].selected);
  const auto geometric = aggregate(GeometricMedian{}, updates, Output(out))[0];
  EXPECT_TRUE(geometric.converged);
  EXPECT_GT(geometric.iterations, 0);
  EXPECT_NEAR(out[0], 0.5, 1e-7);
  EXPECT_NEAR(geometric.rows[0].score, std::sqrt(0.5), 1e-9);
}

// Sanitizers would watch over each of the bytes.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/// Elements of f16 that are 0, of which what nobody writes to takes no memory.
class SparseArray {
 public:
  explicit SparseArray(std::int64_t elements) : bytes_(2 * static_cast<std::size_t>(elements)) {
    constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, flags, -1, 0);
  }
  ~SparseArray() { ::munmap(memory_, bytes_); }
  SparseArray(const SparseArray&) = delete;
  SparseArray& operator=(const SparseArray&) = delete;
  bool is_there() const { return memory_ != MAP_FAILED; }
  std::uint16_t* data() const { return static_cast<std::uint16_t*>(memory_); }

 private:
  std::size_t bytes_;
  void* memory_;
};

TEST(Plan, CountsCoordinatesInSixtyFourBits) {
  Generator random = generator("long rows");
  const LongRows rows(random);
  const SparseArray data(LongRows::elements), out(LongRows::d);
  if (!data.is_there() || !out.is_there()) GTEST_SKIP() << "no address space";
  for (const LongRows::Window& window : rows.windows()) {
    std::copy(window.bits.begin(), window.bits.end(), data.data() + window.begin);
  }
  std::vector<const void*> addresses;
  for (int i = 0; i < LongRows::n; ++i) addresses.push_back(data.data() + 8 * i);
  const Updates updates = Updates::rows(addresses, LongRows::d, DType::f16);
  const Output output(out.data());
  const std::vector<std::int64_t> coordinates = rows.interesting(random);
  const auto got = [&](std::int64_t j) { return load(DType::f16, out.data() + j, 0); };
  // Devices are judged by LongRowsJudge alone: it finds right what is, and wrong what is not.
  const auto judge = [&](LongRowsJudge::Want want, int row, std::int64_t j, long double expected) {
    const LongRowsJudge on_device{data.data(), out.data(), want, row};
    ASSERT_EQ(got(j), expected) << j;
    ASSERT_FALSE(on_device.is_wrong(j)) << j;
    const std::uint16_t right = out.data()[j];
    for (const int wrong : {right ^ 1, right ^ 0x8000, 0x7FFF, 0xFFFF}) {
      out.data()[j] = static_cast<std::uint16_t>(wrong);
      ASSERT_TRUE(on_device.is_wrong(j)) << j << ": " << right << ", " << wrong;
    }
    out.data()[j] = right;
  };
  aggregate(Median{}, updates, output);
  for (const std::int64_t j : coordinates) judge(LongRowsJudge::Want::median, 0, j, rows.median(j));
  const Report report = aggregate(Krum{.f = 1}, updates, output)[0];
  const auto chosen =
      std::find_if(report.rows.begin(), report.rows.end(), [](const RowReport& row) { return row.selected; });
  ASSERT_NE(chosen, report.rows.end());
  const auto row = static_cast<int>(chosen - report.rows.begin());
  for (const std::int64_t j : coordinates) judge(LongRowsJudge::Want::row, row, j, rows.value(row, j));
}
#endif

class Weights : public testing::TestWithParam<const char*> {};

TEST_P(Weights, AgreeWithTheOracle) {
  Generator random = generator(std::string("weights ") + GetParam());
  const Pipeline pipeline = parse(GetParam());
  int judged = 0;
  for (int repeat = 0; repeat < 60; ++repeat) {
    const int n = 11 + static_cast<int>(random() % 6);
    Request request{.rows = normal_rows(random, n, 1 + static_cast<int>(random() % 40), 0.5, 1),
                    .dtype = static_cast<DType>(random() % 4),
                    .layout = static_cast<Layout>(random() % 4)};
    for (int i = 0; i < n; ++i) {
      const double choices[] = {1, 2, 3, 0.1, 10, 1e-3, std::uniform_real_distribution<double>(0, 5)(random)};
      request.weights.push_back(choices[random() % std::size(choices)]);
    }
    if (repeat % 3 == 0) request.weights[random() % 10] = 0;  // row 10 is a pivot
    if (repeat % 4 == 0) request.weights[random() % 11] = repeat % 8 == 0 ? -1.0 : std::nan("");
    if (repeat % 5 == 0) request.options.max_weight_share = 0.2;
    if (repeat % 6 == 0) request.rows[random() % 11][0] = std::numeric_limits<long double>::infinity();
    const Outcome got = run_library(pipeline, request);
    const Verdict verdict = judge(pipeline, request, expect(pipeline, request), got);
    judged += verdict.judged;
    ASSERT_EQ(verdict.complaint(), "") << GetParam() << ", n = " << n << ", repeat " << repeat;
  }
  EXPECT_GT(judged, 20);
}

INSTANTIATE_TEST_SUITE_P(Plan, Weights,
                         testing::Values("mean", "median", "median(even=lower)", "trimmed_mean(f=3)",
                                         "geometric_median", "centered_clipping(tau=1, iters=3)",
                                         "multi_krum(f=3)", "mda(f=3)", "monna(f=3, pivot=10)", "cge(f=3)",
                                         "nnm(f=3) | trimmed_mean(f=3)", "nnm(f=3) | krum(f=3)",
                                         "bucketing(s=2, seed=3) | median",
                                         "bucketing(s=2, seed=3) | geometric_median",
                                         "clip(c=2) | trimmed_mean(f=3)", "arc(f=3) | median",
                                         "arc(f=3) | clip(c=2) | mean"),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (char& c : name)
                             c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
                           return name;
                         });

}  // namespace
}  // namespace bragg::test
