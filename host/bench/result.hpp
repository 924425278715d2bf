// SPDX-License-Identifier: Apache-2.0
// The result as JSON and CSV. docs/command.md has the fields.
#pragma once

#include <string>

#include "host/bench/bench.hpp"

namespace bragg::bench {

/// Another number where a reader of the former would misread.
inline constexpr int result_schema = 1;

/// `command`: the whole command line.
std::string result_json(const Findings& findings, const std::string& command);

/// A line for each row and, below it, for each of its peers; the columns that a peer has nothing for are
/// empty.
std::string result_csv(const Findings& findings);

}  // namespace bragg::bench
