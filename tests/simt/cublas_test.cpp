// SPDX-License-Identifier: Apache-2.0
// Products by cuBLAS, whose double holds calls to what cuBLAS asks (tests/support/fake_cublas): what plans
// make of it, and that the double would notice.
#include <cublas_v2.h>
#include <gtest/gtest.h>
#include <bragg/bragg.hpp>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <set>
#include <stdexcept>
#include <utility>

#include "kernels/gram/gram.hpp"
#include "tests/device/device_rows.hpp"
#include "tests/device/test_library.hpp"
#include "tests/simt/simt_executor.hpp"
#include "tests/support/failure.hpp"
#include "tests/support/fake_cublas/fake_cublas.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

using detail::cuda::Blas;
using detail::cuda::DeviceMemory;
using detail::cuda::GramUnit;
using detail::cuda::GramUnitScope;
using detail::cuda::OwnStream;

TEST(Cublas, AHandleIsMadeWithThePlanAndGoesWithIt) {
  const GramUnitScope by(GramUnit::cublas);
  constexpr int n = 9;
  constexpr std::int64_t d = 3000;
  Generator random = generator("handles");
  std::vector<float> values(n * d);
  for (float& x : values) x = std::normal_distribution<float>(0, 1)(random);
  const DeviceArray<float> rows(values), out{std::vector<float>(d)};
  const Updates updates = Updates::matrix(rows.data(), n, d, DType::f32, -1, MemorySpace::cuda);
  const OwnStream stream;
  const int there = fake_cublas::handles_there();
  {
    Plan plan(parse("krum(f=2)"), {.n = n, .sizes = {d}}, {.device = Device::cuda});
    EXPECT_EQ(fake_cublas::handles_there(), there + 1);
    const int made = fake_cublas::handles_made();
    const int calls = fake_cublas::calls();
    std::vector<double> first;
    for (int run = 0; run < 3; ++run) {
      plan.run(updates, Output(out.data()), stream.get());
      ASSERT_EQ(plan.wait(stream.get()), Status::ok);
      std::vector<double> scores;
      for (const RowReport& row : plan.report().rows) scores.push_back(row.score);
      if (run == 0) first = scores;
      EXPECT_EQ(scores, first) << "the same bits each time";
    }
    EXPECT_EQ(fake_cublas::calls(), calls + 3) << "once a run: the pass about a centre is not cuBLAS'";
    EXPECT_EQ(fake_cublas::handles_made(), made);
  }
  EXPECT_EQ(fake_cublas::handles_there(), there);
  for (const char* const without_pairs : {"median", "cge(f=2)", "mean"}) {
    const Plan plan(parse(without_pairs), {.n = n, .sizes = {d}}, {.device = Device::cuda});
    EXPECT_EQ(fake_cublas::handles_there(), there) << without_pairs;
  }
}

/// A run in lent memory touches nothing else of the device's, so a graph of it can be replayed.
TEST(Cublas, ALentWorkspaceHasRoomForIt) {
  constexpr int n = 40;
  constexpr std::int64_t d = 5000;
  std::size_t bytes[2] = {};
  for (const GramUnit unit : {GramUnit::tensor, GramUnit::cublas}) {
    const GramUnitScope by(unit);
    const std::size_t found = Plan(parse("nnm(f=9) | krum(f=9)"), {.n = n, .sizes = {d}},
                                   {.device = Device::cuda, .lent_workspace = true})
                                  .workspace_bytes();
    bytes[unit == GramUnit::cublas ? 1 : 0] = found;
  }
  const Blas blas;
  // At least 32 matrices, their products, and what cuBLAS wants.
  EXPECT_GE(bytes[1], bytes[0] + blas.workspace_bytes() + 32 * 8 * (std::size_t{n} * 1024 + n * n));
}

