// SPDX-License-Identifier: Apache-2.0
#include "python/src/judge.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "host/verify/judge.hpp"
#include "host/verify/values.hpp"
#include "python/src/arrays.hpp"
#include "python/src/errors.hpp"

namespace bragg::python {

namespace {

/// A contiguous array's elements, as they are.
std::vector<long double> values(nb::handle object, const char* argument, DType* dtype) {
  const Array array = read_array(object, {.argument = argument}, 0);
  std::size_t count = 1;
  for (const std::int64_t extent : array.shape) count *= static_cast<std::size_t>(extent);
  std::vector<long double> read(count);
  for (std::size_t i = 0; i < count; ++i) read[i] = verify::load(array.dtype, array.data, i);
  *dtype = array.dtype;
  return read;
}

/// Whether the oracle could tell, and what is wrong with `out` ("" where nothing is).
std::pair<bool, std::string> judge_result(std::string_view rule, nb::handle updates, nb::handle out,
                                          nb::handle base, const std::vector<double>& weights,
                                          double max_weight_share) {
  const Pipeline pipeline = parse_shown(rule);
  verify::Request request{.weights = weights};
  const std::vector<long double> all = values(updates, "updates", &request.dtype);
  DType out_dtype = request.dtype;
  const verify::Outcome outcome{.status = Status::ok,
                                .out = values(out, "out", &out_dtype),
                                .reports = {},
                                .bytes = {},
                                .trespass = {}};
  const auto d = static_cast<std::ptrdiff_t>(outcome.out.size());
  for (auto row = all.begin(); row != all.end(); row += d) request.rows.emplace_back(row, row + d);
  validate(pipeline, static_cast<int>(request.rows.size()));
  DType ignored{};
  if (!base.is_none()) request.reference = values(base, "base", &ignored);
  request.options.out_dtype = out_dtype;
  request.options.max_weight_share = max_weight_share;
  const verify::Verdict verdict =
      verify::judge(pipeline, request, verify::expect(pipeline, request), outcome);
  return {verdict.judged, verdict.complaint()};
}

}  // namespace

void add_judge(nb::module_& module) {
  module.def("judge", &judge_result, nb::arg("rule"), nb::arg("updates"), nb::arg("out"),
             nb::arg("base").none() = nb::none(), nb::arg("weights") = std::vector<double>{},
             nb::arg("max_weight_share") = 0.0);
}

}  // namespace bragg::python
