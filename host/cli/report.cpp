// SPDX-License-Identifier: Apache-2.0
#include "host/cli/report.hpp"

#include <fmt/format.h>
#include <bragg/version.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "host/cli/exit_code.hpp"
#include "host/cli/holdings.hpp"
#include "host/cli/output.hpp"
#include "host/cli/text.hpp"
#include "host/files/server_step.hpp"
#include "host/io/file.hpp"

namespace bragg::cli {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

/// One worker over all reports: with one for each tensor, the mean weight, the sum of non-finite values, the
/// least clip factor.
struct Line {
  bool bad = false;
  std::size_t reports = 0;  ///< of tensors that it holds
  double weight = 0;
  std::size_t kept = 0;
  double score = std::numeric_limits<double>::quiet_NaN();
  double clip_factor = 1;
  std::int64_t nonfinite = 0;
};

/// Whether the worker does not hold the tensor of a report.
bool is_absent(const FileResult& result, std::size_t tensor, std::size_t worker) {
  if (result.held_with.empty()) return false;
  const std::vector<std::size_t>& absent = result.held[result.held_with[tensor]].absent;
  return std::binary_search(absent.begin(), absent.end(), worker);
}

std::vector<Line> make_lines(const FileResult& result) {
  std::vector<Line> lines(result.workers.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    lines[i].bad = !result.bad[i].empty();
    for (std::size_t t = 0; t < result.reports.size(); ++t)
      lines[i].reports += is_absent(result, t, i) ? 0 : 1;
    for (const Report& report : result.reports) {
      const RowReport& row = report.rows[i];
      if (row.weight != 0) lines[i].weight += row.weight / static_cast<double>(lines[i].reports);
      lines[i].kept += row.selected ? 1 : 0;
      lines[i].clip_factor = std::min(lines[i].clip_factor, row.clip_factor);
      lines[i].nonfinite += row.nonfinite;
    }
    if (result.reports.size() == 1) lines[i].score = result.reports.front().rows[i].score;
  }
  return lines;
}

std::string kept_text(const Line& line, const FileResult& result) {
  const std::size_t kept = line.kept;
  if (line.bad) return "bad";
  if (result.reports.size() == 1 && result.held.empty()) return kept == 1 ? "yes" : "no";
  return fmt::format("{}/{}", kept, line.reports);
}

Json reason(const std::string& bad) { return bad.empty() ? Json() : Json(bad); }

Json header(const Pipeline& pipeline, std::size_t n, const fs::path& output, Device device) {
  Json json;
  json["version"] = BRAGG_VERSION_STRING;
  json["pipeline"] = to_string(pipeline);
  json["n"] = n;
  json["output"] = output.string();
  json["device"] = device == Device::cuda ? "cuda" : "cpu";
  return json;
}

Json workers_json(const FileResult& result, std::size_t tensor) {
  Json workers = Json::array();
  const Report& report = result.reports[tensor];
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    const RowReport& row = report.rows[i];
    workers.push_back({{"name", result.workers[i]},
                       {"weight", row.weight},
                       {"selected", row.selected},
                       {"score", row.score},
                       {"nonfinite", row.nonfinite},
                       {"clip_factor", row.clip_factor},
                       {"bad", reason(result.bad[i])}});
    if (!result.held_with.empty()) workers.back()["absent"] = is_absent(result, tensor, i);
  }
  return workers;
}

/// NaN is written as null. File names need not be UTF-8.
std::string text_of(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace); }

/// All lines but the first.
std::string indented(const std::string& text, std::size_t columns) {
  std::string out;
  for (const char c : text) {
    out += c;
    if (c == '\n') out.append(columns, ' ');
  }
  return out;
}

void add_outcome(Json& json, const FileResult& result, std::size_t tensor) {
  const Report& report = result.reports[tensor];
  json["status"] = to_string(report.status);
  json["iterations"] = report.iterations;
  json["converged"] = report.converged;
  json["optimality_gap"] = report.optimality_gap;
  json["recentred"] = report.recentred;
  json["distance_error"] = report.distance_error;
  json["workers"] = workers_json(result, tensor);
}

}  // namespace

std::vector<std::string> short_names(const std::vector<std::string>& names) {
  std::vector<std::string> out;
  const fs::path folder = names.empty() ? fs::path() : fs::path(names.front()).parent_path();
  const bool shared = std::all_of(names.begin(), names.end(), [&](const std::string& name) {
    return fs::path(name).parent_path() == folder;
  });
  out.reserve(names.size());
  for (const std::string& name : names)
    out.push_back(printable(shared ? fs::path(name).filename().string() : name));
  return out;
}

