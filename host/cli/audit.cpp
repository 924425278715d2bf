// SPDX-License-Identifier: Apache-2.0
#include "host/cli/audit.hpp"

#include <fmt/format.h>
#include <bragg/audit.hpp>
#include <bragg/pipeline.hpp>

#include <algorithm>
#include <string_view>
#include <utility>

#include "host/bench/cases.hpp"
#include "host/cli/arguments.hpp"
#include "host/cli/audit_plot.hpp"
#include "host/cli/audit_report.hpp"
#include "host/cli/holdings.hpp"
#include "host/cli/output.hpp"
#include "host/cli/report.hpp"
#include "host/files/audit_files.hpp"
#include "rules/with_f.hpp"

namespace bragg::cli {

namespace fs = std::filesystem;

namespace {

/// The library names its own options and rows; the command's have other names.
Error with_audit_names(const Error& error) {
  const std::string what = error.what();
  for (const auto& [start, option] :
       {std::pair("base: ", "--base: "), std::pair("rules: ", "--rule: "), std::pair("updates: ", "")}) {
    if (what.starts_with(start))
      return {error.status(), option + what.substr(std::string_view(start).size())};
  }
  return with_option_names(error);
}

/// A base that no input is like is the wrong one: there would be nothing to compare.
void check_base(const detail::Inputs& inputs) {
  const auto is_bad = [](const detail::InputRow& row) { return !row.bad.empty(); };
  if (!inputs.base || !std::all_of(inputs.rows.begin(), inputs.rows.end(), is_bad)) return;
  throw Error(Status::invalid_argument,
              fmt::format("base: none of the {} inputs is like {}; the first: {}: {}", inputs.rows.size(),
                          inputs.base->path.string(), inputs.names.front(), inputs.rows.front().bad));
}

AuditReport find(const AuditCommand& command, const std::vector<fs::path>& paths) {
  FileOptions options;
  options.base = command.base;
  options.exclude = command.exclude;
  detail::Inputs inputs = detail::open_inputs(paths, options);
  check_base(inputs);
  fmt::print(stderr, "{}", unused_warnings(inputs.unused));
  if (std::all_of(inputs.floating.begin(), inputs.floating.end(),
                  [&](std::size_t t) { return inputs.tensors[t].elements == 0; })) {
    const char* const option = command.exclude.empty() ? "INPUT" : "--exclude";
    throw Error(
        Status::invalid_argument,
        fmt::format("{}: no coordinate of a floating-point tensor is left to compare workers by", option));
  }
  AuditReport report{.workers = inputs.names, .tensors = {}, .audit = {}};
  for (const std::size_t t : inputs.floating) report.tensors.push_back(inputs.tensors[t].name);
  const AuditOptions audit{
      .rules = command.rules, .f = command.f, .sample = command.sample, .seed = command.seed, .base = {}};
  report.audit = detail::audit_files(inputs, audit);
  return report;
}

}  // namespace

void run(const AuditCommand& command) {
  for (const std::string& rule : command.rules) {
    try {
      parse(detail::with_f(rule, 1));  // a digit is as long as F: the column is right in both
    } catch (const ParseError& error) {
      throw bench::UnreadableRule(error, rule);
    }
  }
  const std::vector<fs::path> paths = find_inputs(command.inputs, command.base, std::nullopt);
  if (command.svg) check_place("--svg", *command.svg, command.base, command.inputs, paths);
  if (command.f && 2 * static_cast<std::size_t>(*command.f) >= paths.size() && paths.size() > 1) {
    throw Error(Status::invalid_argument,
                fmt::format("--f: {} of {} workers; needs less than half", *command.f, paths.size()));
  }
  const AuditReport report = [&] {
    try {
      return find(command, paths);
    } catch (const Error& error) {
      throw with_audit_names(error);
    }
  }();
  if (command.svg) write_whole("--svg", *command.svg, audit_plot(report.audit));
  fmt::print("{}", command.json ? report.json() : report.text());
}

}  // namespace bragg::cli
