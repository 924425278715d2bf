// SPDX-License-Identifier: Apache-2.0
#include "host/io/output_model.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <system_error>

namespace bragg::detail {

namespace fs = std::filesystem;

namespace {

constexpr const char* index_name = "model.safetensors.index.json";

/// Of tensors, in their order: as many to a shard as fit.
std::vector<std::vector<std::size_t>> split(std::span<const TensorInfo> tensors, std::uint64_t shard_size) {
  std::vector<std::vector<std::size_t>> shards(1);
  std::uint64_t filled = 0;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const auto bytes = static_cast<std::uint64_t>(tensors[t].bytes);
    if (!shards.back().empty() && (filled > shard_size || bytes > shard_size - filled)) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(t);
    filled += bytes;
  }
  return shards;
}

/// Two models in one folder would be none: whoever reads the folder could not tell which is meant.
void check_no_model(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with('.')) continue;
    if (!name.ends_with(".safetensors") && !name.ends_with(".safetensors.index.json")) continue;
    throw Error(Status::invalid_argument,
                fmt::format("output {} holds a model already ({}); give another folder, or remove that model",
                            show(folder.string()), show(name)));
  }
  if (error) throw_io_error(folder, "list it", error.value());
}

fs::path place_of(const fs::path& path, const ModelLayout::File& file) {
  return file.name.empty() ? path : path / file.name;
}

}  // namespace

ModelLayout single_layout(Layout layout, std::size_t tensors) {
  ModelLayout model;
  model.files.push_back({"", std::move(layout), std::vector<std::size_t>(tensors)});
  std::iota(model.files.front().tensors.begin(), model.files.front().tensors.end(), std::size_t{0});
  return model;
}

ModelLayout npz_model_layout(std::span<const TensorInfo> tensors) {
  NpzLayout npz = npz_layout(tensors);
  ModelLayout model = single_layout(npz.layout, tensors.size());
  model.npz = std::move(npz);
  return model;
}

ModelLayout sharded_layout(std::span<const TensorInfo> tensors, const Metadata& metadata,
                           std::uint64_t shard_size) {
  constexpr std::size_t most = 512;  // all are open at a time
  const std::vector<std::vector<std::size_t>> shards = split(tensors, shard_size);
  if (shards.size() > most) {
    throw Error(Status::invalid_argument,
                fmt::format("shard_size = {} bytes would make {} files; needs at most {}", shard_size,
                            shards.size(), most));
  }
  ModelLayout model;
  nlohmann::json index;
  std::int64_t total = 0;
  for (const std::vector<std::size_t>& shard : shards) {
    const std::string name = shards.size() == 1 ? "model.safetensors"
                                                : fmt::format("model-{:05}-of-{:05}.safetensors",
                                                              model.files.size() + 1, shards.size());
    std::vector<TensorInfo> infos;
    for (const std::size_t t : shard) {
      infos.push_back(tensors[t]);
      index["weight_map"][tensors[t].name] = name;
      total += tensors[t].bytes;
    }
    model.files.push_back({name, safetensors_layout(infos, metadata), shard});
  }
  if (shards.size() == 1) return model;
  index["metadata"]["total_size"] = total;
  model.index = index.dump(2) + "\n";
  return model;
}

void OutputModel::place_tensors(const ModelLayout& layout) {
  npz_ = layout.npz;
  for (std::size_t f = 0; f < layout.files.size(); ++f) {
    const ModelLayout::File& file = layout.files[f];
    for (std::size_t k = 0; k < file.tensors.size(); ++k) {
      places_.resize(std::max(places_.size(), file.tensors[k] + 1));
      places_[file.tensors[k]] = {f, file.layout.offsets[k]};
    }
  }
  if (!npz_) return;
  for (std::size_t t = 0; t < places_.size(); ++t) written_.push_back({.tensor = t});
}

OutputModel::OutputModel(const fs::path& path, const ModelLayout& layout,
                         std::span<const std::string> temporaries) {
  if (!layout.files.front().name.empty()) {
    folder_.emplace(path);
    check_no_model(path);
  }
  place_tensors(layout);
  for (std::size_t f = 0; f < layout.files.size(); ++f) {
    const Layout& file = layout.files[f].layout;
    const fs::path temporary = temporaries.empty() ? fs::path() : fs::path(temporaries[f]);
    files_.push_back(std::make_unique<OutputFile>(place_of(path, layout.files[f]), file.bytes, temporary));
    files_.back()->write(0, file.header.data(), static_cast<std::int64_t>(file.header.size()));
  }
  if (!layout.index.empty()) {
    const auto bytes = static_cast<std::int64_t>(layout.index.size());
    files_.push_back(std::make_unique<OutputFile>(path / index_name, bytes));
    files_.back()->write(0, layout.index.data(), bytes);
  }
}

std::unique_ptr<OutputModel> OutputModel::join(const fs::path& path, const ModelLayout& layout,
                                               std::span<const std::string> temporaries) {
  std::unique_ptr<OutputModel> model(new OutputModel);
  model->place_tensors(layout);
  for (std::size_t f = 0; f < layout.files.size(); ++f)
    model->files_.push_back(OutputFile::join(place_of(path, layout.files[f]), temporaries[f]));
  return model;
}

std::vector<std::string> OutputModel::make_temporaries(const fs::path& path, const ModelLayout& layout) {
  std::vector<std::string> names;
  for (const ModelLayout::File& file : layout.files)
    names.push_back(OutputFile::make_temporary(place_of(path, file)).string());
  return names;
}

void OutputModel::open() {
  for (const auto& file : files_) file->open();
}

void OutputModel::write(std::size_t t, std::int64_t begin, const void* from, std::int64_t bytes) {
  files_[places_[t].file]->write(places_[t].offset + begin, from, bytes);
  if (!npz_) return;
  Written& written = written_[t];
  if (begin != written.begin + written.bytes) written = {.tensor = t, .begin = begin};  // anew
  written.crc = static_cast<std::uint32_t>(
      ::crc32_z(written.crc, static_cast<const Bytef*>(from), static_cast<std::size_t>(bytes)));
  written.bytes += bytes;
}

std::vector<OutputModel::Written> OutputModel::written() const {
  std::vector<Written> parts;
  for (const Written& part : written_) {
    if (part.bytes > 0) parts.push_back(part);
  }
  return parts;
}

void OutputModel::add_written(const Written& part) {
  Written& whole = written_[part.tensor];
  whole.crc = static_cast<std::uint32_t>(::crc32_combine(whole.crc, part.crc, part.bytes));
  whole.bytes += part.bytes;
}

void OutputModel::leave() {
  for (const auto& file : files_) file->leave();
}

std::vector<OutputFile*> OutputModel::finish() {
  if (npz_) {
    std::vector<std::uint32_t> crcs;
    for (const Written& written : written_) crcs.push_back(written.crc);
    for (const auto& [offset, text] : npz_headers(*npz_, crcs))
      files_.front()->write(offset, text.data(), static_cast<std::int64_t>(text.size()));
  }
  std::vector<OutputFile*> files;
  for (const auto& file : files_) files.push_back(file.get());
  return files;
}

void OutputModel::keep() {
  if (folder_) folder_->keep();
}

}  // namespace bragg::detail
