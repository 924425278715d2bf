// SPDX-License-Identifier: Apache-2.0
// Plans on a device: the CPU's results, state, parts, failures, aliasing, lent workspace, threads, files.
#include <gtest/gtest.h>
#include <bragg/bragg.hpp>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/device/device_rows.hpp"
#include "tests/support/failure.hpp"
#include "tests/support/files.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

using detail::cuda::OwnStream;

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
                                 "autogm(lam=4)",
                                 "centered_clipping(tau=3, iters=2, start=origin)",
                                 "mda(f=2)",
                                 "smea(f=2)",
                                 "caf(f=2)",
                                 "monna(f=2)",
                                 "cge(f=2)",
                                 "dnc(f=2, sample=200, iters=2)",
                                 "clip(c=30) | dnc(f=2)",
                                 "bulyan(f=2)",
                                 "nnm(f=2) | trimmed_mean(f=2)",
                                 "nnm(f=2) | krum(f=2)",
                                 "bucketing(s=2, seed=4) | median",
                                 "clip(c=20) | mean",
                                 "arc(f=2) | geometric_median"};

Options on_cuda(Options options = {}) {
  options.device = Device::cuda;
  return options;
}

Updates device_matrix(const DeviceArray<float>& data, int n, std::int64_t d) {
  return Updates::matrix(data.data(), n, d, DType::f32, -1, MemorySpace::cuda);
}

/// Largest |a − b| relative to 1 + |b|.
double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0;
  for (std::size_t j = 0; j < a.size(); ++j) {
    const double off = std::fabs(double{a[j]} - b[j]) / (1 + std::fabs(double{b[j]}));
    worst = off <= worst ? worst : off;  // NaN is worst
  }
  return worst;
}

bool is_order_statistic_or_one_row(const std::string& text) {
  return text == "median" || text == "krum(f=2)";
}

TEST(DevicePlan, AgreesWithTheCpuAndIsTheSameBitsEachTime) {
  Generator random = generator("device agrees");
  const int n = 12;
  for (const std::int64_t d : {std::int64_t{1}, std::int64_t{1000}, std::int64_t{5003}}) {
    const std::vector<float> data = random_matrix(random, n, d);
    const DeviceArray<float> device(data);
    for (const char* text : all_kinds) {
      std::vector<float> expected(static_cast<std::size_t>(d));
      aggregate(parse(text), Updates::matrix(data.data(), n, d, DType::f32), Output(expected.data()));
      const OwnStream stream;
      Plan plan(parse(text), {.n = n, .sizes = {d}}, on_cuda());
      std::vector<float> first;
      for (int run = 0; run < 2; ++run) {
        const DeviceArray<float> out(std::vector<float>(static_cast<std::size_t>(d), -7));
        plan.run(device_matrix(device, n, d), Output(out.data()), stream.get());
        EXPECT_EQ(plan.wait(stream.get()), Status::ok);
        const std::vector<float> got = out.values();
        if (is_order_statistic_or_one_row(text)) {
          EXPECT_EQ(got, expected) << text;
        }
        EXPECT_LT(difference(got, expected), 1e-5) << text << ", d = " << d;
        if (run == 0) first = got;
        const bool draws = std::string(text).find("bucketing") != std::string::npos ||
                           std::string(text).find("dnc") != std::string::npos;
        if (draws) plan.reset();
        EXPECT_EQ(got, first) << text;
      }
    }
  }
}

TEST(DevicePlan, MayWriteOverOneOfItsInputsOrTheReference) {
  Generator random = generator("device alias");
  const int n = 11;
  const std::int64_t d = 3011;
  const std::vector<float> data = random_matrix(random, n, d);
  const std::vector<float> base = random_matrix(random, 1, d);
  for (const char* text : all_kinds) {
    const OwnStream stream;
    Plan plan(parse(text), {.n = n, .sizes = {d}}, on_cuda());
    const auto run = [&](const DeviceArray<float>& rows, const DeviceArray<float>& reference, float* out) {
      plan.reset();
      plan.run(device_matrix(rows, n, d), Output(out), stream.get(), {.base = Row(reference.data())});
      ASSERT_EQ(plan.wait(stream.get()), Status::ok);
    };
    const DeviceArray<float> rows(data), reference(base);
    const DeviceArray<float> apart(std::vector<float>(static_cast<std::size_t>(d)));
    run(rows, reference, apart.data());
    const std::vector<float> expected = apart.values();
    for (const int row : {0, 5, 10}) {
      const DeviceArray<float> mine(data);
      run(mine, reference, mine.data() + row * d);
      const std::vector<float> all = mine.values();
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), all.begin() + row * d))
          << text << " into " << row;
    }
    const DeviceArray<float> over(base);
    run(rows, over, over.data());
    EXPECT_EQ(over.values(), expected) << text << " into the reference";
  }
}

