// SPDX-License-Identifier: Apache-2.0
#include "host/bench/device.hpp"

#if defined(BRAGG_HAS_CUDA)

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>

#include "host/bench/ceilings.hpp"
#include "host/bench/data.hpp"
#include "host/bench/device_products.hpp"
#include "host/bench/device_updates.hpp"
#include "host/plan/engine.hpp"
#include "kernels/common/sum_unit.hpp"
#include "kernels/gram/gram.hpp"
#include "kernels/runtime/check.hpp"
#include "kernels/runtime/runtime.hpp"
#include "rules/needs.hpp"

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
  double time(cuda::Stream stream, const EnqueueT& enqueue) {
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

/// The work that a call enqueues, as a graph that can be launched any number of times.
class Graph {
 public:
  template <class EnqueueT>
  Graph(cuda::Stream stream, const EnqueueT& enqueue) {
    cudaGraph_t graph = nullptr;
    BRAGG_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    enqueue();
    BRAGG_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
    const cudaError_t error = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    BRAGG_CUDA_CHECK(error);
  }
  ~Graph() { cudaGraphExecDestroy(graph_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(cuda::Stream stream) const { BRAGG_CUDA_CHECK(cudaGraphLaunch(graph_, stream)); }

 private:
  cudaGraphExec_t graph_ = nullptr;
};

std::size_t cache_bytes() {
  int bytes = 0;
  BRAGG_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, cuda::current_device()));
  return static_cast<std::size_t>(bytes);
}

constexpr int load_variants[] = {2, 4, 8};

/// The least milliseconds of `enqueue` in a number of batches.
template <class EnqueueT>
double least_ms(Stopwatch& watch, cuda::Stream stream, double seconds, const EnqueueT& enqueue) {
  const auto batch = [&](int calls) {
    return watch.time(stream, [&] {
      for (int k = 0; k < calls; ++k) enqueue();
    });
  };
  return time_batches(batch, {.seconds = seconds, .calls = 5, .few = 3}).ms.least;
}

/// Bytes a second at which `bytes` are read again and again.
double read_rate(Stopwatch& watch, cuda::Stream stream, const void* data, std::size_t bytes, double seconds,
                 int* best_loads = nullptr) {
  const cuda::DeviceMemory sink(4);
  double rate = 0;
  for (const int loads : load_variants) {
    const double ms = least_ms(watch, stream, seconds / 3, [&] {
      enqueue_read(data, bytes, loads, static_cast<std::uint32_t*>(sink.data()), stream);
    });
    const double found = 1e3 * static_cast<double>(bytes) / ms;
    if (found > rate && best_loads != nullptr) *best_loads = loads;
    rate = std::max(rate, found);
  }
  return rate;
}

void measure_memory(Floors& floors, Stopwatch& watch, cuda::Stream stream, double seconds) {
  const std::size_t bytes = floors.memory_bytes;
  const cuda::DeviceMemory from(bytes), to(bytes);
  cuda::set_bytes(from.data(), 1, bytes, stream);
  int loads = 0;
  floors.read = read_rate(watch, stream, from.data(), bytes, seconds / 2, &loads);
  floors.read_how = fmt::format("{} loads of 16 bytes a thread", loads);
  const auto take = [&](double ms, const std::string& how) {
    const double rate = 2e3 * static_cast<double>(bytes) / ms;
    if (rate <= floors.copy) return;
    floors.copy = rate;
    floors.copy_how = how;
  };
  take(least_ms(watch, stream, seconds / 8,
                [&] {
                  BRAGG_CUDA_CHECK(
                      cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, stream));
                }),
       "cudaMemcpyAsync within the device");
  for (const int count : load_variants) {
    take(least_ms(watch, stream, seconds / 8,
                  [&] { enqueue_copy(to.data(), from.data(), bytes, count, stream); }),
         fmt::format("{} loads of 16 bytes a thread", count));
  }
}

