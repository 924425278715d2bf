// SPDX-License-Identifier: Apache-2.0
#include "host/bench/result.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <bragg/version.hpp>

#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>
#include <string_view>

namespace bragg::bench {

namespace {

using Json = nlohmann::ordered_json;

std::string now() { return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr))); }

/// JSON has no infinity.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }
Json optional_number(const std::optional<double>& value) { return value ? number(*value) : Json(nullptr); }

Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); }

Json spread_json(const Spread& spread) {
  return {{"median", spread.median},
          {"min", spread.least},
          {"q1", spread.q1},
          {"q3", spread.q3},
          {"max", spread.most}};
}

Json hardware_json(const Findings& findings) {
  const Hardware& hardware = findings.hardware;
  return {{"cpu", hardware.cpu},
          {"cores", hardware.cores},
          {"instruction_set", hardware.instruction_set},
          {"l1d_bytes", hardware.l1d_bytes},
          {"l2_bytes", hardware.l2_bytes},
          {"last_level_cache_bytes", hardware.cache_bytes},
          {"memory_bytes", hardware.memory_bytes},
          {"huge_pages", hardware.huge_pages},
          {"cuda_device", text_or_null(findings.device_name)}};
}

/// Rates that were not measured, as those of a device's units, are null.
Json rate(double per_second, double unit) { return per_second > 0 ? Json(per_second / unit) : Json(nullptr); }

/// Figures that only a CUDA device has.
Json cuda_json(const Floors& floors) {
  if (floors.launch_us <= 0) return nullptr;
  return {{"fma_f64_single_gflop_per_s", rate(2 * floors.fma_f64_single, 1e9)},
          {"launch_us", floors.launch_us},
          {"graph_us", floors.graph_us},
          {"graph_node_us", floors.node_us}};
}

Json floors_json(const Floors& floors) {
  return {{"memory_bytes", floors.memory_bytes},
          {"read_gb_per_s", rate(floors.read, 1e9)},
          {"read_how", text_or_null(floors.read_how)},
          {"copy_gb_per_s", rate(floors.copy, 1e9)},
          {"copy_how", text_or_null(floors.copy_how)},
          {"fma_f32_gflop_per_s", rate(2 * floors.fma_f32, 1e9)},
          {"fma_f64_gflop_per_s", rate(2 * floors.fma_f64, 1e9)},
          {"to_f64_gop_per_s", rate(floors.to_f64, 1e9)},
          {"min_max_16_gop_per_s", rate(floors.min_max_16.floats, 1e9)},
          {"min_max_32_gop_per_s", rate(floors.min_max_32.floats, 1e9)},
          {"min_max_64_gop_per_s", rate(floors.min_max_64.floats, 1e9)},
          {"integer_min_max_16_gop_per_s", rate(floors.min_max_16.integers, 1e9)},
          {"integer_min_max_32_gop_per_s", rate(floors.min_max_32.integers, 1e9)},
          {"integer_min_max_64_gop_per_s", rate(floors.min_max_64.integers, 1e9)},
          {"cuda", cuda_json(floors)}};
}

Json case_json(const Case& one) {
  Json json;
  json["rule"] = to_string(one.pipeline);
  json["form"] = one.form;
  json["n"] = one.n;
  json["d"] = one.size.d;
  json["model"] = text_or_null(one.size.model);
  json["tensors"] = one.source == Source::memory ? static_cast<std::size_t>(one.size.tensors)
                                                 : file_tensor_sizes(one.size).size();
  json["dtype"] = to_string(one.dtype);
  json["source"] = to_string(one.source);
  json["gram"] = text_or_null(one.gram);
  return json;
}

Json pass_json(const PassRow& pass) {
  return {{"name", pass.work.name},
          {"ms", optional_number(pass.ms)},
          {"bytes_read", pass.work.bytes_read},
          {"bytes_written", pass.work.bytes_written},
          {"fma_f64", pass.work.fma},
          {"fma_f32", pass.work.fma_f32},
          {"conversions", pass.work.conversions},
          {"min_max", pass.work.min_max},
          {"keys", pass.work.keys},
          {"lane_bits", pass.work.lane_bits},
          {"floor_ms", 1e3 * pass.floor.seconds},
          {"bound", pass.floor.bound}};
}

Json peer_json(const PeerRow& peer) {
  Json json;
  json["peer"] = peer.peer;
  json["version"] = text_or_null(peer.version);
  json["path"] = text_or_null(peer.path);
  json["unsupported"] = text_or_null(peer.unsupported);
  json["failure"] = text_or_null(peer.failure);
  if (!peer.unsupported.empty() || !peer.failure.empty()) return json;
  json["threads"] = peer.threads;
  json["timings"] = peer.timings;
  json["ms"] = spread_json(peer.ms);
  json["extra_memory_bytes"] = optional_number(peer.extra_memory);
  json["equivalent_rule"] = text_or_null(peer.equivalent_rule);
  json["max_abs_difference"] = optional_number(peer.difference);
  json["tolerance"] = peer.tolerance;
  json["agrees"] = peer.agrees();
  json["ratio"] = optional_number(peer.ratio);
  return json;
}

