// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/communicator.hpp>
#include <bragg/plan.hpp>
#include <bragg/server.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace bragg {
inline namespace v0 {

/// A tensor of a checkpoint file.
struct TensorInfo {
  std::string name;  ///< npy: ""
  /// As safetensors spells it: F64 F32 F16 BF16 F8_E4M3 F8_E5M2 I64 I32 I16 I8 U64 U32 U16 U8 BOOL; of a
  /// tensor without elements, any other of the format as well.
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::int64_t elements = 0;  ///< product of the shape; 1 for a scalar
  std::int64_t bytes = 0;
};

/// One worker's model, memory-mapped for reading: a safetensors file, a sharded safetensors model (its
/// `*.index.json`, or the folder that holds either), an npy file, or an npz, whose arrays are its tensors.
///
/// Nothing but the headers is read by `open`, and arrays that an npz holds deflated, into memory (the
/// checksums of others are looked at by who reads them all: `aggregate_files`). Every malformation is an
/// Error: bad_file names the file, the byte offset where there is one, and what was expected. Tensors come
/// sorted by name. The files must not shrink meanwhile.
class BRAGG_API Checkpoint {
 public:
  /// @throws Error bad_file, io_error; unsupported: elements of a safetensors dtype that bragg does not know
  /// (C64, F4, …).
  static Checkpoint open(const std::filesystem::path& path);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;

  const std::filesystem::path& path() const noexcept;
  std::span<const TensorInfo> tensors() const noexcept;
  /// The bytes of tensor t, mapped; valid as long as the checkpoint. Not aligned.
  const void* data(std::size_t t) const noexcept;
  /// The file's free-form metadata (safetensors `__metadata__`).
  const std::vector<std::pair<std::string, std::string>>& metadata() const noexcept;

 private:
  Checkpoint();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A tensor to write; `data` has the bytes that dtype and shape imply.
struct TensorToWrite {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  const void* data = nullptr;
};

/// Writes one safetensors file: to a temporary name beside `path`, renamed when whole.
/// @throws Error invalid_argument (duplicate name, unknown dtype, negative size), io_error.
BRAGG_API void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                                 std::span<const std::pair<std::string, std::string>> metadata = {});

/// Writes one npy file (the name is not kept), whole or not at all.
/// @throws Error invalid_argument (a dtype that npy lacks, negative size), io_error.
BRAGG_API void write_npy(const std::filesystem::path& path, const TensorToWrite& array);

/// Progress of a file aggregation; reported often, from the calling thread.
struct Progress {
  int pass = 1;                   ///< 1 or 2
  int passes = 2;                 ///< 1 where the pipeline needs no distances, or goes tensor by tensor
  std::uint64_t bytes_done = 0;   ///< of the inputs, all passes together
  std::uint64_t bytes_total = 0;  ///< an upper bound until it is known which rows pass 2 reads
};

/// An input that is no model of the agreed form: it cannot be opened, is truncated or malformed, is of
/// another format, or has other names, dtypes or shapes. The form is the base's, else that of more than half
/// of the inputs.
enum class BadInputs : std::uint8_t {
  row,    ///< an infinite row: it counts in n and towards f, has no weight and no vote, and is reported
  error,  ///< an Error
};

/// What becomes of tensors of integers and booleans, which no rule of floating-point values is made for.
enum class Integers : std::uint8_t {
  automatic,     ///< lower_median, but an error where they are quantised weights, or hold most of a model's
                 ///< bytes
  lower_median,  ///< of each element, over the workers that have weight
  first,         ///< the base's; without a base, those of the first input that has weight
  error,         ///< an Error
};

struct FileOptions {
  Options options;  ///< on_failure has no effect: a run that fails leaves no file
  /// Upper bound on the memory that windows, buffers and n-sized mathematics take at a time, in bytes; at
  /// least 1 MiB.
  std::uint64_t memory = std::uint64_t{1} << 30;
  /// The global model: distances, clipping and centered clipping are about it. Same names, shapes, dtypes.
  std::optional<std::filesystem::path> base;
  /// Client weights, one per worker, or none.
  std::vector<double> weights;
  /// Dtype of the output's floating-point tensors: f64, f32, f16, bf16, f8_e4m3 or f8_e5m2, in either case.
  /// Empty: options.out_dtype, else each tensor's own. A dtype that the rule does not write itself is rounded
  /// once, from f64; a finite value beyond its largest is an error.
  std::string out_dtype;
  /// Bytes of tensors to a file. 0: the output is one file. Else it is a folder, which is made if it is not
  /// there and must hold no model: model-0000i-of-0000N.safetensors, with model.safetensors.index.json, or
  /// one model.safetensors where that is enough. A tensor that is larger has a file to itself.
  std::uint64_t shard_size = 0;
  std::function<void(const Progress&)> progress;
  /// Told, before anything is read, how many seconds of one core the n-sized mathematics may take at the
  /// most: an estimate, by how fast this machine is just then. On the CPU alone.
  std::function<void(double seconds)> solve_time;
  BadInputs bad_inputs = BadInputs::row;
  Integers integers = Integers::automatic;
  /// False: an output with NaN or infinity is too_many_nonfinite, and no file.
  bool allow_nonfinite = false;
  /// Told the row, its name and the reason of every bad input as it is found, also in a run that fails.
  std::function<void(std::size_t row, const std::string& name, const std::string& reason)> found_bad;
  /// Told the SHA-256 (hexadecimal) of each file that the inputs and the base consist of, in a run that fails
  /// later, too. Files are read once more for it. Not told: files of inputs of weight 0; a bad input's where
  /// it cannot be read; one that is far larger than the agreed form and than most.
  std::function<void(const std::string& path, const std::string& sha256)> hashed;

  // Patterns of tensors' whole names, with `*`, `?` and `[…]` (`[!…]`: none of them), in which a dot is a
  // character as any other. One that no tensor has is an Error; of `exclude` only if bad inputs are.

  /// The floating-point tensors that rows are judged by, as Updates::judge_by; none: all of them.
  std::vector<std::string> judge_by;
  /// Floating-point tensors that rows are not judged by.
  std::vector<std::string> ignore_in_distances;
  /// Tensors that the output does not have. Nothing of them is looked at: inputs may differ in them, or lack
  /// them, and rows are not judged by them.
  std::vector<std::string> exclude;
  /// Tensors that the output takes from the base, as they are but for their dtype. Nothing of the inputs'
  /// tensors of these names is looked at, and rows are not judged by them.
  std::vector<std::string> copy;

  /// Inputs may lack tensors. The output has the base's tensors, without a base those that more than half of
  /// the inputs hold in the same dtype and shape; what else inputs hold is left out and told. Each tensor is
  /// aggregated over those that hold it, as if there were no others: scope is per_tensor, whatever `options`
  /// says, and n and what the rule asks of it are the tensor's own. One that too few hold is an error with a
  /// base, and left out and told without. A bad input counts as one that holds all: such is also one that
  /// holds none of the tensors, or one in another dtype or shape.
  bool partial = false;

  /// The output is not the aggregate but the next model of a server, whose last one is the base: see
  /// ServerOptimizer. Of floating-point tensors that are aggregated; integers and copied ones stay as they
  /// are. The step is taken in f64 and rounded once, whatever the dtype of the output; an f16 or bf16 model
  /// is aggregated to f32 for it.
  std::optional<ServerOptimizer> server;
  /// Where optimizers with moments keep these: safetensors of "momentum.NAME" or "first.NAME" and
  /// "second.NAME" for each tensor, f64 of f64 ones, else f32; either is read. If not there, begun; it
  /// appears with the output, after it. In its metadata are a version, the optimizer's name, and how many
  /// steps it has taken. allow_nonfinite is for copied tensors then. @throws Error bad_file: another
  /// optimizer's or model's.
  std::filesystem::path server_state;

  /// Not null: the ranks of a job aggregate together. All make the same call, with the same arguments, on one
  /// file system; each reads and writes its part of every file. The output has the bits of one process. On
  /// the CPU. It outlives the call.
  Communicator* communicator = nullptr;
};

/// A tensor of some inputs that the output does not have.
struct DroppedTensor {
  std::string name;        ///< at the most its first 256 bytes
  std::size_t inputs = 0;  ///< how many hold it
  std::string reason;      ///< "held by 2 of 5 inputs, not by more than half"
};

/// Tensors that the same inputs hold.
struct HeldTensors {
  std::vector<std::string> tensors;  ///< names, of integer tensors too
  std::size_t n = 0;                 ///< how many inputs count for them: those that hold them, and bad ones
  std::vector<std::size_t> absent;   ///< the rows that lack them
};

struct FileResult {
  std::vector<Report> reports;       ///< as Plan::reports
  bool per_tensor = false;           ///< there is one for each of `tensors`, not one for all
  std::vector<std::string> workers;  ///< a name for each row: its path, or "file[i]" for rows of a 2-D npy
  std::string form;                  ///< the agreed one: how many tensors of which dtypes, and bytes
  std::vector<std::string> bad;      ///< for each row: why it is a bad input; empty: it is none
  std::vector<std::string>
      tensors;  ///< names of the floating-point tensors, in order (per-tensor reports match)
  /// For each of `tensors` its share of the distances (or lengths) that the pipeline took: of each tensor the
  /// median over the rows of the median of a row's squared distances to the others, as a share of the sum of
  /// all. 0: rows were not judged by it. Empty: no distances were taken, by tensor, or on a device.
  std::vector<double> distance_shares;
  /// Which of `tensors` makes more than 90 % of the distances, where its size does not explain that: the
  /// others make less than a tenth of what their elements would.
  std::optional<std::size_t> dominant_tensor;
  /// FileOptions::partial: who holds what; else empty.
  std::vector<HeldTensors> held;
  /// For each of `tensors` which of `held` has it.
  std::vector<std::size_t> held_with;
  /// FileOptions::partial: those first that most hold.
  std::vector<DroppedTensor> dropped;
  bool more_dropped = false;        ///< there are others: no more than 100 of an input are listed
  std::vector<std::string> copied;  ///< names of the tensors that the output takes from the base
  std::vector<std::string> unused;  ///< patterns of FileOptions::exclude that no tensor has, and what is near
  std::int64_t coordinates = 0;     ///< floating-point elements of a row
  std::int64_t integers = 0;        ///< elements of integer and bool tensors
  std::int64_t nonfinite = 0;       ///< values of the output that are NaN or infinite
  std::int64_t server_step = 0;     ///< which step of the server's state this was, from 1; 0: none is kept
  std::uint64_t bytes_read = 0;
};

/// Aggregates checkpoints on disk into one file of the same tensors, in windows of bounded memory, reading
/// each input at most twice, or once more where Report::recentred (f64 tensors of extreme size: twice more).
///
/// `inputs`: one checkpoint per worker (safetensors and npz may be mixed), or a single 2-D npy of one row per
/// worker. Floating-point tensors of one file may differ in dtype from each other; F8_E4M3 (without
/// infinities, the largest value 448) and F8_E5M2 are read exactly. The output (safetensors; npy for npy
/// inputs) appears whole or not at all, and carries pipeline, n and version in its metadata; its "format" is
/// that of the base, else of most inputs.
///
/// Inputs of another form than the agreed one are bad inputs: the output is what it would be with files full
/// of NaN in their place. An input that changes while it is read becomes a bad one; where some of it was used
/// already, the run starts once more without it. More bad inputs than the pipeline gives no weight to are
/// too_many_nonfinite, and so is a run without a finite row, whatever the pipeline. A lone input that is bad
/// is an error.
/// @throws Error invalid_argument (an input given twice, an output that is one of them), bad_file (no form
/// that more than half of the inputs agree on; a bad base: file, tensor, both values), io_error, and the
/// run's status.
///
/// Of ranks (FileOptions::communicator) all throw the same error and get the same result; progress is each
/// rank's own. An input that is bad for one is bad for all. @throws Error also: disagreement (other
/// arguments, another version, other files), communication (the ranks have lost each other: end the job).
BRAGG_API FileResult aggregate_files(const Pipeline& pipeline, std::span<const std::filesystem::path> inputs,
                                     const std::filesystem::path& output, const FileOptions& options = {});

}  // namespace v0
}  // namespace bragg
