// SPDX-License-Identifier: Apache-2.0
// The pass of the coordinate-wise rules, on rows and on mixtures of them as nnm's.
#include "host/cpu/passes.hpp"
#include "support.hpp"

namespace bragg::bench {

namespace {

using detail::SelectRule;

struct Rule {
  const char* name;
  SelectRule::Kind kind;
  bool mixed;
};

constexpr Rule rules[] = {{"median", SelectRule::Kind::median, false},
                          {"trimmed_mean", SelectRule::Kind::trimmed_mean, false},
                          {"meamed", SelectRule::Kind::closest_to_median, false},
                          {"mix_trimmed_mean", SelectRule::Kind::trimmed_mean, true}};

/// Means of n−f rows, as nnm makes them: coefficients, [point][row].
std::vector<double> mixture_of(int n, int f) {
  std::vector<double> mix(static_cast<std::size_t>(n) * static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < n - f; ++k) mix[static_cast<std::size_t>(i * n + (i + k) % n)] = 1.0 / (n - f);
  }
  return mix;
}

void select(benchmark::State& state, Rule kind, int n, std::int64_t d, DType dtype) {
  const Shaped& shape = shaped(n, d, dtype);
  const int f = n / 5;
  const detail::RowTable table = shape.table();
  detail::CpuPasses passes(n, 0);
  const SelectRule rule{.kind = kind.kind, .f = f, .keep = n - f};
  std::vector<int> rows;
  for (int i = 0; i < n; ++i) rows.push_back(i);
  const std::vector<double> mix = mixture_of(n, f);
  detail::PointTable points;
  points.count = n;
  points.rows = rows;
  if (kind.mixed) points.mix = mix;
  void* const target = shape.out.data();
  const detail::OutTable out{.dtype = dtype, .data = &target};
  const double mixing = mixing_work(n, n, static_cast<double>(n) * (n - f), true);
  const PassWork work =
      kind.mixed ? mix_select_work(rule, n, n, mixing, d, dtype) : select_work(rule, n, d, dtype);
  measure(state, shape, {work}, [&] { passes.select(table, rule, points, out, {}); });
}

void register_rows() {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    for (const std::int64_t d : {100000, 1000000, 10000000}) {
      for (const int n : {8, 16, 32, 64, 128}) {
        if (n * d > 640000000 || (dtype != DType::f32 && n > 32)) continue;
        for (const Rule& rule : rules) {
          benchmark::RegisterBenchmark(row_name(rule.name, n, d, dtype).c_str(), select, rule, n, d, dtype)
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
