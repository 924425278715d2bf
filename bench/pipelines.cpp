// SPDX-License-Identifier: Apache-2.0
// Plan::run for whole pipelines. `bragg bench` says more of each.
#include <bragg/bragg.hpp>

#include "host/bench/cases.hpp"
#include "host/plan/engine.hpp"
#include "support.hpp"

namespace bragg::bench {

namespace {

/// What the solve of a run finds decides what the second pass has to do.
std::vector<PassWork> work_of(const Case& one, const Shaped& shape) {
  detail::Engine engine(one.pipeline, one.n, {});
  detail::ActiveRows active;
  detail::set_active_rows({}, one.n, 0, active);
  std::vector<const void*> rows = shape.rows;
  rows.push_back(nullptr);  // the origin
  const detail::RowTable table{.dtype = one.dtype,
                               .reference_dtype = one.dtype,
                               .inputs = one.n,
                               .rows = one.n + 1,
                               .sizes = {&shape.d, 1},
                               .data = rows.data()};
  engine.begin(active, false, false, 0);
  detail::GramSums sums;
  if (engine.needs_statistics()) {
    engine.reset(sums);
    do {
      engine.accumulate(table, sums);
    } while (!engine.settled(sums));
  }
  detail::Solution solution;
  engine.solve(sums, solution);
  return passes_of(one.pipeline, one.n, shape.d, one.dtype, solution);
}

void pipeline(benchmark::State& state, const Case& one) {
  const Shaped& shape = shaped(one.n, one.size.d, one.dtype);
  const Updates updates = Updates::matrix(shape.data.data(), one.n, one.size.d, one.dtype);
  Plan plan(one.pipeline, Shape::of(updates));
  measure(state, shape, work_of(one, shape), [&] { plan.run(updates, Output(shape.out.data())); });
}

void register_rows() {
  for (const Case& one : cases_of(preset_of("readme").blocks)) {
    const std::string name = row_name(to_string(one.pipeline), one.n, one.size.d, one.dtype);
    benchmark::RegisterBenchmark(name.c_str(), [one](benchmark::State& state) { pipeline(state, one); })
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace

}  // namespace bragg::bench

int main(int argc, char** argv) { return bragg::bench::run_program(argc, argv, bragg::bench::register_rows); }
