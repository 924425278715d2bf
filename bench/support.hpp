// SPDX-License-Identifier: Apache-2.0
// What the programs share: data, the machine's floors, and what is said of a row.
#pragma once

#include <benchmark/benchmark.h>

#include <bragg/updates.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "host/bench/data.hpp"
#include "host/bench/floors.hpp"
#include "host/bench/work.hpp"
#include "host/cpu/passes.hpp"

namespace bragg::bench {

/// Updates and room for a result. Those of the last shape are kept: programs go through rules shape by shape.
struct Shaped {
  int n = 0;
  std::int64_t d = 0;
  DType dtype = DType::f32;
  Buffer data, out;
  double bandwidth = 0;  ///< of reading this much data
  std::vector<const void*> rows;

  /// The rows as a pass reads them; valid as long as this is.
  detail::RowTable table() const {
    return {.dtype = dtype,
            .reference_dtype = dtype,
            .inputs = n,
            .rows = n,
            .sizes = {&d, 1},
            .data = rows.data()};
  }
};
const Shaped& shaped(int n, std::int64_t d, DType dtype);

/// Times `call`, and adds GB_per_s and the floor's share of the time to the row.
void measure(benchmark::State& state, const Shaped& shape, const std::vector<PassWork>& passes,
             const std::function<void()>& call);

/// The program: binds threads, measures the machine, registers rows and runs those that are asked for.
int run_program(int argc, char** argv, const std::function<void()>& register_rows);

/// "median/n:16/d:1000000/f32".
std::string row_name(const std::string& rule, int n, std::int64_t d, DType dtype);

}  // namespace bragg::bench