TEST(DevicePlan, KeepsPreviousOutputAndRoundAsTheCpuDoes) {
  Generator random = generator("device state");
  const int n = 9;
  const std::int64_t d = 1500;
  for (const char* text :
       {"centered_clipping(tau=0.5, iters=2)", "bucketing(s=2, seed=11) | trimmed_mean(f=1)",
        "bucketing(s=3, seed=5) | centered_clipping(tau=1)"}) {
    for (const bool has_reference : {false, true}) {
      const std::vector<float> base = random_matrix(random, 1, d);
      const DeviceArray<float> device_base(base);
      const OwnStream stream;
      Plan host(parse(text), {.n = n, .sizes = {d}});
      Plan device(parse(text), {.n = n, .sizes = {d}}, on_cuda());
      for (int round = 0; round < 4; ++round) {
        std::vector<float> data = random_matrix(random, n, d);
        if (round == 2 && std::string(text).find("trimmed") == std::string::npos) {
          // A failing run changes no state: here none fails, since clipping tolerates infinite rows.
          data[3] = std::numeric_limits<float>::quiet_NaN();
        }
        const DeviceArray<float> rows(data);
        std::vector<float> expected(static_cast<std::size_t>(d));
        const DeviceArray<float> out(expected);
        host.run(Updates::matrix(data.data(), n, d, DType::f32), Output(expected.data()),
                 {.base = has_reference ? Row(base.data()) : Row()});
        device.run(device_matrix(rows, n, d), Output(out.data()), stream.get(),
                   {.base = has_reference ? Row(device_base.data()) : Row()});
        ASSERT_EQ(device.wait(stream.get()), host.status());
        EXPECT_LT(difference(out.values(), expected), 1e-5) << text << ", round " << round;
      }
    }
  }
}

TEST(DevicePlan, LeavesTheOutputAndTheStateAloneWhenARunFails) {
  Generator random = generator("device failure");
  const int n = 7;
  const std::int64_t d = 700;
  const std::vector<float> good = random_matrix(random, n, d);
  std::vector<float> bad = good;
  for (int i = 0; i < 4; ++i)
    bad[static_cast<std::size_t>(i * d + 5)] = std::numeric_limits<float>::infinity();
  const DeviceArray<float> good_rows(good), bad_rows(bad);
  for (const OnFailure on_failure : {OnFailure::keep, OnFailure::nan, OnFailure::zero}) {
    const OwnStream stream;
    Plan plan(parse("bucketing(s=1, seed=3) | nnm(f=2) | trimmed_mean(f=2)"), {.n = n, .sizes = {d}},
              on_cuda({.on_failure = on_failure}));
    const DeviceArray<float> out(std::vector<float>(static_cast<std::size_t>(d), 42));
    plan.run(device_matrix(bad_rows, n, d), Output(out.data()), stream.get());
    EXPECT_EQ(plan.wait(stream.get()), Status::too_many_nonfinite);
    EXPECT_EQ(plan.report().rows[2].nonfinite, 1);
    for (const float x : out.values()) {
      if (on_failure == OnFailure::nan) {
        ASSERT_TRUE(std::isnan(x));
      } else {
        ASSERT_EQ(x, on_failure == OnFailure::keep ? 42 : 0);
      }
    }
    plan.run(device_matrix(good_rows, n, d), Output(out.data()), stream.get());
    EXPECT_EQ(plan.wait(stream.get()), Status::ok);
    Plan fresh(parse("bucketing(s=1, seed=3) | nnm(f=2) | trimmed_mean(f=2)"), {.n = n, .sizes = {d}},
               on_cuda());
    const DeviceArray<float> expected(std::vector<float>(static_cast<std::size_t>(d)));
    fresh.run(device_matrix(good_rows, n, d), Output(expected.data()), stream.get());
    ASSERT_EQ(fresh.wait(stream.get()), Status::ok);
    EXPECT_EQ(out.values(), expected.values()) << "the failed run drew a permutation";
  }
}

