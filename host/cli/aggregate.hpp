// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/communicator.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace bragg::cli {

/// `bragg aggregate` as it was called.
struct AggregateCommand {
  std::vector<std::filesystem::path> inputs;
  std::string rule;
  std::filesystem::path output;
  std::optional<std::filesystem::path> base;
  std::optional<std::filesystem::path> report;
  std::optional<std::string> weights;
  std::optional<std::filesystem::path> reputation;
  std::optional<double> server_lr, server_momentum, server_beta1, server_beta2, server_tau;
  std::string server_optimizer = "sgd";
  std::optional<std::filesystem::path> server_state;
  std::vector<std::string> judge_by;
  std::vector<std::string> ignore_in_distances;
  std::vector<std::string> exclude;
  std::vector<std::string> copy;
  bool partial = false;
  double max_weight_share = 0;
  std::string memory = "1GiB";
  std::string scope = "whole";
  std::string out_dtype;
  std::optional<std::string> shard_size;
  std::string device = "auto";
  int threads = 0;
  std::string integers = "auto";
  bool strict = false;
  bool sha256 = false;
  bool allow_nonfinite = false;
  bool quiet = false;
};

/// A signal ends the process from within: see EndOnSignal. `communicator`: not null where this is one of a
/// job's processes, which all do the same; what one of them prints all do. @throws bragg::Error; of a job the
/// same on all, or communication.
void run(const AggregateCommand& command, Communicator* communicator);

}  // namespace bragg::cli
