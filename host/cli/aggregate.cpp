// SPDX-License-Identifier: Apache-2.0
#include "host/cli/aggregate.hpp"

#include <fmt/format.h>
#include <bragg/io.hpp>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <system_error>

#include "host/cli/arguments.hpp"
#include "host/cli/output.hpp"
#include "host/cli/progress.hpp"
#include "host/cli/report.hpp"
#include "host/cli/text.hpp"

namespace bragg::cli {

namespace fs = std::filesystem;

namespace {

volatile std::sig_atomic_t pending_signal = 0;

void remember_signal(int signal) { pending_signal = signal; }

/// The same place, whether or not a file is there yet.
bool same_place(const fs::path& a, const fs::path& b) {
  std::error_code code_a;
  std::error_code code_b;
  return fs::weakly_canonical(a, code_a) == fs::weakly_canonical(b, code_b) && !code_a && !code_b;
}

std::string counted(std::int64_t count, const char* noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string summary(const AggregateCommand& command, const Pipeline& pipeline, const FileResult& result,
                    Device device, double seconds) {
  std::string text =
      fmt::format("{}: {} from {}, {}", printable(command.output.string()), to_string(pipeline),
                  counted(static_cast<std::int64_t>(result.workers.size()), "worker"),
                  counted(result.coordinates, "coordinate"));
  if (result.integers > 0) text += fmt::format(", {} by lower median", counted(result.integers, "integer"));
  const auto bytes = static_cast<double>(result.bytes_read);
  text += fmt::format("\nread {} in {}", bytes_text(bytes), duration_text(seconds));
  if (seconds > 0) text += fmt::format(" ({}/s)", bytes_text(bytes / seconds));
  text += device == Device::cuda ? ", on a CUDA device" : ", on the CPU";
  for (const Report& report : result.reports) {
    if (report.converged) continue;
    text +=
        fmt::format("\ngeometric_median stopped after {} iterations, before it converged", report.iterations);
    break;
  }
  return text + "\n";
}

Device device_for(const std::string& wanted) {
  const bool cuda = wanted == "cuda" || (wanted == "auto" && cuda_device_count() > 0);
  return cuda ? Device::cuda : Device::cpu;
}

}  // namespace

void run(const AggregateCommand& command) {
  const Pipeline pipeline = parse(command.rule);
  FileOptions options;
  options.memory = parse_memory(command.memory);
  options.base = command.base;
  options.options.scope = command.scope == "per-tensor" ? Scope::per_tensor : Scope::whole;
  options.options.max_weight_share = command.max_weight_share;
  options.options.threads = command.threads;
  options.options.device = device_for(command.device);
  if (!command.weights.empty()) options.weights = parse_weights(command.weights);
  if (command.report) {
    check_writable("--report", *command.report);
    if (same_place(*command.report, command.output)) {
      throw Error(Status::invalid_argument, "--report and --output are the same file");
    }
  }
  const std::vector<fs::path> inputs = find_inputs(command.inputs, command.base, command.output);

  const auto start = std::chrono::steady_clock::now();
  const FileResult result = [&] {
    ProgressBar bar(!command.quiet);
    options.progress = [&](const Progress& progress) {
      // Thrown here, between windows, so that the temporary output is removed on the way out.
      if (pending_signal != 0) throw Interrupted{pending_signal};
      bar.show(progress);
    };
    std::signal(SIGINT, remember_signal);
    std::signal(SIGTERM, remember_signal);
    return aggregate_files(pipeline, inputs, command.output, options);
  }();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;

  const Device device = options.options.device;
  if (command.report) write_report(*command.report, pipeline, result, command.output, device);
  if (!command.quiet) {
    fmt::print("{}\n{}", worker_table(result), summary(command, pipeline, result, device, seconds.count()));
  }
}

}  // namespace bragg::cli
