// SPDX-License-Identifier: Apache-2.0
// What `bragg bench` measures with, counts and writes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bragg/bragg.hpp>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <sstream>
#include <thread>

#include "host/bench/bench.hpp"
#include "host/bench/data.hpp"
#include "host/bench/gram_choices.hpp"
#include "host/bench/process.hpp"
#include "host/bench/result.hpp"
#include "rules/networks/order.hpp"

namespace bragg::bench {

namespace {

namespace fs = std::filesystem;

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

bool says(const std::string& text, const std::string& words) { return text.find(words) != std::string::npos; }

// Floors -----------------------------------------------------------------------------------------

TEST(Floors, ArePositiveAndInTheOrderOfWidths) {
  const Floors floors = measure_floors(1, memory_beyond(std::size_t{1} << 20), std::size_t{1} << 20, 0.4);
  for (const double rate : {floors.read, floors.copy, floors.fma_f32, floors.fma_f64, floors.to_f64,
                            floors.min_max_16.integers, floors.min_max_32.floats, floors.min_max_32.integers,
                            floors.min_max_64.floats, floors.min_max_64.integers}) {
    EXPECT_GT(rate, 1e7);
    EXPECT_LT(rate, 1e14) << "the compiler has seen through a loop";
  }
  // Half the lanes, half the rate; less than a quarter more, that others may use the machine.
  EXPECT_GT(floors.fma_f32, 1.25 * floors.fma_f64);
  EXPECT_GE(floors.min_max_16.integers, 0.8 * floors.min_max_32.integers);
  EXPECT_GE(floors.min_max_32.floats, 0.8 * floors.min_max_64.floats);
  EXPECT_GT(2 * floors.fma_f64, 0.8 * floors.to_f64) << "a conversion is no faster than two multiply-adds";
  EXPECT_FALSE(floors.read_how.empty());
  EXPECT_FALSE(floors.copy_how.empty());
}

TEST(Floors, DataInTheCacheIsReadFasterThanMemory) {
  const std::size_t cache = std::size_t{1} << 20;
  const Buffer small(std::size_t{1} << 15);
  const Buffer large(std::size_t{1} << 28);
  double near = 0;
  double far = 0;
  for (int k = 0; k < 5 && !(near > far); ++k) {  // others use the machine, too
    near = read_bandwidth(small.data(), small.bytes(), 1, cache, 0.1).bytes_per_second;
    far = read_bandwidth(large.data(), large.bytes(), 1, cache, 0.2).bytes_per_second;
  }
  EXPECT_GT(near, far);
}

TEST(Floors, TheBestOfTwoMeasurementsIsTheFasterOfEach) {
  Floors a, b;
  a.read = 3;
  a.read_how = "a";
  b.read = 2;
  b.read_how = "b";
  a.min_max_32 = {.floats = 1, .integers = 7};
  b.min_max_32 = {.floats = 5, .integers = 6};
  a.to_f64 = 4;
  const Floors best = best_of(a, b);
  EXPECT_EQ(best.read, 3);
  EXPECT_EQ(best.read_how, "a");
  EXPECT_EQ(best.min_max_32.floats, 5);
  EXPECT_EQ(best.min_max_32.integers, 7);
  EXPECT_EQ(best.to_f64, 4);
}

TEST(Floors, EveryByteIsRead) {
  Buffer data(1000);
  for (std::size_t i = 0; i < data.bytes(); i += 64) {
    for (const int streams : {1, 2, 4, 8}) {
      const std::uint32_t before = read_bytes(data.data(), data.bytes(), {streams, 0});
      // The first word of a line: what a sum of vectors gives of the others' lanes is not asked for.
      data.data()[i] ^= 1U;
      EXPECT_NE(read_bytes(data.data(), data.bytes(), {streams, 0}), before) << i << ", " << streams;
      data.data()[i] ^= 1U;
    }
  }
}

TEST(Floors, ACopyIsOne) {
  const Buffer from = random_updates(1, 4096, DType::f32);
  for (const CopyVariant variant : {CopyVariant{true, 0}, CopyVariant{false, 512}}) {
    const Buffer to(from.bytes());
    copy_bytes(to.data(), from.data(), from.bytes(), variant);
    EXPECT_EQ(std::memcmp(to.data(), from.data(), from.bytes()), 0);
  }
}

// Statistics -------------------------------------------------------------------------------------

TEST(Timing, QuartilesAreThoseOfNumpy) {
  const Spread five = spread_of({5, 1, 4, 2, 3});
  EXPECT_EQ(five.least, 1);
  EXPECT_EQ(five.q1, 2);
  EXPECT_EQ(five.median, 3);
  EXPECT_EQ(five.q3, 4);
  EXPECT_EQ(five.most, 5);
  EXPECT_DOUBLE_EQ(five.noise(), 2.0 / 3);
  const Spread four = spread_of({1, 2, 3, 4});
  EXPECT_DOUBLE_EQ(four.q1, 1.75);
  EXPECT_DOUBLE_EQ(four.median, 2.5);
  EXPECT_DOUBLE_EQ(four.q3, 3.25);
  EXPECT_EQ(spread_of({7}).q1, 7);
}

TEST(Timing, CallsTooShortForTheClockAreBatched) {
  const auto ms_of = [](int calls) { return 0.001 * calls; };
  const Timing timing = time_batches(ms_of, {.seconds = 0.01});
  EXPECT_EQ(timing.batch, 200);
  EXPECT_NEAR(timing.ms.median, 0.001, 1e-12);
}

TEST(Timing, TheBudgetIsKept) {
  const auto calls_of = [](double ms) {
    return time_batches([&](int calls) { return ms * calls; }, {.seconds = 0.5}).timings;
  };
  EXPECT_EQ(calls_of(5), 100) << "half a second";
  EXPECT_EQ(calls_of(100), 10) << "at least ten";
  EXPECT_EQ(calls_of(1500), 7) << "no more than twenty times the seconds";
  EXPECT_EQ(calls_of(60000), 5) << "and at least five";
}

// Work -------------------------------------------------------------------------------------------

TEST(Work, BytesAndOperationsOfThePasses) {
  const PassWork gram = gram_work(16, 1000, DType::f32);
  EXPECT_EQ(gram.bytes_read, 64000);
  EXPECT_EQ(gram.bytes_written, 0);
  EXPECT_EQ(gram.fma, 136 * 1000);
  EXPECT_EQ(gram.conversions, 16 * 1000);
  EXPECT_EQ(gram_work(16, 1000, DType::f64).conversions, 0);
  const PassWork combine = combine_work(3, 1000, DType::bf16);
  EXPECT_EQ(combine.bytes_read, 6000);
  EXPECT_EQ(combine.bytes_written, 2000);
  EXPECT_EQ(combine.fma, 3000);
  EXPECT_EQ(combine.conversions, 3000);
  const detail::SelectRule median{.kind = detail::SelectRule::Kind::median};
  const PassWork select = select_work(median, 3, 1000, DType::f16);
  EXPECT_EQ(select.bytes(), 8000);
  EXPECT_EQ(select.min_max, 4 * 1000) << "max(min(a, b), min(max(a, b), c)) and no more";
  EXPECT_EQ(select.keys, 4 * 1000) << "three values, and one rank of them";
  EXPECT_EQ(select.fma, 0) << "nothing is added up";
  EXPECT_EQ(select.lane_bits, 16);
  EXPECT_EQ(select_work(median, 16, 1, DType::f32).min_max, 80);
  const detail::SelectRule trimmed{.kind = detail::SelectRule::Kind::trimmed_mean, .f = 3};
  const PassWork mean = select_work(trimmed, 16, 1000, DType::f32);
  EXPECT_EQ(mean.fma, 10 * 1000);
  EXPECT_EQ(mean.conversions, 10 * 1000);
  EXPECT_EQ(mean.keys, (16 + 10) * 1000);
  EXPECT_EQ(select_work(trimmed, 16, 1000, DType::f64).conversions, 0);
  const PassWork mixed = mix_select_work(median, 3, 5, 11, 1000, DType::f16);
  EXPECT_EQ(mixed.bytes_read, 10000);
  EXPECT_EQ(mixed.fma, 11000);
  EXPECT_EQ(mixed.conversions, (5 + 3) * 1000) << "rows to f64, points from it";
  EXPECT_EQ(mixed.lane_bits, 32) << "means are sorted in f32";
}

TEST(Work, EqualSharesAreMixedBySumsOfSubsetsWhereThatIsLess) {
  EXPECT_EQ(mixing_work(64, 64, 64 * 52, false), 64 * 52);
  EXPECT_EQ(mixing_work(64, 64, 64 * 52, true), 16 * (11 + 64));
  EXPECT_EQ(mixing_work(5, 6, 5 * 4, true), 5 * 4) << "products are fewer than 2 groups of 11 + 5";
}

TEST(Work, LargeSelectionsAreBoundByMemoryAndSaySo) {
  const detail::SelectRule median{.kind = detail::SelectRule::Kind::median};
  EXPECT_GT(select_work(median, most_network_points, 1, DType::f32).min_max, 0);
  const PassWork large = select_work(median, most_network_points + 1, 1, DType::f32);
  EXPECT_EQ(large.min_max, 0);
  EXPECT_TRUE(says(large.note, "not in the floor"));
}

TEST(Work, TheFloorIsTheLargerOfMemoryAndArithmetic) {
  const Rates rates{.read = 100,
                    .fma_f64 = 10,
                    .to_f64 = 5,
                    .min_max_16 = {.integers = 80},
                    .min_max_32 = {.floats = 40, .integers = 80},
                    .min_max_64 = {.floats = 20}};
  PassWork work{.name = "", .bytes_read = 150, .bytes_written = 50, .fma = 10, .min_max = 20, .keys = 20};
  EXPECT_EQ(floor_of(work, rates).seconds, 2);
  EXPECT_STREQ(floor_of(work, rates).bound, "memory");
  work.fma = 25;
  EXPECT_EQ(floor_of(work, rates).seconds, 3) << "mixing and selecting take turns";
  EXPECT_STREQ(floor_of(work, rates).bound, "arithmetic");
  work.conversions = 5;
  EXPECT_EQ(floor_of(work, rates).seconds, 4);
  work.conversions = 0;
  work.min_max = 200;
  work.keys = 0;
  EXPECT_EQ(floor_of(work, rates).seconds, 5) << "integers are twice as fast as floats";
  work.keys = 120;
  EXPECT_EQ(floor_of(work, rates).seconds, 7.5) << "but to turn them into integers would take longer";
  work.keys = 0;
  work.fma = 0;
  work.min_max = 160;
  work.lane_bits = 16;
  EXPECT_STREQ(floor_of(work, rates).bound, "memory");
  work.lane_bits = 64;
  EXPECT_EQ(floor_of(work, rates).seconds, 8);
  EXPECT_STREQ(floor_of(work, rates).bound, "arithmetic");
  EXPECT_STREQ(floor_of(work, {.read = 100}).bound, "memory") << "rates that are not known bound nothing";
  EXPECT_EQ(floor_of(work, {.copy = 100}).seconds, 2);
  EXPECT_EQ(floor_of(work, {.read = 50, .copy = 100}).seconds, 3) << "100 are copied, 100 are read";
  EXPECT_EQ(floor_of(work, {.read = 100, .copy = 50}).seconds, 2) << "never below the speed of reading";
}

// Cases ------------------------------------------------------------------------------------------

TEST(Sizes, NumbersModelsAndShards) {
  EXPECT_EQ(parse_size("1000").d, 1000);
  EXPECT_EQ(parse_size("1e6").d, 1000000);
  EXPECT_EQ(parse_size("2.5e7").d, 25000000);
  EXPECT_EQ(parse_size("1e6").model, "");
  EXPECT_EQ(parse_size("resnet-50").d, 25557032);
  EXPECT_EQ(parse_size("llama-2-7b/256").d, 26321936);
  EXPECT_EQ(parse_size("llama-2-7b/256").model, "llama-2-7b/256");
  for (const Model& model : models()) EXPECT_EQ(parse_size(model.name).d, model.parameters);
  EXPECT_TRUE(std::is_sorted(models().begin(), models().end(),
                             [](const Model& a, const Model& b) { return a.parameters < b.parameters; }));
}

TEST(Sizes, WhatCannotBeReadIsShown) {
  for (const auto& [text, words] :
       {std::pair("resnet-51", "models: "), std::pair("0", "whole number"), std::pair("1.5", "whole number"),
        std::pair("-3", "whole number"), std::pair("1e99", "whole number"), std::pair("nan", "whole number"),
        std::pair("gpt-2/0", "shards"), std::pair("gpt-2/x", "shards"), std::pair("", "models: ")}) {
    const std::string message = message_of([&text = text] { parse_size(text); });
    EXPECT_TRUE(says(message, std::string("--d: '") + text)) << message;
    EXPECT_TRUE(says(message, words)) << message;
  }
}

TEST(Sizes, TensorsAreAllOfTheUpdate) {
  using Sizes = std::vector<std::int64_t>;
  EXPECT_EQ(tensor_sizes({.d = 1001}), Sizes{1001});
  EXPECT_EQ(tensor_sizes({.d = 1001, .tensors = 4}), (Sizes{192, 250, 250, 309}));
  EXPECT_EQ(tensor_sizes({.d = 5, .tensors = 5}), (Sizes{1, 1, 1, 1, 1}));
  for (const std::int64_t d : {161, 162, 5000, 1000001, 25557032}) {
    const Sizes sizes = tensor_sizes({.d = d, .tensors = 161});
    EXPECT_EQ(sizes.size(), 161U);
    EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}), d);
    EXPECT_GE(*std::min_element(sizes.begin(), sizes.end()), 1) << d;
  }
  EXPECT_TRUE(says(message_of([] { tensor_sizes({.d = 5, .tensors = 6}); }), "--tensors: 6; needs 1 to 5"));
  EXPECT_TRUE(says(message_of([] { tensor_sizes({.d = 5, .tensors = 0}); }), "--tensors: 0"));
}