TEST(Cublas, WhatIsWrongWithItIsSaidWhenAPlanIsMade) {
  const GramUnitScope by(GramUnit::cublas);
  const auto make = [] { Plan(parse("krum(f=1)"), {.n = 8, .sizes = {9}}, {.device = Device::cuda}); };
  fake_cublas::set_major_version(12);
  EXPECT_EQ(message_of(make, Status::unsupported),
            "BRAGG_GRAM=cublas: the library is cuBLAS 12.1.0, bragg was built for 13.x");
  fake_cublas::set_major_version(13);
  fake_cublas::refuse_next_handle();
  EXPECT_EQ(message_of(make, Status::unsupported), "cuBLAS: CUBLAS_STATUS_NOT_INITIALIZED from cublasCreate");
  ::setenv("CUBLAS_EMULATE_DOUBLE_PRECISION", "1", 1);
  EXPECT_EQ(
      message_of(make, Status::unsupported).find("BRAGG_GRAM=cublas: CUBLAS_EMULATE_DOUBLE_PRECISION=1"), 0U);
  ::setenv("CUBLAS_EMULATE_DOUBLE_PRECISION", "0", 1);
  make();
  ::unsetenv("CUBLAS_EMULATE_DOUBLE_PRECISION");
  make();
  EXPECT_EQ(detail::cuda::cublas_of_build(), "13.1");
}

TEST(Cublas, IsNotForgottenByWhoAsksForIt) {
  DeviceRows data({.inputs = 5, .sizes = {100}}, [](int row, std::int64_t) { return row; });
  const DeviceArray<double> products(std::vector<double>(25));
  const DeviceMemory partial(8 * detail::cuda::gram_partial_doubles(5, 1));
  detail::cuda::GramArguments arguments{.rows = data.rows(),
                                        .chunks = data.cut(1024),
                                        .parts = {},
                                        .partial = static_cast<double*>(partial.data()),
                                        .batch = 1,
                                        .products = products.data(),
                                        .unit = GramUnit::cublas};
  EXPECT_EQ(message_of([&] { detail::cuda::gram(arguments, nullptr); }, Status::internal),
            "products by cuBLAS without a handle of it");
  const int calls = fake_cublas::calls();
  const TestLibrary library(arguments);
  detail::cuda::gram(arguments, nullptr, library.get());
  EXPECT_EQ(fake_cublas::calls(), calls + 1);
  EXPECT_EQ(products.values()[5 * 3 + 4], 100.0 * 3 * 4);
  // Where a part may be left alone, and about a centre, others compute.
  const DeviceArray<int> skip(std::vector<int>(1));
  arguments.skip = skip.data();
  detail::cuda::gram(arguments, nullptr, library.get());
  arguments.skip = nullptr;
  arguments.center = detail::cuda::Center::row;
  detail::cuda::gram(arguments, nullptr, library.get());
  arguments.center = detail::cuda::Center::none;
  arguments.pairs = false;
  detail::cuda::gram(arguments, nullptr, library.get());
  EXPECT_EQ(fake_cublas::calls(), calls + 1);
}

/// A chunk of 64 places, of which cuBLAS takes 32 at a time; a tail; and a scale, which f64 rows are
/// multiplied by.
TEST(Cublas, AddsUpThePlacesOfLongChunks) {
  constexpr std::int64_t d = 70000;
  constexpr int n = 3;
  constexpr std::int64_t chunk = 65536;
  const DeviceArray<double> scale(std::vector<double>{0.25});
  for (const DType dtype : {DType::f32, DType::f64}) {
    DeviceRows data({.dtype = dtype, .inputs = n, .sizes = {d}},
                    [](int row, std::int64_t k) -> long double { return (k * (row + 3)) % 11 - 5; });
    const DeviceArray<double> products(std::vector<double>(n * n));
    const DeviceMemory partial(8 * detail::cuda::gram_partial_doubles(n, 2));
    const detail::cuda::GramArguments arguments{.rows = data.rows(),
                                                .chunks = data.cut(chunk),
                                                .parts = {},
                                                .partial = static_cast<double*>(partial.data()),
                                                .batch = 2,
                                                .products = products.data(),
                                                .scale = dtype == DType::f64 ? scale.data() : nullptr,
                                                .unit = GramUnit::cublas};
    const TestLibrary library(arguments);
    const int calls = fake_cublas::calls();
    detail::cuda::gram(arguments, nullptr, library.get());
    EXPECT_EQ(fake_cublas::calls(), calls + 2 * 64 / 32);
    const std::vector<double> found = products.values();
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        long double sum = 0;
        for (std::size_t k = 0; k < d; ++k)
          sum += data.values[data.slot(0, i)][k] * data.values[data.slot(0, j)][k];
        if (dtype == DType::f64) sum /= 16;
        EXPECT_EQ(found[static_cast<std::size_t>(i * n + j)], sum)
            << i << ", " << j;  // integers: exact in any order
      }
    }
  }
}

