// SPDX-License-Identifier: Apache-2.0
#include "host/cli/aggregate.hpp"

#include <fmt/format.h>
#include <bragg/io.hpp>

#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <sstream>
#include <tuple>

#include "host/base/bytes_text.hpp"
#include "host/cli/arguments.hpp"
#include "host/cli/exit_code.hpp"
#include "host/cli/holdings.hpp"
#include "host/cli/interrupt.hpp"
#include "host/cli/output.hpp"
#include "host/cli/progress.hpp"
#include "host/cli/report.hpp"
#include "host/cli/reputation.hpp"
#include "host/cli/text.hpp"
#include "host/files/aggregate_files.hpp"
#include "host/files/packed.hpp"
#include "host/files/ranks.hpp"
#include "host/files/server_step.hpp"
#include "host/io/file.hpp"
#include "host/io/stream.hpp"
#include "host/sharded/agreement.hpp"

namespace bragg::cli {

namespace fs = std::filesystem;

namespace {

/// What is written beside the output may not take the place of anything that the run reads or writes.
void check_beside(const char* option, const fs::path& path, const AggregateCommand& command,
                  const std::vector<fs::path>& inputs) {
  const auto refuse = [&](const char* why) {
    throw Error(Status::invalid_argument, fmt::format("{}: {} {}", option, path.string(), why));
  };
  if (detail::same_place(path, command.output)) refuse("is the same file as --output");
  if (command.shard_size && leads_to_input(path, command.output)) refuse("is a file of --output");
  check_place(option, path, command.base, command.inputs, inputs);
}

/// Not the same file as another that is written.
void check_apart(const char* option, const fs::path& path, const char* other_option,
                 const std::optional<fs::path>& other) {
  if (!other || !detail::same_place(*other, path)) return;
  throw Error(Status::invalid_argument,
              fmt::format("{}: {} is the same file as {}", option, path.string(), other_option));
}

void check_reputation(const AggregateCommand& command, const std::vector<fs::path>& inputs,
                      const Communicator* communicator) {
  if (communicator != nullptr) {
    throw Error(
        Status::unsupported,
        "--reputation: bragg-mpi keeps none; aggregate by one process of bragg, which needs no more memory");
  }
  if (command.partial) {
    throw Error(Status::invalid_argument,
                "--reputation: does not go with --partial, where each tensor has an n of its own");
  }
  check_beside("--reputation", *command.reputation, command, inputs);
  if (detail::is_stream(*command.reputation)) {
    throw Error(Status::invalid_argument,
                fmt::format("--reputation: {} is a device, a pipe or a descriptor; give the name of a file",
                            command.reputation->string()));
  }
  check_apart("--reputation", *command.reputation, "--report", command.report);
  if (is_values_name(*command.reputation)) {
    throw Error(
        Status::invalid_argument,
        fmt::format("--reputation: {} has the name of a model, and would hold JSON; give a name that ends "
                    "in .json",
                    command.reputation->string()));
  }
}

/// Nothing that is written may take the place of the file of weights.
void check_weights_file(const GivenWeights& weights, const AggregateCommand& command) {
  if (weights.file.empty()) return;
  const auto check = [&](const char* option, const fs::path& path) {
    if (detail::same_place(path, weights.file)) {
      throw Error(Status::invalid_argument,
                  fmt::format("{}: {} is the file of --weights", option, path.string()));
    }
  };
  check("--output", command.output);
  if (command.report) check("--report", *command.report);
  if (command.reputation) check("--reputation", *command.reputation);
  if (command.server_state) check("--server-state", *command.server_state);
}

/// What a name says must be what is written.
void check_output_name(const AggregateCommand& command) {
  const auto refuse = [&](const std::string& why) {
    throw Error(Status::invalid_argument, fmt::format("--output: {} {}", command.output.string(), why));
  };
  std::error_code ignored;
  const bool named = is_values_name(command.output) || command.output.extension() == ".json";
  if (command.shard_size && named) refuse("is the name of a file; with --shard-size, give that of a folder");
  if (command.shard_size) return;
  if (fs::is_directory(command.output, ignored) || !command.output.has_filename()) {
    refuse("is a folder; give the name of a file, or --shard-size for a model in shards");
  }
  if (!is_values_name(command.output)) {
    refuse(
        "does not say what it is to be: give a name that ends in .safetensors, .npz, or .npy (for npy "
        "inputs), "
        "or a folder and --shard-size");
  }
}

std::string counted(std::int64_t count, const char* noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

template <class OptimizerT>
OptimizerT adaptive_of(const AggregateCommand& command) {
  OptimizerT optimizer{.lr = *command.server_lr};
  optimizer.beta1 = command.server_beta1.value_or(optimizer.beta1);
  optimizer.beta2 = command.server_beta2.value_or(optimizer.beta2);
  optimizer.tau = command.server_tau.value_or(optimizer.tau);
  return optimizer;
}

std::optional<ServerOptimizer> server_of(const AggregateCommand& command) {
  if (!command.server_lr) return std::nullopt;
  if (!command.base)
    throw Error(Status::invalid_argument, "--server-lr: needs --base, the model that the step goes from");
  const bool is_sgd = command.server_optimizer == "sgd";
  for (const auto& [option, given, is_of_sgd] :
       {std::tuple("--server-momentum", command.server_momentum.has_value(), true),
        std::tuple("--server-beta1", command.server_beta1.has_value(), false),
        std::tuple("--server-beta2", command.server_beta2.has_value(), false),
        std::tuple("--server-tau", command.server_tau.has_value(), false)}) {
    if (!given || is_sgd == is_of_sgd) continue;
    throw Error(Status::invalid_argument,
                fmt::format("{}: is for --server-optimizer {}", option, is_of_sgd ? "sgd" : "adam or yogi"));
  }
  if (is_sgd) return ServerSgd{.lr = *command.server_lr, .momentum = command.server_momentum.value_or(0)};
  if (command.server_optimizer == "adam") return adaptive_of<ServerAdam>(command);
  return adaptive_of<ServerYogi>(command);
}

std::string summary(const AggregateCommand& command, const Pipeline& pipeline, const FileResult& result,
                    const FileOptions& options, double seconds) {
  std::string text =
      fmt::format("{}: {} from {}, {}", printable(command.output.string()), to_string(pipeline),
                  counted(static_cast<std::int64_t>(result.workers.size()), "worker"),
                  counted(result.coordinates, "coordinate"));
  if (result.integers > 0) {
    const char* const how = command.integers != "first" ? "by lower median"
                            : command.base              ? "of the base"
                                                        : "of the first input";
    text += fmt::format(", {} {}", counted(result.integers, "integer"), how);
  }
  if (!result.copied.empty())
    text += fmt::format(", {} of the base", counted(std::ssize(result.copied), "tensor"));
  if (result.nonfinite > 0)
    text += fmt::format("\nthe output holds NaN or infinity in {}", counted(result.nonfinite, "value"));
  if (options.server) text += fmt::format("\nfrom the base by {}", detail::to_string(*options.server));
  if (result.server_step > 0) text += fmt::format(", step {}", result.server_step);
  const auto bytes = static_cast<double>(result.bytes_read);
  text += fmt::format("\nread {} in {}", detail::bytes_text(bytes), duration_text(seconds));
  if (seconds > 0) text += fmt::format(" ({}/s)", detail::bytes_text(bytes / seconds));
  text += options.options.device == Device::cuda ? ", on a CUDA device" : ", on the CPU";
  for (const Report& report : result.reports) {
    if (report.converged) continue;
    text += fmt::format("\nthe rule stopped after {} iterations, before it converged", report.iterations);
    break;
  }
  return text + "\n";
}

Device device_for(const std::string& wanted) {
  const bool cuda = wanted == "cuda" || (wanted == "auto" && cuda_device_count() > 0);
  return cuda ? Device::cuda : Device::cpu;
}

Integers integers_for(const std::string& wanted) {
  return wanted == "lower-median" ? Integers::lower_median
         : wanted == "first"      ? Integers::first
         : wanted == "error"      ? Integers::error
                                  : Integers::automatic;
}

/// What to know of the tensor that decides nearly all.
std::string dominant_warning(const FileResult& result) {
  if (!result.dominant_tensor) return "";
  const std::string& name = result.tensors[*result.dominant_tensor];
  return fmt::format(
      "bragg: warning: tensor {} makes {:.3g} % of the distances between workers, and so decides who is "
      "kept; "
      "see --ignore-in-distances\n",
      detail::show(name), 100 * result.distance_shares[*result.dominant_tensor]);
}

/// What inputs hold that the output does not have.
std::string dropped_warnings(const FileResult& result) {
  std::string warnings;
  std::istringstream lines(dropped_text(result.dropped, result.more_dropped));
  for (std::string line; std::getline(lines, line);) warnings += "bragg: warning: " + line + "\n";
  return warnings;
}

/// Of weights that are none. (Those of an npy's rows are named by an error alone: there may be many.)
std::string weight_warnings(const std::vector<fs::path>& inputs, const std::vector<double>& weights) {
  std::string warnings;
  for (std::size_t i = 0; i < inputs.size() && weights.size() == inputs.size(); ++i) {
    if (weights[i] >= 0 && std::isfinite(weights[i])) continue;
    warnings += fmt::format("bragg: warning: bad weight, counted as a bad worker: {}: {}\n",
                            printable(inputs[i].string()), weights[i]);
  }
  return warnings;
}

/// Bad inputs are told when the progress bar is gone; of a run that fails also where --quiet is given. Such a
/// run has a report, too, unless that of its success was `reported`: it may have gone into a pipe.
FileResult aggregate(const Pipeline& pipeline, const std::vector<fs::path>& inputs,
                     const AggregateCommand& command, Device device, FileOptions& options, FileHashes& hashes,
                     const detail::WriteBeside& beside, const bool& reported) {
  std::string warnings = weight_warnings(inputs, options.weights);
  std::vector<std::string> bad(inputs.size());
  options.found_bad = [&](std::size_t row, const std::string& name, const std::string& reason) {
    bad.at(row) = reason;
    warnings += fmt::format("bragg: warning: bad input, counted as a bad worker: {}\n",
                            printable(fmt::format("{}: {}", name, reason)));
  };
  if (command.sha256) {
    options.hashed = [&](const std::string& path, const std::string& sha256) {
      hashes.emplace(path, sha256);
    };
  }
  bool told_time = false;
  options.solve_time = [&](double seconds) {
    constexpr double worth_telling = 5;
    if (seconds < worth_telling || command.quiet || told_time) return;
    told_time = true;
    fmt::print(stderr, "bragg: note: {} may need up to {} of processor time for this many workers\n",
               to_string(pipeline), duration_text(seconds));
  };
  try {
    FileResult result = [&] {
      ProgressBar bar(!command.quiet);
      options.progress = [&](const Progress& progress) { bar.show(progress); };
      return detail::aggregate_files(pipeline, inputs, command.output, options, beside);
    }();
    if (result.server_step == 1)
      warnings += fmt::format("bragg: note: --server-state: {} begins now\n",
                              printable(command.server_state->string()));
    if (!command.quiet)
      fmt::print(stderr, "{}{}{}{}", warnings, unused_warnings(result.unused), dropped_warnings(result),
                 dominant_warning(result));
    return result;
  } catch (const Error& error) {
    // Of inputs that did not come to count the error itself tells.
    const bool counted = !command.strict && inputs.size() > 1 && error.status() != Status::bad_file;
    if (counted) fmt::print(stderr, "{}", warnings);
    const Error told = with_option_names(error);
    const bool is_first = options.communicator == nullptr || options.communicator->rank() == 0;
    if (command.report && is_first && !reported &&
        exit_code(told.status()) != exit_code(Status::invalid_argument)) {
      try {
        write_failure(*command.report, pipeline, inputs, bad, command.output, device, hashes, told);
      } catch (const Error& unwritten) {
        fmt::print(stderr, "bragg: warning: {}\n", printable(unwritten.what()));
      }
    }
    throw told;
  }
}

FileOptions options_of(const AggregateCommand& command, Communicator* communicator) {
  FileOptions options;
  options.communicator = communicator;
  options.memory = parse_bytes("--memory", command.memory);
  options.base = command.base;
  options.options.scope = command.scope == "per-tensor" ? Scope::per_tensor : Scope::whole;
  options.out_dtype = command.out_dtype;
  if (command.shard_size) {
    options.shard_size = parse_bytes("--shard-size", *command.shard_size);
    if (options.shard_size == 0) throw Error(Status::invalid_argument, "--shard-size: needs at least 1 byte");
  }
  options.options.max_weight_share = command.max_weight_share;
  options.options.threads = command.threads;
  options.integers = integers_for(command.integers);
  options.allow_nonfinite = command.allow_nonfinite;
  options.bad_inputs = command.strict ? BadInputs::error : BadInputs::row;
  options.options.device =
      communicator != nullptr && command.device == "auto" ? Device::cpu : device_for(command.device);
  options.judge_by = command.judge_by;
  options.ignore_in_distances = command.ignore_in_distances;
  options.exclude = command.exclude;
  options.copy = command.copy;
  options.partial = command.partial;
  options.server = server_of(command);
  if (command.server_state) options.server_state = *command.server_state;
  return options;
}

/// As the first rank finds them: a folder may be another one a moment later.
std::vector<fs::path> find_together(detail::Ranks& ranks, const AggregateCommand& command) {
  std::vector<fs::path> inputs;
  detail::Packer found;
  ranks.together([&] {
    if (!ranks.is_first()) return;
    inputs = find_inputs(command.inputs, command.base, command.output, command.quiet);
    found.put(inputs.size());
    for (const fs::path& input : inputs) found.put(std::string_view(input.native()));
  });
  if (!ranks.many()) return inputs;
  const std::string all = ranks.of_first(found.bytes());
  const auto names = detail::Unpacker(all).take_list<std::string>();
  return {names.begin(), names.end()};
}

}  // namespace

void run(const AggregateCommand& command, Communicator* communicator) {
  detail::Ranks ranks(communicator);
  detail::Digest names;
  for (const fs::path& input : command.inputs) names.add(std::string_view(input.native()));
  ranks.agree(std::array{detail::Ranks::Topic{"different inputs", names.value()}});
  std::optional<Pipeline> pipeline;
  FileOptions options;
  ranks.together([&] {
    pipeline = parse(command.rule);
    if (command.output.empty()) throw Error(Status::invalid_argument, "--output: the name is empty");
    options = options_of(command, communicator);
    check_output_name(command);
    if (!command.shard_size && ranks.is_first()) check_writable("--output", command.output);
  });
  const std::vector<fs::path> inputs = find_together(ranks, command);
  ranks.together([&] {
    if (command.weights) {
      const GivenWeights given = parse_weights(*command.weights);
      check_weights_file(given, command);
      std::string warning;
      options.weights = match_weights(given, inputs, warning);
      if (!warning.empty() && !command.quiet) fmt::print(stderr, "bragg: warning: {}\n", printable(warning));
    }
    if (command.report && ranks.is_first()) check_beside("--report", *command.report, command, inputs);
    if (command.reputation) check_reputation(command, inputs, communicator);
    if (command.server_state && ranks.is_first()) {
      check_beside("--server-state", *command.server_state, command, inputs);
      check_apart("--server-state", *command.server_state, "--report", command.report);
      check_apart("--server-state", *command.server_state, "--reputation", command.reputation);
    }
    if (command.sha256 && !command.report)
      throw Error(Status::invalid_argument, "--sha256: hashes go into the report; give --report, too");
  });

  const EndOnSignal guard(
      [](int written) { return written == 0 ? "nothing was written" : "all files were written"; });
  const auto start = std::chrono::steady_clock::now();
  FileHashes hashes;
  const Device device = *options.options.device;
  std::optional<ReputationFile> reputation;
  if (command.reputation) {
    reputation.emplace(*command.reputation, *pipeline, inputs, options.weights, command.max_weight_share);
    options.weights = reputation->trust().weights;
    options.options.max_weight_share = reputation->trust().max_weight_share;
    if (!command.quiet) fmt::print(stderr, "{}", reputation->warnings());
  }
  bool reported = false;
  const auto write_beside = [&](FileResult& result) {
    detail::FilesBeside files;
    if (reputation) {
      reputation->learn(result);
      files.reputation = reputation->write();
    }
    if (command.report) {  // last: what went into a pipe cannot be taken back
      reported = true;
      files.report = write_report(*command.report, *pipeline, result, command.output, options, hashes,
                                  reputation ? &*reputation : nullptr);
    }
    return files;
  };
  const FileResult result = aggregate(reputation ? reputation->trust().pipeline : *pipeline,
                                      reputation ? reputation->counting() : inputs, command, device, options,
                                      hashes, write_beside, reported);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  if (!command.quiet) {
    fmt::print("{}\n{}{}", worker_table(result, reputation ? reputation->weights() : options.weights),
               reputation ? reputation->table() + "\n" : "",
               summary(command, *pipeline, result, options, seconds.count()));
  }
}

}  // namespace bragg::cli