TEST(Sizes, FilesHaveTheTensorsOfTheirNetwork) {
  using Sizes = std::vector<std::int64_t>;
  const Sizes resnet = file_tensor_sizes(parse_size("resnet-50"));
  EXPECT_EQ(resnet.size(), 161U);
  EXPECT_EQ(resnet[0], 64 * 3 * 7 * 7);
  EXPECT_EQ(resnet.back(), 1000);
  const Sizes llama = file_tensor_sizes(parse_size("llama-2-7b"));
  EXPECT_EQ(llama.size(), 291U);
  EXPECT_EQ(std::accumulate(llama.begin(), llama.end(), std::int64_t{0}), 6738415616);
  Sizes shard = file_tensor_sizes(parse_size("llama-2-7b/256"));
  ASSERT_EQ(shard.size(), llama.size());
  for (std::size_t t = 0; t < llama.size(); ++t) EXPECT_EQ(shard[t], llama[t] / 256);
  for (const char* const text : {"resnet-50", "resnet-50/7", "llama-2-7b/1000", "gpt-2", "12345"}) {
    const Size size = parse_size(text);
    const Sizes sizes = file_tensor_sizes(size);
    EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}), size.d) << text;
    EXPECT_GE(*std::min_element(sizes.begin(), sizes.end()), 1) << text;
  }
  EXPECT_EQ(file_tensor_sizes({.model = "resnet-50", .d = 100, .tensors = 4}),
            tensor_sizes({.d = 100, .tensors = 4}));
}

