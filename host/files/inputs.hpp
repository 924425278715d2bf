// SPDX-License-Identifier: Apache-2.0
// The workers' files as one table: n rows of the same tensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "host/io/form.hpp"
#include "host/io/inflate.hpp"

namespace bragg::detail {

/// A worker's row: a model, or one row of a 2-D npy.
struct InputRow {
  std::size_t model = 0;
  std::int64_t offset = 0;  ///< bytes from the tensor's first
  std::string bad;        ///< why the model is none of the agreed form: the row is infinite; empty: it is one
  bool left_out = false;  ///< its weight is 0: the file is not opened
  std::optional<double> bad_weight = {};  ///< negative or not finite: the row is infinite
};

struct Inputs {
  std::vector<PlacedModel> models;
  std::vector<InputRow> rows;
  std::vector<std::string> names;               ///< of the rows
  std::vector<TensorInfo> tensors;              ///< of a row, sorted by name
  std::vector<std::size_t> floating, integers;  ///< which of them, but those that are copied
  std::vector<std::size_t> copied;  ///< which of them are the base's: only it has a place for them
  std::optional<PlacedModel> base;
  std::vector<DroppedTensor> dropped;  ///< of partial models: the inputs' that are not among `tensors`
  bool more_dropped = false;           ///< inputs hold others besides
  std::vector<std::string> unused;     ///< patterns of exclude that no tensor has, and what is near
  std::optional<std::string> format;   ///< the metadata "format" of the base, else of most models
  bool npy = false;
  bool matrix = false;  ///< the rows are those of one file
};

/// Whether an error in reading a model says that it is a bad one, and not that something else failed.
bool is_bad_input(const Error& error);

/// What is wrong with the input at `path`.
std::string reason_of(const Error& error, const std::filesystem::path& path);

/// Opens the files and compares their names, dtypes and shapes with the agreed ones: the base's, else those
/// of more than half of the inputs. An input of other ones, or that cannot be read, is a bad row or an error.
/// One of weight 0 is neither opened nor counted. Of `options`: base, weights, bad_inputs, exclude, copy,
/// partial: then an input may lack some of the tensors, of which it has no place.
/// `known_bad`: none, or for each input why it is a bad one, whatever it looks like here; empty: it may be
/// good.
/// @throws Error invalid_argument (no inputs, one given twice; exclude, copy), bad_file (no agreed form),
/// io_error; of the base, of a lone input, and for BadInputs::error of every input, what is wrong with it.
Inputs open_inputs(std::span<const std::filesystem::path> paths, const FileOptions& options,
                   std::span<const std::string> known_bad = {});

/// What an input that turned out to be bad is from then on; it is told to options.found_bad.
void mark_bad(Inputs& inputs, std::size_t model, const std::string& reason, const FileOptions& options);

/// How many inputs count: all but those of weight 0.
std::size_t voters(const Inputs& inputs);

/// Whether the row has values of a tensor (none of those that are copied has).
bool holds(const Inputs& inputs, const InputRow& row, std::size_t tensor);
std::size_t count_rows_with(const Inputs& inputs, std::size_t tensor);

/// Takes those of the tensors (one item for each) from the inputs that have a reason. There is no base.
void drop_tensors(Inputs& inputs, std::span<const DroppedTensor> dropped);

/// Reads parts of one row; keeps its current file open until close(), or for as long as it lives.
class RowReader {
 public:
  RowReader(const PlacedModel& model, std::span<const TensorInfo> tensors, std::int64_t offset)
      : model_(&model), tensors_(tensors), offset_(offset) {}

  /// Bytes [begin, begin + bytes) of tensor t; certain when close() or pause() has returned. @throws Error
  /// io_error; bad_file where the file changed.
  void read(std::size_t t, std::int64_t begin, std::int64_t bytes, void* to);
  /// @throws Error bad_file where the file changed since it was opened.
  void close() { pause(false); }
  /// The same, but that a file which may be held (files_to_hold) stays open for the next read: many workers
  /// must not need as many descriptors.
  void pause(bool holds_file);

 private:
  void check_sum(std::size_t t, std::int64_t begin, std::int64_t bytes, const void* read);

  const PlacedModel* model_;
  std::span<const TensorInfo> tensors_;
  std::int64_t offset_;
  std::optional<ReadFile> file_;
  std::size_t open_ = 0;  // which file of the model
  std::optional<Inflater> inflater_;
  std::size_t inflated_ = 0;  // which tensor it reads
  // Of a tensor that is read as it is, and has a checksum.
  std::size_t summed_ = 0;
  std::int64_t summed_bytes_ = 0;
  std::uint32_t crc_ = 0;
};

}  // namespace bragg::detail
