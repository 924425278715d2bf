// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>
#include <bragg/plan.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bragg::python {

namespace nb = nanobind;

/// A run whose status is not ok: an AggregationError in Python, with the reports.
struct RunFailed {
  Status status;
  std::string message;
  std::vector<Report> reports;
};

/// A tuple of bragg.Report. `nonfinite`: of each, the values of the result that are NaN or infinite; empty
/// where nobody has counted them.
using Reports = nb::typed<nb::tuple, nb::any, nb::ellipsis>;
Reports reports_to_python(std::span<const Report> reports, std::span<const std::int64_t> nonfinite = {});

/// Makes Python's exceptions of RunFailed, ParseError and Error.
void register_errors();

/// bragg::parse and parse_pre_aggregators; the error shows the text and the place.
Pipeline parse_shown(std::string_view text);
PreSequence parse_pre_aggregators_shown(std::string_view text);

/// Parses a pipeline in which F stands for f, and shows it as it was given.
void check_rule_of_f(std::string_view rule);

}  // namespace bragg::python
