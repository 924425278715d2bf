// SPDX-License-Identifier: Apache-2.0
#include "host/files/hashes.hpp"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <string>
#include <system_error>
#include <utility>
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

/// Looks at no tensor.
class FilesVisitor final : public ModelVisitor {
 public:
  bool skips(const std::string&) override { return true; }
  void tensor(TensorInfo&, const Extent&) override {}
};

/// Those of a model that nobody has opened, as far as they can be told. What is no model may be a file all
/// the same: evidence.
void add_unopened(const std::filesystem::path& path, std::vector<Hashing>& files) {
  FilesVisitor visitor;
  try {
    visit_model(path, visitor);
  } catch (const Error& error) {
    if (!is_bad_input(error)) throw;
  }
  for (const SourceFile& file : visitor.files)
    files.push_back({file.path, file.id, static_cast<std::uint64_t>(file.id.size)});
  std::error_code ignored;
  if (visitor.files.empty() && std::filesystem::is_regular_file(path, ignored))
    files.push_back({path, std::nullopt, std::filesystem::file_size(path, ignored)});
}

void add_files(const PlacedModel& model, bool bad, std::vector<Hashing>& files) {
  if (bad && model.files.empty()) return add_unopened(model.path, files);
  for (const SourceFile& file : model.files)
    files.push_back({file.path, file.id, static_cast<std::uint64_t>(file.id.size)});
}

std::uint64_t bytes_of(const PlacedModel& model) {
  std::uint64_t bytes = 0;
  for (const SourceFile& file : model.files) bytes += static_cast<std::uint64_t>(file.id.size);
  return bytes;
}

std::uint64_t lower_median(std::vector<std::uint64_t> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
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
  return models.empty() ? bytes : std::max(bytes, lower_median(std::move(models)));
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

/// Those of at most `largest` bytes; no others are left.
void hash_files(std::vector<Hashing>& files, std::uint64_t largest, int threads, ProgressCounter& progress,
                std::uint64_t& bytes_read) {
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
    hash_files(files, largest_file(inputs), threads, progress, bytes_read);
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

void hash_unopened(std::span<const std::filesystem::path> inputs, const FileOptions& options, int threads,
                   ProgressCounter& progress, std::uint64_t& bytes_read) {
  std::vector<Hashing> files;
  std::vector<std::uint64_t> models;
  const auto add = [&](const std::filesystem::path& path) {
    const std::size_t before = files.size();
    add_unopened(path, files);
    models.push_back(0);
    for (std::size_t k = before; k < files.size(); ++k) models.back() += files[k].bytes;
  };
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const bool left_out = options.weights.size() == inputs.size() && options.weights[i] == 0;
    if (!left_out) add(inputs[i]);
  }
  if (options.base) add(*options.base);
  if (models.empty()) return;
  const std::uint64_t largest =
      std::max(2 * static_cast<std::uint64_t>(max_header_bytes), lower_median(std::move(models)));
  hash_files(files, largest, threads, progress, bytes_read);
  for (const Hashing& each : files) {
    if (!each.sha256.empty()) options.hashed(each.path.string(), each.sha256);
  }
}

}  // namespace bragg::detail
