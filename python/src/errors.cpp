// SPDX-License-Identifier: Apache-2.0
#include "python/src/errors.hpp"

#include <fmt/format.h>

#include <utility>

#include "rules/with_f.hpp"

namespace bragg::python {

namespace {

template <class ValueF>
nb::tuple each_row(const Report& report, ValueF value) {
  nb::list values;
  for (const RowReport& row : report.rows) values.append(value(row));
  return nb::tuple(values);
}

nb::object report_to_python(const nb::object& type, const Report& report, const nb::object& nonfinite) {
  return type(
      nb::arg("status") = to_string(report.status), nb::arg("iterations") = report.iterations,
      nb::arg("converged") = report.converged, nb::arg("optimality_gap") = report.optimality_gap,
      nb::arg("recentred") = report.recentred, nb::arg("distance_error") = report.distance_error,
      nb::arg("weights") = each_row(report, [](const RowReport& row) { return row.weight; }),
      nb::arg("selected") = each_row(report, [](const RowReport& row) { return row.selected; }),
      nb::arg("scores") = each_row(report, [](const RowReport& row) { return row.score; }),
      nb::arg("nonfinite") = each_row(report, [](const RowReport& row) { return row.nonfinite; }),
      nb::arg("clip_factors") = each_row(report, [](const RowReport& row) { return row.clip_factor; }),
      nb::arg("nonfinite_result") = nonfinite);
}

nb::object reported(const char* name) { return nb::module_::import_("bragg._report").attr(name); }

void raise(const nb::object& exception) {
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
}

void raise_failure(Status status, const char* message, std::span<const Report> reports) {
  raise(reported("AggregationError")(message, to_string(status), static_cast<int>(status),
                                     reports_to_python(reports)));
}

void raise_error(const Error& error) {
  switch (error.status()) {
    case Status::too_many_nonfinite:
    case Status::nonfinite_base:
    case Status::too_large:
    case Status::not_converged:
    case Status::nonfinite_pivot:
    case Status::no_majority:
      raise_failure(error.status(), error.what(), {});
      return;
    case Status::io_error:
      PyErr_SetString(PyExc_OSError, error.what());
      return;
    case Status::out_of_memory:
      PyErr_SetString(PyExc_MemoryError, error.what());
      return;
    case Status::unsupported:
    case Status::internal:
    case Status::communication:
    case Status::disagreement:
      PyErr_SetString(PyExc_RuntimeError, error.what());
      return;
    default:
      PyErr_SetString(PyExc_ValueError, error.what());
  }
}

}  // namespace

Reports reports_to_python(std::span<const Report> reports, std::span<const std::int64_t> nonfinite) {
  if (reports.empty()) return Reports(nb::make_tuple());
  const nb::object type = reported("Report");
  nb::list made;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const nb::object count = nonfinite.empty() ? nb::object(nb::none()) : nb::object(nb::int_(nonfinite[i]));
    made.append(report_to_python(type, reports[i], count));
  }
  return Reports(nb::tuple(made));
}

void register_errors() {
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const RunFailed& failed) {
      raise_failure(failed.status, failed.message.c_str(), failed.reports);
    } catch (const ParseError& error) {
      raise(reported("ParseError")(error.what(), error.column()));
    } catch (const Error& error) {
      raise_error(error);
    }
  });
}

namespace {

/// Shows `given`, which is as long as the text up to the place.
template <class ReadT>
auto shown(std::string_view text, std::string_view given, const ReadT& read) {
  try {
    return read(text);
  } catch (const ParseError& error) {
    throw ParseError(fmt::format("{}\n  {}\n  {:>{}}", error.what(), given, '^', error.column()),
                     error.column());
  }
}

}  // namespace

Pipeline parse_shown(std::string_view text) { return shown(text, text, parse); }
PreSequence parse_pre_aggregators_shown(std::string_view text) {
  return shown(text, text, parse_pre_aggregators);
}
void check_rule_of_f(std::string_view rule) {
  shown(detail::with_f(std::string(rule), 1), rule, parse);  // a digit is as long as F
}

}  // namespace bragg::python