TEST(Cases, FStandsForAFifthOfTheWorkers) {
  EXPECT_EQ(to_string(pipeline_of("nnm(f=F) | trimmed_mean(f=F)", 16)), "nnm(f=3) | trimmed_mean(f=3)");
  EXPECT_EQ(to_string(pipeline_of("krum(f=F, neighbors=2)", 64)), "krum(f=12, neighbors=2)");
  try {
    pipeline_of("median | Fnnm(f=F)", 16);
    FAIL();
  } catch (const UnreadableRule& error) {
    EXPECT_EQ(error.rule, "median | Fnnm(f=3)") << "an F within a word is none";
  }
  EXPECT_TRUE(says(message_of([] { pipeline_of("krum(f=4)", 8); }), "needs n ≥ 2f+3"));
}

TEST(Cases, AreDistinctAndShapeByShape) {
  const std::vector<Block> blocks = {
      {{"median", "krum(f=F)"}, {8, 16}, {"1e3", "2e3"}, {DType::f32, DType::f16}},
      {{"median"}, {8}, {"1000"}, {DType::f32}}};
  const std::vector<Case> cases = cases_of(blocks);
  EXPECT_EQ(cases.size(), 16U);
  int changes = 0;
  for (std::size_t i = 1; i < cases.size(); ++i) {
    changes += cases[i].n != cases[i - 1].n || cases[i].size.d != cases[i - 1].size.d ||
               cases[i].dtype != cases[i - 1].dtype;
  }
  EXPECT_EQ(changes, 7) << "data is made once for each of eight shapes";
  EXPECT_TRUE(says(message_of([] {
                     cases_of(std::vector<Block>{{{"median"}, {0}, {"1"}, {DType::f32}}});
                   }),
                   "--n: 0"));
}

