// SPDX-License-Identifier: Apache-2.0
// Plan::run for whole pipelines. `bragg bench` says more of each.
#include <bragg/bragg.hpp>

#include "host/bench/cases.hpp"
#include "support.hpp"

namespace bragg::bench {

namespace {

void pipeline(benchmark::State& state, const Case& one) {
  const Shaped& shape = shaped(one.n, one.size.d, one.dtype);
  const Updates updates = Updates::matrix(shape.data.data(), one.n, one.size.d, one.dtype);
  Plan plan(one.pipeline, Shape::of(updates));
  // What the solve of a run finds decides what the second pass has to do.
  const std::vector<PassWork> work = passes_of(one.pipeline, one.n, shape.d, one.dtype,
                                               solution_of(one.pipeline, shape.rows, shape.d, one.dtype));
  measure(state, shape, work, [&] { plan.run(updates, Output(shape.out.data())); });
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