TEST(DevicePlan, SolvesTensorsApartAndWritesNothingWhenOneFails) {
  Generator random = generator("device parts");
  const int n = 6;
  const std::vector<std::int64_t> sizes{33, 0, 5, 2048, 1, 3000};
  std::int64_t d = 0;
  for (const std::int64_t size : sizes) d += size;
  std::vector<float> data = random_matrix(random, n, d);
  for (const char* text : {"median", "krum(f=1)", "nnm(f=1) | trimmed_mean(f=1)", "geometric_median",
                           "dnc(f=1, sample=40)", "mda(f=1)", "centered_clipping(tau=0.3)", "mean"}) {
    for (const bool failing : {false, true}) {
      std::vector<float> values = data;
      const bool can_fail = std::string(text).find("f=1") != std::string::npos;
      if (failing && !can_fail) continue;
      for (int i = 0; i < 3 && failing; ++i) {
        values[static_cast<std::size_t>(i * d + 40)] =
            std::numeric_limits<float>::quiet_NaN();  // of the fourth
      }
      const DeviceArray<float> device(values);
      const auto tensors_of = [&](const auto* base, int row) {
        std::vector<const void*> tensors;
        const auto* at = base + row * d;
        for (const std::int64_t size : sizes) {
          tensors.push_back(size > 0 ? at : nullptr);
          at += size;
        }
        return tensors;
      };
      std::vector<std::vector<const void*>> host_rows, device_rows;
      for (int i = 0; i < n; ++i) {
        host_rows.push_back(tensors_of(values.data(), i));
        device_rows.push_back(tensors_of(device.data(), i));
      }
      std::vector<float> expected(static_cast<std::size_t>(d), 9);
      const DeviceArray<float> out(expected);
      const auto targets_of = [&](float* base) {
        std::vector<void*> targets;
        for (const void* tensor : tensors_of(base, 0)) targets.push_back(const_cast<void*>(tensor));
        return Output(targets);
      };
      const OwnStream stream;
      Plan host(parse(text), {.n = n, .sizes = sizes}, {.scope = Scope::per_tensor});
      Plan plan(parse(text), {.n = n, .sizes = sizes}, on_cuda({.scope = Scope::per_tensor}));
      host.run(Updates::tensors(host_rows, sizes, DType::f32), targets_of(expected.data()));
      plan.run(Updates::tensors(device_rows, sizes, DType::f32, MemorySpace::cuda), targets_of(out.data()),
               stream.get());
      EXPECT_EQ(plan.wait(stream.get()), host.status()) << text;
      EXPECT_LT(difference(out.values(), expected), 1e-5) << text;
      ASSERT_EQ(plan.reports().size(), host.reports().size());
      for (std::size_t part = 0; part < host.reports().size(); ++part) {
        EXPECT_EQ(plan.reports()[part].status, host.reports()[part].status);
        for (int i = 0; i < n; ++i) {
          const RowReport& mine = plan.reports()[part].rows[static_cast<std::size_t>(i)];
          const RowReport& theirs = host.reports()[part].rows[static_cast<std::size_t>(i)];
          EXPECT_NEAR(mine.weight, theirs.weight, 1e-9) << text << ", part " << part << ", row " << i;
          EXPECT_EQ(mine.nonfinite, theirs.nonfinite) << text << ", part " << part << ", row " << i;
          EXPECT_EQ(mine.selected, theirs.selected) << text << ", part " << part << ", row " << i;
        }
      }
    }
  }
}

