// SPDX-License-Identifier: Apache-2.0
// A run of a plan by several ranks, as phases between which bytes are moved.
//
//   hello    every rank says what it is about to do (a digest), or why it cannot
//   rows     all-reduce: slices of this rank's row to their owners
//   leaves   pass 1: each leaf's sums to the ranks that add them, a slice of the products each
//   totals   the sums of those slices, and what each rank counted, to all; once more from `leaves` until
//   settled verdict  pass 2 is done: digests of the solutions, and what pass 2 counted output   all-reduce:
//   the slices of the result to all
#pragma once

#include <bragg/sharded.hpp>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "host/plan/cpu_rows.hpp"
#include "host/plan/plan_request.hpp"

namespace bragg::detail {

class ShardedRun {
 public:
  /// `shape`: of whole rows. `all_reduce`: rows are ranks', the output is `gathered`.
  /// @throws Error as ShardedPlan's constructor.
  ShardedRun(Pipeline pipeline, Shape shape, Sharding sharding, int rank, const Options& options,
             bool all_reduce, bool gathered);
  ShardedRun(const ShardedRun&) = delete;
  ShardedRun& operator=(const ShardedRun&) = delete;

  void begin(const Updates& mine, const Output& out, const RunArguments& arguments);
  void begin(const Row& mine, const Output& out, const RunArguments& arguments);
  const Transfer* next();

  /// What the ranks have to agree on when plans are made. Of a plan, without a run's arguments.
  std::uint64_t digest() const noexcept { return digest_; }
  int rank() const noexcept { return rank_; }
  const Sharding& sharding() const noexcept { return sharding_; }
  Status status() const noexcept { return status_; }
  std::span<const Report> reports() const noexcept { return reports_; }
  void reset() noexcept { rows_.reset(); }

 private:
  /// What was moved last.
  enum class Phase { over, begun, hello, rows, leaves, totals, verdict, output };

  /// Leaves of one rank that follow each other in the order of all.
  struct Stretch {
    int rank = 0;
    std::int64_t leaves = 0;
  };
  /// The whole row, or one tensor.
  struct Part {
    std::vector<Stretch> stretches;
    std::vector<std::int64_t> leaves;  // [rank]
    GramSums totals;
    LeafRecords records;
    bool settled = false;
  };

  int ranks() const noexcept { return sharding_.ranks(); }
  std::size_t parts() const noexcept { return parts_.size(); }
  void start(const Updates& mine, const Output& out, const RunArguments& arguments);
  template <class F>
  void guarded(F step) noexcept;

  const Transfer* send_hello();
  const Transfer* send_rows();
  const Transfer* sum_or_solve();
  void sum(std::size_t part);
  const Transfer* send_leaves();
  const Transfer* send_totals();
  void add_leaves();
  void take_totals();
  void solve();
  const Transfer* send_verdict();
  void take_verdicts();
  const Transfer* send_output();
  void take_output();

  const Transfer* moved(Phase phase, const std::byte* send, std::byte* receive);
  /// The products of a part that a rank adds.
  Slice entries_of(const Part& part, int rank) const;
  void cut(std::size_t part);
  /// Doubles that a leaf has of each of its products.
  std::int64_t doubles_per_entry(std::size_t part) const { return rows_.leaf_blocks(part) > 1 ? 2 : 1; }
  std::int64_t row_bytes(int rank) const;
  std::int64_t output_bytes(int rank) const;

  Sharding sharding_;
  int rank_;
  bool all_reduce_;
  bool gathered_;
  PlanRequest whole_;
  PlanRequest local_;  // of this rank's slices
  CpuRows rows_;
  std::uint64_t digest_;

  // Of the run.
  Phase phase_ = Phase::over;
  std::exception_ptr failure_;  // of this rank, of which the others do not know yet
  std::uint64_t run_digest_ = 0;
  Row mine_;
  Output out_;
  std::vector<std::byte> received_rows_;
  std::vector<Part> parts_;
  GramSums sums_;
  std::vector<std::vector<double>> added_;  // [part] the sums of this rank's products, and what they lost
  std::vector<Solution> solutions_;
  std::vector<Report> reports_;
  Status status_ = Status::ok;

  // Of the transfer.
  Transfer transfer_;
  std::vector<std::byte> send_, receive_;
  std::vector<std::int64_t> send_bytes_, receive_bytes_;
};

}  // namespace bragg::detail
