// SPDX-License-Identifier: Apache-2.0
// The points that pre-aggregators make, against the oracle's, on the backend under test.
#include <gtest/gtest.h>
#include <bragg/plan.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>

#include "host/verify/guarded_rows.hpp"
#include "tests/support/fixture.hpp"
#if defined(BRAGG_TEST_CUDA)
#include "host/verify/device_image.hpp"
#endif

namespace bragg::test {
namespace {

using verify::GuardedBuffer;
using verify::GuardedRows;
using verify::Layout;

struct Points {
  std::vector<std::vector<long double>> values;
  std::vector<Report> reports;
  std::optional<Error> error;
  std::string trespass;
  bool untouched = true;  ///< nothing was written to any output
};

/// One call of the library, every output between guard bytes and aligned in its own way.
Points run_points(const PreSequence& sequence, const Request& request) {
  GuardedRows rows(request.rows, request.dtype, request.layout, request.misalignment);
  std::optional<GuardedRows> reference;
  RunArguments arguments{.base = {}, .weights = request.weights};
  if (!request.reference.empty()) {
    reference.emplace(Rows{request.reference}, request.dtype, request.layout, 1);
    for (void* tensor : reference->tensors_of(reference->row(0))) arguments.base.tensors.push_back(tensor);
  }
  const DType out_dtype = verify::out_dtype(request);
  const auto count = static_cast<std::size_t>(points_after(sequence, static_cast<int>(request.rows.size())));
  std::vector<GuardedBuffer> buffers;
  std::vector<Output> outputs;
  for (std::size_t p = 0; p < count; ++p) {
    buffers.emplace_back(static_cast<std::size_t>(rows.d()) * size_of(out_dtype),
                         request.misalignment == 0 ? 0 : request.misalignment + p % 2);
  }
  for (GuardedBuffer& buffer : buffers) {
    unsigned char* at = buffer.data();
    Output& out = outputs.emplace_back();
    for (const std::int64_t size : rows.sizes()) {
      out.tensors.push_back(size > 0 ? at : nullptr);
      at += static_cast<std::size_t>(size) * size_of(out_dtype);
    }
  }

  Points points;
  try {
#if defined(BRAGG_TEST_CUDA)
    verify::DeviceImage image(nullptr);
    for (GuardedBuffer& buffer : rows.buffers()) image.add(buffer.whole());
    for (GuardedBuffer& buffer : buffers) image.add(buffer.whole());
    if (reference) {
      for (GuardedBuffer& buffer : reference->buffers()) image.add(buffer.whole());
    }
    for (Output& out : outputs) {
      for (void*& tensor : out.tensors) tensor = image.on_device(tensor);
    }
    for (const void*& tensor : arguments.base.tensors) tensor = image.on_device(tensor);
    const Updates host = rows.updates();
    std::vector<std::vector<const void*>> tensors(request.rows.size());
    for (int i = 0; i < host.n(); ++i) {
      for (std::size_t t = 0; t < host.sizes().size(); ++t) {
        tensors[static_cast<std::size_t>(i)].push_back(image.on_device(host.data(i, t)));
      }
    }
    const Updates updates = Updates::tensors(tensors, host.sizes(), request.dtype, MemorySpace::cuda);
    try {
      points.reports = pre_aggregate(sequence, updates, outputs, arguments, request.options);
    } catch (...) {
      image.fetch();
      throw;
    }
    image.fetch();
#else
    points.reports = pre_aggregate(sequence, rows.updates(), outputs, arguments, request.options);
#endif
  } catch (const Error& error) {
    points.error = error;
  }
  if (!rows.intact()) points.trespass = "inputs were written to";
  if (reference && !reference->intact()) points.trespass = "the reference was written to";
  for (GuardedBuffer& buffer : buffers) {
    if (!buffer.intact()) points.trespass = "bytes around an output were written to";
    const auto bytes = buffer.copy();
    points.untouched = points.untouched && std::all_of(bytes.begin(), bytes.end(), [](unsigned char byte) {
                         return byte == GuardedBuffer::pattern;
                       });
    auto& values = points.values.emplace_back();
    for (std::int64_t j = 0; j < rows.d(); ++j) {
      values.push_back(verify::load(out_dtype, buffer.data(), static_cast<std::size_t>(j)));
    }
  }
  return points;
}

/// Points of coordinates [first, first + size), all of them finite, are the oracle's.
void expect_part(const verify::Expectation::Part& part, std::int64_t size, const Request& request,
                 const Points& got) {
  ASSERT_EQ(part.result.points.size(), got.values.size());
  const Rows stored = verify::as_stored(request.rows, request.dtype);
  for (std::size_t p = 0; p < got.values.size(); ++p) {
    for (std::int64_t j = 0; j < size; ++j) {
      const auto at = static_cast<std::size_t>(part.first + j);
      // Every point is a convex combination of rows and the reference.
      long double largest = request.reference.empty() ? 0 : std::fabs(request.reference[at]);
      for (const auto& row : stored) {
        if (std::isfinite(row[at])) largest = std::max(largest, std::fabs(row[at]));
      }
      const long double expected = part.result.points[p][static_cast<std::size_t>(j)];
      const auto n = static_cast<int>(request.rows.size());
      verify::Accuracy accuracy = part.accuracy;
      accuracy.sum = verify::sum_error_of(request, true);
      const verify::Bound bound =
          verify::bound_of(request.dtype, verify::out_dtype(request), accuracy, n, expected, largest);
      ASSERT_LE(std::fabs(got.values[p][at] - expected), bound.total())
          << "point " << p << " at " << at << ": " << static_cast<double>(got.values[p][at]) << " for "
          << static_cast<double>(expected);
    }
  }
}

std::vector<PreSequence> sequences(int n, int f) {
  std::vector<PreSequence> all{Clip{.c = 1.5}, Arc{.f = f}, Nnm{.f = f}, Nnm{.f = f} | Clip{.c = 0.5},
                               Bucketing{.s = std::min(n, 2), .seed = 7}};
  if (n >= 5) all.push_back(Bucketing{.s = 2, .seed = 3} | Nnm{.f = 1});
  if (n >= 4) all.push_back(Clip{.c = 2} | Bucketing{.s = 3, .seed = 3} | Arc{.f = 0});
  return all;
}

using Parameters = std::tuple<DType, Layout>;
class PreAggregate : public testing::TestWithParam<Parameters> {};

TEST_P(PreAggregate, GivesTheOraclesPoints) {
  const auto [dtype, layout] = GetParam();
  Generator random = generator(std::string("points") + to_string(dtype) + name_of(layout));
  int judged = 0;
  int runs = 0;
  for (const int n : {1, 2, 5, 8, 17, 33, 40}) {
    for (const int f : {0, (n - 1) / 4, (n - 1) / 2}) {
      for (const PreSequence& sequence : sequences(n, f)) {
        for (const int d : {1, 77, 1100}) {
          if (random() % (8 * test_share()) != 0) continue;
          Request request{.rows = normal_rows(random, n, d, 0.5, 1.0), .dtype = dtype, .layout = layout};
          request.misalignment = (random() % 2) * (random() % 8);
          if (random() % 2 == 0) request.reference = normal_rows(random, 1, d, 0.3, 0.5)[0];
          if (random() % 2 == 0) request.options.scope = Scope::per_tensor;
          if (random() % 2 == 0 && size_of(dtype) == 2) request.options.out_dtype = DType::f32;
          const verify::Expectation expected = verify::expect({sequence.pre, Median{}}, request);
          ASSERT_EQ(expected.status, Status::ok);
#if defined(BRAGG_TEST_CUDA)
          request.options.device = Device::cuda;
#endif
          const Points got = run_points(sequence, request);
          ASSERT_FALSE(got.error) << got.error->what();
          ASSERT_EQ(got.trespass, "");
          ASSERT_EQ(got.reports.size(), expected.parts.size());
          ++runs;
          for (std::size_t k = 0; k < expected.parts.size(); ++k) {
            const verify::Expectation::Part& part = expected.parts[k];
            if (!part.clear) continue;
            const auto end = k + 1 < expected.parts.size() ? expected.parts[k + 1].first : d;
            SCOPED_TRACE(testing::Message() << to_string(Pipeline(sequence.pre, Median{})) << ", n " << n
                                            << ", d " << d << ", part " << k);
            expect_part(part, end - part.first, request, got);
            ++judged;
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
  EXPECT_TRUE(runs > 0 || test_share() > 1);
  EXPECT_GE(judged * 3, runs);
}

INSTANTIATE_TEST_SUITE_P(All, PreAggregate,
                         testing::Combine(testing::Values(DType::f32, DType::f16, DType::bf16, DType::f64),
                                          testing::Values(Layout::matrix, Layout::strided, Layout::rows,
                                                          Layout::tensors)),
                         [](const auto& one) {
                           return std::string(to_string(std::get<0>(one.param))) + "_" +
                                  name_of(std::get<1>(one.param));
                         });

Request small(int n, int d) {
  Generator random = generator("small");
  Request request{.rows = normal_rows(random, n, d, 0, 1)};
#if defined(BRAGG_TEST_CUDA)
  request.options.device = Device::cuda;
#endif
  return request;
}

constexpr long double nan = std::numeric_limits<long double>::quiet_NaN();
constexpr long double infinity = std::numeric_limits<long double>::infinity();

TEST(PreAggregates, KeepBadRowsOutOfGoodPoints) {
  Request request = small(7, 40);
  request.rows[2][5] = nan;
  request.rows[4][39] = -infinity;
  for (const PreSequence& sequence :
       {PreSequence(Nnm{.f = 2}), PreSequence(Clip{.c = 1}), PreSequence(Arc{.f = 2})}) {
    const Points got = run_points(sequence, request);
    ASSERT_FALSE(got.error) << got.error->what();
    for (const auto& point : got.values) {
      for (const long double x : point) EXPECT_TRUE(std::isfinite(x));
    }
    EXPECT_EQ(got.reports[0].rows[2].nonfinite, 1);
  }
  // Clipping makes the origin of a bad row.
  const Points clipped = run_points(Clip{.c = 1}, request);
  EXPECT_EQ(clipped.values[2], std::vector<long double>(40, 0));
}

TEST(PreAggregates, MakeInfinityOfABucketOfBadRows) {
  Request request = small(4, 33);
  request.rows[0][1] = nan;
  request.rows[1][2] = infinity;
  const Points got = run_points(Bucketing{.s = 2, .permutation = {1, 0, 3, 2}}, request);
  ASSERT_FALSE(got.error) << got.error->what();
  for (const long double x : got.values[0]) EXPECT_EQ(x, infinity);
  for (std::size_t j = 0; j < 33; ++j) {
    const auto a = static_cast<float>(request.rows[3][j]);
    const auto b = static_cast<float>(request.rows[2][j]);
    EXPECT_EQ(got.values[1][j], static_cast<float>((static_cast<double>(a) + b) / 2));
  }
}

TEST(PreAggregates, WriteNothingWhereTheDataDefeatsThem) {
  Request request = small(5, 1030);
  request.rows[0][0] = request.rows[3][1029] = nan;
  Points got = run_points(Nnm{.f = 1}, request);
  ASSERT_TRUE(got.error);
  EXPECT_EQ(got.error->status(), Status::too_many_nonfinite);
  EXPECT_TRUE(got.untouched);
  EXPECT_EQ(got.trespass, "");
  request.options.on_failure = OnFailure::zero;
  got = run_points(Nnm{.f = 1}, request);
  ASSERT_TRUE(got.error);
  EXPECT_EQ(got.trespass, "");
  for (const auto& point : got.values) EXPECT_EQ(point, std::vector<long double>(1030, 0));
}

TEST(PreAggregates, TakeNoCoordinates) {
  Request request = small(3, 1);
  for (auto& row : request.rows) row.clear();
  EXPECT_FALSE(run_points(Nnm{.f = 1}, request).error);
}

TEST(PreAggregates, RefuseWhatMakesNoSense) {
  const Request request = small(4, 10);
  const auto message = [](const Points& points) {
    return points.error ? std::string(points.error->what()) : std::string();
  };
  EXPECT_NE(message(run_points(PreSequence(), request)).find("no pre-aggregator"), std::string::npos);
  EXPECT_NE(message(run_points(Nnm{.f = 2}, request)).find("f = 2"), std::string::npos);
  Request weighted = request;
  weighted.weights = {1, 1, 1, 1};
  EXPECT_NE(message(run_points(Nnm{.f = 1}, weighted)).find("weights"), std::string::npos);
}

#if !defined(BRAGG_TEST_CUDA)
TEST(PreAggregates, RefuseOutputsThatOverlap) {
  std::vector<float> data(40);
  std::vector<float> room(40);
  const Updates updates = Updates::matrix(data.data(), 4, 10, DType::f32);
  const auto message = [&](const std::vector<Output>& out) {
    try {
      pre_aggregate(Nnm{.f = 1}, updates, out);
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::invalid_argument);
      return std::string(error.what());
    }
    return std::string();
  };
  float* const at = room.data();
  EXPECT_EQ(message({Output(at), Output(at + 10), Output(at + 20), Output(at + 30)}), "");
  EXPECT_NE(message({Output(at), Output(at + 10), Output(at + 20)}).find("3 outputs"), std::string::npos);
  EXPECT_NE(message({Output(at), Output(at + 10), Output(at + 19), Output(at + 30)})
                .find("out[1]: tensor 0 overlaps tensor 0 of out[2]"),
            std::string::npos);
  // A rule's output may be a row; a point may not, for other points are made of that row.
  EXPECT_NE(message({Output(at), Output(at + 10), Output(at + 20), Output(data.data() + 30)})
                .find("out[3]: tensor 0 overlaps tensor 0 of row 3; it has to lie apart"),
            std::string::npos);
  EXPECT_NE(message({Output(at), Output(at + 10), Output(at + 20), Output()}).find("out[3]"),
            std::string::npos);
}

TEST(PreAggregates, DoNotDependOnThreads) {
  const Request request = small(20, 70'001);
  Request alone = request;
  alone.options.threads = 1;
  Request shared = request;
  shared.options.threads = 3;
  for (const PreSequence& sequence : {PreSequence(Nnm{.f = 4}), PreSequence(Clip{.c = 1})}) {
    EXPECT_EQ(run_points(sequence, alone).values, run_points(sequence, shared).values);
  }
}
#endif

}  // namespace
}  // namespace bragg::test
