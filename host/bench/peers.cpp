// SPDX-License-Identifier: Apache-2.0
#include "host/bench/peers.hpp"

#include <fmt/format.h>
#include <unistd.h>
#include <bragg/io.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>

#include "host/base/team.hpp"

namespace bragg::bench {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::json;

/// Of the largest |x|: what single precision makes of a sum of n values, with some room.
constexpr double relative_tolerance = 1e-4;

/// The d values that a peer wrote.
std::vector<float> read_output(const fs::path& path, std::int64_t d) {
  const Checkpoint output = Checkpoint::open(path);
  const TensorInfo& tensor = output.tensors().front();
  if (tensor.dtype != "F32" || tensor.shape != std::vector{d}) {
    throw Error(Status::bad_file, fmt::format("its output is not {} values of float32", d));
  }
  std::vector<float> values(static_cast<std::size_t>(d));
  std::memcpy(values.data(), output.data(0), static_cast<std::size_t>(tensor.bytes));
  return values;
}

/// The last line that says something.
std::string last_line(const std::string& text) {
  const std::size_t end = text.find_last_not_of(" \n\r\t");
  if (end == std::string::npos) return "";
  const std::size_t begin = text.find_last_of('\n', end);
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     end - (begin == std::string::npos ? 0 : begin + 1) + 1);
}

/// NaN agrees with NaN, and infinity with itself.
double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (std::size_t j = 0; j < a.size(); ++j) {
    if (a[j] == b[j] || (std::isnan(a[j]) && std::isnan(b[j]))) continue;
    const double apart = std::abs(static_cast<double>(a[j]) - static_cast<double>(b[j]));
    largest = std::isnan(apart) ? HUGE_VAL : std::max(largest, apart);
  }
  return largest;
}

void read_result(const Json& json, const Pipeline& pipeline, const PeerInput& input, const Options& options,
                 double bragg_ms, PeerRow& row) {
  row.version = json.value("version", "");
  row.path = json.value("path", "");
  if (json.contains("unsupported")) {
    row.unsupported = json.at("unsupported").get<std::string>();
    return;
  }
  row.threads = json.value("threads", 0);
  const auto ms = json.at("ms").get<std::vector<double>>();
  if (ms.empty()) throw Error(Status::bad_file, "it gave no timings");
  row.ms = spread_of(ms);
  row.timings = static_cast<int>(ms.size());
  if (json.contains("extra_memory_bytes") && json["extra_memory_bytes"].is_number()) {
    row.extra_memory = json["extra_memory_bytes"].get<double>();
  }
  if (json.contains("equivalent_rule") && json["equivalent_rule"].is_string()) {
    row.equivalent_rule = json["equivalent_rule"].get<std::string>();
  }
  const std::vector<float> theirs = read_output(input.output(), input.d());
  std::vector<float> ours(theirs.size());
  aggregate(row.equivalent_rule.empty() ? pipeline : parse(row.equivalent_rule), input.updates(),
            Output(ours.data()), {}, options);
  row.difference = largest_difference(theirs, ours);
  row.tolerance = relative_tolerance * input.largest();
  if (row.agrees() && bragg_ms > 0) row.ratio = row.ms.median / bragg_ms;
}

}  // namespace

fs::path peers_folder(const std::string& given) {
  std::vector<fs::path> places;
  const char* const environment = std::getenv("BRAGG_PEERS");
  if (!given.empty()) {
    places.emplace_back(given);
  } else if (environment != nullptr && *environment != '\0') {
    places.emplace_back(environment);
  } else {
    std::error_code ignored;
    const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
    places.push_back(program.parent_path().parent_path() / "share/bragg/peers");
#ifdef BRAGG_PEERS_SOURCE
    places.emplace_back(BRAGG_PEERS_SOURCE);
#endif
  }
  std::error_code ignored;
  for (const fs::path& place : places) {
    if (fs::is_regular_file(place / "run.py", ignored)) return place;
  }
  throw Error(Status::io_error,
              fmt::format("--against: no run.py in {}; name the folder of the peers' adapters with --peers",
                          places.back().string()));
}

PeerInput::PeerInput(const unsigned char* updates, int n, std::int64_t d) : updates_(updates), n_(n), d_(d) {
  const auto* const values = reinterpret_cast<const float*>(updates);
  write_npy(input(), {.name = "", .dtype = "F32", .shape = {n, d}, .data = values});
  float largest = 0;
  const std::int64_t count = n * d;
#pragma omp parallel for reduction(max : largest) num_threads(detail::team(detail::threads_of(0)))
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(values[i]));
  largest_ = largest;
}

PeerRow ask_peer(const Peers& peers, const std::string& name, const Pipeline& pipeline,
                 const PeerInput& input, const Options& options, double bragg_ms) {
  PeerRow row{.peer = name};
  std::error_code ignored;
  fs::remove(input.output(), ignored);
  const int threads = detail::threads_of(options.threads);
  try {
    const Finished done =
        run_program({peers.python, (peers.folder / "run.py").string(), name, "--rule", to_string(pipeline),
                     "--input", input.input().string(), "--output", input.output().string(), "--threads",
                     std::to_string(threads), "--seconds", fmt::format("{}", peers.seconds)});
    if (done.signal != 0 || done.code != 0) {
      const std::string said = last_line(done.err);
      row.failure = done.signal != 0 ? fmt::format("ended by signal {}", done.signal)
                                     : fmt::format("exit status {}", done.code);
      if (!said.empty()) row.failure += ": " + said;
      return row;
    }
    read_result(Json::parse(done.out), pipeline, input, options, bragg_ms, row);
  } catch (const Json::exception& error) {
    row.failure = fmt::format("what it printed is not the JSON asked for: {}", error.what());
  } catch (const Error& error) {
    row.failure = error.what();
  }
  return row;
}

}  // namespace bragg::bench
