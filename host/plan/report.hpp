// SPDX-License-Identifier: Apache-2.0
// Builds a Report from a solved block.
#pragma once

#include <bragg/report.hpp>
#include <span>
#include <string>

#include "host/plan/engine.hpp"
#include "rules/sequence.hpp"

namespace bragg::detail {

/// The report of one part, from a block in host memory whose steps have run. `statistics`: b.nonfinite
/// counts.
void write_report(const SolveBlock& b, const Finish& finish, int n, const ActiveRows& active, bool statistics,
                  Report& report);

/// A sentence on a run that failed: which rows are not finite, and what to do.
std::string describe_failure(Status status, std::span<const Report> reports);

}  // namespace bragg::detail
