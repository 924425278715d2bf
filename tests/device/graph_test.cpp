// SPDX-License-Identifier: Apache-2.0
// What only hardware can show: plans captured in CUDA graphs, where a replay is a run on whatever the buffers
// hold by then; rows of more than 2^31 coordinates; CUDA's own errors.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <bragg/plan.hpp>

#include <thread>

#include "kernels/runtime/check.hpp"
#include "tests/device/device_rows.hpp"
#include "tests/device/long_rows.hpp"
#include "tests/device/test_library.hpp"
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

/// What `enqueue` puts on the stream, as a graph that can be launched any number of times.
class Graph {
 public:
  template <class EnqueueF>
  Graph(detail::cuda::Stream stream, EnqueueF enqueue) {
    cudaGraph_t graph = nullptr;
    BRAGG_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    enqueue();
    BRAGG_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    BRAGG_CUDA_CHECK(cudaGraphInstantiate(&graph_, graph, 0));
    BRAGG_CUDA_CHECK(cudaGraphDestroy(graph));
  }
  ~Graph() { cudaGraphExecDestroy(graph_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(detail::cuda::Stream stream) const { BRAGG_CUDA_CHECK(cudaGraphLaunch(graph_, stream)); }

 private:
  cudaGraphExec_t graph_ = nullptr;
};

void fill(const DeviceArray<float>& device, const std::vector<float>& values, detail::cuda::Stream stream) {
  detail::cuda::copy_to_device(device.data(), values.data(), values.size() * sizeof(float), stream);
  detail::cuda::synchronize(stream);
}

void expect_replays(detail::cuda::GramUnit unit) {
  const detail::cuda::GramUnitScope by(unit);
  Generator random = generator("graphs");
  const int n = 16;
  const std::int64_t d = 100003;
  for (const char* text : {"median", "trimmed_mean(f=3)", "nnm(f=3) | trimmed_mean(f=3)", "geometric_median",
                           "krum(f=3)", "bulyan(f=3)", "caf(f=3)", "dnc(f=3)", "mean",
                           "bucketing(s=2, seed=7) | median", "centered_clipping(tau=3, iters=3)"}) {
    const DeviceArray<float> rows(std::vector<float>(static_cast<std::size_t>(n * d)));
    const DeviceArray<float> out(std::vector<float>(static_cast<std::size_t>(d)));
    const OwnStream stream;
    Options options;
    options.device = Device::cuda;
    Plan captured(parse(text), {.n = n, .sizes = {d}}, options);
    Plan plain(parse(text), {.n = n, .sizes = {d}}, options);
    const Updates updates = Updates::matrix(rows.data(), n, d, DType::f32, -1, MemorySpace::cuda);
    const Graph graph(stream.get(), [&] { captured.run(updates, Output(out.data()), stream.get()); });
    for (int replay = 0; replay < 3; ++replay) {
      std::vector<float> data = random_matrix(random, n, d);
      if (replay == 1) data[static_cast<std::size_t>(3 * d + 5)] = std::numeric_limits<float>::quiet_NaN();
      if (replay == 1 && std::string(text) == "mean") continue;
      fill(rows, data, stream.get());
      graph.launch(stream.get());
      ASSERT_EQ(captured.wait(stream.get()), Status::ok) << text;
      const std::vector<float> replayed = out.values();
      plain.run(updates, Output(out.data()), stream.get());
      ASSERT_EQ(plain.wait(stream.get()), Status::ok) << text;
      const std::vector<float> expected = out.values();
      EXPECT_EQ(std::memcmp(replayed.data(), expected.data(), expected.size() * sizeof(float)), 0)
          << text << ", replay " << replay;
      EXPECT_EQ(captured.report().rows[3].nonfinite, replay == 1 ? 1 : 0) << text;
    }
  }
}

TEST(Graphs, ReplayARunOnNewData) { expect_replays(detail::cuda::GramUnit::automatic); }

TEST(Graphs, ReplayCallsOfCublas) {
  if (!has_library()) GTEST_SKIP() << "there is no cuBLAS";
  expect_replays(detail::cuda::GramUnit::cublas);
}

TEST(Graphs, RefuseRulesThatSearchOnTheHost) {
  const DeviceArray<float> rows(std::vector<float>(64));
  const DeviceArray<float> out(std::vector<float>(8));
  for (const char* text : {"mda(f=1)", "smea(f=1)"}) {
    const OwnStream stream;
    Options options;
    options.device = Device::cuda;
    Plan plan(parse(text), {.n = 8, .sizes = {8}}, options);
    const Updates updates = Updates::matrix(rows.data(), 8, 8, DType::f32, -1, MemorySpace::cuda);
    Graph graph(stream.get(), [&] {
      try {
        plan.run(updates, Output(out.data()), stream.get());
        ADD_FAILURE() << text << " was captured";
      } catch (const Error& error) {
        EXPECT_EQ(error.status(), Status::unsupported) << error.what();
      }
    });
  }
}

TEST(Plans, CountCoordinatesInSixtyFourBits) {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  BRAGG_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));
  if (free_bytes < 10 * (std::size_t{1} << 30)) GTEST_SKIP() << "needs 10 GiB of device memory";
  Generator random = generator("long rows");
  const LongRows rows(random);
  const OwnStream stream;
  const detail::cuda::DeviceMemory data(2 * LongRows::elements), out(2 * LongRows::d);
  detail::cuda::set_bytes(data.data(), 0, data.bytes(), stream.get());
  auto* const elements = static_cast<std::uint16_t*>(data.data());
  for (const LongRows::Window& window : rows.windows()) {
    detail::cuda::copy_to_device(elements + window.begin, window.bits.data(), 2 * window.bits.size(),
                                 stream.get());
  }
  std::vector<const void*> addresses;
  for (int i = 0; i < LongRows::n; ++i) addresses.push_back(elements + 8 * i);
  const Updates updates = Updates::rows(addresses, LongRows::d, DType::f16, MemorySpace::cuda);
  for (const char* const text : {"median", "krum(f=1)", "nnm(f=1) | median"}) {
    Plan plan(parse(text), Shape::of(updates), {.device = Device::cuda});
    detail::cuda::set_bytes(out.data(), 0xFF, out.bytes(), stream.get());
    plan.run(updates, Output(out.data()), stream.get());
    ASSERT_EQ(plan.wait(stream.get()), Status::ok) << text;
    using Want = LongRowsJudge::Want;
    LongRowsJudge judge{elements, static_cast<const std::uint16_t*>(out.data()), Want::small};
    if (std::string_view(text) == "median") judge.want = Want::median;
    if (std::string_view(text) == "krum(f=1)") {
      judge.want = Want::row;
      while (!plan.report().rows.at(static_cast<std::size_t>(judge.row)).selected) ++judge.row;
    }
    EXPECT_EQ(first_wrong(judge, LongRows::d, stream.get()), LongRows::d) << text;
  }
}

