// SPDX-License-Identifier: Apache-2.0
#include "python/src/audit.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <bragg/audit.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "host/audit/rows.hpp"
#include "host/cli/audit_report.hpp"
#include "python/src/arrays.hpp"
#include "python/src/errors.hpp"

namespace bragg::python {

namespace {

/// The report for people, and as JSON. `bad`: of each row why it is a bad input; empty: of none.
std::pair<std::string, std::string> audit(nb::handle updates, nb::handle names, nb::handle base,
                                          std::vector<std::string> workers, std::vector<std::string> tensors,
                                          const std::vector<std::string>& bad, std::vector<std::string> rules,
                                          std::optional<int> f, std::int64_t sample, std::uint64_t seed,
                                          std::uintptr_t stream) {
  for (const std::string& rule : rules) check_rule_of_f(rule);
  Batch batch(updates, names, stream);
  AuditOptions options{.rules = std::move(rules), .f = f, .sample = sample, .seed = seed, .base = {}};
  if (!base.is_none()) {
    const std::vector<void*> read = batch.read_row(base, "base", {}, false, stream);
    options.base.tensors.assign(read.begin(), read.end());
  }
  const Updates rows = batch.view();
  const nb::gil_scoped_release released;
  const cli::AuditReport report{.workers = std::move(workers),
                                .tensors = std::move(tensors),
                                .audit = detail::audit_updates(rows, options, bad)};
  return {report.text(), report.json()};
}

}  // namespace

void add_audit(nb::module_& module) {
  module.def("audit", &audit, nb::arg("updates").none(), nb::arg("names").none(), nb::arg("base").none(),
             nb::arg("workers"), nb::arg("tensors"), nb::arg("bad"), nb::arg("rules"), nb::arg("f").none(),
             nb::arg("sample"), nb::arg("seed"), nb::arg("stream"));
}

}  // namespace bragg::python
