// SPDX-License-Identifier: Apache-2.0
// The report on each worker, for people and for programs.
#pragma once

#include <bragg/io.hpp>
#include <filesystem>
#include <string>
#include <vector>

namespace bragg::cli {

/// A line per worker: weight, kept, and client weight, score, clip factor, where there are any; non-finite
/// values.
std::string worker_table(const FileResult& result, const std::vector<double>& client_weights);

/// JSON; appears whole or not at all.
void write_report(const std::filesystem::path& path, const Pipeline& pipeline, const FileResult& result,
                  const std::filesystem::path& output, Device device);

}  // namespace bragg::cli