/// A context that the driver was asked for is one that the runtime works in, and leaves nothing behind.
TEST(Devices, ArePushedAndPoppedInAnyThread) {
  std::thread([] {
    const int before = detail::cuda::current_device();
    for (int device = 0; device < detail::cuda::device_count(); ++device) {
      detail::cuda::push_device(device);
      EXPECT_EQ(detail::cuda::current_device(), device);
      {
        std::vector<unsigned char> host(64);
        const OwnStream stream;
        const DeviceArray<unsigned char> memory(std::vector<unsigned char>(64, 1));
        detail::cuda::set_bytes(memory.data(), 7, 64, stream.get());
        detail::cuda::copy_to_host(host.data(), memory.data(), 64, stream.get());
        detail::cuda::synchronize(stream.get());
        EXPECT_EQ(host, std::vector<unsigned char>(64, 7));
      }
      detail::cuda::pop_device();
      EXPECT_EQ(detail::cuda::current_device(), before);
    }
  }).join();
}

TEST(Errors, BecomeTheLibrarys) {
  try {
    BRAGG_CUDA_CHECK(cudaSetDevice(12345));
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::unsupported);
    const std::string message = error.what();
    EXPECT_NE(message.find("cudaSetDevice(12345)"), std::string::npos) << message;
    EXPECT_NE(message.find("graph_test.cpp:"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace bragg::test