/// By whom a case is measured.
std::vector<std::string> choices_of(const std::string& rule, int n, DType dtype,
                                    const std::vector<std::string>& wanted) {
  std::vector<std::string> names;
  for (const Case& one : by_choice(cases_of(std::vector<Block>{{{rule}, {n}, {"1000"}, {dtype}}}), wanted)) {
    EXPECT_EQ(one.form, rule);
    names.push_back(one.gram);
  }
  return names;
}

TEST(Cases, AreMeasuredByEveryChoiceThatComputesTheirProducts) {
  const std::vector<std::string> all = gram_choices();
  ASSERT_EQ(std::set(all.begin(), all.end()).size(), all.size());
  EXPECT_EQ(choices_of("krum(f=F)", 16, DType::f32, all), all);
  EXPECT_EQ(choices_of("krum(f=F)", 16, DType::f64, {"tensor", "double_float"}),
            std::vector<std::string>{"tensor"});
  EXPECT_EQ(choices_of("geometric_median", 2, DType::f32, {"tensor", "double_float"}),
            std::vector<std::string>{"tensor"});
  EXPECT_EQ(choices_of("krum(f=F)", 16, DType::f64, {"double_float"}), std::vector<std::string>{""});
  for (const char* const without : {"median", "dnc(f=F)"}) {
    EXPECT_EQ(choices_of(without, 16, DType::f32, all), std::vector<std::string>{""});
  }
}

TEST(Cases, AreMeasuredByEveryKernelOfLengthsOnce) {
  const std::vector<std::string> all = gram_choices();
  for (const char* const lengths :
       {"cge(f=F)", "clip(c=1) | median", "arc(f=F) | trimmed_mean(f=F)", "quantile_clip | mean"}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      EXPECT_EQ(choices_of(lengths, 2, dtype, all), (std::vector<std::string>{"tensor", "double_float"}))
          << lengths;
    }
    EXPECT_EQ(choices_of(lengths, 2, DType::f64, all), std::vector<std::string>{"tensor"}) << lengths;
    EXPECT_EQ(choices_of(lengths, 2, DType::f64, {"double_float"}), std::vector<std::string>{""}) << lengths;
    EXPECT_EQ(choices_of(lengths, 2, DType::f32, {"int8", "cublas"}), std::vector<std::string>{""})
        << lengths;
  }
  // Lengths of what was mixed are products of pairs.
  EXPECT_EQ(choices_of("nnm(f=F) | cge(f=F)", 2, DType::f32, {"tensor", "double_float"}),
            std::vector<std::string>{"tensor"});
}

