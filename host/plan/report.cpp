// SPDX-License-Identifier: Apache-2.0
#include "host/plan/report.hpp"

#include <fmt/format.h>

#include <limits>
#include <vector>

#include "host/base/listed.hpp"

namespace bragg::detail {

void write_report(const SolveBlock& b, const Finish& finish, int n, const ActiveRows& active, bool statistics,
                  Report& report) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  report.rows.assign(static_cast<std::size_t>(n), RowReport{.score = nan});
  report.status = static_cast<Status>(b.words->status);
  report.iterations = b.words->iterations;
  report.converged = b.words->converged != 0;
  report.optimality_gap = b.words->optimality_gap;
  report.recentred = b.words->recentred != 0;
  report.distance_error = b.words->distance_error;
  const bool ok = report.status == Status::ok;
  for (std::size_t i = 0; i < active.rows.size(); ++i) {
    RowReport& row = report.rows[static_cast<std::size_t>(active.rows[i])];
    row.weight = ok ? b.row_weight[i] : 0;
    row.selected = row.weight != 0;
    row.score = ok && finish.scored && finish.stage.are_rows ? b.scores[i] : nan;
    row.clip_factor = b.row_clip[i];
    row.nonfinite = statistics ? b.nonfinite[i] : 0;
  }
}

std::string describe_failure(Status status, std::span<const Report> reports) {
  for (const Report& report : reports) {
    if (report.status != status) continue;
    const std::string where =
        reports.size() > 1 ? fmt::format(" in tensor {}", static_cast<std::size_t>(&report - reports.data()))
                           : "";
    std::vector<std::string> rows;
    for (std::size_t i = 0; i < report.rows.size(); ++i) {
      const std::int64_t count = report.rows[i].nonfinite;
      if (count > 0) rows.push_back(fmt::format("{} ({} value{})", i, count, count == 1 ? "" : "s"));
    }
    switch (status) {
      case Status::too_many_nonfinite:
        if (rows.empty()) {
          return fmt::format(
              "too many rows are beyond the range in which distances can be taken, or have invalid weights"
              "{}; raise f where the rule has one, or leave them out",
              where);
        }
        return fmt::format(
            "too many rows are not finite{}: {} of {} hold NaN or infinity: rows {}; raise f where the rule "
            "has one, or leave them out",
            where, rows.size(), report.rows.size(), listed(rows));
      case Status::nonfinite_base:
        return fmt::format("the base holds NaN or infinity{}, and the pipeline measures from it", where);
      case Status::nonfinite_pivot:
        return fmt::format(
            "the row that the rule trusts (pivot) is not finite{}: it holds NaN or infinity, is beyond the "
            "range "
            "in which distances can be taken, or has an invalid weight; choose another",
            where);
      case Status::no_majority:
        return fmt::format(
            "every row has another that points as it does, seen from the base, or from 0 where none is "
            "given{}: "
            "foolsgold trusts none of them; take another rule",
            where);
      case Status::too_large:
        return fmt::format("mda reached its work limit{}; lower f, or take nnm(f) | trimmed_mean(f)", where);
      case Status::not_converged:
        return fmt::format("the rule stopped after {} iterations, before it converged{}; raise max_iters",
                           report.iterations, where);
      default:
        return fmt::format("{}{}", to_string(status), where);
    }
  }
  return to_string(status);
}

}  // namespace bragg::detail
