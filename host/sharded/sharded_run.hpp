// SPDX-License-Identifier: Apache-2.0
// A run of a plan by several ranks, as phases between which bytes are moved.
//
//   hello    every rank says what it is about to do (a digest), or why it cannot
//   rows     all-reduce: slices of this rank's row to who computes them
//   leaves   pass 1: each leaf's sums to the ranks that add them, a slice of the products each
//   totals   the sums of those slices, and what each rank counted, to all; once more from `leaves` until
//   settled output   all-reduce, pass 2 is done: the slices of the result to all verdict  digests of the
//   solutions, and what pass 2 counted
//
// With replicas each shard, and each slice of the products, is computed by several ranks: rank r computes the
// shards r, r−1, … So what honest ranks compute is among what everybody gets, who compares the copies. A vote
// after totals and verdict tells all of what one has found, before anybody goes on.
#pragma once

#include <bragg/sharded.hpp>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "host/plan/plan_request.hpp"
#include "host/sharded/agreement.hpp"
#include "host/sharded/leaf_sums.hpp"
#include "host/sharded/shard_backend.hpp"

namespace bragg::detail {

class ShardedRun {
 public:
  /// `shape`: of whole rows. `all_reduce`: rows are ranks', the output is `gathered`; else `replicas` is 1.
  /// @throws Error as the constructors of ShardedPlan and AllReduce.
  ShardedRun(Pipeline pipeline, Shape shape, Sharding sharding, int rank, const Options& options,
             bool all_reduce, bool gathered, int replicas);
  ShardedRun(const ShardedRun&) = delete;
  ShardedRun& operator=(const ShardedRun&) = delete;

  /// `stream`: where the plan is for a CUDA device, and not else; next() throws where that is not so.
  void begin(const Updates& mine, const Output& out, std::optional<Stream> stream,
             const RunArguments& arguments);
  void begin(const Row& mine, const Output& out, std::optional<Stream> stream, const RunArguments& arguments);
  const Transfer* next();

  /// What the ranks have to agree on when plans are made. Of a plan, without a run's arguments.
  const Topics& digests() const noexcept { return digests_; }
  const Sharding& sharding() const noexcept { return sharding_; }
  /// Where rows and outputs are.
  RowMemory& memory() noexcept { return *memory_; }
  Status status() const noexcept { return status_; }
  std::span<const Report> reports() const noexcept { return reports_; }
  void reset();

 private:
  /// What was moved last.
  enum class Phase { over, begun, hello, rows, leaves, totals, totals_vote, output, verdict, verdict_vote };

  /// A shard that this rank computes, and what it has found of it.
  struct Share {
    Share(std::size_t shard_in, const PlanRequest& whole, const Sharding& sharding, const Options& options);

    std::size_t shard;
    PlanRequest request;  // of the shard's slices
    std::unique_ptr<ShardBackend> backend;
    RowBuffer received;  // all-reduce: [row] the slices of its tensors
    RowBuffer scratch;   // replicas of others' shards: the output
    Output out;
    std::vector<ShardSums> sums;  // [part]
  };

  std::size_t ranks() const noexcept { return static_cast<std::size_t>(sharding_.ranks()); }
  std::size_t parts() const noexcept { return parts_.size(); }
  /// The shard that is the rank's j-th, and the rank that has a shard as its j-th.
  std::size_t shard_of(std::size_t rank, std::size_t j) const noexcept {
    return (rank + ranks() - j) % ranks();
  }
  std::size_t owner_of(std::size_t shard, std::size_t j) const noexcept { return (shard + j) % ranks(); }
  Share& first() noexcept { return *shares_.front(); }
  bool on_device() const noexcept { return memory_->space() == MemorySpace::cuda; }

  template <class F>
  void guarded(F step) noexcept;
  StreamHandle checked(std::optional<Stream> stream) const;
  void add_tensor(Digest& digest, const void* data, std::size_t bytes) const;
  void take_run(const RunArguments& arguments, bool whole_base);
  Updates received_rows(Share& share) const;
  RunArguments sliced(const RunArguments& arguments, std::size_t shard) const;
  void place_output(Share& share);
  void check_overlap(const Row& mine, const Output& out, const Row& base);

  const Transfer* send_hello(Phase phase);
  const std::byte* row_in_order() const noexcept;
  const Transfer* send_rows();
  const Transfer* sum_or_solve();
  const Transfer* send_leaves();
  const Transfer* send_totals();
  void add_leaves();
  void take_totals();
  void solve();
  const Transfer* send_output();
  void take_output();
  const Transfer* send_verdict();
  void take_verdicts();
  void end();

  const Transfer* moved(Phase phase, const std::byte* send, std::byte* receive,
                        MemorySpace space = MemorySpace::host);
  [[noreturn]] void accuse(std::size_t one, std::size_t other, const char* what, std::size_t shard) const;
  /// The products of a part that are a slice's: there are as many slices as ranks.
  Slice entries_of(std::size_t part, std::size_t slice) const;
  std::int64_t leaf_bytes(std::size_t part, std::size_t shard, std::size_t slice) const;
  std::size_t doubles_per_entry(std::size_t part) const;
  template <class F>
  void for_sampled(std::size_t part, std::size_t shard, RowSamples& samples, F f) const;
  std::int64_t sampled_values(std::size_t part, std::size_t shard);
  std::int64_t bytes_of(std::size_t shard, bool output) const;
  /// f(tensor, first byte in it, bytes) of each slice of a shard: of a row, or of the output.
  template <class F>
  void for_slices(std::size_t shard, bool output, F f) const;
  std::string hash_of(const Output& out, std::size_t shard, bool whole) const;

  Sharding sharding_;
  std::size_t rank_;
  bool all_reduce_;
  bool gathered_;
  std::size_t replicas_;
  PlanRequest whole_;
  std::unique_ptr<RowMemory> memory_;
  std::vector<std::unique_ptr<Share>> shares_;
  Topics digests_ = {};

  // Of the run.
  Phase phase_ = Phase::over;
  std::exception_ptr failure_;  // of this rank, of which the others do not know yet
  Topics run_digests_ = {};
  Row mine_;
  Output out_;
  std::vector<Leaves> leaves_;              // [part]
  std::vector<PartSums> parts_;             // [part]
  std::vector<std::vector<double>> added_;  // [part * replicas + i] sums of this rank's i-th slice, and lost
  std::vector<Report> reports_;
  Status status_ = Status::ok;

  // Of the transfer.
  Transfer transfer_;
  std::vector<std::byte> send_, receive_;
  RowBuffer row_send_, row_receive_;  // rows and outputs that lie apart where they come from, or go to
  std::vector<std::int64_t> send_bytes_, receive_bytes_;
};

}  // namespace bragg::detail
