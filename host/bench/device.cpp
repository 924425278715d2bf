// SPDX-License-Identifier: Apache-2.0
#include "host/bench/device.hpp"

#if defined(BRAGG_HAS_CUDA)

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>

#include "host/cuda/check.hpp"
#include "host/cuda/runtime.hpp"
#include "host/solve/sequence.hpp"

namespace bragg::bench {

namespace {

namespace cuda = detail::cuda;

/// The time between two places in a stream's work.
class Stopwatch {
 public:
  Stopwatch() {
    BRAGG_CUDA_CHECK(cudaEventCreate(&start_));
    BRAGG_CUDA_CHECK(cudaEventCreate(&stop_));
  }
  ~Stopwatch() {
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  /// Milliseconds that the device takes for what `enqueue` gives it. Waits.
  template <class EnqueueT>
  double time(Stream stream, const EnqueueT& enqueue) {
    BRAGG_CUDA_CHECK(cudaEventRecord(start_, stream));
    enqueue();
    BRAGG_CUDA_CHECK(cudaEventRecord(stop_, stream));
    BRAGG_CUDA_CHECK(cudaEventSynchronize(stop_));
    float ms = 0;
    BRAGG_CUDA_CHECK(cudaEventElapsedTime(&ms, start_, stop_));
    return ms;
  }

 private:
  cudaEvent_t start_ = nullptr, stop_ = nullptr;
};

/// Rows with weight are read once more by the second pass.
std::vector<PassWork> passes_on_device(const Case& one, const Report& report) {
  std::vector<PassWork> passes;
  const detail::PassNeeds needs = detail::needs_of(one.pipeline);
  const int rows = one.n + (is_stateful(one.pipeline) ? 1 : 0);
  if (needs.products) {
    passes.push_back(gram_work(rows, one.size.d, one.dtype));
  } else if (needs.statistics) {
    passes.push_back(statistics_work(rows, one.size.d, one.dtype));
  }
  const auto used = std::count_if(report.rows.begin(), report.rows.end(),
                                  [](const RowReport& row) { return row.weight != 0; });
  passes.push_back(combine_work(static_cast<int>(used), one.size.d, one.dtype));
  if (is_stateful(one.pipeline)) passes.back().bytes_written *= 2;  // the output is kept
  const Aggregator& rule = one.pipeline.rule;
  const bool combines = std::holds_alternative<Mean>(rule) ||
                        (detail::is_geometric(rule) && !std::holds_alternative<Bulyan>(rule));
  if (!combines) passes.back().name = one.pipeline.pre.empty() ? "select" : "mix+select";
  return passes;
}

}  // namespace

Floors measure_device_floors(std::string& name, double seconds) {
  name = cuda::device_name(cuda::current_device());
  constexpr std::size_t bytes = std::size_t{1} << 30;
  const cuda::DeviceMemory from(bytes), to(bytes);
  const cuda::OwnStream stream;
  Stopwatch watch;
  const auto copy = [&](int calls) {
    return watch.time(stream.get(), [&] {
      for (int k = 0; k < calls; ++k) {
        BRAGG_CUDA_CHECK(
            cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, stream.get()));
      }
    });
  };
  cuda::set_bytes(from.data(), 1, bytes, stream.get());
  const Timing timing = time_batches(copy, {.seconds = seconds});
  return {.memory_bytes = bytes,
          .copy = 2e3 * static_cast<double>(bytes) / timing.ms.least,
          .copy_how = "cudaMemcpyAsync within the device"};
}

Row measure_on_device(const Case& one, const unsigned char* updates, const Budget& budget,
                      const std::function<void()>& poll) {
  const std::size_t row_bytes = static_cast<std::size_t>(one.size.d) * size_of(one.dtype);
  const std::size_t bytes = static_cast<std::size_t>(one.n) * row_bytes;
  const cuda::OwnStream stream;
  const cuda::DeviceMemory data(bytes), out(row_bytes);
  cuda::copy_to_device(data.data(), updates, bytes, stream.get());
  const Updates view = Updates::matrix(data.data(), one.n, one.size.d, one.dtype, -1, MemorySpace::cuda);
  Plan plan(one.pipeline, Shape::of(view), {.device = Device::cuda});
  Stopwatch watch;
  Row row{.asked = one, .input_bytes = static_cast<double>(bytes)};
  const auto run = [&](int calls) {
    return watch.time(stream.get(), [&] {
      for (int k = 0; k < calls; ++k) plan.run(view, Output(out.data()), stream.get());
    });
  };
  row.timing = time_batches(run, budget, poll);
  if (const Status status = plan.status(stream.get()); status != Status::ok) {
    row.note = fmt::format("ended with {}", to_string(status));
  }
  row.extra_memory = static_cast<double>(plan.workspace_bytes());
  for (const PassWork& work : passes_on_device(one, plan.report())) {
    row.passes.push_back({.work = work, .floor = {}, .ms = {}});
  }
  return row;
}

}  // namespace bragg::bench

#else

namespace bragg::bench {

namespace {

[[noreturn]] void refuse() {
  throw Error(Status::unsupported, "device = cuda: bragg was built without CUDA");
}

}  // namespace

Floors measure_device_floors(std::string&, double) { refuse(); }

Row measure_on_device(const Case&, const unsigned char*, const Budget&, const std::function<void()>&) {
  refuse();
}

}  // namespace bragg::bench

#endif
