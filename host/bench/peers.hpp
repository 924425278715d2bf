// SPDX-License-Identifier: Apache-2.0
// The same rules in other libraries: adapters in Python, each run in a process of its own.
//
//   PYTHON FOLDER/run.py PEER --rule TEXT --input X.npy --output OUT.npy --threads T --seconds S
//
// prints a JSON object: peer, version, path (what was called), threads, ms (all timings), extra_memory_bytes,
// and equivalent_rule where what the peer computes has another text here; or peer and unsupported (why).
#pragma once

#include <bragg/plan.hpp>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "host/bench/process.hpp"
#include "host/bench/timing.hpp"

namespace bragg::bench {

struct Peers {
  std::vector<std::string> names;
  std::filesystem::path folder;
  std::string python = "python3";
  double seconds = 0.5;  ///< for each
};

/// Where the adapters are: as given; else of the environment's BRAGG_PEERS; else of the installed command, or
/// the sources that it was built from. @throws Error io_error: there is no run.py.
std::filesystem::path peers_folder(const std::string& given);

/// The outcome of a peer on a case.
struct PeerRow {
  std::string peer;
  std::string version = {}, path = {};
  std::string unsupported = {};      ///< why it has no such rule, or is not there
  std::string failure = {};          ///< how it went wrong
  std::string equivalent_rule = {};  ///< that it says it computes; empty: the same
  int threads = 0;
  Spread ms = {};
  int timings = 0;
  std::optional<double> extra_memory = {};
  std::optional<double> difference =
      {};  ///< largest of a coordinate, to bragg's result of the equivalent rule
  double tolerance = 0;
  std::optional<double> ratio = {};  ///< its median to bragg's; only where results agree

  bool agrees() const { return difference && *difference <= tolerance; }
};

/// The updates in a file of a temporary folder, which goes with this.
class PeerInput {
 public:
  /// @throws Error io_error.
  PeerInput(const unsigned char* updates, int n, std::int64_t d);

  Updates updates() const { return Updates::matrix(updates_, n_, d_, DType::f32); }
  std::int64_t d() const noexcept { return d_; }
  double largest() const noexcept { return largest_; }
  std::filesystem::path input() const { return folder_.path() / "updates.npy"; }
  std::filesystem::path output() const { return folder_.path() / "output.npy"; }

 private:
  const unsigned char* updates_;
  int n_;
  std::int64_t d_;
  double largest_ = 0;  ///< |x|
  TemporaryFolder folder_;
};

/// `bragg_ms`: bragg's median for the pipeline. What goes wrong with a peer is in its row.
PeerRow ask_peer(const Peers& peers, const std::string& name, const Pipeline& pipeline,
                 const PeerInput& input, const Options& options, double bragg_ms);

}  // namespace bragg::bench
