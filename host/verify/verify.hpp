// SPDX-License-Identifier: Apache-2.0
// The library on this machine against the oracle: every rule, dtype and backend, on data drawn afresh.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "host/verify/cases.hpp"
#include "host/verify/judge.hpp"

namespace bragg::verify {

struct Backend {
  Device device = Device::cpu;
  std::string name;         ///< "cpu", "cuda:0"
  std::string description;  ///< the device's own name
  std::function<Outcome(const Pipeline&, const Request&)> run;
};

/// The backends of this build on this machine: the CPU, then every CUDA device.
std::vector<Backend> backends();

/// Progress of a verification.
struct Stage {
  int rounds = 0;  ///< finished
  int cases = 0;
  int breaches = 0;
  double share = 0;  ///< of the work, 0 to 1
};

struct Settings {
  std::vector<Backend> backends;
  /// A round is a case of each pipeline and dtype. Round r (0, 1, …) draws from seed + r.
  std::uint64_t seed = 0;
  /// Aimed cases, held to the guarantees: see aimed.hpp. Else the oracle judges.
  bool aimed = false;
  /// Only pipelines with one of these rules, or among these texts; empty: all.
  std::vector<std::string> rules = {};
  /// Rounds are begun as long as they will be over by then. The first is run in any case; 0: nothing more.
  double seconds = 0;
  /// n²d of a case that the oracle judges is at most this.
  std::int64_t work = 2'000'000;
  std::function<void(const Stage&)> progress = {};
};

/// The outcome of all runs of a rule, alone or in a pipeline.
struct Cell {
  std::string rule;
  DType dtype = DType::f32;
  std::size_t backend = 0;
  int runs = 0;
  int judged = 0;  ///< in the others, rounding could decide
  int breaches = 0;
  double worst = 0;  ///< the largest error beyond the final rounding, as a share of its bound
};

struct Finding {
  Case drawn;
  std::size_t backend = 0;
  Breach breach;
  std::string complaint;
  std::string command;  ///< repeats it
};

struct Findings {
  std::uint64_t seed = 0;
  int rounds = 0;
  int cases = 0;
  int runs = 0;
  int judged = 0;
  double seconds = 0;
  std::vector<Cell> cells;  ///< by backend, then rule in the order of rules(), then dtype; none without runs
  int breaches = 0;
  std::vector<Finding> findings;  ///< the first of the breaches
};

/// @throws Error invalid_argument: settings.rules has an unknown rule.
Findings verify(const Settings& settings);

}  // namespace bragg::verify
