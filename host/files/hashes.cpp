// SPDX-License-Identifier: Apache-2.0
#include "host/files/hashes.hpp"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <string>
#include <system_error>
#include <vector>

#include "host/base/team.hpp"
#include "host/files/packed.hpp"
#include "host/io/sha256.hpp"

namespace bragg::detail {

namespace {

struct Hashing {
  std::filesystem::path path;
  std::optional<FileId> opened;  ///< none: it was not opened as a part of a model
  std::uint64_t bytes = 0;       ///< expected
  std::string sha256 = {};       ///< empty: it has none
};

void add_files(const PlacedModel& model, bool bad, std::vector<Hashing>& files) {
  for (const SourceFile& file : model.files)
    files.push_back({file.path, file.id, static_cast<std::uint64_t>(file.id.size)});
  // What is no model may be a file all the same: evidence.
  std::error_code ignored;
  if (bad && model.files.empty() && std::filesystem::is_regular_file(model.path, ignored))
    files.push_back({model.path, std::nullopt, std::filesystem::file_size(model.path, ignored)});
}

std::uint64_t bytes_of(const PlacedModel& model) {
  std::uint64_t bytes = 0;
  for (const SourceFile& file : model.files) bytes += static_cast<std::uint64_t>(file.id.size);
  return bytes;
}

/// Tensors that are left out count as most models have them.
std::uint64_t largest_file(const Inputs& inputs) {
  std::uint64_t bytes = 2 * static_cast<std::uint64_t>(max_header_bytes);  // npz: a directory besides
  for (const TensorInfo& tensor : inputs.tensors) bytes += static_cast<std::uint64_t>(tensor.bytes);
  if (inputs.matrix) return bytes + bytes * inputs.rows.size();
  std::vector<std::uint64_t> models;
  for (const InputRow& row : inputs.rows) {
    if (row.bad.empty() && !row.left_out) models.push_back(bytes_of(inputs.models[row.model]));
  }
  if (models.empty()) return bytes;
  const auto middle = models.begin() + static_cast<std::ptrdiff_t>((models.size() - 1) / 2);
  std::nth_element(models.begin(), middle, models.end());
  return std::max(bytes, *middle);
}

/// Of this rank.
std::vector<Hashing> list_files(const Inputs& inputs, const Ranks& ranks) {
  std::vector<Hashing> files;
  const auto is_own = [&](std::size_t row) {
    return static_cast<int>(row % static_cast<std::size_t>(ranks.size())) == ranks.rank();
  };
  if (inputs.matrix) {
    if (ranks.is_first()) add_files(inputs.models.front(), false, files);
  } else {
    for (std::size_t i = 0; i < inputs.rows.size(); ++i) {
      const InputRow& row = inputs.rows[i];
      if (!row.left_out && is_own(i)) add_files(inputs.models[row.model], !row.bad.empty(), files);
    }
  }
  if (inputs.base && is_own(inputs.rows.size())) add_files(*inputs.base, false, files);
  return files;
}

void hash_files(const Inputs& inputs, std::vector<Hashing>& files, int threads, ProgressCounter& progress,
                std::uint64_t& bytes_read) {
  const std::uint64_t largest = largest_file(inputs);
  std::erase_if(files, [&](const Hashing& each) { return each.bytes > largest; });
  for (const Hashing& each : files) progress.expect(each.bytes);
  std::atomic<std::uint64_t> read = 0;
  const auto tell = [&] {  // only the calling thread may
    const std::uint64_t bytes = read.exchange(0);
    progress.advance(bytes);
    bytes_read += bytes;
  };
  std::exception_ptr failure;
  constexpr int most_threads = 16;  // more gain nothing, and each has a buffer
#pragma omp parallel for schedule(dynamic) num_threads(team(std::min(threads, most_threads)))
  for (std::size_t k = 0; k < files.size(); ++k) {
    Hashing& each = files[k];
    try {
      const ReadFile file(each.path);
      const bool same =
          each.opened ? file.id() == *each.opened : static_cast<std::uint64_t>(file.size()) == each.bytes;
      if (!same) continue;
      each.sha256 = sha256_of(file, [&](std::uint64_t bytes) {
        read += bytes;
        if (omp_get_thread_num() == 0) tell();
      });
    } catch (const Error& error) {
      // Whoever reads the file for its values is told why that is impossible.
      if (is_bad_input(error)) continue;
#pragma omp critical
      failure = std::current_exception();
    } catch (...) {
#pragma omp critical
      failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
  tell();
  for (const Hashing& each : files) {
    if (each.sha256.empty()) progress.skip(each.bytes);
  }
}

}  // namespace

void hash_inputs(const Inputs& inputs, const FileOptions& options, Ranks& ranks, int threads,
                 ProgressCounter& progress, std::uint64_t& bytes_read) {
  Packer mine;
  ranks.together([&] {
    std::vector<Hashing> files = list_files(inputs, ranks);
    hash_files(inputs, files, threads, progress, bytes_read);
    for (const Hashing& each : files) {
      if (each.sha256.empty()) continue;
      mine.put(std::string_view(each.path.native()));
      mine.put(std::string_view(each.sha256));
    }
  });
  for (const std::string& all : ranks.gather(mine.bytes())) {
    for (Unpacker from(all); !from.empty();) {
      const std::string path = from.take_text();
      options.hashed(path, from.take_text());
    }
  }
}

}  // namespace bragg::detail
