// SPDX-License-Identifier: Apache-2.0
#include "support.hpp"

#include <fmt/format.h>
#include <omp.h>

#include "host/bench/hardware.hpp"
#include "host/bench/threads.hpp"

namespace bragg::bench {

namespace {

std::size_t cache_bytes() { return static_cast<std::size_t>(this_hardware().cache_bytes); }

const Floors& floors() {
  static const Floors measured =
      measure_floors(omp_get_max_threads(), memory_beyond(cache_bytes()), cache_bytes(), 2);
  return measured;
}

}  // namespace

const Shaped& shaped(int n, std::int64_t d, DType dtype) {
  static Shaped shape;
  if (shape.n == n && shape.d == d && shape.dtype == dtype) return shape;
  shape = {};
  shape.n = n;
  shape.d = d;
  shape.dtype = dtype;
  shape.data = random_updates(n, d, dtype);
  const std::size_t row_bytes = static_cast<std::size_t>(d) * size_of(dtype);
  shape.out = Buffer(row_bytes);
  for (int i = 0; i < n; ++i)
    shape.rows.push_back(shape.data.data() + static_cast<std::size_t>(i) * row_bytes);
  const std::size_t read = std::min(shape.data.bytes(), floors().memory_bytes);
  shape.bandwidth =
      read_bandwidth(shape.data.data(), read, omp_get_max_threads(), cache_bytes(), 0.2).bytes_per_second;
  return shape;
}

void measure(benchmark::State& state, const Shaped& shape, const std::vector<PassWork>& passes,
             const std::function<void()>& call) {
  call();
  const double begin = omp_get_wtime();
  for ([[maybe_unused]] const auto once : state) call();
  const double seconds = (omp_get_wtime() - begin) / static_cast<double>(state.iterations());
  double bytes = 0;
  double floor = 0;
  for (const PassWork& work : passes) {
    bytes += work.bytes();
    floor += floor_of(work, floors().rates(shape.bandwidth)).seconds;
  }
  state.counters["GB_per_s"] = 1e-9 * bytes / seconds;
  state.counters["floor_share"] = floor / seconds;
}

int run_program(int argc, char** argv, const std::function<void()>& register_rows) {
  bind_threads(argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const Floors& f = floors();
  benchmark::AddCustomContext("commit", build_commit());
  benchmark::AddCustomContext("instruction_set", this_hardware().instruction_set);
  benchmark::AddCustomContext("threads", std::to_string(f.threads));
  benchmark::AddCustomContext("read_gb_per_s", fmt::format("{:.1f}", f.read / 1e9));
  benchmark::AddCustomContext("copy_gb_per_s", fmt::format("{:.1f}", f.copy / 1e9));
  benchmark::AddCustomContext("fma_f64_gflop_per_s", fmt::format("{:.1f}", 2 * f.fma_f64 / 1e9));
  benchmark::AddCustomContext("min_max_float_32_64_integer_16_gop_per_s",
                              fmt::format("{:.1f} {:.1f} {:.1f}", f.min_max_32.floats / 1e9,
                                          f.min_max_64.floats / 1e9, f.min_max_16.integers / 1e9));
  register_rows();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

std::string row_name(const std::string& rule, int n, std::int64_t d, DType dtype) {
  return fmt::format("{}/n:{}/d:{}/{}", rule, n, d, to_string(dtype));
}

}  // namespace bragg::bench