std::string worker_table(const FileResult& result, const std::vector<double>& client_weights) {
  const std::vector<std::string> names = short_names(result.workers);
  const std::vector<Line> lines = make_lines(result);
  const bool scored =
      std::any_of(lines.begin(), lines.end(), [](const Line& l) { return !std::isnan(l.score); });
  const bool clipped =
      std::any_of(lines.begin(), lines.end(), [](const Line& l) { return l.clip_factor != 1; });

  std::size_t width = std::string_view("worker").size();
  for (const std::string& name : names) width = std::max(width, fmt::formatted_size("{}", name));
  std::string table = fmt::format("{:<{}}", "worker", width);
  if (!client_weights.empty()) table += fmt::format("  {:>10}", "given");
  table += fmt::format("  {:>7}  {:>10}", "kept", "weight");
  if (scored) table += fmt::format("  {:>11}", "score");
  if (clipped) table += fmt::format("  {:>8}", "clip");
  table += fmt::format("  {:>10}\n", "non-finite");
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const Line& line = lines[i];
    table += fmt::format("{:<{}}", names[i], width);
    if (!client_weights.empty()) table += fmt::format("  {:>10.6g}", client_weights[i]);
    table += fmt::format("  {:>7}  {:>10.4g}", kept_text(line, result), line.weight);
    if (scored)
      table += std::isnan(line.score) ? fmt::format("  {:>11}", "-") : fmt::format("  {:>11.4g}", line.score);
    if (clipped) table += fmt::format("  {:>8.3g}", line.clip_factor);
    table += line.bad ? fmt::format("  {:>10}\n", "-") : fmt::format("  {:>10}\n", line.nonfinite);
  }
  if (!result.held.empty()) table += '\n' + held_text(result.held);
  return table;
}

std::unique_ptr<detail::OutputFile> write_report(const fs::path& path, const Pipeline& pipeline,
                                                 const FileResult& result, const fs::path& output,
                                                 const FileOptions& options, const FileHashes& hashes,
                                                 const ReputationFile* reputation) {
  Json json = header(pipeline, result.workers.size(), output, *options.options.device);
  json["exit_code"] = 0;
  json["message"] = nullptr;
  json["form"] = result.form;
  if (!result.copied.empty()) json["copied"] = result.copied;
  if (!result.held.empty()) {
    json["held"] = held_json(result.held, result.workers);
    json["dropped"] = dropped_json(result.dropped);
    json["more_dropped"] = result.more_dropped;
  }
  json["coordinates"] = result.coordinates;
  json["integers"] = result.integers;
  json["output_nonfinite"] = result.nonfinite;
  json["bytes_read"] = result.bytes_read;
  if (!hashes.empty()) json["sha256"] = hashes;
  if (options.server) {
    Json& server = json["server"];
    server["optimizer"] = detail::name_of(*options.server);
    for (const auto& [name, value] : detail::numbers_of(*options.server)) server[name] = value;
    if (result.server_step > 0) {
      server["state"] = options.server_state.string();
      server["step"] = result.server_step;
    }
  }
  if (reputation != nullptr) reputation->add_to(json);
  if (!result.distance_shares.empty()) {
    Json& shares = json["distance_shares"] = Json::array();
    for (std::size_t t = 0; t < result.tensors.size(); ++t)
      shares.push_back({{"name", result.tensors[t]}, {"share", result.distance_shares[t]}});
  }
  if (!result.per_tensor) add_outcome(json, result, 0);
  return write_unnamed("--report", path, [&](const Put& put) {
    if (!result.per_tensor) {
      put(text_of(json) + "\n");
      return;
    }
    // Tensor by tensor: as values of JSON all of them would be many times the model.
    std::string head = text_of(json);
    head.resize(head.rfind("\n}"));
    put(head + ",\n  \"tensors\": [");
    for (std::size_t t = 0; t < result.reports.size(); ++t) {
      Json tensor;
      tensor["name"] = result.tensors[t];
      if (!result.held_with.empty()) tensor["n"] = result.held[result.held_with[t]].n;
      add_outcome(tensor, result, t);
      put((t == 0 ? "\n    " : ",\n    ") + indented(text_of(tensor), 4));
    }
    put("\n  ]\n}\n");
  });
}

void write_failure(const fs::path& path, const Pipeline& pipeline, const std::vector<fs::path>& inputs,
                   const std::vector<std::string>& bad, const fs::path& output, Device device,
                   const FileHashes& hashes, const Error& error) {
  Json json = header(pipeline, inputs.size(), output, device);
  json["exit_code"] = exit_code(error.status());
  json["message"] = error.what();
  json["status"] = to_string(error.status());
  if (!hashes.empty()) json["sha256"] = hashes;
  json["workers"] = Json::array();
  for (std::size_t i = 0; i < inputs.size(); ++i)
    json["workers"].push_back({{"name", inputs[i].string()}, {"bad", reason(bad[i])}});
  write_whole("--report", path, text_of(json) + "\n");
}

}  // namespace bragg::cli
