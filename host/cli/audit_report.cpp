// SPDX-License-Identifier: Apache-2.0
#include "host/cli/audit_report.hpp"

#include <fmt/format.h>
#include <bragg/version.hpp>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "host/cli/report.hpp"
#include "host/cli/text.hpp"

namespace bragg::cli {

using Json = nlohmann::ordered_json;

namespace {

/// The evidence and its figures; copies with the names of the others.
std::string finding_text(const AuditFinding& found, const std::vector<std::string>& names) {
  std::string text = fmt::format("{}: {}", to_string(found.evidence), printable(found.text));
  for (std::size_t k = 0; k < found.rows.size(); ++k)
    text += (k == 0 ? ": " : ", ") + names[static_cast<std::size_t>(found.rows[k])];
  return text;
}

std::string workers_text(const AuditReport& report, const std::vector<std::string>& names) {
  std::size_t width = std::string_view("worker").size();
  for (const std::string& name : names) width = std::max(width, name.size());
  std::string text = fmt::format("{:<{}}  {:>5}  {:>10}  {:>10}  {:>7}  {}\n", "worker", width, "looks",
                                 "norm", "distance", "cosine", "evidence");
  for (std::size_t i = 0; i < names.size(); ++i) {
    const AuditRow& row = report.audit.rows[i];
    text += fmt::format("{:<{}}  {:>5}", names[i], width, row.findings.empty() ? "good" : "bad");
    text += std::isnan(row.norm)
                ? fmt::format("  {:>10}  {:>10}  {:>7}", "", "", "")
                : fmt::format("  {:>10.4g}  {:>10.4g}  {:>7.2f}", row.norm, row.distance, row.cosine);
    for (std::size_t k = 0; k < row.findings.size(); ++k)
      text += (k == 0 ? "  " : "; ") + finding_text(row.findings[k], names);
    while (text.ends_with(' ')) text.pop_back();
    text += "\n";
  }
  return text;
}

/// Which tensors make most of the distances.
std::string shares_text(const AuditReport& report) {
  const std::vector<double>& shares = report.audit.shares;
  std::vector<std::size_t> order(shares.size());
  for (std::size_t t = 0; t < order.size(); ++t) order[t] = t;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return shares[a] > shares[b]; });
  constexpr std::size_t shown = 4;
  std::string text;
  for (std::size_t k = 0; k < std::min(shown, order.size()); ++k) {
    text += fmt::format("{}{:.0f} % {}", k == 0 ? "" : ", ", 100 * shares[order[k]],
                        printable(report.tensors[order[k]]));
  }
  return text + (order.size() > shown ? fmt::format(", {} others", order.size() - shown) : "");
}

std::string difference_text(const AuditReport& report) {
  const Audit& audit = report.audit;
  std::string text = fmt::format("\n{} of {} workers {} honest; {} coordinates\n", audit.honest, audit.n,
                                 audit.honest == 1 ? "looks" : "look", audit.d);
  if (audit.rules.empty()) return text;
  text +=
      fmt::format("their mean is {:.4g} long, their spread about it {:.4g}\n", audit.mean_norm, audit.spread);
  text += fmt::format("distances between two: {:.4g} to {:.4g}, the median {:.4g}\n", audit.least_distance,
                      audit.greatest_distance, audit.median_distance);
  if (audit.shares.size() > 1) text += fmt::format("of the squared distances: {}\n", shares_text(report));
  return text + fmt::format("skewness of a coordinate: {:.2f}; of normal values it is {:.2f}\n",
                            audit.skewness, audit.normal_skewness);
}

std::string figure_text(double value, double error) {
  if (std::isnan(value)) return "-";
  if (std::isinf(value)) return "unbounded";
  if (value < 1e-12) return "0";
  return fmt::format("{:.2g}", value) + (error > 0 ? fmt::format(" ±{:.1g}", error) : "");
}

