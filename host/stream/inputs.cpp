// SPDX-License-Identifier: Apache-2.0
#include "host/stream/inputs.hpp"

#include <fmt/format.h>

#include <algorithm>

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
      refuse(fmt::format("holds tensor {}, which {} has not", show(other.tensors[j].info.name), where));
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
  Inputs inputs;
  inputs.models.push_back(open_model(paths.front()));
  for (const StoredTensor& tensor : inputs.models.front().tensors) inputs.tensors.push_back(tensor.info);
  for (const std::filesystem::path& path : paths.subspan(1)) {
    inputs.models.push_back(open_model(path));
    check_agreement(inputs.models.front(), inputs.tensors, inputs.models.back());
  }
  const Model& first = inputs.models.front();
  inputs.npy = first.npy;
  if (paths.size() == 1 && inputs.npy && inputs.tensors.front().shape.size() == 2) {
    add_matrix_rows(inputs);
  } else {
    add_models_as_rows(inputs);
  }
  if (base) {
    inputs.base = open_model(*base);
    check_agreement(first, inputs.tensors, *inputs.base);
  }
  inputs.metadata = first.metadata;
  for (const Model& model : inputs.models) {
    std::erase_if(inputs.metadata, [&](const auto& pair) {
      return std::find(model.metadata.begin(), model.metadata.end(), pair) == model.metadata.end();
    });
  }
  return inputs;
}

void RowReader::read(std::size_t t, std::int64_t begin, std::int64_t bytes, void* to) {
  if (bytes == 0) return;
  const StoredTensor& tensor = model_->tensors[t];
  if (!file_ || open_ != tensor.file) {
    const SourceFile& source = model_->files[tensor.file];
    file_.reset();  // one descriptor at a time
    file_.emplace(source.path);
    open_ = tensor.file;
    if (file_->id() != source.id) throw_bad_file(source.path, "changed while it was being read");
  }
  file_->read(tensor.offset + offset_ + begin, to, bytes);
}

}  // namespace bragg::detail