void measure_units(Floors& floors, Stopwatch& watch, cuda::Stream stream, double seconds) {
  const cuda::DeviceMemory sink(4);
  constexpr int units = 9;
  const auto rate = [&](DeviceUnit unit) {
    constexpr int steps = 2000;  // some hundred microseconds
    double operations = 0;
    const double ms = least_ms(watch, stream, seconds / units, [&] {
      operations = enqueue_unit(unit, steps, static_cast<std::uint32_t*>(sink.data()), stream);
    });
    return 1e3 * operations / ms;
  };
  floors.fma_f32 = rate(DeviceUnit::fma_f32);
  floors.fma_f64_single = rate(DeviceUnit::fma_f64);
  floors.fma_f64 = std::max(floors.fma_f64_single, rate(DeviceUnit::fma_f64_mma));
  const auto takes = [](cuda::GramUnit unit) {
    constexpr int few = cuda::least_double_float_rows;
    constexpr int many = 1000;
    const int device = cuda::current_device();
    return cuda::gram_unit(device, few) == unit || cuda::gram_unit(device, many) == unit;
  };
  if (takes(cuda::GramUnit::double_float)) {
    constexpr double operations = 10;  // of a product in pairs of floats (kernels/gram/double_float.cuh)
    floors.fma_f64 = std::max(floors.fma_f64, floors.fma_f32 / operations);
  }
  if (takes(cuda::GramUnit::int8)) {
    constexpr double operations = 26;  // of a product of digits (kernels/gram/int8.cuh)
    floors.fma_f64 = std::max(floors.fma_f64, rate(DeviceUnit::fma_int8_mma) / operations);
  }
  floors.min_max_16.floats = std::max(rate(DeviceUnit::min_max_f16), rate(DeviceUnit::min_max_bf16));
  floors.min_max_32.floats = rate(DeviceUnit::min_max_f32);
  floors.min_max_64.floats = rate(DeviceUnit::min_max_f64);
  floors.to_f64 = rate(DeviceUnit::to_f64);
}

void measure_launches(Floors& floors, Stopwatch& watch, cuda::Stream stream, double seconds) {
  constexpr int kernels = 64;
  const auto nothing = [&](int count) {
    for (int k = 0; k < count; ++k) enqueue_nothing(stream);
  };
  floors.launch_us = 1e3 * least_ms(watch, stream, seconds / 3, [&] { nothing(kernels); }) / kernels;
  const Graph one(stream, [&] { nothing(1); });
  const Graph many(stream, [&] { nothing(1 + kernels); });
  const double one_us = 1e3 * least_ms(watch, stream, seconds / 3, [&] { one.launch(stream); });
  const double many_us = 1e3 * least_ms(watch, stream, seconds / 3, [&] { many.launch(stream); });
  floors.graph_us = one_us;
  floors.node_us = std::max(many_us - one_us, 0.0) / kernels;
}

/// The passes of a run, derived from its first coordinates: the number of rows with weight, the number of
/// points and their mixing hardly depend on which coordinates are seen.
std::vector<PassWork> passes_on_device(const Case& one, const void* updates) {
  constexpr std::int64_t most = 4096;
  const std::int64_t d = std::min(one.size.d, most);
  const std::size_t row_bytes = static_cast<std::size_t>(one.size.d) * size_of(one.dtype);
  const std::size_t seen_bytes = static_cast<std::size_t>(d) * size_of(one.dtype);
  const auto n = static_cast<std::size_t>(one.n);
  std::vector<unsigned char> seen(n * seen_bytes);
  BRAGG_CUDA_CHECK(
      cudaMemcpy2D(seen.data(), seen_bytes, updates, row_bytes, seen_bytes, n, cudaMemcpyDeviceToHost));
  std::vector<const void*> rows;
  for (std::size_t i = 0; i < n; ++i) rows.push_back(seen.data() + i * seen_bytes);
  return passes_of(one.pipeline, one.n, one.size.d, one.dtype,
                   solution_of(one.pipeline, std::move(rows), d, one.dtype));
}

/// Milliseconds of the Gram pass by the thread's choice, whose products are compared.
double time_products(const Case& one, const void* updates, const Budget& budget, Stopwatch& watch,
                     cuda::Stream stream, FirstProducts& first, Row& row) {
  const DeviceProducts pass(updates, one.n, one.size.d, one.dtype, detail::takes_pairs(one.pipeline), stream);
  const auto run = [&](int calls) {
    return watch.time(stream, [&] {
      for (int k = 0; k < calls; ++k) pass.enqueue(stream);
    });
  };
  const double ms = time_batches(run, {.seconds = budget.seconds / 4, .calls = 5, .few = 3}).ms.median;
  const std::vector<double> products = pass.take(stream);
  std::vector<double>& expected = first.of(one.pipeline, one.n);
  if (expected.empty()) expected = products;
  row.gram_difference = share_of_bound(products, expected, one.n);
  return ms;
}