TEST(Products, DifferByAShareOfTheirBound) {
  const std::vector<double> a = {4, 2, 2, 9};  // rows of length 2 and 3
  EXPECT_EQ(share_of_bound(a, a, 2), 0);
  const double bound = 2 * 1.01 * (4096 + 64) * 0x1p-53 * 2 * 3;
  for (const double share : {0.5, 2.0}) {
    std::vector<double> b = a;
    b[2] += share * bound;
    EXPECT_NEAR(share_of_bound(a, b, 2), share, 0.01);
    EXPECT_NEAR(share_of_bound(b, a, 2), share, 0.01);
    Row row;
    EXPECT_TRUE(row.products_agree());
    row.gram_difference = share_of_bound(a, b, 2);
    EXPECT_EQ(row.products_agree(), share <= 1);
  }
  std::vector<double> wrong = a;
  wrong[1] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(share_of_bound(a, wrong, 2), std::numeric_limits<double>::infinity());
  const std::vector<double> zeros(4);
  EXPECT_EQ(share_of_bound(zeros, a, 2), std::numeric_limits<double>::infinity());
}

TEST(Cases, EveryPresetIsWellFormed) {
  for (const Preset& preset : presets()) EXPECT_FALSE(cases_of(preset.blocks).empty()) << preset.name;
  EXPECT_TRUE(says(message_of([] { preset_of("huge"); }), "readme"));
}

// Data -------------------------------------------------------------------------------------------

TEST(Data, IsBellShapedAndTheSameInEveryType) {
  const int n = 5;
  const std::int64_t d = 100000;
  const Buffer buffer = random_updates(n, d, DType::f32);
  const auto* values = reinterpret_cast<const float*>(buffer.data());
  for (int i = 0; i < n; ++i) {
    const float* row = values + i * d;
    const double mean = std::accumulate(row, row + d, 0.0) / static_cast<double>(d);
    const double square = std::inner_product(row, row + d, row, 0.0) / static_cast<double>(d);
    EXPECT_NEAR(mean, 0, 0.02);
    EXPECT_GT(std::sqrt(square), 0.97);
    EXPECT_LT(std::sqrt(square), 1.53);
  }
  for (const DType dtype : {DType::f16, DType::bf16, DType::f64}) {
    const Buffer other = random_updates(1, d, dtype);
    const Buffer first = random_updates(1, d, DType::f32);
    Plan plan(Mean{}, {.n = 1, .sizes = {d}, .dtype = dtype},
              {.out_dtype = dtype == DType::f64 ? DType::f64 : DType::f32});
    std::vector<double> out(static_cast<std::size_t>(d));
    plan.run(Updates::matrix(other.data(), 1, d, dtype), Output(out.data()));
    const double step = dtype == DType::f64 ? 0 : dtype == DType::f16 ? 0x1p-10 : 0x1p-7;
    for (std::size_t j = 0; j < 1000; ++j) {
      const double got = dtype == DType::f64 ? out[j] : reinterpret_cast<const float*>(out.data())[j];
      const double expected = reinterpret_cast<const float*>(first.data())[j];
      EXPECT_LE(std::abs(got - expected), step * std::abs(expected) + 0x1p-14) << j;
    }
  }
}

// Runs -------------------------------------------------------------------------------------------

Settings quick(std::vector<Block> blocks) {
  return {.cases = cases_of(blocks), .threads = 2, .budget = {.seconds = 0.01}, .floor_seconds = 0.01};
}

TEST(Run, ARowHasItsBytesAndItsPasses) {
  const Findings findings = run(quick({{{"median", "krum(f=F)", "nnm(f=F) | trimmed_mean(f=F)", "mean",
                                         "bucketing(s=2) | median", "centered_clipping(tau=10, iters=2)"},
                                        {10},
                                        {"1000"},
                                        {DType::f32}}}));
  ASSERT_EQ(findings.rows.size(), 6U);
  const double row = 4000;
  const std::vector<double> expected = {
      10 * row + row,        // read once, written
      10 * row + row + row,  // and one row for the result
      10 * row + 10 * row + row,
      10 * row + row,
      10 * row + 10 * row + row,
      11 * row + 11 * row + 2 * row};  // the previous output, and it is kept
  const std::vector<std::vector<std::string>> passes = {
      {"select"},  {"gram", "combine"},          {"gram", "mix+select"},
      {"combine"}, {"statistics", "mix+select"}, {"gram", "combine"}};
  for (std::size_t k = 0; k < findings.rows.size(); ++k) {
    const Row& r = findings.rows[k];
    const std::string name = to_string(r.asked.pipeline);
    EXPECT_EQ(r.bytes(), expected[k]) << name;
    EXPECT_EQ(r.input_bytes, 10 * row) << name;
    std::vector<std::string> names;
    double floor = 0;
    for (const PassRow& pass : r.passes) {
      names.push_back(pass.work.name);
      floor += 1e3 * pass.floor.seconds;
      EXPECT_GT(pass.ms.value_or(0), 0) << name;
    }
    EXPECT_EQ(names, passes[k]) << name;
    EXPECT_EQ(r.solve_ms.has_value(), names.size() == 2) << name;
    EXPECT_DOUBLE_EQ(r.floor_ms(), floor) << name;
    EXPECT_GT(r.share(), 0) << name;
    EXPECT_TRUE(r.in_cache) << name;
    EXPECT_GE(r.timing.timings, 10) << name;
    EXPECT_LE(r.timing.ms.least, r.timing.ms.median) << name;
    EXPECT_EQ(r.note, "") << name;
  }
}

