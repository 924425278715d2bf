// SPDX-License-Identifier: Apache-2.0
// Aggregation of files, with other files that appear together with the output.
#pragma once

#include <bragg/io.hpp>
#include <functional>
#include <memory>

#include "host/io/file.hpp"

namespace bragg::detail {

/// Written, and without their names; null: none.
struct FilesBeside {
  std::unique_ptr<OutputFile> report = nullptr;
  std::unique_ptr<OutputFile> reputation = nullptr;
};

/// Called at most once, of ranks on the first alone, when output and server's state are written and before
/// any file has its name. What it throws leaves all files as they were. It may change the result.
using WriteBeside = std::function<FilesBeside(FileResult&)>;

/// As bragg::aggregate_files. The files get their names together (commit_together) in this order: the output,
/// a model's index last, the report, the server's state, the reputation. So whoever finds an old report after
/// a kill has old states, and the same run may be made once more.
FileResult aggregate_files(const Pipeline& pipeline, std::span<const std::filesystem::path> inputs,
                           const std::filesystem::path& output, const FileOptions& given,
                           const WriteBeside& beside);

}  // namespace bragg::detail
