// SPDX-License-Identifier: Apache-2.0
#include "host/files/failure.hpp"

#include <fmt/format.h>

#include "host/plan/report.hpp"

namespace bragg::detail {

void throw_failure(const Solution& solution, const Inputs& inputs, const Pipeline& pipeline,
                   const TensorInfo* tensor) {
  const std::string where = tensor != nullptr ? fmt::format("tensor {}: ", show(tensor->name)) : "";
  if (solution.status != Status::too_many_nonfinite) {
    std::string what = describe_failure(solution.status, {&solution.report, 1});
    if (solution.status == Status::nonfinite_base)
      what += ": " + (inputs.base ? inputs.base->path.string() : std::string());
    throw Error(solution.status, where + what);
  }
  std::string files;
  int count = 0;
  constexpr int most = 8;
  for (std::size_t i = 0; i < solution.report.rows.size(); ++i) {
    const std::int64_t nonfinite = solution.report.rows[i].nonfinite;
    if (nonfinite == 0 || ++count > most) continue;
    files += fmt::format("{}{} ({} values)", count > 1 ? ", " : ": ", inputs.names[i], nonfinite);
  }
  if (count > most) files += fmt::format(" and {} more", count - most);
  if (count == 0) files = ", but values beyond 2^500 and invalid weights count as infinite";
  throw Error(solution.status,
              fmt::format("{}too many workers are not finite for {}: {} of {} hold NaN or infinity{}; "
                          "raise f where the rule has one, or leave them out with weight 0",
                          where, bragg::to_string(pipeline), count, inputs.names.size(), files));
}

}  // namespace bragg::detail