Json row_json(const Row& row, const Findings& findings) {
  Json json = case_json(row.asked);
  json["device"] = findings.device == Device::cuda ? "cuda" : "cpu";
  json["threads"] = findings.threads;
  json["timings"] = row.timing.timings;
  json["batch"] = row.timing.batch;
  json["ms"] = spread_json(row.timing.ms);
  json["input_bytes"] = row.input_bytes;
  json["bytes"] = row.bytes();
  json["gb_per_s"] = row.bytes() / row.timing.ms.median / 1e6;
  json["in_cache"] = row.in_cache;
  json["bandwidth_gb_per_s"] = row.bandwidth / 1e9;
  json["floor_ms"] = row.floor_ms();
  json["floor_share"] = row.share();
  json["bound"] = row.bound();
  json["graph_ms"] = optional_number(row.graph_ms);
  json["solve_ms"] = optional_number(row.solve_ms);
  json["extra_memory_bytes"] = optional_number(row.extra_memory);
  json["gram_difference"] = optional_number(row.gram_difference);
  json["note"] = text_or_null(row.note);
  json["passes"] = Json::array();
  for (const PassRow& pass : row.passes) json["passes"].push_back(pass_json(pass));
  json["peers"] = Json::array();
  for (const PeerRow& peer : row.peers) json["peers"].push_back(peer_json(peer));
  return json;
}

/// In quotes, those within doubled.
std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + '"';
}

std::string optional_text(const std::optional<double>& value) {
  return value ? fmt::format("{}", *value) : "";
}

std::string csv_case(const Row& row, const Findings& findings) {
  return fmt::format("{},{},{},{},{},{},{}", in_quotes(to_string(row.asked.pipeline)), row.asked.n,
                     row.asked.size.d, row.asked.size.model, to_string(row.asked.dtype),
                     findings.device == Device::cuda ? "cuda" : "cpu", findings.threads);
}

std::string csv_spread(const Spread& ms) {
  return fmt::format("{},{},{},{},{}", ms.median, ms.least, ms.q1, ms.q3, ms.most);
}

/// One member per line, and one line per row: a result of a thousand rows stays readable, and its changes
/// too.
std::string lines_of(const Json& json) {
  std::string text;
  for (const auto& [name, value] : json.items()) {
    text += fmt::format("{}\n {}: ", text.empty() ? "{" : ",", Json(name).dump());
    if (!value.is_array() || value.empty()) {
      text += value.dump();
      continue;
    }
    for (std::size_t k = 0; k < value.size(); ++k) {
      text += fmt::format("{}\n  {}", k == 0 ? "[" : ",", value[k].dump());
    }
    text += "\n ]";
  }
  return text + "\n}\n";
}

}  // namespace

std::string result_json(const Findings& findings, const std::string& command) {
  Json json;
  json["schema"] = result_schema;
  json["version"] = BRAGG_VERSION_STRING;
  json["commit"] = build_commit();
  json["date"] = now();
  json["command"] = command;
  json["seconds"] = findings.seconds;
  json["complete"] = findings.complete;
  json["hardware"] = hardware_json(findings);
  json["device"] = findings.device == Device::cuda ? "cuda" : "cpu";
  json["threads"] = findings.threads;
  json["threads_bound"] = findings.bound;
  json["floors"] = floors_json(findings.floors);
  json["rows"] = Json::array();
  for (const Row& row : findings.rows) json["rows"].push_back(row_json(row, findings));
  json["skipped"] = Json::array();
  for (const Skipped& skipped : findings.skipped) {
    json["skipped"].push_back(case_json(skipped.asked));
    json["skipped"].back()["why"] = skipped.why;
  }
  return lines_of(json);
}

std::string result_csv(const Findings& findings) {
  std::string text =
      "rule,n,d,model,dtype,device,threads,peer,version,ms_median,ms_min,ms_q1,ms_q3,ms_max,timings,"
      "bytes,gb_per_s,in_cache,floor_ms,floor_share,bound,solve_ms,extra_memory_bytes,ratio,"
      "max_abs_difference,note,source,gram,gram_difference\n";
  for (const Row& row : findings.rows) {
    text += fmt::format("{},bragg,{},{},{},{},{},{},{},{},{},{},{},,,{},{},{},{}\n", csv_case(row, findings),
                        BRAGG_VERSION_STRING, csv_spread(row.timing.ms), row.timing.timings, row.bytes(),
                        row.bytes() / row.timing.ms.median / 1e6, row.in_cache ? 1 : 0, row.floor_ms(),
                        row.share(), row.bound(), optional_text(row.solve_ms),
                        optional_text(row.extra_memory), in_quotes(row.note), to_string(row.asked.source),
                        row.asked.gram, optional_text(row.gram_difference));
    for (const PeerRow& peer : row.peers) {
      const bool timed = peer.unsupported.empty() && peer.failure.empty();
      const std::string note = !timed           ? peer.unsupported + peer.failure
                               : !peer.agrees() ? "results differ"
                                                : "";
      text += fmt::format("{},{},{},{},{},,,,,,,,{},{},{},{},memory,,\n", csv_case(row, findings),
                          in_quotes(peer.peer), in_quotes(peer.version), timed ? csv_spread(peer.ms) : ",,,,",
                          timed ? std::to_string(peer.timings) : "", optional_text(peer.extra_memory),
                          optional_text(peer.ratio), optional_text(peer.difference), in_quotes(note));
    }
  }
  return text;
}

}  // namespace bragg::bench
