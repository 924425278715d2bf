// SPDX-License-Identifier: Apache-2.0
#include "host/cli/rules.hpp"

#include <fmt/format.h>
#include <bragg/pipeline.hpp>

#include <nlohmann/json.hpp>
#include <vector>

#include "host/cli/text.hpp"
#include "rules/nearest.hpp"

namespace bragg::cli {

namespace {

using Json = nlohmann::ordered_json;

std::vector<RuleInfo> select(const std::string& name) {
  std::vector<RuleInfo> selected;
  for (const RuleInfo& rule : rules()) {
    if (name.empty() || rule.name == name) selected.push_back(rule);
  }
  if (selected.empty()) {
    const std::string_view meant =
        detail::nearest(name, rules(), [](const RuleInfo& rule) { return rule.name; });
    throw Error(Status::invalid_argument,
                meant.empty() ? fmt::format("unknown rule '{}'; `bragg rules` lists them", name)
                              : fmt::format("unknown rule '{}'; did you mean {}?", name, meant));
  }
  return selected;
}

std::string signature(const RuleInfo& rule) {
  std::string parameters;
  for (const ParameterInfo& parameter : rule.parameters) {
    if (!parameters.empty()) parameters += ", ";
    parameters += parameter.name;
    if (!parameter.default_value.empty()) parameters += fmt::format("={}", parameter.default_value);
  }
  return parameters.empty() ? std::string(rule.name) : fmt::format("{}({})", rule.name, parameters);
}

std::string one_rule(const RuleInfo& rule) {
  std::string text =
      fmt::format("{}, a {}\n", signature(rule),
                  rule.kind == RuleKind::pre_aggregator ? std::string("pre-aggregator")
                                                        : fmt::format("{} rule", to_string(rule.kind)));
  text += wrapped(rule.definition, 2);
  const auto field = [&](std::string_view name, std::string_view value) {
    if (!value.empty()) text += fmt::format("  {:<10} {}\n", name, value);
  };
  text += "\n";
  field("needs", rule.needs);
  field("guarantee", rule.guarantee);
  field("weights", rule.takes_weights ? "yes" : "no");
  field("source", rule.source);
  if (rule.parameters.empty()) return text;
  text += "\n  parameters\n";
  for (const ParameterInfo& parameter : rule.parameters) {
    text += fmt::format("    {:<10} {} ({}; {})\n", parameter.name, parameter.meaning, parameter.bound,
                        parameter.default_value.empty() ? std::string("required")
                                                        : fmt::format("default {}", parameter.default_value));
  }
  return text;
}

}  // namespace

std::string rules_text(const std::string& name) {
  const std::vector<RuleInfo> selected = select(name);
  if (!name.empty()) return one_rule(selected.front());
  std::string text =
      "A pipeline is PRE-AGGREGATOR | … | RULE. n: rows; f: bad rows tolerated; (f, κ)-robust: with at most "
      "f bad\n"
      "rows, ‖out − m‖² ≤ κ · the mean of ‖x_i − m‖² over the honest rows x_i, m their mean.\n";
  for (const RuleKind kind : {RuleKind::coordinate_wise, RuleKind::geometric, RuleKind::pre_aggregator}) {
    text +=
        fmt::format("\n{}\n", kind == RuleKind::pre_aggregator ? std::string("pre-aggregators")
                                                               : fmt::format("{} rules", to_string(kind)));
    for (const RuleInfo& rule : selected) {
      if (rule.kind != kind) continue;
      text += fmt::format("  {}\n", signature(rule));
      text += wrapped(rule.source.empty() ? std::string(rule.definition)
                                          : fmt::format("{} [{}]", rule.definition, rule.source),
                      6);
      text += wrapped(fmt::format("needs {}. Guarantee: {}", rule.needs, rule.guarantee), 6);
    }
  }
  return text + "\n`bragg rules NAME` explains the parameters of one.\n";
}

std::string rules_json(const std::string& name) {
  Json all = Json::array();
  for (const RuleInfo& rule : select(name)) {
    Json parameters = Json::array();
    for (const ParameterInfo& parameter : rule.parameters) {
      parameters.push_back(
          {{"name", parameter.name},
           {"type", to_string(parameter.type)},
           {"default", parameter.default_value.empty() ? Json(nullptr) : Json(parameter.default_value)},
           {"bound", parameter.bound},
           {"choices", parameter.choices},
           {"meaning", parameter.meaning}});
    }
    all.push_back({{"name", rule.name},
                   {"kind", to_string(rule.kind)},
                   {"parameters", parameters},
                   {"definition", rule.definition},
                   {"needs", rule.needs},
                   {"guarantee", rule.guarantee},
                   {"source", rule.source},
                   {"takes_weights", rule.takes_weights},
                   {"examples", rule.examples}});
  }
  return all.dump(2) + "\n";
}

}  // namespace bragg::cli
