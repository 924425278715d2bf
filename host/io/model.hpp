// SPDX-License-Identifier: Apache-2.0
// The checked headers of a checkpoint; the readers of safetensors and npy.
#pragma once

#include <bragg/io.hpp>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "host/io/file.hpp"

namespace bragg::detail {

using Metadata = std::vector<std::pair<std::string, std::string>>;

/// A tensor and where its bytes are.
struct StoredTensor {
  TensorInfo info;
  std::size_t file = 0;     ///< index in Model::files
  std::int64_t offset = 0;  ///< from the start of that file
};

struct SourceFile {
  std::filesystem::path path;
  FileId id;
};

struct Model {
  std::filesystem::path path;
  bool npy = false;
  std::vector<SourceFile> files;
  std::vector<StoredTensor> tensors;  ///< sorted by name
  Metadata metadata;
};

/// Reads the headers of a safetensors file, a sharded model or the folder that holds it, or an npy file.
/// @throws Error bad_file, unsupported (an element type), io_error.
Model open_model(const std::filesystem::path& path);

/// One safetensors or npy file; tensors sorted by name, all of file 0.
Model read_safetensors(const ReadFile& file);
Model read_npy(const ReadFile& file);

/// The parts of a sharded model that `index` (*.index.json) names.
Model read_index(const std::filesystem::path& index);

/// Layout of a safetensors file of these tensors.
struct Layout {
  std::string header;                 ///< the file's first bytes, up to the data
  std::vector<std::int64_t> offsets;  ///< of each tensor, in the given order, from the start of the file
  std::int64_t bytes = 0;             ///< of the file
};

/// Larger elements first, then by name, so that every tensor is aligned.
/// @throws Error invalid_argument: a name twice or not UTF-8, an unknown dtype, a shape that is negative or
/// too large.
Layout safetensors_layout(std::span<const TensorInfo> tensors, const Metadata& metadata);

/// The npy file of one array. @throws Error invalid_argument: a dtype that npy lacks.
Layout npy_layout(const TensorInfo& tensor);

inline constexpr std::int64_t max_header_bytes =
    100'000'000;                                   // as the reference implementation of safetensors
inline constexpr std::size_t max_dimensions = 64;  // as NumPy

}  // namespace bragg::detail