TEST(DevicePlan, IsJudgedBySomeTensorsAsOnTheCpu) {
  Generator random = generator("device judged");
  const int n = 11;
  const std::vector<std::int64_t> sizes{33, 0, 5000, 2048, 1, 3000};
  const std::vector<bool> judged{true, true, false, true, false, false};
  std::int64_t d = 0;
  for (const std::int64_t size : sizes) d += size;
  std::vector<float> values = random_matrix(random, n, d);
  const auto scale_large = [&](std::vector<float>& rows, float factor) {  // the second and third tensor
    for (std::size_t row = 0; row < rows.size(); row += static_cast<std::size_t>(d)) {
      for (std::size_t j = row + 33; j < row + 5033; ++j) rows[j] *= factor;
    }
  };
  scale_large(values, 0x1p20f);
  values[static_cast<std::size_t>(4 * d - 1)] =
      std::numeric_limits<float>::quiet_NaN();  // of the last tensor
  const DeviceArray<float> device(values);
  const auto rows_of = [&](const float* base, int rows) {
    std::vector<std::vector<const void*>> made(static_cast<std::size_t>(rows));
    for (auto& row : made) {
      for (const std::int64_t size : sizes) {
        row.push_back(size > 0 ? base : nullptr);
        base += size;
      }
    }
    return made;
  };
  const auto target = [&](float* base) {
    std::vector<void*> tensors;
    const std::vector<const void*> row = rows_of(base, 1)[0];
    for (const void* tensor : row) tensors.push_back(const_cast<void*>(tensor));
    return Output(tensors);
  };
  for (const char* const text : all_kinds) {
    if (std::string(text) == "mean") continue;
    std::vector<float> expected(static_cast<std::size_t>(d), 9);
    const DeviceArray<float> out(expected);
    const OwnStream stream;
    const Updates on_host = Updates::tensors(rows_of(values.data(), n), sizes, DType::f32).judge_by(judged);
    const Updates there =
        Updates::tensors(rows_of(device.data(), n), sizes, DType::f32, MemorySpace::cuda).judge_by(judged);
    Plan host(parse(text), Shape::of(on_host));
    Plan plan(parse(text), Shape::of(there), on_cuda());
    host.run(on_host, target(expected.data()));
    plan.run(there, target(out.data()), stream.get());
    EXPECT_EQ(plan.wait(stream.get()), Status::ok) << text;
    std::vector<float> got = out.values();  // its rounding is as large as a tensor's values are
    scale_large(got, 0x1p-20f);
    scale_large(expected, 0x1p-20f);
    EXPECT_LT(difference(got, expected), 1e-5) << text;
    for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
      EXPECT_NEAR(plan.report().rows[i].weight, host.report().rows[i].weight, 1e-9) << text << ", row " << i;
      EXPECT_EQ(plan.report().rows[i].nonfinite, i == 3 ? 1 : 0) << text << ", row " << i;
    }
  }
}

TEST(DevicePlan, TakesWeightsAsTheCpuDoes) {
  Generator random = generator("device weights");
  const int n = 9;
  const std::int64_t d = 1300;
  const std::vector<float> data = random_matrix(random, n, d);
  const DeviceArray<float> device(data);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::vector<double>> cases = {{1, 2, 3, 4, 5, 6, 7, 8, 9},
                                                  {1, 0, 1, 1, 0, 1, 1, 1, 1},
                                                  {2, 2, 2, 2, 2, 2, 2, 2, 2},
                                                  {1, -1, 3, 1, nan, 0, 0.5, 1e-300, 1e300}};
  for (const char* text :
       {"mean", "median", "median(even=upper)", "trimmed_mean(f=2)", "geometric_median",
        "centered_clipping(tau=2)", "multi_krum(f=2)", "monna(f=2)", "cge(f=2)", "mda(f=2)",
        "nnm(f=2) | median", "bucketing(s=2, seed=1) | trimmed_mean(f=1)", "clip(c=20) | median"}) {
    for (const std::vector<double>& weights : cases) {
      std::vector<float> expected(static_cast<std::size_t>(d));
      const DeviceArray<float> out(expected);
      const OwnStream stream;
      Plan host(parse(text), {.n = n, .sizes = {d}});
      Plan plan(parse(text), {.n = n, .sizes = {d}}, on_cuda());
      host.run(Updates::matrix(data.data(), n, d, DType::f32), Output(expected.data()), {.weights = weights});
      plan.run(device_matrix(device, n, d), Output(out.data()), stream.get(), {.weights = weights});
      EXPECT_EQ(plan.wait(stream.get()), host.status()) << text;
      EXPECT_LT(difference(out.values(), expected), 1e-5) << text;
      for (int i = 0; i < n; ++i) {
        EXPECT_NEAR(plan.report().rows[static_cast<std::size_t>(i)].weight,
                    host.report().rows[static_cast<std::size_t>(i)].weight, 1e-9)
            << text;
      }
    }
  }
}

