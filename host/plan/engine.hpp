// SPDX-License-Identifier: Apache-2.0
// A pipeline as two passes and an n-sized solve between them, over data that arrives whole or in windows.
// Plan (memory) and the file aggregator (streamed windows) both drive it.
#pragma once

#include <bragg/plan.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "host/cpu/passes.hpp"
#include "rules/needed_order.hpp"

namespace bragg::detail {

/// The rows that take part in a run: those of weight 0 are gone before n is counted.
struct ActiveRows {
  std::vector<int> rows;  ///< caller's indices, ascending
  bool weighted = false;
  std::vector<double> weights;  ///< per active row, capped; 0 for an invalid one; empty when not weighted
  std::vector<std::uint8_t>
      invalid;  ///< per active row: its weight was negative or not finite: the row is infinite
};

/// Applies client weights (docs/numerics.md); reuses the memory of `active`. @throws Error invalid_argument:
/// length, a share cap below 1/n.
void set_active_rows(std::span<const double> weights, int n, double max_weight_share, ActiveRows& active);

/// The pipeline for the active rows alone, with monna's pivot among them; none if the pivot is not.
std::optional<Pipeline> remaining_pipeline(const Pipeline& pipeline, const ActiveRows& active);

/// Checks the pipeline's bounds again, for the rows that weights of 0 have left over, and says which of
/// them is the rule's pivot. @throws Error invalid_argument: too few rows, weights for a rule that has none.
int check_active_rows(const Pipeline& pipeline, int n, const ActiveRows& active);

/// Whether weights may leave so many rows of n: check_active_rows lets some such rows pass.
bool can_be_weighted(const Pipeline& pipeline, int n, int rows);

/// @throws Error invalid_argument, too_large: as Plan, of pipeline, n and options.
void check_request(const Pipeline& pipeline, int n, const Options& options);

/// @throws Error invalid_argument: it is neither 0 nor a share.
void check_max_weight_share(double share);

/// Result of solve() for one tensor (or the whole row): how pass 2 makes the output.
struct Solution {
  Status status = Status::ok;
  bool coordinate_wise = false;
  bool counted = false;              ///< pass 1 counted the non-finite values; else pass 2 does
  bool infinite_everywhere = false;  ///< every coordinate of the output is +inf
  /// Per row: infinite because its values are too large. Where pass 1 was needed, and not by a device.
  std::vector<std::uint8_t> too_large;
  std::vector<double> coefficients;  ///< geometric: per table row
  // Coordinate-wise: the points that the rule sees.
  SelectRule rule;
  int points = 0;
  bool mixed = false;
  int origin = -1;          ///< table row of o, if the rule is about it
  std::vector<int> rows;    ///< not mixed: table row of each point
  std::vector<double> mix;  ///< mixed: coefficients, [point][table row]; of o where it is the origin, 0
  std::vector<std::uint8_t> infinite;
  std::vector<double> weights;
  Report report;
};

class Engine {
 public:
  /// `points_alone`: pass 2 writes the points instead of what the rule makes of them, each to an output.
  /// @throws Error invalid_argument, too_large: as Plan, of pipeline, n and options.
  Engine(Pipeline pipeline, int n, const Options& options, bool points_alone = false);
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  // A run is: begin; solve_over for each tensor or the whole row; then apply each window. Table rows: the
  // active rows, then o (null: the origin), then, where `has_previous`, the previous output.

  /// @throws Error invalid_argument: too few active rows for the pipeline, weights for a rule that has none.
  void begin(const ActiveRows& active, bool has_reference, bool has_previous, std::uint64_t round);

  /// Table rows of this run: active + 1, + 1 with a previous output.
  int table_rows() const noexcept;

  /// Of this run: its result depends on distances between rows by nothing but an order of theirs.
  std::optional<NeededOrder> needed_order() const;

  /// Pass 1 is needed: by distances, or to know which rows are infinite.
  bool needs_statistics() const noexcept;

  /// Of this run: what the sums, the n-sized mathematics and its result take, at the most.
  std::int64_t square_bytes() const;
  /// What the samples of rows of d coordinates take beside that, with so many copies of their values; at most
  /// most_bytes, whatever the pipeline asks for.
  std::int64_t sample_bytes(std::int64_t d, int copies) const;
  static constexpr std::int64_t most_bytes = std::int64_t{1} << 58;
  /// "dnc: iters = 2 samples of sample = 300 coordinates"; empty: the rule takes none.
  std::string describe_samples() const;

  /// Seconds of one core that the n-sized mathematics of this run may take, by how fast this machine does
  /// some of it now. 0: less than is worth finding out.
  double solve_seconds() const;

  /// Rows are judged by distances or norms.
  bool takes_distances() const noexcept;
  /// Some coordinates decide between rows.
  bool judges_rows() const noexcept;

  void reset(GramSums& sums) const;
  void accumulate(const RowTable& window, GramSums& sums);
  /// Beside accumulate: what the rule wants to know of a window, the coordinates of whose tensor t are
  /// numbers first[t] and on, among those that rows are judged by.
  void sample(const RowTable& window, std::span<const std::int64_t> first, GramSums& sums);
  /// False: the products do not tell the distances that the pipeline takes, or f64 values need another scale.
  /// A centre and the scale are set now: accumulate once more. True at the latest the second time; of f64
  /// rows the third.
  bool settled(GramSums& sums);

  /// Adds each row's non-finite values in a window that distances are not about: they make it infinite too.
  void count_nonfinite(const RowTable& window, std::span<std::int64_t> nonfinite);

  /// The n-sized mathematics. `sums` is not read where needs_statistics() is false.
  void solve(GramSums& sums, Solution& solution);

  /// Pass 2 over one window. Counts non-finite values into the solution's report where pass 1 was not needed.
  /// Does nothing when solution.status is not ok.
  void apply(const RowTable& window, Solution& solution, const OutTable& out);

  /// Whether pass 2 reads this table row.
  static bool reads_row(const Solution& solution, int table_row);

  const Pipeline& pipeline() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Pass 1: `accumulate(sums)` goes over all windows, once more each time the sums have not settled.
template <class AccumulateF>
void sum_over(Engine& engine, GramSums& sums, AccumulateF accumulate) {
  if (!engine.needs_statistics()) return;
  engine.reset(sums);
  do {
    accumulate(sums);
  } while (!engine.settled(sums));
}

/// Pass 1 where it is needed, and the n-sized mathematics.
template <class AccumulateF>
void solve_over(Engine& engine, GramSums& sums, Solution& solution, AccumulateF accumulate) {
  sum_over(engine, sums, accumulate);
  engine.solve(sums, solution);
}

}  // namespace bragg::detail
