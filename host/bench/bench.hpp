// SPDX-License-Identifier: Apache-2.0
// Throughput of pipelines, compared with the floors of the machine and with other libraries.
#pragma once

#include <bragg/plan.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "host/bench/cases.hpp"
#include "host/bench/floors.hpp"
#include "host/bench/hardware.hpp"
#include "host/bench/peers.hpp"
#include "host/bench/timing.hpp"
#include "host/bench/work.hpp"

namespace bragg::bench {

struct PassRow {
  PassWork work;
  Floor floor;
  std::optional<double> ms;  ///< median, of the pass by itself; on a CUDA device only of a single one
};

struct Row {
  Case asked;
  Timing timing = {};
  double input_bytes = 0;  ///< n·d elements
  bool in_cache = false;   ///< inputs and output fit in the last-level cache
  double bandwidth = 0;    ///< of the floor: bytes per second
  std::vector<PassRow> passes = {};
  std::optional<double> graph_ms = {};  ///< of a replay of a CUDA graph of the run
  std::optional<double> solve_ms = {};  ///< the n-sized mathematics between the passes, where there is some
  std::optional<double> extra_memory = {};  ///< bytes beyond inputs and output
  std::string note = {};
  std::vector<PeerRow> peers = {};
  /// Of products by a choice, or of lengths alone: the largest difference from those of the first choice for
  /// the same rows, as share_of_bound.
  std::optional<double> gram_difference = {};

  double bytes() const;
  double floor_ms() const;
  /// The floor as a share of a run's time.
  double share() const { return timing.ms.median > 0 ? floor_ms() / timing.ms.median : 0; }
  bool products_agree() const { return !gram_difference || *gram_difference <= 1; }
  /// The bound of the pass with the largest part of the floor.
  const char* bound() const;
};

struct Skipped {
  Case asked;
  std::string why;
};

struct Stage {
  double share = 0;  ///< of the work, 0 to 1
  std::string text;
};

struct Findings;

struct Settings {
  std::vector<Case> cases;
  Device device = Device::cpu;
  int threads = 0;  ///< 0: as many as OpenMP would use
  Budget budget = {};
  double floor_seconds = 1;  ///< before the rows, and again after them
  std::optional<Peers> peers = {};
  /// Where files of updates are written, for a time; the cases are measured from them. Empty: from memory.
  std::filesystem::path files = {};
  std::function<void(const Stage&)> progress = {};
  /// Called after each case with what has been found so far, by the floors that are known by then.
  std::function<void(const Findings&)> found = {};
};

struct Findings {
  Hardware hardware;
  Device device = Device::cpu;
  std::string device_name;  ///< of a CUDA device
  int threads = 1;
  bool bound = false;  ///< threads are bound to cores
  Floors floors;
  double seconds = 0;
  std::vector<Row> rows;
  std::vector<Skipped> skipped;  ///< for want of memory, or of room for files
  bool complete = false;         ///< no case is still to come
};

/// @throws Error out_of_memory, io_error, unsupported: no such device.
Findings run(const Settings& settings);

}  // namespace bragg::bench