TEST(DevicePlan, UsesALentWorkspaceAndOwnsNone) {
  Generator random = generator("device workspace");
  const int n = 8;
  const std::int64_t d = 900;
  const std::vector<float> data = random_matrix(random, n, d);
  const DeviceArray<float> device(data);
  const OwnStream stream;
  Plan plan(parse("nnm(f=2) | trimmed_mean(f=2)"), {.n = n, .sizes = {d}}, on_cuda({.lent_workspace = true}));
  ASSERT_GT(plan.workspace_bytes(), 0u);
  const DeviceArray<float> out(std::vector<float>(static_cast<std::size_t>(d)));
  const Updates updates = device_matrix(device, n, d);
  EXPECT_NE(message_of([&] { plan.run(updates, Output(out.data()), stream.get()); }).find("workspace"),
            std::string::npos);
  const detail::cuda::DeviceMemory workspace(plan.workspace_bytes());
  plan.run(updates, Output(out.data()), stream.get(), {.workspace = workspace.data()});
  EXPECT_EQ(plan.wait(stream.get()), Status::ok);
  std::vector<float> expected(static_cast<std::size_t>(d));
  aggregate(plan.pipeline(), Updates::matrix(data.data(), n, d, DType::f32), Output(expected.data()));
  EXPECT_LT(difference(out.values(), expected), 1e-5);
}

