// SPDX-License-Identifier: Apache-2.0
// bragg._bragg: what the package's Python is written on. Nothing here is for users.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>
#include <bragg/plan.hpp>
#include <bragg/version.hpp>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "host/cli/command.hpp"
#include "python/src/attacks.hpp"
#include "python/src/audit.hpp"
#include "python/src/errors.hpp"
#include "python/src/judge.hpp"
#include "python/src/plan.hpp"
#include "python/src/reputation.hpp"
#include "python/src/sharded.hpp"
#include "python/src/streamed.hpp"
#include "rules/needs.hpp"

namespace bragg::python {

namespace {

nb::str text(std::string_view view) { return nb::str(view.data(), view.size()); }

/// The table of rules.
nb::list rules_to_python() {
  nb::list made;
  for (const RuleInfo& rule : rules()) {
    nb::list parameters;
    for (const ParameterInfo& parameter : rule.parameters) {
      nb::dict entry;
      entry["name"] = text(parameter.name);
      entry["type"] = to_string(parameter.type);
      nb::list choices;
      for (const std::string_view choice : parameter.choices) choices.append(text(choice));
      entry["choices"] = choices;
      entry["default"] = text(parameter.default_value);
      entry["bound"] = text(parameter.bound);
      entry["meaning"] = text(parameter.meaning);
      parameters.append(entry);
    }
    nb::dict entry;
    entry["name"] = text(rule.name);
    entry["kind"] = to_string(rule.kind);
    entry["parameters"] = parameters;
    entry["definition"] = text(rule.definition);
    entry["needs"] = text(rule.needs);
    entry["guarantee"] = text(rule.guarantee);
    entry["source"] = text(rule.source);
    entry["takes_weights"] = rule.takes_weights;
    nb::list examples;
    for (const char* const example : rule.examples) examples.append(example);
    entry["examples"] = examples;
    made.append(entry);
  }
  return made;
}

/// The rule's name and the row that it trusts, if it trusts one.
std::optional<std::pair<std::string, int>> pivot_of(std::string_view rule) {
  const std::optional<detail::Pivot> trusted = detail::pivot_of(parse_shown(rule));
  if (!trusted || !trusted->is_row) return std::nullopt;
  return std::pair(std::string(trusted->rule), trusted->index);
}

int run_command(std::vector<std::string> arguments) {
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const nb::gil_scoped_release released;
  return cli::command(static_cast<int>(arguments.size()), argv.data());
}

}  // namespace

}  // namespace bragg::python

NB_MODULE(_bragg, module) {
  using namespace bragg::python;  // NOLINT: the body of the module
  register_errors();
  add_plan(module);
  add_attacks(module);
  add_audit(module);
  add_judge(module);
  add_reputation(module);
  add_sharded(module);
  add_streamed(module);
  module.attr("version") = BRAGG_VERSION_STRING;
  module.def("rules", &rules_to_python, nb::sig("def rules() -> list[dict[str, typing.Any]]"));
  module.def(
      "normalized", [](std::string_view rule) { return bragg::to_string(parse_shown(rule)); },
      nb::arg("rule"));
  module.def("pivot_of", &pivot_of, nb::arg("rule"));
  module.def("cuda_device_count", &bragg::cuda_device_count);
  module.def("command", &run_command, nb::arg("arguments"));
}
