// SPDX-License-Identifier: Apache-2.0
#include "host/cli/verify.hpp"

#include <fmt/format.h>
#include <bragg/version.hpp>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "host/cli/interrupt.hpp"
#include "host/cli/output.hpp"
#include "host/cli/progress.hpp"
#include "host/cli/text.hpp"
#include "host/verify/verify.hpp"

namespace bragg::cli {

namespace {

using Json = nlohmann::ordered_json;
using verify::Backend;
using verify::Cell;
using verify::Finding;
using verify::Findings;

std::vector<Backend> wanted_backends(const std::string& device) {
  std::vector<Backend> wanted = verify::backends();
  if (device == "all") return wanted;
  const Device only = device == "cuda" ? Device::cuda : Device::cpu;
  std::erase_if(wanted, [&](const Backend& backend) { return backend.device != only; });
  // The library's own words on why there is none.
  if (wanted.empty()) Plan(Median{}, {.n = 1, .sizes = {1}}, {.device = only});
  return wanted;
}

/// The cells of a rule on a backend, by dtype.
std::string table_line(const Findings& findings, std::string_view rule, std::size_t backend) {
  int runs = 0, judged = 0;
  std::string worst;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    const auto cell = std::find_if(findings.cells.begin(), findings.cells.end(), [&](const Cell& one) {
      return one.rule == rule && one.backend == backend && one.dtype == dtype;
    });
    if (cell == findings.cells.end()) return "";
    runs += cell->runs;
    judged += cell->judged;
    worst += cell->breaches > 0 ? fmt::format("  {:>8}", "WRONG")
             : cell->judged > 0 ? fmt::format("  {:>8.2g}", cell->worst)
                                : fmt::format("  {:>8}", "-");
  }
  return fmt::format("{:<18}  {:>5}  {:>6}{}\n", rule, runs, judged, worst);
}

std::string table(const Findings& findings, const Backend& backend, std::size_t index) {
  std::string text =
      fmt::format("{}{}{}\n", backend.name, backend.description.empty() ? "" : ", ", backend.description);
  text += fmt::format("{:<18}  {:>5}  {:>6}  {:>8}  {:>8}  {:>8}  {:>8}\n", "rule", "runs", "judged", "f32",
                      "f16", "bf16", "f64");
  for (const RuleInfo& rule : rules()) text += table_line(findings, rule.name, index);
  return text + "\n";
}

std::string breach_text(const Finding& finding, const Backend& backend) {
  return fmt::format("WRONG on {}: {}\n  {}\n  repeat: {}\n\n", backend.name, describe(finding.drawn),
                     finding.complaint, finding.command);
}

std::string summary(const Findings& findings) {
  std::string text;
  if (findings.breaches > static_cast<int>(findings.findings.size())) {
    text += fmt::format("({} more like these)\n\n",
                        findings.breaches - static_cast<int>(findings.findings.size()));
  }
  text += fmt::format("seed {}: {} cases in {}; {} of {} results judged{}\n", findings.seed, findings.cases,
                      duration_text(findings.seconds), findings.judged, findings.runs,
                      findings.judged < findings.runs ? ", the others are for rounding to decide" : "");
  return text + (findings.breaches == 0 ? "all right\n" : fmt::format("{} WRONG\n", findings.breaches));
}

/// JSON has no NaN and no infinity.
Json number(long double value) {
  if (std::isfinite(static_cast<double>(value))) return static_cast<double>(value);
  return fmt::format("{}", value);
}

Json finding_json(const Finding& finding, const Backend& backend) {
  const verify::Case& drawn = finding.drawn;
  const verify::Breach& breach = finding.breach;
  Json json;
  json["backend"] = backend.name;
  json["pipeline"] = to_string(drawn.pipeline);
  json["n"] = drawn.request.rows.size();
  json["d"] = drawn.request.rows[0].size();
  json["dtype"] = to_string(drawn.request.dtype);
  json["case"] = describe(drawn);
  json["what"] = breach.what;
  if (breach.coordinate >= 0) {
    json["coordinate"] = breach.coordinate;
    json["got"] = number(breach.got);
    json["expected"] = number(breach.expected);
    json["bound"] = number(breach.bound);
  }
  json["seed"] = drawn.seed;
  json["repeat"] = finding.command;
  return json;
}

std::string report(const Findings& findings, const std::vector<Backend>& backends, bool aimed) {
  Json json;
  json["version"] = BRAGG_VERSION_STRING;
  json["aimed"] = aimed;
  json["seed"] = findings.seed;
  json["rounds"] = findings.rounds;
  json["cases"] = findings.cases;
  json["seconds"] = findings.seconds;
  json["breaches"] = findings.breaches;
  json["backends"] = Json::array();
  for (const Backend& backend : backends)
    json["backends"].push_back({{"name", backend.name}, {"device", backend.description}});
  json["results"] = Json::array();
  for (const Cell& cell : findings.cells) {
    json["results"].push_back({{"backend", backends[cell.backend].name},
                               {"rule", cell.rule},
                               {"dtype", to_string(cell.dtype)},
                               {"runs", cell.runs},
                               {"judged", cell.judged},
                               {"breaches", cell.breaches},
                               {"worst", number(cell.worst)}});
  }
  json["findings"] = Json::array();
  for (const Finding& finding : findings.findings)
    json["findings"].push_back(finding_json(finding, backends[finding.backend]));
  return json.dump(2) + "\n";
}

}  // namespace

bool run(const VerifyCommand& command) {
  const EndOnSignal guard([](int) { return "nothing was written"; });
  if (command.json) check_writable("--json", *command.json);
  verify::Settings settings{.backends = wanted_backends(command.device),
                            .seed = command.seed ? *command.seed : std::random_device{}(),
                            .aimed = command.aimed,
                            .rules = command.rules,
                            .seconds = command.quick ? 0 : command.seconds};
  const Findings findings = [&] {
    ProgressBar bar(true);
    settings.progress = [&](const verify::Stage& stage) { bar.show(stage); };
    return verify::verify(settings);
  }();
  if (command.json) write_whole("--json", *command.json, report(findings, settings.backends, command.aimed));
  for (std::size_t b = 0; b < settings.backends.size(); ++b)
    fmt::print("{}", table(findings, settings.backends[b], b));
  fmt::print("Of each dtype: the largest {}, without the last rounding, as a share of its bound.\n\n",
             command.aimed ? "distance" : "error");
  for (const Finding& finding : findings.findings)
    fmt::print("{}", breach_text(finding, settings.backends[finding.backend]));
  fmt::print("{}", summary(findings));
  return findings.breaches == 0;
}

}  // namespace bragg::cli
