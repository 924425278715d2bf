// SPDX-License-Identifier: Apache-2.0
#include "host/cli/inspect.hpp"

#include <fmt/format.h>
#include <bragg/version.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "host/cli/arguments.hpp"
#include "host/cli/holdings.hpp"
#include "host/cli/report.hpp"
#include "host/cli/text.hpp"
#include "host/files/health.hpp"
#include "host/files/holders.hpp"
#include "host/files/integers.hpp"

namespace bragg::cli {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

/// What was found out about the inputs.
struct Findings {
  detail::Inputs inputs;
  std::vector<detail::Health> health;  ///< per row; of a bad one nothing
  std::string integers;           ///< why `aggregate` would refuse the integer tensors; empty: it would not
  std::vector<HeldTensors> held;  ///< of partial models
};

Findings find(const InspectCommand& command) {
  Findings found;
  const std::vector<fs::path> inputs = find_inputs(command.inputs, command.base, std::nullopt);
  FileOptions options;
  options.base = command.base;
  options.exclude = command.exclude;
  options.copy = command.copy;
  options.partial = command.partial;
  found.inputs = detail::open_inputs(inputs, options);
  try {
    detail::check_integers(found.inputs, Integers::automatic);
  } catch (const Error& error) {
    found.integers = error.what();
  }
  for (detail::InputRow& row : found.inputs.rows) {
    found.health.emplace_back();
    if (!row.bad.empty()) continue;
    try {
      found.health.back() = detail::examine(found.inputs, row);
    } catch (const Error& error) {
      if (!detail::is_bad_input(error)) throw;
      row.bad = detail::reason_of(error, found.inputs.models[row.model].path);
    }
  }
  if (command.partial)
    found.held = detail::describe_holders(detail::group_by_holders(found.inputs), found.inputs);
  return found;
}

std::size_t count_bad(const detail::Inputs& inputs) {
  return static_cast<std::size_t>(std::count_if(
      inputs.rows.begin(), inputs.rows.end(), [](const detail::InputRow& row) { return !row.bad.empty(); }));
}

std::string text_of(const Findings& found) {
  const detail::Inputs& inputs = found.inputs;
  const std::vector<std::string> names = short_names(inputs.names);
  std::size_t width = std::string_view("input").size();
  for (const std::string& name : names) width = std::max(width, name.size());
  const bool partial = !found.held.empty();
  std::string text = fmt::format("{:<{}}  {:>5}  {:>10}  {:>10}  {}\n", "input", width,
                                 partial ? "holds" : "form", "non-finite", "norm", "largest tensor");
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!inputs.rows[i].bad.empty()) {
      text += fmt::format("{:<{}}  {:>5}  {}\n", names[i], width, "bad", printable(inputs.rows[i].bad));
      continue;
    }
    const detail::Health& health = found.health[i];
    text += fmt::format("{:<{}}  {:>5}  {:>10}  {:>10.4g}", names[i], width,
                        partial ? holds_text(found.held, i) : "yes", health.nonfinite, health.norm);
    if (health.share > 0) {
      text += fmt::format("  {:>3.0f} %  {}", 100 * health.share,
                          printable(inputs.tensors[health.dominant].name));
    }
    text += "\n";
  }
  const std::size_t good = names.size() - count_bad(inputs);
  text +=
      fmt::format("\n{} of {} input{} {} the form{}{}: {}\n", good, names.size(),
                  names.size() == 1 ? "" : "s", good == 1 ? "has" : "have", inputs.base ? " of the base" : "",
                  partial ? ", or some of it" : "", detail::describe_form(inputs.tensors, inputs.npy));
  if (partial) text += held_text(found.held) + dropped_text(inputs.dropped, inputs.more_dropped);
  if (!found.integers.empty()) text += printable(found.integers) + "\n";
  return text;
}

std::string json_of(const Findings& found) {
  const detail::Inputs& inputs = found.inputs;
  Json json;
  json["version"] = BRAGG_VERSION_STRING;
  json["n"] = inputs.rows.size();
  json["bad"] = count_bad(inputs);
  json["form"] = detail::describe_form(inputs.tensors, inputs.npy);
  json["integers"] = found.integers.empty() ? Json() : Json(found.integers);
  json["inputs"] = Json::array();
  for (std::size_t i = 0; i < inputs.rows.size(); ++i) {
    const bool bad = !inputs.rows[i].bad.empty();
    const detail::Health& health = found.health[i];
    Json input;
    input["name"] = inputs.names[i];
    input["bad"] = bad ? Json(inputs.rows[i].bad) : Json();
    input["nonfinite"] = bad ? Json() : Json(health.nonfinite);
    input["norm"] = bad ? Json() : Json(health.norm);
    input["dominant"] = health.share > 0 ? Json(inputs.tensors[health.dominant].name) : Json();
    input["dominant_share"] = bad ? Json() : Json(health.share);
    json["inputs"].push_back(std::move(input));
  }
  json["tensors"] = Json::array();
  if (!found.held.empty()) {
    json["held"] = held_json(found.held, inputs.names);
    json["dropped"] = dropped_json(inputs.dropped);
    json["more_dropped"] = inputs.more_dropped;
  }
  for (const TensorInfo& tensor : inputs.tensors)
    json["tensors"].push_back({{"name", tensor.name}, {"dtype", tensor.dtype}, {"shape", tensor.shape}});
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

void run(const InspectCommand& command) {
  const Findings found = [&] {
    try {
      return find(command);
    } catch (const Error& error) {
      throw with_option_names(error);
    }
  }();
  fmt::print(stderr, "{}", unused_warnings(found.inputs.unused));
  fmt::print("{}", command.json ? json_of(found) : text_of(found));
}

}  // namespace bragg::cli