TEST(Run, UpdatesInTensorsAreMeasuredAsOthers) {
  const std::vector<std::string> rules = {"median", "krum(f=F)", "centered_clipping(tau=10, iters=2)"};
  const Findings whole = run(quick({{rules, {10}, {"3001"}, {DType::f32}}}));
  const Findings cut = run(quick({{rules, {10}, {"3001"}, {DType::f32}, 7}}));
  ASSERT_EQ(cut.rows.size(), 3U);
  for (std::size_t k = 0; k < 3; ++k) {
    EXPECT_EQ(cut.rows[k].asked.size.tensors, 7);
    EXPECT_EQ(cut.rows[k].bytes(), whole.rows[k].bytes());
    EXPECT_EQ(cut.rows[k].passes.size(), whole.rows[k].passes.size());
    EXPECT_EQ(cut.rows[k].note, "");
  }
}

TEST(Run, FilesAreReadAndGoAway) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "bench-files";
  std::filesystem::create_directory(folder);
  Settings settings = quick({{{"median", "krum(f=F)"}, {10}, {"resnet-50/32"}, {DType::bf16}}});
  settings.files = folder;
  settings.budget.calls = 3;
  const Findings findings = run(settings);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove(folder);
  const double bytes = 10 * 2.0 * 798658;
  std::vector<Source> sources;
  for (const Row& row : findings.rows) {
    sources.push_back(row.asked.source);
    ASSERT_EQ(row.passes.size(), 2U);
    const double read = row.asked.form == "median" ? bytes : 1.1 * bytes;  // krum combines a row of ten
    EXPECT_DOUBLE_EQ(row.passes[0].work.bytes_read, read);
    EXPECT_EQ(row.passes[1].work.bytes_written, bytes / 10);
    EXPECT_DOUBLE_EQ(row.bytes(), read + bytes / 10);
    EXPECT_NEAR(row.input_bytes, bytes, 10 * 20000) << "and headers";
    if (row.asked.source == Source::page_cache) {
      EXPECT_DOUBLE_EQ(row.passes[0].floor.seconds, read / row.bandwidth);
    }
    EXPECT_GT(row.passes[1].floor.seconds, 0);
    EXPECT_DOUBLE_EQ(row.floor_ms(), 1e3 * (row.passes[0].floor.seconds + row.passes[1].floor.seconds));
    EXPECT_EQ(row.timing.timings, 3);
  }
  if (findings.rows.size() == 2U) {  // a folder in memory
    EXPECT_EQ(sources, (std::vector{Source::page_cache, Source::page_cache}));
    EXPECT_TRUE(says(findings.rows[0].note, "not from disk"));
  } else {
    EXPECT_EQ(sources, (std::vector{Source::page_cache, Source::disk, Source::page_cache, Source::disk}));
    EXPECT_EQ(findings.rows[0].note, "");
  }
  const nlohmann::json json = nlohmann::json::parse(result_json(findings, ""));
  EXPECT_EQ(json["rows"][0]["source"], "page cache");
  EXPECT_EQ(json["rows"][0]["tensors"], 161);
  settings.files = folder;
  EXPECT_THROW(run(settings), Error) << "it is gone";
}

TEST(Run, WhatIsFoundIsToldCaseByCase) {
  Settings settings = quick({{{"median", "mean"}, {3}, {"100", "1e13"}, {DType::f32}}});
  std::vector<std::pair<std::size_t, std::size_t>> told;  // rows, skipped
  settings.found = [&](const Findings& findings) {
    told.emplace_back(findings.rows.size(), findings.skipped.size());
    EXPECT_FALSE(findings.complete);
    EXPECT_GT(findings.rows.at(0).floor_ms(), 0);
    EXPECT_GT(findings.seconds, 0);
  };
  const Findings findings = run(settings);
  EXPECT_TRUE(findings.complete);
  EXPECT_EQ(told, (std::vector<std::pair<std::size_t, std::size_t>>{{1, 0}, {2, 0}, {2, 1}, {2, 2}}));
}

TEST(Run, DataThatDoesNotFitIntoMemoryIsLeftOut) {
  const Findings findings = run(quick({{{"median"}, {1000}, {"1e13"}, {DType::f32}}}));
  EXPECT_TRUE(findings.rows.empty());
  ASSERT_EQ(findings.skipped.size(), 1U);
  EXPECT_TRUE(says(findings.skipped[0].why, "TB of memory")) << findings.skipped[0].why;
}

