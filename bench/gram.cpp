// SPDX-License-Identifier: Apache-2.0
// The pass that makes inner products of all pairs of rows.
#include "host/cpu/passes.hpp"
#include "support.hpp"

namespace bragg::bench {

namespace {

void gram(benchmark::State& state, int n, std::int64_t d, DType dtype) {
  const Shaped& shape = shaped(n, d, dtype);
  const detail::RowTable table = shape.table();
  detail::CpuPasses passes(n, 0);
  detail::GramSums sums;
  measure(state, shape, {gram_work(n, d, dtype)}, [&] {
    sums.reset(n, true, 1);
    passes.gram(table, sums);
  });
}

void register_rows() {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    for (const std::int64_t d : {100000, 1000000, 10000000}) {
      for (const int n : {8, 16, 32, 64, 128}) {
        if (n * d > 640000000 || (dtype != DType::f32 && n > 32)) continue;
        benchmark::RegisterBenchmark(row_name("gram", n, d, dtype).c_str(), gram, n, d, dtype)
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
}

}  // namespace

}  // namespace bragg::bench

int main(int argc, char** argv) { return bragg::bench::run_program(argc, argv, bragg::bench::register_rows); }