bool can_be_captured(const Pipeline& pipeline) { return !detail::searches_on_host(pipeline); }

}  // namespace

Floors measure_device_floors(std::string& name, double seconds) {
  const int device = cuda::current_device();
  name = fmt::format("{}, products by {}, sums in {}", cuda::device_name(device), cuda::gram_units(device),
                     to_string(cuda::sum_unit(device)));
  const cuda::OwnStream stream;
  Stopwatch watch;
  Floors floors{.memory_bytes = std::max(std::size_t{1} << 30, 16 * cache_bytes())};
  measure_memory(floors, watch, stream.get(), seconds / 2);
  measure_units(floors, watch, stream.get(), 3 * seconds / 8);
  measure_launches(floors, watch, stream.get(), seconds / 8);
  return floors;
}

std::shared_ptr<const void> updates_on_device(int n, std::int64_t d, DType dtype) {
  const std::size_t bytes = static_cast<std::size_t>(n) * static_cast<std::size_t>(d) * size_of(dtype);
  const auto memory = std::make_shared<cuda::DeviceMemory>(bytes);
  const cuda::OwnStream stream;
  enqueue_updates(memory->data(), n, d, dtype, stream.get());
  cuda::synchronize(stream.get());
  return {memory, memory->data()};
}

Row measure_on_device(const Case& one, const void* updates, const Budget& budget, FirstProducts& first) {
  const cuda::GramUnitScope by(cuda::gram_unit_of(one.gram.c_str()));
  const std::size_t row_bytes = static_cast<std::size_t>(one.size.d) * size_of(one.dtype);
  const std::size_t bytes = static_cast<std::size_t>(one.n) * row_bytes;
  const cuda::OwnStream stream;
  const cuda::DeviceMemory memory(row_bytes);
  const std::vector<std::int64_t> sizes = tensor_sizes(one.size);
  const Updates view = updates_at(updates, one.n, sizes, one.dtype, MemorySpace::cuda);
  const Output out = output_at(memory.data(), sizes, one.dtype);
  Plan plan(one.pipeline, Shape::of(view), {.device = Device::cuda});
  Stopwatch watch;
  Row row{.asked = one,
          .input_bytes = static_cast<double>(bytes),
          .in_cache = bytes + row_bytes <= cache_bytes()};
  if (row.in_cache) row.bandwidth = read_rate(watch, stream.get(), updates, bytes / 16 * 16, 0.02);
  const auto enqueue = [&] { plan.run(view, out, stream.get()); };
  const auto run = [&](int calls) {
    return watch.time(stream.get(), [&] {
      for (int k = 0; k < calls; ++k) enqueue();
    });
  };
  row.timing = time_batches(run, budget);
  if (can_be_captured(one.pipeline)) {
    const Graph graph(stream.get(), enqueue);
    const auto replay = [&](int calls) {
      return watch.time(stream.get(), [&] {
        for (int k = 0; k < calls; ++k) graph.launch(stream.get());
      });
    };
    row.graph_ms = time_batches(replay, {.seconds = budget.seconds / 4, .calls = 5, .few = 3}).ms.median;
  }
  if (const Status status = plan.wait(stream.get()); status != Status::ok) {
    row.note = fmt::format("ended with {}", to_string(status));
  }
  row.extra_memory = static_cast<double>(plan.workspace_bytes());
  const std::vector<PassWork> passes = passes_on_device(one, updates);
  for (const PassWork& work : passes) {
    // By itself only where there is nothing else.
    auto ms = passes.size() == 1 ? std::optional(row.timing.ms.median) : std::nullopt;
    if (work.name == "gram" && !one.gram.empty()) {
      ms = time_products(one, updates, budget, watch, stream.get(), first, row);
    }
    row.passes.push_back({.work = work, .floor = {}, .ms = ms});
    if (!work.note.empty()) row.note += (row.note.empty() ? "" : "; ") + work.note;
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

std::shared_ptr<const void> updates_on_device(int, std::int64_t, DType) { refuse(); }

Row measure_on_device(const Case&, const void*, const Budget&, FirstProducts&) { refuse(); }

}  // namespace bragg::bench

#endif