TEST(Run, ExtraMemoryIsWhatAPlanTakes) {
  // A stateful plan keeps its last output, of 40 MB here.
  Settings settings = quick({{{"centered_clipping(tau=10)", "median"}, {3}, {"1e7"}, {DType::f32}}});
  const Findings findings = run(settings);
  ASSERT_EQ(findings.rows.size(), 2U);
  if (!findings.rows[0].extra_memory) GTEST_SKIP() << "the system does not tell peaks";
  EXPECT_GE(*findings.rows[0].extra_memory, 39e6);
#if !defined(__SANITIZE_ADDRESS__)
  EXPECT_LE(*findings.rows[0].extra_memory, 90e6);
  EXPECT_LE(*findings.rows[1].extra_memory, 8e6);
#endif
}

TEST(Run, ProgressGoesFromNoneToAll) {
  Settings settings = quick({{{"median", "mean"}, {3}, {"100"}, {DType::f32}}});
  std::vector<double> shares;
  settings.progress = [&](const Stage& stage) { shares.push_back(stage.share); };
  run(settings);
  ASSERT_GE(shares.size(), 4U);
  EXPECT_EQ(shares.front(), 0);
  EXPECT_TRUE(std::is_sorted(shares.begin(), shares.end()));
  EXPECT_LT(shares.back(), 1);
}

// Results ----------------------------------------------------------------------------------------

