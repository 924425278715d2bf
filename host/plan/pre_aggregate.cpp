// SPDX-License-Identifier: Apache-2.0
#include "host/plan/pre_aggregate.hpp"

#include <fmt/format.h>

#include "host/base/api_call.hpp"
#include "host/plan/plan_backend.hpp"
#include "host/plan/report.hpp"

namespace bragg {

namespace detail {

PreAggregated run_pre_aggregators(const PreSequence& sequence, const Updates& updates,
                                  std::span<const Output> out, const RunArguments& arguments,
                                  const Options& options, Stream stream) {
  if (sequence.pre.empty()) {
    throw Error(Status::invalid_argument, "pre_aggregate: no pre-aggregator is given; needs 1 or more");
  }
  if (!arguments.weights.empty()) {
    throw Error(Status::invalid_argument,
                "weights: pre_aggregate takes none, for the points' own have no place in `out`; leave them "
                "out, or run the whole pipeline by aggregate");
  }
  Options chosen = options;
  chosen.device = device_of(updates, options);
  // The rule is never run. Of all rules the median asks for nothing.
  PlanRequest request({sequence.pre, Median{}}, Shape::of(updates), chosen);
  request.point_outputs = points_after(sequence, updates.n());
  if (out.size() != static_cast<std::size_t>(request.point_outputs)) {
    throw Error(Status::invalid_argument, fmt::format("out: {} outputs; needs one for each of {} points",
                                                      out.size(), request.point_outputs));
  }
  request.check(updates, out, arguments.base);
  Output all;
  for (const Output& one : out) all.tensors.insert(all.tensors.end(), one.tensors.begin(), one.tensors.end());

  const std::unique_ptr<PlanBackend> backend =
      chosen.device == Device::cuda ? make_cuda_plan(request) : make_cpu_plan(request);
  backend->run(updates, all, stream.get(), arguments);
  backend->wait(stream.get());
  return {backend->status(), {backend->reports().begin(), backend->reports().end()}};
}

}  // namespace detail

inline namespace v0 {

std::vector<Report> pre_aggregate(const PreSequence& sequence, const Updates& updates,
                                  std::span<const Output> out, const RunArguments& arguments,
                                  const Options& options) {
  return detail::api_call("pre_aggregate", [&] {
    detail::PreAggregated done =
        detail::run_pre_aggregators(sequence, updates, out, arguments, options, Stream::legacy_default());
    if (done.status != Status::ok) {
      throw Error(done.status, detail::describe_failure(done.status, done.reports));
    }
    return std::move(done.reports);
  });
}

}  // namespace v0

}  // namespace bragg
