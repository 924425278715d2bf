// SPDX-License-Identifier: Apache-2.0
// The report on each worker, for people and for programs.
#pragma once

#include <bragg/io.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "host/cli/reputation.hpp"

namespace bragg::cli {

/// Names fit for a table: without the folder, where they share it.
std::vector<std::string> short_names(const std::vector<std::string>& names);

/// A line per worker: weight, kept, and client weight, score, clip factor, where there are any; non-finite
/// values. Of partial models also how many hold which tensors.
std::string worker_table(const FileResult& result, const std::vector<double>& client_weights);

/// SHA-256 by path.
using FileHashes = std::map<std::string, std::string>;

/// JSON, for commit_together; null: all went to a device or a pipe. `hashes`: empty where none were asked
/// for. `reputation`: null where none is kept.
std::unique_ptr<detail::OutputFile> write_report(const std::filesystem::path& path, const Pipeline& pipeline,
                                                 const FileResult& result,
                                                 const std::filesystem::path& output,
                                                 const FileOptions& options, const FileHashes& hashes,
                                                 const ReputationFile* reputation);

/// Of a run that failed, whole or not at all; `bad`: for each input, why it is a bad one, or nothing.
void write_failure(const std::filesystem::path& path, const Pipeline& pipeline,
                   const std::vector<std::filesystem::path>& inputs, const std::vector<std::string>& bad,
                   const std::filesystem::path& output, Device device, const FileHashes& hashes,
                   const Error& error);

}  // namespace bragg::cli