TEST(Results, JsonAndCsvHaveEveryRowAndNoInfinity) {
  Findings findings = run(quick({{{"krum(f=F)"}, {8}, {"resnet-20"}, {DType::bf16}}}));
  ASSERT_EQ(findings.rows.size(), 1U);
  PeerRow peer{.peer = "one", .version = "1.0, \"beta\""};
  peer.ms = spread_of({2, 2, 2});
  peer.difference = std::numeric_limits<double>::infinity();
  findings.rows[0].peers = {peer, {.peer = "two", .unsupported = "has no krum"}};
  findings.skipped.push_back({findings.rows[0].asked, "too large"});
  const nlohmann::json json = nlohmann::json::parse(result_json(findings, "bragg bench --n 8"));
  EXPECT_EQ(json["schema"], result_schema);
  EXPECT_EQ(json["command"], "bragg bench --n 8");
  EXPECT_GT(json["hardware"]["last_level_cache_bytes"], 0);
  EXPECT_EQ(json["hardware"]["cuda_device"], nullptr);
  EXPECT_GT(json["floors"]["read_gb_per_s"], 0);
  EXPECT_GT(json["floors"]["fma_f64_gflop_per_s"], 0);
  const nlohmann::json& row = json["rows"][0];
  EXPECT_EQ(row["rule"], "krum(f=1)");
  EXPECT_EQ(row["form"], "krum(f=F)");
  EXPECT_EQ(row["model"], "resnet-20");
  EXPECT_EQ(row["d"], 269722);
  EXPECT_EQ(row["bytes"], 2 * 269722 * (8 + 1 + 1));
  EXPECT_NEAR(row["gb_per_s"], row["bytes"].get<double>() / row["ms"]["median"].get<double>() / 1e6, 1e-9);
  EXPECT_NEAR(row["floor_share"], row["floor_ms"].get<double>() / row["ms"]["median"].get<double>(), 1e-9);
  EXPECT_EQ(row["peers"][0]["max_abs_difference"], nullptr);
  EXPECT_EQ(row["peers"][0]["agrees"], false);
  EXPECT_EQ(row["peers"][0]["ratio"], nullptr);
  EXPECT_EQ(row["peers"][1]["unsupported"], "has no krum");
  EXPECT_EQ(json["skipped"][0]["why"], "too large");

  std::istringstream csv(result_csv(findings));
  std::vector<std::string> lines;
  for (std::string line; std::getline(csv, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_TRUE(says(lines[2], "\"1.0, \"\"beta\"\"\"")) << lines[2];
  EXPECT_TRUE(says(lines[2], "results differ")) << lines[2];
}

// Peers ------------------------------------------------------------------------------------------

TEST(Processes, GiveTheirOutputAndHowTheyEnded) {
  const Finished done = run_program({"sh", "-c", "echo out; echo err >&2; exit 3"});
  EXPECT_EQ(done.out, "out\n");
  EXPECT_EQ(done.err, "err\n");
  EXPECT_EQ(done.code, 3);
  EXPECT_EQ(run_program({"sh", "-c", "kill -9 $$"}).signal, 9);
  // More than a pipe holds, on both.
  EXPECT_EQ(run_program({"sh", "-c", "yes | head -c 300000 | tee /dev/stderr"}).err.size(), 300000U);
  EXPECT_TRUE(says(message_of([] { run_program({"no-such-program"}); }), "no-such-program"));
}

/// Both threads of a run that a signal ends: one makes and removes files, the other clears away.
TEST(TemporaryFolders, AreGoneWhateverOtherThreadsMakeInThem) {
  std::string name = (fs::temp_directory_path() / "bragg-leave-XXXXXX").string();
  ASSERT_NE(mkdtemp(name.data()), nullptr);
  for (int round = 0; round < 100; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const TemporaryFolder folder{fs::path(name)};
      const std::string file = (folder.path() / "output.safetensors").string();
      std::thread([file] {
        while (true) {
          const int made = open(file.c_str(), O_WRONLY | O_CREAT, 0666);
          std::this_thread::sleep_for(std::chrono::microseconds(50));
          close(made);
          unlink(file.c_str());
        }
      }).detach();
      std::this_thread::sleep_for(std::chrono::microseconds(500 + 37 * round));
      leave_nothing();
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_TRUE(fs::is_empty(name));
  fs::remove_all(name);
}

/// A run.py that is a shell script: the interpreter is sh.
class FakePeer : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "bragg-peer-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  /// $3 is the rule's text, $5 the input, $7 the output.
  PeerRow ask(const std::string& script) {
    std::ofstream(folder_ / "run.py") << script;
    const Peers peers{.names = {"fake"}, .folder = folder_, .python = "sh"};
    const PeerInput input(data_.data(), 3, 4);
    place_ = input.input();
    return ask_peer(peers, "fake", parse("median"), input, {}, 2);
  }

  static std::string result(const std::string& values, const std::string& more = "") {
    // The header of an npy of four f32, and these.
    return "printf '\\223NUMPY\\001\\000\\073\\000' > $7; printf '%-58s\\n' \"{'descr': '<f4', "
           "'fortran_order': False, "
           "'shape': (4,), }\" >> $7; " +
           values +
           " >> $7; echo '{\"peer\": \"fake\", \"version\": \"9\", \"ms\": [4, 6, 8], \"threads\": 1, "
           "\"extra_memory_bytes\": 5" +
           more + "}'";
  }

  fs::path folder_, place_;
  Buffer data_ = random_updates(3, 4, DType::f32);
};

TEST_F(FakePeer, IsComparedWhereItsResultIsRight) {
  // Three equal rows: their median is the row.
  auto* const values = reinterpret_cast<float*>(data_.data());
  for (int i = 0; i < 12; ++i) values[i] = 1;
  const PeerRow row = ask(result("printf '\\000\\000\\200\\077%.0s' 1 2 3 4"));
  EXPECT_EQ(row.failure, "");
  EXPECT_EQ(row.version, "9");
  EXPECT_EQ(row.ms.median, 6);
  EXPECT_TRUE(row.agrees());
  EXPECT_EQ(row.difference, 0);
  EXPECT_EQ(row.ratio, 3);
  EXPECT_EQ(row.extra_memory, 5);
  EXPECT_FALSE(fs::exists(place_.parent_path())) << "its folder is gone";
}

TEST_F(FakePeer, HasNoRatioWhereItsResultIsWrong) {
  const PeerRow row = ask(result("printf '\\000\\000\\200\\177%.0s' 1 2 3 4"));  // infinity
  EXPECT_EQ(row.failure, "");
  EXPECT_FALSE(row.agrees());
  EXPECT_FALSE(row.ratio);
}

TEST_F(FakePeer, IsHeldAgainstTheRuleThatItSaysItComputes) {
  auto* const values = reinterpret_cast<float*>(data_.data());
  for (int i = 0; i < 12; ++i) values[i] = i < 4 ? 4 : 1;
  const std::string twos = "printf '\\000\\000\\000\\100%.0s' 1 2 3 4";
  EXPECT_FALSE(ask(result(twos)).agrees());
  const PeerRow row = ask(result(twos, ", \"equivalent_rule\": \"mean\""));
  EXPECT_TRUE(row.agrees());
  EXPECT_EQ(row.equivalent_rule, "mean");
  EXPECT_TRUE(says(ask(result(twos, ", \"equivalent_rule\": \"meen\"")).failure, "meen"));
}

TEST_F(FakePeer, WhatGoesWrongIsInItsRow) {
  EXPECT_EQ(ask("echo '{\"peer\": \"fake\", \"unsupported\": \"not here\"}'").unsupported, "not here");
  EXPECT_EQ(ask("echo first >&2; echo the reason >&2; exit 4").failure, "exit status 4: the reason");
  EXPECT_TRUE(says(ask("echo nonsense").failure, "not the JSON"));
  EXPECT_TRUE(says(ask("echo '{\"peer\": \"fake\", \"ms\": [1]}'").failure, "npy"));
  EXPECT_TRUE(says(ask("echo '{\"peer\": \"fake\", \"ms\": []}'").failure, "no timings"));
  EXPECT_TRUE(says(ask("echo '{\"peer\": \"fake\"}'").failure, "ms"));
  EXPECT_TRUE(says(ask("kill -9 $$").failure, "signal 9"));
}

TEST_F(FakePeer, SeesTheArgumentsThatItIsPromised) {
  const PeerRow row = ask("echo \"$1|$2|$3|$4|$6|$8|${10}\" >&2; test -s \"$5\" || exit 9; exit 1");
  EXPECT_TRUE(says(row.failure, "fake|--rule|median|--input|--output|--threads|--seconds")) << row.failure;
}

TEST(Peers, TheirFolderMustHaveAdapters) {
  EXPECT_TRUE(says(message_of([] { peers_folder("/nowhere"); }), "--peers"));
}

}  // namespace

}  // namespace bragg::bench