TEST(DevicePlan, SeveralRunInThreadsAtOnce) {
  Generator random = generator("device threads");
  const int n = 10;
  const std::int64_t d = 2500;
  const std::vector<float> data = random_matrix(random, n, d);
  const DeviceArray<float> device(data);
  const char* const texts[] = {"median", "nnm(f=2) | trimmed_mean(f=2)", "geometric_median", "krum(f=2)"};
  std::vector<std::vector<float>> results(std::size(texts));
  std::vector<std::thread> threads;
  for (std::size_t k = 0; k < std::size(texts); ++k) {
    threads.emplace_back([&, k] {
      const OwnStream stream;
      Plan plan(parse(texts[k]), {.n = n, .sizes = {d}}, on_cuda());
      for (int run = 0; run < 3; ++run) {
        const DeviceArray<float> out(std::vector<float>(static_cast<std::size_t>(d)));
        plan.run(device_matrix(device, n, d), Output(out.data()), stream.get());
        EXPECT_EQ(plan.wait(stream.get()), Status::ok);
        results[k] = out.values();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::size_t k = 0; k < std::size(texts); ++k) {
    std::vector<float> expected(static_cast<std::size_t>(d));
    aggregate(parse(texts[k]), Updates::matrix(data.data(), n, d, DType::f32), Output(expected.data()));
    EXPECT_LT(difference(results[k], expected), 1e-5) << texts[k];
  }
}

TEST(DevicePlan, ServesManyRows) {
  Generator random = generator("device many rows");
  const std::int64_t d = 37;
  for (const int n : {65, 129, 300}) {
    const std::vector<float> data = random_matrix(random, n, d);
    const DeviceArray<float> device(data);
    const int f = n / 5;
    const std::string tolerate = "(f=" + std::to_string(f) + ")";
    for (const std::string& text :
         {std::string("median"), "trimmed_mean" + tolerate, "meamed" + tolerate, "krum" + tolerate,
          "nnm" + tolerate + " | trimmed_mean" + tolerate, "nnm" + tolerate + " | median",
          "bulyan" + tolerate, std::string("geometric_median")}) {
      std::vector<float> expected(static_cast<std::size_t>(d));
      aggregate(parse(text), Updates::matrix(data.data(), n, d, DType::f32), Output(expected.data()));
      const DeviceArray<float> out(std::vector<float>(static_cast<std::size_t>(d)));
      const OwnStream stream;
      Plan plan(parse(text), {.n = n, .sizes = {d}}, on_cuda());
      plan.run(device_matrix(device, n, d), Output(out.data()), stream.get());
      EXPECT_EQ(plan.wait(stream.get()), Status::ok) << text;
      EXPECT_LT(difference(out.values(), expected), 1e-5) << text << ", n = " << n;
    }
  }
}

/// Rows of small integers, many of them alike or equally far: products are exact, so a device ranks by the
/// same bits as the CPU.
TEST(DevicePlan, RanksManyRowsByTheSameBitsAsTheCpu) {
  Generator random = generator("device ranks");
  const std::int64_t d = 6;
  for (const int n : {67, 262}) {
    std::vector<float> data(static_cast<std::size_t>(n * d));
    for (float& x : data) x = static_cast<float>(random() % 5) - 2;
    data[static_cast<std::size_t>(3 * d)] = std::numeric_limits<float>::infinity();
    const DeviceArray<float> rows(data);
    const std::string f = std::to_string(n / 5);
    for (const char* rule : {"krum", "nnm*krum", "arc*cge", "majority_cluster", "multi_krum", "monna", "faba",
                             "bulyan", "balance"}) {
      if (n > 256 && rule != std::string("krum")) break;  // of a checked kernel the others take minutes
      std::string text = rule + ("(f=" + f + ")");
      if (text.starts_with("majority")) text = rule;
      if (text.starts_with("balance")) text = "balance(gamma=1)";
      if (const std::size_t star = text.find('*'); star != std::string::npos) {
        text.replace(star, 1, "(f=" + f + ") | ");
      }
      if (text.starts_with("monna")) text.insert(text.size() - 1, ", pivot=7");
      std::vector<float> expected(static_cast<std::size_t>(d));
      const OwnStream stream;
      Plan host(parse(text), {.n = n, .sizes = {d}});
      host.run(Updates::matrix(data.data(), n, d, DType::f32), Output(expected.data()));
      Plan plan(parse(text), {.n = n, .sizes = {d}}, on_cuda());
      const DeviceArray<float> out(std::vector<float>(static_cast<std::size_t>(d)));
      plan.run(device_matrix(rows, n, d), Output(out.data()), stream.get());
      ASSERT_EQ(plan.wait(stream.get()), Status::ok) << text;
      EXPECT_LT(difference(out.values(), expected), 1e-6) << text;  // sums may be pairs of floats
      for (int i = 0; i < n; ++i) {
        const RowReport& got = plan.report().rows[static_cast<std::size_t>(i)];
        const RowReport& wanted = host.report().rows[static_cast<std::size_t>(i)];
        EXPECT_EQ(got.weight, wanted.weight) << text << ", row " << i;
        EXPECT_TRUE(got.score == wanted.score || (std::isnan(got.score) && std::isnan(wanted.score))) << text;
      }
    }
  }
}

TEST(DevicePlan, TakesRowsWithoutCoordinates) {
  for (const char* text : all_kinds) {
    for (const std::vector<std::int64_t>& sizes :
         {std::vector<std::int64_t>{}, std::vector<std::int64_t>{0}, std::vector<std::int64_t>{0, 0}}) {
      const OwnStream stream;
      const std::vector<std::vector<const void*>> rows(12, std::vector<const void*>(sizes.size()));
      Plan plan(parse(text), {.n = 12, .sizes = sizes}, on_cuda());
      plan.run(Updates::tensors(rows, sizes, DType::f32, MemorySpace::cuda),
               Output(std::vector<void*>(sizes.size())), stream.get());
      EXPECT_EQ(plan.wait(stream.get()), Status::ok) << text;
    }
  }
}

TEST(DevicePlan, SaysWhatIsWrong) {
  const DeviceArray<float> device(std::vector<float>(64));
  std::vector<float> host(64);
  const OwnStream stream;
  Plan on_host(Median{}, {.n = 4, .sizes = {8}});
  Plan on_device(Median{}, {.n = 4, .sizes = {8}}, on_cuda());
  const Updates there = device_matrix(device, 4, 8);
  const Updates here = Updates::matrix(host.data(), 4, 8, DType::f32);
  const auto says = [](const std::string& message, const char* what) {
    EXPECT_NE(message.find(what), std::string::npos) << message;
  };
  says(message_of([&] { on_device.run(there, Output(device.data() + 32)); }), "Stream::legacy_default()");
  says(message_of([&] { on_device.run(there, Output(device.data() + 32), {}); }), "Stream::legacy_default()");
  says(message_of(
           [&] { aggregate(Median{}, there, Output(device.data() + 32), {}, {.device = Device::cpu}); }),
       "options.device = cpu, but the updates are in a CUDA device's memory");
  says(message_of([&] { aggregate(Median{}, here, Output(host.data() + 32), {}, {.device = Device::cuda}); }),
       "options.device = cuda, but the updates are in host memory");
  says(message_of([&] { on_host.run(here, Output(host.data() + 32), stream.get()); }), "for the CPU");
  says(message_of([&] { on_device.run(here, Output(device.data() + 32), stream.get()); }), "host memory");
  says(message_of([&] { on_host.run(there, Output(host.data() + 32)); }), "CUDA device's memory");
  says(message_of([&] { on_device.run(there, Output(device.data() + 3), stream.get()); }), "overlap");
  says(message_of([&] { Plan(Median{}, {.n = 4, .sizes = {8}}, on_cuda({.cuda_device = 99})); }),
       "cuda_device = 99");
  EXPECT_EQ(on_host.workspace_bytes(), 0u);
}

TEST(DevicePlan, AggregatesUpdatesInDeviceMemoryInOneCall) {
  Generator random = generator("device one call");
  const std::vector<float> data = random_matrix(random, 5, 100);
  const DeviceArray<float> device(data);
  const DeviceArray<float> out(std::vector<float>(100));
  std::vector<float> expected(100);
  aggregate(Median{}, Updates::matrix(data.data(), 5, 100, DType::f32), Output(expected.data()));
  const std::vector<Report> reports = aggregate(Median{}, device_matrix(device, 5, 100), Output(out.data()));
  EXPECT_EQ(out.values(), expected);
  EXPECT_EQ(reports.at(0).rows.size(), 5u);
}

// As in docs/cpp.md.
bragg::Status aggregate_on_device(std::span<const void* const> workers, std::int64_t d, void* update,
                                  bragg::Stream stream) {
  bragg::Plan plan(bragg::parse("nnm(f=3) | trimmed_mean(f=3)"), {.n = 16, .sizes = {d}},
                   {.device = bragg::Device::cuda});  // made once
  plan.run(bragg::Updates::rows(workers, d, bragg::DType::f32, bragg::MemorySpace::cuda),
           bragg::Output(update), stream);  // every round; returns at once
  return plan.wait(stream);                 // plan.report() says who looks bad
}

TEST(DevicePlan, IsUsedAsTheReadmeSays) {
  Generator random = generator("device readme");
  const std::vector<float> data = random_matrix(random, 16, 500);
  const DeviceArray<float> device(data);
  const DeviceArray<float> out(std::vector<float>(500));
  std::vector<const void*> workers;
  for (int i = 0; i < 16; ++i) workers.push_back(device.data() + 500 * i);
  const OwnStream stream;
  EXPECT_EQ(aggregate_on_device(workers, 500, out.data(), stream.get()), Status::ok);
  std::vector<float> expected(500);
  aggregate(parse("nnm(f=3) | trimmed_mean(f=3)"), Updates::matrix(data.data(), 16, 500, DType::f32),
            Output(expected.data()));
  EXPECT_LT(difference(out.values(), expected), 1e-5);
}

/// Files through a device, in windows of any size: the bytes that one window gives.
TEST(DeviceFiles, AreJudgedBySomeTensorsAsOnTheCpu) {
  Generator random = generator("device files judged");
  const TemporaryFolder folder;
  const std::vector<std::pair<std::string, std::int64_t>> tensors = {
      {"a.weight", 30011}, {"bn.mean", 40000}, {"bn.var", 7}, {"c.weight", 20000}};
  for (const bool spoiled : {false, true}) {
    std::vector<std::filesystem::path> inputs;
    for (int i = 0; i < 7; ++i) {
      std::vector<std::vector<float>> values;
      std::vector<TensorToWrite> list;
      for (const auto& [name, size] : tensors) values.push_back(random_matrix(random, 1, size));
      for (float& x : values[2]) x *= 1e4F;
      if (spoiled && i == 2) values[1][39999] = std::numeric_limits<float>::quiet_NaN();
      for (std::size_t t = 0; t < tensors.size(); ++t)
        list.push_back({tensors[t].first, "F32", {tensors[t].second}, values[t].data()});
      inputs.push_back(folder.path() / ("w" + std::to_string(i) + ".safetensors"));
      write_safetensors(inputs.back(), list);
    }
    for (const char* text : {"krum(f=1)", "nnm(f=1) | trimmed_mean(f=1)", "clip(c=9) | mean"}) {
      for (const std::uint64_t memory : {std::uint64_t{1} << 30, std::uint64_t{3} << 20}) {
        FileOptions options;
        options.memory = memory;
        options.ignore_in_distances = {"bn.*"};
        const FileResult expected =
            aggregate_files(parse(text), inputs, folder.path() / "expected.safetensors", options);
        options.options = on_cuda();
        const FileResult got =
            aggregate_files(parse(text), inputs, folder.path() / "out.safetensors", options);
        EXPECT_EQ(got.bytes_read, expected.bytes_read) << text;
        for (std::size_t i = 0; i < 7; ++i) {
          const RowReport& row = got.reports[0].rows[i];
          EXPECT_EQ(row.nonfinite, spoiled && i == 2 ? 1 : 0) << text << ", row " << i;
          EXPECT_NEAR(row.weight, expected.reports[0].rows[i].weight, 1e-9) << text << ", row " << i;
        }
      }
    }
  }
}

TEST(DeviceFiles, AreAggregatedInWindowsAsTheCpuDoes) {
  Generator random = generator("device files");
  const TemporaryFolder folder;
  const int n = 7;
  const std::vector<std::pair<std::string, std::int64_t>> tensors = {
      {"a.weight", 40000}, {"b.bias", 7}, {"c.weight", 30011}, {"empty", 0}};
  std::vector<std::filesystem::path> inputs;
  for (int i = 0; i < n; ++i) {
    std::vector<std::vector<float>> values;
    std::vector<TensorToWrite> list;
    for (const auto& [name, size] : tensors) values.push_back(random_matrix(random, 1, size));
    if (i == 2) values[0][77] = std::numeric_limits<float>::quiet_NaN();
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      list.push_back({tensors[t].first, "F32", {tensors[t].second}, values[t].data()});
    }
    inputs.push_back(folder.path() / ("worker" + std::to_string(i) + ".safetensors"));
    write_safetensors(inputs.back(), list);
  }
  const auto read = [](const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  for (const char* text : {"median", "mean", "krum(f=1)", "nnm(f=1) | trimmed_mean(f=1)", "bulyan(f=1)",
                           "geometric_median", "clip(c=9) | mean"}) {
    for (const Scope scope : {Scope::whole, Scope::per_tensor}) {
      std::vector<std::string> bytes;
      std::vector<Report> reports;
      for (const std::uint64_t memory : {std::uint64_t{1} << 30, std::uint64_t{3} << 20}) {
        FileOptions options;
        options.options = on_cuda({.scope = scope});
        options.memory = memory;
        options.allow_nonfinite = std::string(text) == "mean";
        const auto output = folder.path() / "out.safetensors";
        reports = aggregate_files(parse(text), inputs, output, options).reports;
        bytes.push_back(read(output));
      }
      EXPECT_EQ(bytes[0], bytes[1]) << text << " depends on the windows";
      const auto output = folder.path() / "expected.safetensors";
      FileOptions on_cpu;
      on_cpu.options.scope = scope;
      on_cpu.allow_nonfinite = std::string(text) == "mean";
      const FileResult expected = aggregate_files(parse(text), inputs, output, on_cpu);
      if (std::string(text) == "median" || std::string(text) == "krum(f=1)") {
        EXPECT_EQ(bytes[0], read(output)) << text;
      }
      if (on_cpu.allow_nonfinite) {
        for (const bool on_device : {false, true}) {
          FileOptions refusing = on_cpu;
          if (on_device) refusing.options = on_cuda({.scope = scope});
          refusing.allow_nonfinite = false;
          const std::string says = message_of([&] { aggregate_files(parse(text), inputs, output, refusing); },
                                              Status::too_many_nonfinite);
          EXPECT_NE(says.find(inputs[2].filename().string() + " (1 value"), std::string::npos) << says;
        }
      }
      ASSERT_EQ(reports.size(), expected.reports.size());
      for (std::size_t k = 0; k < reports.size(); ++k) {
        for (std::size_t i = 0; i < reports[k].rows.size(); ++i) {
          EXPECT_EQ(reports[k].rows[i].nonfinite, expected.reports[k].rows[i].nonfinite) << text;
          EXPECT_NEAR(reports[k].rows[i].weight, expected.reports[k].rows[i].weight, 1e-9) << text;
        }
      }
    }
  }
}

}  // namespace
}  // namespace bragg::test
