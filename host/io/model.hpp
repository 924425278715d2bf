// SPDX-License-Identifier: Apache-2.0
// The checked headers of a checkpoint; the readers of safetensors, npy and npz.
#pragma once

#include <bragg/io.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "host/io/file.hpp"

namespace bragg::detail {

using Metadata = std::vector<std::pair<std::string, std::string>>;

/// Where the bytes of a tensor are in a file, as they are or deflated.
struct Extent {
  std::int64_t offset = 0;    ///< from the start of the file
  std::uint32_t skipped = 0;  ///< deflated: bytes of the stream before the tensor's; 0: as they are
  std::uint32_t crc = 0;      ///< of the tensor's bytes; deflated: of the whole stream
  bool has_crc = false;
  bool operator==(const Extent&) const = default;
};

/// A tensor and where its bytes are.
struct StoredTensor {
  TensorInfo info;
  std::size_t file = 0;  ///< index in Model::files
  Extent extent;
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

/// Told what a model's headers hold, piece by piece, so that who only compares keeps nothing of a stranger's.
class ModelVisitor {
 public:
  ModelVisitor() = default;
  ModelVisitor(const ModelVisitor&) = delete;
  ModelVisitor& operator=(const ModelVisitor&) = delete;
  virtual ~ModelVisitor() = default;

  bool npy = false;
  std::vector<SourceFile> files;  ///< opened so far; what is told below is of the last

  virtual void metadata(std::string& /*key*/, std::string& /*value*/) {}
  /// Whether a tensor of that name is none to look at, whatever it is. Then only its bytes are told, where
  /// `data` is, too.
  virtual bool skips(const std::string& /*name*/) { return false; }
  virtual void skipped(std::int64_t /*bytes*/) {}
  /// Whether tensors of dtypes that cannot be aggregated are told, too. They have no elements.
  virtual bool takes_any_dtype() const { return false; }
  /// By itself it is right: a dtype that is taken, and as many bytes within the data as dtype and shape
  /// imply.
  virtual void tensor(TensorInfo& info, const Extent& extent) = 0;
  /// After the tensors of a file, which have to fill its bytes [begin, end).
  virtual void data(std::int64_t /*begin*/, std::int64_t /*end*/) {}
  /// After all files: an entry of a sharded model's weight_map, which has to be that of a tensor.
  virtual void mapped(const std::string& /*tensor*/, std::size_t /*file*/) {}
};

/// Reads the headers of a safetensors file, a sharded model or the folder that holds it, an npy or an npz.
/// That tensors and files fit together is for the visitor to check.
/// @throws Error bad_file, unsupported (an element type), io_error, and what the visitor throws.
void visit_model(const std::filesystem::path& path, ModelVisitor& visitor);

/// Whether a file name is that of a part of a sharded model: "model-00001-of-00002.safetensors".
bool is_shard(const std::string& name);

/// One file.
void visit_safetensors(const ReadFile& file, ModelVisitor& visitor);
void visit_npz(const ReadFile& file, ModelVisitor& visitor);

struct NpyHeader {
  TensorInfo info;         ///< without a name
  std::int64_t bytes = 0;  ///< before the array
};

/// The header of an array of `size` bytes in all, which `read(offset, to, bytes)` reads; errors begin with
/// `where`. @throws Error bad_file.
NpyHeader read_npy_header(const std::filesystem::path& where, std::int64_t size, std::int64_t longest,
                          const std::function<void(std::int64_t offset, void* to, std::int64_t bytes)>& read);
NpyHeader read_npy(const ReadFile& file);

/// The parts of a sharded model that `index` (*.index.json) names.
void visit_index(const std::filesystem::path& index, ModelVisitor& visitor);

/// All that the headers hold, checked. @throws Error as visit_model.
Model open_model(const std::filesystem::path& path);

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

/// An npz of these arrays, stored. The headers hold the CRC-32 of the data, so they are written after it:
/// `layout` has none.
struct NpzLayout {
  struct Member {
    std::string name;          ///< in the archive
    std::string array_header;  ///< npy's
    std::int64_t local = 0;    ///< where the member begins
    std::int64_t data_bytes = 0;
  };
  Layout layout;
  std::vector<Member> members;
  std::int64_t directory = 0;  ///< where it begins
};

/// @throws Error invalid_argument: as npy_layout; a name twice, or one that an archive cannot have.
NpzLayout npz_layout(std::span<const TensorInfo> tensors);

/// What is to be written besides the data, whose CRC-32 these are: places and bytes.
std::vector<std::pair<std::int64_t, std::string>> npz_headers(const NpzLayout& npz,
                                                              std::span<const std::uint32_t> crcs);

inline constexpr std::int64_t max_header_bytes =
    100'000'000;                                   // as the reference implementation of safetensors
inline constexpr std::size_t max_dimensions = 64;  // as NumPy

}  // namespace bragg::detail