std::string prices_text(const Audit& audit) {
  if (audit.rules.empty()) return "";
  std::size_t width = 0;
  for (const AuditRule& rule : audit.rules) width = std::max(width, rule.rule.size());
  std::string text =
      fmt::format("\nSquared distance from the honest mean, as a share of the squared spread{}\n\n",
                  audit.sample < audit.d
                      ? fmt::format("\n(± a standard error, where it is of {} coordinates)", audit.sample)
                      : "");
  text += fmt::format("{:<{}}  {:>2}  {:>14}  {:>6}  {:>14}  {:<12}  {:>7}  {:>14}\n", "rule", width, "f",
                      "cost", "bound", "under attack", "which", "proven", "as they are");
  bool more = false;
  for (const AuditRule& rule : audit.rules) {
    for (const AuditPoint& point : rule.points) {
      if (point.f > audit.advice.f + 1) {
        more = true;
        continue;
      }
      text += fmt::format("{:<{}}  {:>2}  {:>14}  {:>6.2g}  {:>14}  {:<12}  {:>7}  {:>14}", rule.rule, width,
                          point.f, figure_text(point.price, point.price_error), point.bound,
                          figure_text(point.worst, point.worst_error), point.attack,
                          point.kappa ? fmt::format("{:.3g}", *point.kappa) : "-",
                          figure_text(point.given, point.given_error));
      text += "\n";
    }
  }
  return text + (more ? "Larger f: in the JSON and the plot\n" : "");
}

std::string advice_text(const AuditAdvice& advice) {
  std::string text = fmt::format(
      "\n{}\n", advice.rule.empty() ? "No rule can be recommended:" : "Recommended: \"" + advice.rule + "\"");
  const auto item = [](const std::string& words) { return "  * " + wrapped(words, 4).substr(4); };
  for (const std::string& reason : advice.reasons) text += item(reason);
  text += "Not certain:\n";
  for (const std::string& doubt : advice.doubts) text += item(doubt);
  return text;
}

/// JSON has no NaN; what is infinite is said beside it.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json json_of(const AuditPoint& point) {
  Json json;
  json["f"] = point.f;
  json["cost"] = number(point.price);
  json["cost_error"] = number(point.price_error);
  json["bound"] = number(point.bound);
  json["worst"] = number(point.worst);
  json["worst_error"] = number(point.worst_error);
  json["unbounded"] = std::isinf(point.worst);
  json["attack"] = point.attack.empty() ? Json() : Json(point.attack);
  json["rows"] = point.rows;
  json["kappa"] = point.kappa ? Json(*point.kappa) : Json();
  json["given"] = number(point.given);
  json["given_error"] = number(point.given_error);
  json["given_unbounded"] = std::isinf(point.given);
  return json;
}

}  // namespace

std::string AuditReport::text() const {
  const std::vector<std::string> names = short_names(workers);
  return workers_text(*this, names) + difference_text(*this) + prices_text(audit) + advice_text(audit.advice);
}

std::string AuditReport::json() const {
  Json json;
  json["version"] = BRAGG_VERSION_STRING;
  json["n"] = audit.n;
  json["honest"] = audit.honest;
  json["coordinates"] = audit.d;
  json["sample"] = audit.sample;
  json["workers"] = Json::array();
  for (std::size_t i = 0; i < audit.rows.size(); ++i) {
    const AuditRow& row = audit.rows[i];
    Json worker = {
        {"name", workers[i]},       {"honest", row.findings.empty()},   {"nonfinite", row.nonfinite},
        {"norm", number(row.norm)}, {"distance", number(row.distance)}, {"cosine", number(row.cosine)},
        {"findings", Json::array()}};
    for (const AuditFinding& finding : row.findings) {
      worker["findings"].push_back(
          {{"evidence", to_string(finding.evidence)}, {"text", finding.text}, {"of", finding.rows}});
    }
    json["workers"].push_back(std::move(worker));
  }
  json["mean_norm"] = audit.mean_norm;
  json["spread"] = audit.spread;
  json["least_distance"] = audit.least_distance;
  json["median_distance"] = audit.median_distance;
  json["greatest_distance"] = audit.greatest_distance;
  json["skewness"] = audit.skewness;
  json["normal_skewness"] = audit.normal_skewness;
  json["tensors"] = Json::array();
  for (std::size_t t = 0; t < audit.shares.size(); ++t) {
    json["tensors"].push_back({{"name", tensors[t]}, {"share", audit.shares[t]}});
  }
  json["rules"] = Json::array();
  for (const AuditRule& rule : audit.rules) {
    Json points = Json::array();
    for (const AuditPoint& point : rule.points) points.push_back(json_of(point));
    json["rules"].push_back({{"rule", rule.rule}, {"points", std::move(points)}});
  }
  const AuditAdvice& advice = audit.advice;
  json["advice"] = {{"rule", advice.rule.empty() ? Json() : Json(advice.rule)},
                    {"f", advice.f},
                    {"reasons", advice.reasons},
                    {"doubts", advice.doubts}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace bragg::cli