/// What cuBLAS makes of infinities is its own affair: it never sees one, and they are counted all the same.
TEST(Cublas, SeesNoValueThatIsNotFinite) {
  constexpr int n = 4;
  constexpr std::int64_t d = 1500;
  const auto infinity = std::numeric_limits<long double>::infinity();
  for (const auto alignment : {detail::cuda::Alignment::vector, detail::cuda::Alignment::byte}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
      DeviceRows data({.dtype = dtype, .inputs = n, .sizes = {d}, .alignment = alignment},
                      [&](int row, std::int64_t k) -> long double {
                        if (row != 1 || k % 100 != 7) return row + 1;
                        return k % 3 == 0   ? std::numeric_limits<long double>::quiet_NaN()
                               : k % 3 == 1 ? infinity
                                            : -infinity;
                      });
      const DeviceArray<double> products(std::vector<double>(n * n));
      const std::vector<unsigned long long> zeros(n);
      const DeviceArray<unsigned long long> nonfinite(zeros), max_abs(zeros);
      const DeviceMemory partial(8 * detail::cuda::gram_partial_doubles(n, 2));
      const detail::cuda::GramArguments arguments{.rows = data.rows(),
                                                  .chunks = data.cut(1024),
                                                  .parts = {},
                                                  .partial = static_cast<double*>(partial.data()),
                                                  .batch = 2,
                                                  .products = products.data(),
                                                  .nonfinite = nonfinite.data(),
                                                  .max_abs = max_abs.data(),
                                                  .unit = GramUnit::cublas};
      const TestLibrary library(arguments);
      detail::cuda::gram(arguments, nullptr, library.get());
      EXPECT_EQ(nonfinite.values(), (std::vector<unsigned long long>{0, 15, 0, 0}));
      const std::vector<double> found = products.values();
      for (int i = 0; i < n; ++i) {
        for (int j = 0; j < n; ++j) {
          const auto count = static_cast<double>(i == 1 || j == 1 ? d - 15 : d);
          EXPECT_EQ(found[static_cast<std::size_t>(i * n + j)], count * (i + 1) * (j + 1)) << i << ", " << j;
        }
      }
      if (dtype == DType::f64) {
        EXPECT_EQ(max_abs.values()[1], std::bit_cast<std::uint64_t>(2.0));
      }
    }
  }
}

/// The double itself: a call that is right in all but one thing.
class Call {
 public:
  Call() : data(2 * 3 * 64 * 8), out(2 * 9 * 8), workspace(std::size_t{32} << 20) {
    detail::cuda::set_bytes(data.data(), 0, data.bytes(), nullptr);
    EXPECT_EQ(cublasCreate_v2(&handle), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasSetMathMode(handle, CUBLAS_PEDANTIC_MATH), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasSetStream_v2(handle, stream.get()), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasSetWorkspace_v2(handle, workspace.data(), workspace.bytes()), CUBLAS_STATUS_SUCCESS);
  }
  ~Call() { cublasDestroy_v2(handle); }

