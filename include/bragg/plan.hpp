// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/pipeline.hpp>
#include <bragg/report.hpp>
#include <bragg/types.hpp>
#include <bragg/updates.hpp>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

struct CUstream_st;

namespace bragg {
inline namespace v0 {

/// A cudaStream_t: work that is done in order on a CUDA device, apart from the calling thread. It is not made
/// of 0, nullptr or {}: say `Stream::legacy_default()` where that stream is meant.
class Stream {
 public:
  Stream(::CUstream_st* handle) noexcept : handle_(handle) {}  // NOLINT: a cudaStream_t is a stream
  Stream(int) = delete;
  Stream(std::nullptr_t) = delete;

  /// CUDA's stream 0, which waits for the device's other streams as they for it.
  static Stream legacy_default() noexcept { return static_cast<::CUstream_st*>(nullptr); }

  /// The cudaStream_t.
  ::CUstream_st* get() const noexcept { return handle_; }
  bool operator==(const Stream&) const = default;

 private:
  ::CUstream_st* handle_;
};

/// What computes, and so where updates, outputs and the base live: in host memory, or in a CUDA device's.
enum class Device : std::uint8_t { cpu = 0, cuda = 1 };

/// CUDA devices that this build and this machine can use: 0 where bragg was built without CUDA.
BRAGG_API int cuda_device_count() noexcept;

/// Whether distances, state and report are of the whole row or of each tensor apart.
enum class Scope : std::uint8_t { whole, per_tensor };

/// Dimensions of the updates that a plan is made for.
struct Shape {
  int n = 0;                             ///< rows
  std::vector<std::int64_t> sizes = {};  ///< elements of each tensor of a row; {d} for a plain matrix
  DType dtype = DType::f32;
  /// Of each tensor, where they differ; else empty. On a CUDA device they may not differ.
  std::vector<DType> dtypes = {};

  /// Which tensors rows are judged by, as Updates::judge_by; empty: all. With scope = per_tensor, where each
  /// is judged by itself, none may be left out.
  std::vector<bool> judged = {};

  DType dtype_of(std::size_t tensor) const noexcept { return dtypes.empty() ? dtype : dtypes[tensor]; }

  /// The shape of existing updates.
  static Shape of(const Updates& updates) {
    return {updates.n(),
            {updates.sizes().begin(), updates.sizes().end()},
            updates.dtype(),
            updates.dtypes(),
            updates.judged()};
  }
};

struct Options {
  Scope scope = Scope::whole;
  OnFailure on_failure = OnFailure::keep;
  /// Default: the dtype of the updates, of each tensor its own. f32 may be asked of f16 and bf16 updates;
  /// any, of files.
  std::optional<DType> out_dtype = {};
  /// A client weight is capped at this share of the sum of all; 0: no cap. Else at least 1/n.
  double max_weight_share = 0;
  /// CPU threads; 0: as many as OpenMP would use. The result does not depend on it.
  int threads = 0;
  /// Default: where the updates are (`aggregate`, `pre_aggregate`); the CPU (a plan, files).
  std::optional<Device> device = {};
  int cuda_device = -1;  ///< its index; -1: the one that is current when the plan is made
  /// cuda: every run is lent a workspace. false: the plan allocates its own when it is made.
  bool lent_workspace = false;
};

/// Arguments of a run besides the updates.
struct RunArguments {
  /// The o that distances and clipping are about, of the updates' dtypes and tensor sizes: e.g. the global
  /// model where rows are models. Empty: the origin, for rows that are differences from it.
  Row base = {};
  /// Client weights p_i, n of them, or none. 0 removes the row before n is counted; a negative or non-finite
  /// weight marks the row infinite (its weight counts as 0 in every sum). Copied during `run`.
  std::span<const double> weights = {};
  /// cuda: memory on the device of at least Plan::workspace_bytes, aligned to 256 bytes, that the run may use
  /// until it is done on the stream (a captured graph: whenever it is replayed); null: the plan's own.
  void* workspace = nullptr;
};

/// A validated pipeline for one shape, with its workspace and its state (previous output, bucketing round).
///
/// `run` reads the data at most twice; three times where rows differ by little beside what they have in
/// common (Report::recentred; f64 rows of extreme size: four times), and once more where a CPU tries products
/// in f32 and they do not tell the order of distances (docs/numerics.md). Once a first run, and a first one
/// of that kind, is over (with a state a second), it allocates nothing. A plan may move between threads but
/// serves one call at a time; a plan for a CUDA device serves one stream at a time. Plans are independent of
/// each other.
///
/// **Bad data never throws.** Whatever bits the rows hold, `run` returns, and `status` or `wait` says whether
/// there is a result, `reports` who looks bad. Only bad arguments throw: shapes, dtypes, bounds, overlaps.
class BRAGG_API Plan {
 public:
  /// @throws Error invalid_argument: a bound of the pipeline is broken for shape.n, a size is negative,
  ///   dtypes are not one for each tensor, or differ on a CUDA device, out_dtype is neither the input's nor
  ///   f32 of 16-bit input, max_weight_share, threads or cuda_device out of range;
  ///   too_large: smea would list more subsets than its limit; unsupported: device = cuda in a build or on a
  ///   machine without, or without code for the device; out_of_memory: for the workspace.
  Plan(Pipeline pipeline, Shape shape, Options options = {});
  ~Plan();
  Plan(Plan&&) noexcept;
  Plan& operator=(Plan&&) noexcept;

  /// device = cpu: aggregates `updates` into `out`, and is done when it returns.
  /// @throws Error invalid_argument: shape, dtype, judged tensors or the length of a span differ from the
  ///   plan's, weights of
  ///   another length or for a rule that has none, fewer rows with weight than the pipeline needs, `out`
  ///   overlaps an input in part.
  void run(const Updates& updates, const Output& out, const RunArguments& arguments = {});

  /// device = cuda: enqueues the aggregation on `stream` and returns. Nothing waits, nothing is allocated,
  /// nothing is copied to the host, so the call can be captured in a CUDA graph; state (previous output,
  /// round) lives on the device and goes on with every replay. mda and smea alone search on the host: they
  /// wait for the stream, and cannot be captured. Updates, out and base are in memory of the plan's
  /// device and stay untouched by others until the stream has done the work.
  /// @throws Error as the other run; and what CUDA reports: unsupported (capturing mda or smea),
  ///   out_of_memory, internal.
  void run(const Updates& updates, const Output& out, Stream stream, const RunArguments& arguments = {});

  /// device = cuda: waits for `stream`, fetches the outcome and the reports of the last run (or replay of
  /// one) on it, and returns its status. On the CPU there is nothing to wait for.
  /// @throws Error what CUDA reports.
  [[nodiscard]] Status wait(Stream stream);

  /// Outcome of the last run that was waited for: ok, too_many_nonfinite, nonfinite_base, too_large (mda) or
  /// not_converged (geometric_median); ok before the first. State is kept when it is not ok. Does not wait.
  [[nodiscard]] Status status() const noexcept;

  /// device = cuda: bytes that RunArguments::workspace must have. 0 on the CPU.
  std::size_t workspace_bytes() const noexcept;

  /// The last run's reports: one, or one per tensor where scope = per_tensor. device = cuda: as of the last
  /// `wait`.
  std::span<const Report> reports() const noexcept;
  const Report& report() const noexcept { return reports().front(); }

  /// Forgets the previous output and sets the bucketing round to 0. device = cuda: not while a run is under
  /// way. @throws Error what CUDA reports.
  void reset();

  const Pipeline& pipeline() const noexcept;
  const Shape& shape() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The one-liner: plans, runs and waits, where the updates are: for device memory on the current device (or
/// options.cuda_device), on its legacy default stream. It returns no status, so it throws one that is not ok.
/// @throws Error as Plan's constructor and run, and with the run's status; invalid_argument where
///   options.device is not that of the updates.
BRAGG_API std::vector<Report> aggregate(const Pipeline& pipeline, const Updates& updates, const Output& out,
                                        const RunArguments& arguments = {}, const Options& options = {});

/// The points that pre-aggregators make of the updates, for a rule of the caller's own: out[p] takes point p
/// of points_after(sequence, n). (A pipeline with a rule of bragg's never makes them, and is faster by far.)
/// Points are sums in f64, rounded once to f32 (f64 updates: f64), then to out_dtype; a bucket of bad rows
/// alone is +inf throughout. Bucketing is in its round 0. The outputs lie apart from the updates, from the
/// base and from each other. Plans, runs and waits as `aggregate`.
/// @throws Error as `aggregate`; invalid_argument: the sequence is empty, `out` is of another length,
///   arguments.weights are given (points have weights too, which have no place in `out`).
BRAGG_API std::vector<Report> pre_aggregate(const PreSequence& sequence, const Updates& updates,
                                            std::span<const Output> out, const RunArguments& arguments = {},
                                            const Options& options = {});

}  // namespace v0
}  // namespace bragg
