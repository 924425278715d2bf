// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/plan.hpp>
#include <span>
#include <vector>

namespace bragg::detail {

struct PreAggregated {
  Status status = Status::ok;
  std::vector<Report> reports;
};

/// bragg::pre_aggregate on a stream (any on the CPU), which it waits for; bad data is a status.
/// @throws Error as bragg::pre_aggregate, of arguments.
PreAggregated run_pre_aggregators(const PreSequence& sequence, const Updates& updates,
                                  std::span<const Output> out, const RunArguments& arguments,
                                  const Options& options, Stream stream);

}  // namespace bragg::detail
