// SPDX-License-Identifier: Apache-2.0
// Aggregation by the ranks of a job together: rows that are sharded by coordinates, or one row a rank.
#pragma once

#include <bragg/communicator.hpp>
#include <bragg/pipeline.hpp>
#include <bragg/plan.hpp>
#include <bragg/report.hpp>
#include <bragg/updates.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace bragg {
inline namespace v0 {

/// Elements [begin, end) of a tensor.
struct Slice {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const noexcept { return end - begin; }
};

/// Which rank has which coordinates of every row: of each tensor one slice, perhaps of no elements.
///
/// Tensors are cut where sums are (docs/distributed.md): at multiples of 8192 elements, of rows of more than
/// 1024 such blocks at multiples of more. So sums have the same bits whoever has what.
class BRAGG_API Sharding {
 public:
  /// Every rank has about as many coordinates, which follow each other: rank 0 the first.
  /// @throws Error invalid_argument: a size < 0, ranks < 1.
  static Sharding even(std::span<const std::int64_t> sizes, int ranks);
  /// Each tensor is cut over all ranks: for tensors that come one after another.
  /// @throws Error invalid_argument, as `even`.
  static Sharding each_tensor(std::span<const std::int64_t> sizes, int ranks);
  /// Tensor t is rank owner[t]'s. @throws Error invalid_argument, as `even`; also: not one owner for each
  /// tensor, an owner outside [0, ranks).
  static Sharding owners(std::span<const std::int64_t> sizes, std::span<const int> owner, int ranks);

  int ranks() const noexcept { return ranks_; }
  /// Elements of each tensor of a whole row.
  std::span<const std::int64_t> sizes() const noexcept { return sizes_; }
  /// What a rank has of each tensor.
  std::span<const Slice> slices(int rank) const noexcept {
    return std::span(slices_).subspan(static_cast<std::size_t>(rank) * sizes_.size(), sizes_.size());
  }
  /// Elements of those slices: the tensor sizes of a rank's updates.
  std::vector<std::int64_t> sizes_of(int rank) const;
  /// Their sum.
  std::int64_t coordinates(int rank) const noexcept;

 private:
  Sharding(std::span<const std::int64_t> sizes, int ranks);

  int ranks_;
  std::vector<std::int64_t> sizes_;
  std::vector<Slice> slices_;  // [rank][tensor]
};

/// Bytes to be moved between two phases: as Communicator::all_to_all, or as all_gather where `send_bytes` is
/// empty (a rank sends its own of `receive_bytes`).
struct Transfer {
  const std::byte* send = nullptr;
  std::span<const std::int64_t> send_bytes = {};
  std::byte* receive = nullptr;
  std::span<const std::int64_t> receive_bytes = {};
  /// Where both are: of a plan on a CUDA device, rows and outputs there, all else in host memory. The device
  /// has written what is sent, and may read what is received when `next` is called again.
  MemorySpace space = MemorySpace::host;
};

/// A pipeline over rows that are sharded by coordinates: `Plan` for the ranks of a job, which all have the
/// same tensors of it, cut. On the CPU, or on a CUDA device of each rank.
///
/// The result is that of one process with whole rows, bit for bit, for any sharding and any number of ranks;
/// status and reports are the same on all ranks. Whatever bits the *rows* hold, that is so; *ranks* are
/// trusted to run this software unaltered: see docs/distributed.md.
///
/// Ranks first tell each other what they are about to do: those that were given other arguments, run another
/// version, or on another kind of device, end the run on all of them (`disagreement`), before any data moves.
///
/// With options.device = cuda, rows, output and base are on the plan's device. A run takes a stream: what was
/// enqueued there before it comes first, and what the run computes is done when it, or `next`, returns. It
/// waits for the device between its phases, so it cannot be captured in a CUDA graph.
class BRAGG_API ShardedPlan {
 public:
  /// Collective. `rows`: of whole rows. `communicator` outlives the plan.
  /// @throws Error as Plan's constructor, on every rank what one of them met; invalid_argument: the sharding
  ///   is of other tensors or of another number of ranks, options.lent_workspace; disagreement;
  ///   communication.
  ShardedPlan(Pipeline pipeline, Shape rows, Sharding sharding, Communicator& communicator,
              Options options = {});
  /// The same for a transport of one's own, that moves what `next` says. Nothing is moved here.
  ShardedPlan(Pipeline pipeline, Shape rows, Sharding sharding, int rank, Options options = {});
  ~ShardedPlan();
  ShardedPlan(ShardedPlan&&) noexcept;
  ShardedPlan& operator=(ShardedPlan&&) noexcept;

  /// Collective. Aggregates the slices `mine` of every row (tensor sizes: Sharding::sizes_of) into those of
  /// the output. arguments.base is this rank's slices, too; weights are the same on all ranks.
  /// @throws Error as Plan::run, on every rank what one of them met; disagreement, communication: `out` may
  /// be
  ///   half new; invalid_argument: the plan has no communicator.
  void run(const Updates& mine, const Output& out, const RunArguments& arguments = {});
  /// device = cuda.
  void run(const Updates& mine, const Output& out, Stream stream, const RunArguments& arguments = {});

  /// The same in phases: after `begin` the caller moves what `next` returns, until that is null. Data, base
  /// and output stay where they are until then.
  void begin(const Updates& mine, const Output& out, const RunArguments& arguments = {});
  void begin(const Updates& mine, const Output& out, Stream stream, const RunArguments& arguments = {});
  /// Computes until something is to be moved; null: the run is over. @throws Error as `run`: the run is over.
  const Transfer* next();

  /// As Plan::status and Plan::reports; the same on all ranks. After a run that threw: the error's; its
  /// reports are those of the run before, and so is the plan's state.
  [[nodiscard]] Status status() const noexcept;
  std::span<const Report> reports() const noexcept;
  const Report& report() const noexcept { return reports().front(); }
  /// As Plan::reset, on all ranks.
  void reset();
  const Sharding& sharding() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct AllReduceOptions {
  Options options = {};
  bool gather = true;  ///< every rank gets the whole output; false: its slices of AllReduce::sharding()
  /// So many ranks compute each slice, and all compare what they found: up to replicas − 1 ranks that compute
  /// wrongly, by fault or malice, give nobody a wrong result. They can stop every run (docs/distributed.md).
  int replicas = 1;
  std::optional<Sharding> sharding = std::nullopt;  ///< which rank aggregates what; null: `even`
};

/// A robust rule in the place of a sum: row r is rank r's, and the result everybody's. On the CPU, or on a
/// CUDA device of each rank, as ShardedPlan.
///
/// Every rank sends each other rank that one's slices of its row, aggregates the slices of all rows that it
/// gets, and (`gather`) sends the result to all: as many bytes as a plain all-reduce, and about
/// 4·n²·8 bytes more. Bits, trust and agreement are as of ShardedPlan.
class BRAGG_API AllReduce {
 public:
  /// Collective. rows.n is the number of ranks. @throws Error as ShardedPlan.
  AllReduce(Pipeline pipeline, Shape rows, Communicator& communicator, AllReduceOptions options = {});
  /// For a transport of one's own, as ShardedPlan.
  AllReduce(Pipeline pipeline, Shape rows, int rank, AllReduceOptions options = {});
  ~AllReduce();
  AllReduce(AllReduce&&) noexcept;
  AllReduce& operator=(AllReduce&&) noexcept;

  /// Collective. `mine` is this rank's row, arguments.base a whole row, the same on all ranks. Tensors of
  /// `out` may be exactly those of `mine` (without `gather`: this rank's slices of them), which are then kept
  /// where the status is not ok and on_failure is `keep`. @throws Error as ShardedPlan::run; also
  /// invalid_argument: `out` overlaps `mine` or the base in another way, or itself.
  void run(const Row& mine, const Output& out, const RunArguments& arguments = {});
  /// device = cuda.
  void run(const Row& mine, const Output& out, Stream stream, const RunArguments& arguments = {});
  /// In phases, as ShardedPlan.
  void begin(const Row& mine, const Output& out, const RunArguments& arguments = {});
  void begin(const Row& mine, const Output& out, Stream stream, const RunArguments& arguments = {});
  const Transfer* next();

  [[nodiscard]] Status status() const noexcept;
  std::span<const Report> reports() const noexcept;
  const Report& report() const noexcept { return reports().front(); }
  void reset();
  const Sharding& sharding() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The part of a rank that cannot take part: it comes in the place of a plan that is made with a communicator
/// or of a run, where this rank has no arguments for it (what makes them has thrown). The other ranks are
/// told, instead of waiting for ever, and throw the same error, with this rank's number. Plans are as before.
class BRAGG_API FailedRun {
 public:
  /// For a transport of one's own. @throws Error invalid_argument: rank outside [0, ranks).
  FailedRun(const Error& error, int ranks, int rank);
  ~FailedRun();
  FailedRun(FailedRun&&) noexcept;
  FailedRun& operator=(FailedRun&&) noexcept;

  /// As AllReduce::next. @throws Error after the transfer: `error`, or another's where a lower rank failed.
  const Transfer* next();

  /// The same over a communicator. Collective. @throws Error as `next`, always.
  [[noreturn]] static void tell(Communicator& communicator, const Error& error);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace v0
}  // namespace bragg
