// SPDX-License-Identifier: Apache-2.0
#include "host/files/inputs.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "host/io/element_type.hpp"

namespace bragg::detail {

namespace {

void check_agreement(const Model& first, std::span<const TensorInfo> expected, const Model& other) {
  const auto refuse = [&](const std::string& what) { throw_bad_file(other.path, what); };
  const std::string where = first.path.string();
  if (other.npy != first.npy) {
    const auto kind = [](bool npy) { return npy ? "npy" : "safetensors"; };
    refuse(fmt::format("is {}, but {} is {}", kind(other.npy), where, kind(first.npy)));
  }
  std::size_t i = 0, j = 0;
  while (i < expected.size() || j < other.tensors.size()) {
    const bool only_here =
        i == expected.size() || (j < other.tensors.size() && other.tensors[j].info.name < expected[i].name);
    if (only_here)
      refuse(
          fmt::format("holds tensor {}, which is missing from {}", show(other.tensors[j].info.name), where));
    const TensorInfo& a = expected[i];
    if (j == other.tensors.size() || a.name < other.tensors[j].info.name) {
      refuse(fmt::format("has no tensor {}, which {} holds", show(a.name), where));
    }
    const TensorInfo& b = other.tensors[j].info;
    if (a.dtype != b.dtype) {
      refuse(fmt::format("tensor {} has dtype {}, but {} in {}", show(a.name), b.dtype, a.dtype, where));
    }
    if (a.shape != b.shape) {
      refuse(fmt::format("tensor {} has shape {}, but {} in {}", show(a.name), shape_text(b.shape),
                         shape_text(a.shape), where));
    }
    ++i;
    ++j;
  }
}

std::optional<std::string> format_of(const Model& model) {
  const auto found = std::find_if(model.metadata.begin(), model.metadata.end(),
                                  [](const auto& pair) { return pair.first == "format"; });
  if (found == model.metadata.end()) return std::nullopt;
  return found->second;
}

/// None where not even half of the models say the same.
std::optional<std::string> format_of_most(std::span<const Model> models) {
  std::map<std::optional<std::string>, std::size_t> votes;
  for (const Model& model : models) {
    std::optional<std::string> format = format_of(model);
    if (2 * ++votes[format] > models.size()) return format;
  }
  return std::nullopt;
}

/// A glob and a name that lead to the same file are a slip, and the file would count twice against f.
void check_distinct(std::span<const std::filesystem::path> paths) {
  std::map<std::filesystem::path, const std::filesystem::path*> seen;
  for (const std::filesystem::path& path : paths) {
    const auto [found, added] = seen.emplace(std::filesystem::absolute(path).lexically_normal(), &path);
    if (!added) {
      throw Error(Status::invalid_argument,
                  fmt::format("inputs: {} and {} are the same file; give each worker's once",
                              found->second->string(), path.string()));
    }
  }
}

void add_models_as_rows(Inputs& inputs) {
  for (std::size_t i = 0; i < inputs.models.size(); ++i) {
    inputs.rows.push_back({i, 0});
    inputs.names.push_back(inputs.models[i].path.string());
  }
}

/// A 2-D npy alone holds a row per worker.
void add_matrix_rows(Inputs& inputs) {
  const std::filesystem::path& path = inputs.models.front().path;
  TensorInfo& tensor = inputs.tensors.front();
  const std::int64_t n = tensor.shape[0], d = tensor.shape[1];
  // Bounded before anything is made per row: an array of no columns may claim any number of rows.
  constexpr std::int64_t most = 1 << 20;
  if (n < 1 || n > most) {
    throw_bad_file(path, fmt::format("npy shape {}: expected 1 to {} rows, one per worker",
                                     shape_text(tensor.shape), most));
  }
  const std::int64_t bytes = tensor.bytes / n;
  tensor = {"", tensor.dtype, {d}, d, bytes};
  for (std::int64_t i = 0; i < n; ++i) {
    inputs.rows.push_back({0, i * bytes});
    inputs.names.push_back(fmt::format("{}[{}]", path.string(), i));
  }
}

}  // namespace

Inputs open_inputs(std::span<const std::filesystem::path> paths,
                   const std::optional<std::filesystem::path>& base) {
  if (paths.empty()) throw Error(Status::invalid_argument, "inputs: 0 files; needs at least 1");
  check_distinct(paths);
  Inputs inputs;
  inputs.models.push_back(open_model(paths.front()));
  for (const StoredTensor& tensor : inputs.models.front().tensors) inputs.tensors.push_back(tensor.info);
  for (const std::filesystem::path& path : paths.subspan(1)) {
    inputs.models.push_back(open_model(path));
    check_agreement(inputs.models.front(), inputs.tensors, inputs.models.back());
  }
  const Model& first = inputs.models.front();
  inputs.npy = first.npy;
  const std::size_t dimensions = inputs.npy ? inputs.tensors.front().shape.size() : 0;
  if (paths.size() == 1 && dimensions > 2) {
    throw_bad_file(first.path, fmt::format("npy shape {}: one npy alone holds a row per worker in two "
                                           "dimensions; reshape it, or give a file per worker",
                                           shape_text(inputs.tensors.front().shape)));
  }
  if (paths.size() == 1 && dimensions == 2) {
    add_matrix_rows(inputs);
  } else {
    add_models_as_rows(inputs);
  }
  if (base) {
    inputs.base = open_model(*base);
    check_agreement(first, inputs.tensors, *inputs.base);
  }
  for (std::size_t t = 0; t < inputs.tensors.size(); ++t) {
    const bool floating = element_type_of(inputs.tensors[t]).kind == ElementKind::floating;
    (floating ? inputs.floating : inputs.integers).push_back(t);
  }
  inputs.format = inputs.base ? format_of(*inputs.base) : format_of_most(inputs.models);
  return inputs;
}

void RowReader::read(std::size_t t, std::int64_t begin, std::int64_t bytes, void* to) {
  if (bytes == 0) return;
  const StoredTensor& tensor = model_->tensors[t];
  if (!file_ || open_ != tensor.file) {
    const SourceFile& source = model_->files[tensor.file];
    close();  // one descriptor at a time
    file_.emplace(source.path);
    open_ = tensor.file;
    if (file_->id() != source.id) throw_bad_file(source.path, "changed while it was being read");
  }
  file_->read(tensor.offset + offset_ + begin, to, bytes);
}

void RowReader::close() {
  if (file_) file_->check_unchanged();
  file_.reset();
}

}  // namespace bragg::detail
