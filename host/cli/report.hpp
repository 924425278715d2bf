// SPDX-License-Identifier: Apache-2.0
// The report on each worker, for people and for programs.
#pragma once

#include <bragg/io.hpp>
#include <filesystem>
#include <string>

namespace bragg::cli {

/// A line per worker: weight, kept, and score, clip factor, where there are any; non-finite values.
std::string worker_table(const FileResult& result);

/// JSON; appears whole or not at all.
void write_report(const std::filesystem::path& path, const Pipeline& pipeline, const FileResult& result,
                  const std::filesystem::path& output, Device device);

}  // namespace bragg::cli
