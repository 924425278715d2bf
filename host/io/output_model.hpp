// SPDX-License-Identifier: Apache-2.0
// A model as it is written: the files that it takes, where each tensor lies, and all of it or nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "host/io/model.hpp"

namespace bragg::detail {

struct ModelLayout {
  struct File {
    std::string name;  ///< in the model's folder; empty: the model is one file
    Layout layout;
    std::vector<std::size_t> tensors;  ///< in it, in the order of layout.offsets
  };
  std::vector<File> files;
  std::string index;             ///< of a model in shards: the text of its index; empty: none
  std::optional<NpzLayout> npz;  ///< the one file is an npz
};

/// One file.
ModelLayout single_layout(Layout layout, std::size_t tensors);

/// One npz. @throws Error invalid_argument: as npz_layout.
ModelLayout npz_model_layout(std::span<const TensorInfo> tensors);

/// As Hugging Face's libraries: a folder of model-0000i-of-0000N.safetensors, filled in the order of
/// `tensors` to `shard_size` bytes, of which a larger tensor has one to itself, and
/// model.safetensors.index.json; a single model.safetensors where one is enough.
/// @throws Error invalid_argument: as safetensors_layout; too many shards.
ModelLayout sharded_layout(std::span<const TensorInfo> tensors, const Metadata& metadata,
                           std::uint64_t shard_size);

/// The files of a model, which appear when it is whole: the index last, so that a model in shards is none
/// before. A folder that is made for it goes away without it.
class OutputModel {
 public:
  /// `path`: the file, or the folder of a model in shards.
  /// @throws Error invalid_argument: a folder that holds a model; and as OutputFile.
  /// `temporaries`: of a model that others join, make_temporaries' names.
  OutputModel(const std::filesystem::path& path, const ModelLayout& layout,
              std::span<const std::string> temporaries = {});
  /// A model that another process makes and commits, and of which this one writes some, when `open` has been
  /// called.
  static std::unique_ptr<OutputModel> join(const std::filesystem::path& path, const ModelLayout& layout,
                                           std::span<const std::string> temporaries);
  static std::vector<std::string> make_temporaries(const std::filesystem::path& path,
                                                   const ModelLayout& layout);

  /// Bytes of tensor t from `begin` on, each tensor's in their order.
  void write(std::size_t t, std::int64_t begin, const void* from, std::int64_t bytes);
  /// Writes what only a whole model has. Its files, for commit_together, in the order in which they are to
  /// appear; `keep` is to be called then.
  std::vector<OutputFile*> finish();
  /// The folder that was made stays.
  void keep();

  /// Of a model that was joined, when it has been made. @throws Error io_error.
  void open();
  /// Of a model that was joined: flushes to disk.
  void leave();

  /// What was written of a tensor, for the checksum of an npz's; empty where none is wanted.
  struct Written {
    std::size_t tensor = 0;
    std::int64_t begin = 0;
    std::int64_t bytes = 0;
    std::uint32_t crc = 0;
  };
  std::vector<Written> written() const;
  /// Of a tensor the next part, which another process wrote.
  void add_written(const Written& part);

 private:
  OutputModel() = default;
  void place_tensors(const ModelLayout& layout);

  struct Place {
    std::size_t file = 0;
    std::int64_t offset = 0;
  };
  std::optional<OutputFolder> folder_;  // outlives the files in it
  std::vector<std::unique_ptr<OutputFile>> files_;
  std::vector<Place> places_;
  std::optional<NpzLayout> npz_;
  std::vector<Written> written_;  // [tensor] for an npz
};

}  // namespace bragg::detail
