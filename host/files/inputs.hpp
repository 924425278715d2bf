// SPDX-License-Identifier: Apache-2.0
// The workers' files as one table: n rows of the same tensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "host/io/model.hpp"

namespace bragg::detail {

/// A worker's row: a model, or one row of a 2-D npy.
struct InputRow {
  std::size_t model = 0;
  std::int64_t offset = 0;  ///< bytes from the tensor's first
};

struct Inputs {
  std::vector<Model> models;
  std::vector<InputRow> rows;
  std::vector<std::string> names;               ///< of the rows
  std::vector<TensorInfo> tensors;              ///< of a row, sorted by name
  std::vector<std::size_t> floating, integers;  ///< which of them
  std::optional<Model> base;
  std::optional<std::string> format;  ///< the metadata "format" of the base, else of most models
  bool npy = false;
};

/// Opens the files and checks that they agree in names, shapes and dtypes.
/// @throws Error invalid_argument (no inputs), bad_file (file, tensor, both values), io_error.
Inputs open_inputs(std::span<const std::filesystem::path> paths,
                   const std::optional<std::filesystem::path>& base);

/// Reads parts of one row; keeps its current file open until close().
class RowReader {
 public:
  RowReader(const Model& model, std::int64_t offset) : model_(&model), offset_(offset) {}

  /// Bytes [begin, begin + bytes) of tensor t; certain when close() has returned. @throws Error io_error;
  /// bad_file where the file changed.
  void read(std::size_t t, std::int64_t begin, std::int64_t bytes, void* to);
  /// @throws Error bad_file where the file changed since it was opened.
  void close();

 private:
  const Model* model_;
  std::int64_t offset_;
  std::optional<ReadFile> file_;
  std::size_t open_ = 0;  // which file of the model
};

}  // namespace bragg::detail
