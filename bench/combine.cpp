// SPDX-License-Identifier: Apache-2.0
// The pass that applies coefficients to rows: of all rows, and of one as krum's.
#include "host/cpu/passes.hpp"
#include "support.hpp"

namespace bragg::bench {

namespace {

void combine(benchmark::State& state, int used, int n, std::int64_t d, DType dtype) {
  const Shaped& shape = shaped(n, d, dtype);
  const detail::RowTable table = shape.table();
  detail::CpuPasses passes(n, 0);
  std::vector<double> coefficients(static_cast<std::size_t>(n), 0.0);
  for (int i = 0; i < used; ++i) coefficients[static_cast<std::size_t>(i)] = 1.0 / used;
  void* const target = shape.out.data();
  const detail::OutTable out{.dtype = dtype, .data = &target};
  measure(state, shape, {combine_work(used, d, dtype)},
          [&] { passes.combine(table, coefficients, out, {}); });
}

void register_rows() {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    for (const std::int64_t d : {100000, 1000000, 10000000}) {
      for (const int n : {8, 16, 32, 64, 128}) {
        if (n * d > 640000000 || (dtype != DType::f32 && n > 32)) continue;
        for (const int used : {n, 1}) {
          if (used == 1 && n != 16) continue;  // the others are not read
          benchmark::RegisterBenchmark(row_name(used == 1 ? "combine_one" : "combine", n, d, dtype).c_str(),
                                       combine, used, n, d, dtype)
              ->UseRealTime()
              ->Unit(benchmark::kMillisecond);
        }
      }
    }
  }
}

}  // namespace

}  // namespace bragg::bench

int main(int argc, char** argv) { return bragg::bench::run_program(argc, argv, bragg::bench::register_rows); }