  cublasStatus_t make() const {
    const double one = 1;
    const double zero = 0;
    return cublasDgemmStridedBatched(handle, CUBLAS_OP_T, transb, 3, 3, depth, &one, rows(), ld, stride,
                                     rows(), ld, stride, &zero, to != nullptr ? to : products(), ldc,
                                     stride_c, count);
  }
  std::string failure() const {
    try {
      make();
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "it was let pass";
  }
  const double* rows() const { return static_cast<const double*>(data.data()); }
  double* products() const { return static_cast<double*>(out.data()); }

  const DeviceMemory data, out, workspace;
  const OwnStream stream;
  cublasHandle_t handle = nullptr;
  cublasOperation_t transb = CUBLAS_OP_N;
  int depth = 64, ld = 64, ldc = 3, count = 2;
  long long stride = 3 * 64, stride_c = 9;
  double* to = nullptr;
};

TEST(CublasDouble, LetsNothingPassThatCublasMayRefuseOrDoWrong) {
  EXPECT_EQ(Call().make(), CUBLAS_STATUS_SUCCESS);
  const auto status = [](const std::function<void(Call&)>& spoil) {
    Call call;
    spoil(call);
    return call.make();
  };
  const auto failure = [](const std::function<void(Call&)>& spoil) {
    Call call;
    spoil(call);
    return call.failure();
  };
  const auto says = [](const std::string& text, const char* words) {
    EXPECT_NE(text.find(words), std::string::npos) << text;
  };
  EXPECT_EQ(status([](Call& c) { c.ld = 63; }), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(status([](Call& c) { c.ldc = 2; }), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(status([](Call& c) { c.count = -1; }), CUBLAS_STATUS_INVALID_VALUE);
  says(failure([](Call& c) { c.transb = CUBLAS_OP_T; }), "not");
  says(failure([](Call& c) { c.stride_c = 8; }), "overlap");
  says(failure([](Call& c) { c.count = 3; }), "leaves device memory");
  says(failure([](Call& c) { c.stride = 3 * 64 + 1; }), "leaves device memory");
  says(failure([](Call& c) { c.to = static_cast<double*>(c.data.data()); }), "overlap");
  says(failure([](Call& c) { c.to = static_cast<double*>(c.workspace.data()); }), "workspace");
  says(failure([](Call& c) { c.to = reinterpret_cast<double*>(static_cast<char*>(c.out.data()) + 4); }),
       "aligned");
  says(failure([](Call& c) { cublasSetMathMode(c.handle, CUBLAS_DEFAULT_MATH); }), "standard");
  // A stream that is set makes it forget the workspace.
  says(failure([](Call& c) { cublasSetStream_v2(c.handle, c.stream.get()); }), "workspace");
  says(failure([](Call& c) { cublasSetWorkspace_v2(c.handle, c.workspace.data(), 1 << 20); }), "workspace");
  {
    Call call;
    const cublasHandle_t live = std::exchange(call.handle, nullptr);
    says(call.failure(), "handle");
    call.handle = live;
    EXPECT_EQ(cublasSetWorkspace_v2(live, static_cast<char*>(call.workspace.data()) + 8, 4096),
              CUBLAS_STATUS_INVALID_VALUE);
    alignas(256) char host[4096];
    EXPECT_THROW(cublasSetWorkspace_v2(live, host, sizeof(host)), std::runtime_error);
    EXPECT_THROW(cublasSetStream_v2(live, reinterpret_cast<cudaStream_t>(&call)), std::exception);
  }
  if (detail::simt::hooks) {
    const DeviceMemory unwritten(2 * 3 * 64 * 8);
    Call call;
    const double one = 1;
    const double zero = 0;
    const auto* const rows = static_cast<const double*>(unwritten.data());
    EXPECT_THROW(cublasDgemmStridedBatched(call.handle, CUBLAS_OP_T, CUBLAS_OP_N, 3, 3, 64, &one, rows, 64,
                                           192, rows, 64, 192, &zero, call.products(), 3, 9, 2),
                 std::runtime_error);
  }
}

/// Its sums are as different as cuBLAS' may be: equal rows need not be at distance 0.
TEST(CublasDouble, AddsUpInAnotherOrderInEachTile) {
  constexpr int n = 40;
  constexpr int depth = 200;
  Generator random = generator("tiles");
  std::vector<double> row(depth);
  for (double& x : row) x = std::normal_distribution<double>(0, 1)(random);
  std::vector<double> all;
  for (int i = 0; i < n; ++i) all.insert(all.end(), row.begin(), row.end());
  const DeviceArray<double> rows(all);
  const DeviceArray<double> products(std::vector<double>(n * n));
  const Blas blas;
  const DeviceMemory workspace(blas.workspace_bytes());
  const OwnStream stream;
  blas.enqueue({.rows = rows.data(),
                .n = n,
                .depth = depth,
                .count = 1,
                .products = products.data(),
                .workspace = workspace.data()},
               stream.get());
  const std::vector<double> found = products.values();
  long double square = 0;
  for (const double x : row) square += static_cast<long double>(x) * x;
  for (const double x : found) {
    EXPECT_LE(std::fabs(x - square), (depth + 1) * 0x1p-53L * square);
  }
  EXPECT_GT(std::set(found.begin(), found.end()).size(), 1U);
}

}  // namespace
}  // namespace bragg::test
