// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/pipeline.hpp>
#include <bragg/report.hpp>
#include <bragg/updates.hpp>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace bragg {

/// Whether distances, state and report are of the whole row or of each tensor apart.
enum class Scope : std::uint8_t { whole, per_tensor };

/// What the output holds after a run whose status is not ok.
enum class OnFailure : std::uint8_t {
  keep,  ///< its former content: nothing is written
  nan,
  zero,
};

/// What a plan is made for.
struct Shape {
  int n = 0;                             ///< rows
  std::vector<std::int64_t> sizes = {};  ///< elements of each tensor of a row; {d} for a plain matrix
  DType dtype = DType::f32;

  /// The shape of existing updates.
  static Shape of(const Updates& updates) {
    return {updates.n(), {updates.sizes().begin(), updates.sizes().end()}, updates.dtype()};
  }
};

struct Options {
  Scope scope = Scope::whole;
  OnFailure on_failure = OnFailure::keep;
  /// Default: the dtype of the updates. f32 may be asked of f16 and bf16 updates.
  std::optional<DType> out_dtype = {};
  /// A client weight is capped at this share of the sum of all; 0: no cap. Else at least 1/n.
  double max_weight_share = 0;
  /// CPU threads; 0: as many as OpenMP would use. The result does not depend on it.
  int threads = 0;
};

/// What a run is given beside the updates.
struct RunArguments {
  /// The reference o (e.g. the global model), of the updates' dtype and tensor sizes; empty: the origin.
  Row reference = {};
  /// Client weights p_i, n of them, or none. 0 removes the row before n is counted; a negative or non-finite
  /// weight marks the row infinite (its weight counts as 0 in every sum). Copied during `run`.
  std::span<const double> weights = {};
};

/// A validated pipeline for one shape, with its workspace and its state (previous output, bucketing round).
///
/// `run` reads the data at most twice and, once the first run is over, allocates nothing. A plan may move
/// between threads but serves one call at a time. Plans are independent of each other.
class BRAGG_API Plan {
 public:
  /// @throws Error invalid_argument: a bound of the pipeline is broken for shape.n, a size is negative,
  /// out_dtype
  ///   is neither the input's nor f32 of 16-bit input, max_weight_share or threads out of range; too_large:
  ///   smea would list more subsets than its limit.
  Plan(Pipeline pipeline, Shape shape, Options options = {});
  ~Plan();
  Plan(Plan&&) noexcept;
  Plan& operator=(Plan&&) noexcept;

  /// Aggregates `updates` into `out` and waits. Rows that are bad *data* never throw: see `status`.
  /// @throws Error invalid_argument: shape or dtype differ from the plan's, weights of another length or for
  /// a rule
  ///   that has none, fewer rows with weight than the pipeline needs, `out` overlaps an input in part.
  void run(const Updates& updates, const Output& out, const RunArguments& arguments = {});

  /// Outcome of the last run: ok, too_many_nonfinite, nonfinite_reference or too_large (mda). State is kept
  /// when it is not ok.
  Status status() const noexcept;

  /// The last run's reports: one, or one per tensor where scope = per_tensor.
  std::span<const Report> reports() const noexcept;
  const Report& report() const noexcept { return reports().front(); }

  /// Forgets the previous output and sets the bucketing round to 0.
  void reset() noexcept;

  const Pipeline& pipeline() const noexcept;
  const Shape& shape() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The one-liner: plans, runs, and throws when the status is not ok.
/// @throws Error as Plan's constructor and run, and with the run's status.
BRAGG_API std::vector<Report> aggregate(const Pipeline& pipeline, const Updates& updates, const Output& out,
                                        const RunArguments& arguments = {}, const Options& options = {});

}  // namespace bragg
