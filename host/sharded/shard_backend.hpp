// SPDX-License-Identifier: Apache-2.0
// What a rank computes of a shard of the rows, on the CPU or on a CUDA device, and the memory they lie in.
#pragma once

#include <bragg/plan.hpp>
#include <bragg/sharded.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "host/plan/engine.hpp"
#include "host/plan/plan_backend.hpp"
#include "host/plan/plan_request.hpp"

namespace bragg::detail {

/// Memory of the kind that rows and outputs lie in. What is done there is in order, and done after `finish`.
class RowMemory {
 public:
  RowMemory() = default;
  RowMemory(const RowMemory&) = delete;
  RowMemory& operator=(const RowMemory&) = delete;
  virtual ~RowMemory() = default;

  virtual MemorySpace space() const noexcept = 0;
  /// Of the run that begins.
  virtual void set_stream(StreamHandle stream) = 0;
  virtual std::shared_ptr<std::byte> allocate(std::size_t bytes) = 0;
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;
  /// These are done when they return.
  virtual void to_host(void* to, const void* from, std::size_t bytes) = 0;
  virtual void from_host(void* to, const void* from, std::size_t bytes) = 0;
  virtual void finish() = 0;
};

/// Grows on demand, and forgets what it holds then.
class RowBuffer {
 public:
  std::byte* at_least(RowMemory& memory, std::size_t bytes) {
    if (bytes > bytes_) {
      bytes_ = 0;
      data_.reset();
      data_ = memory.allocate(bytes);
      bytes_ = bytes;
    }
    return data_.get();
  }
  std::byte* data() const noexcept { return data_.get(); }

 private:
  std::shared_ptr<std::byte> data_;
  std::size_t bytes_ = 0;
};

/// Sums of a part, the whole row or one tensor, over all shards.
struct PartSums {
  GramSums totals;
  std::vector<std::size_t> entries;  ///< places of the products that the next pass sums
  bool settled = false;
};

/// What a shard adds to them in a pass.
struct ShardSums {
  LeafRecords records;
  GramSums counted;  ///< nonfinite, max_abs, rounding, wide and samples alone
};

class ShardBackend {
 public:
  ShardBackend() = default;
  ShardBackend(const ShardBackend&) = delete;
  ShardBackend& operator=(const ShardBackend&) = delete;
  virtual ~ShardBackend() = default;

  /// What has to be alike on all ranks, that sums and solutions may have the same bits.
  virtual const char* device() const noexcept = 0;

  virtual std::size_t part_count() const noexcept = 0;
  /// Of a part, in the order in which its leaves are.
  virtual std::vector<std::size_t> judged_tensors(std::size_t part) const = 0;
  /// Coordinates of a leaf, and numbers that its record has of each product: what the sum lost is one.
  virtual std::int64_t leaf_length(std::size_t part) const = 0;
  virtual int doubles_per_entry(std::size_t part) const = 0;

  // A run is: begin; where needs_statistics, reset_sums, then sum and settle until all parts have settled;
  // solve; apply; keep, where all is well on all ranks.

  /// The arguments are checked. @throws Error as Plan::run.
  virtual void begin(const Updates& updates, const Output& out, StreamHandle stream,
                     const RunArguments& arguments) = 0;
  virtual bool needs_statistics() const noexcept = 0;
  virtual void reset_sums(std::span<PartSums> parts) = 0;
  /// Pass 1 of what has not settled.
  virtual void sum(std::span<const PartSums> parts, std::span<ShardSums> sums) = 0;
  /// Whether sums over all shards are final; where they are not, they are made ready for another pass. A
  /// `follower` is one of a rank that computes several shards: another backend does so with the same sums.
  virtual void settle(std::span<PartSums> parts, bool follower) = 0;
  /// The n-sized mathematics. `first`: null, but for a follower: what has solved the same.
  virtual void solve(std::span<PartSums> parts, const ShardBackend* first) = 0;
  /// Pass 2.
  virtual Status apply() = 0;

  // After apply.

  virtual std::uint64_t solution_digest() = 0;
  virtual const Report& report(std::size_t part) const = 0;
  /// The report's counts are of all shards; else of this one.
  virtual bool counts_are_whole(std::size_t part) const = 0;
  virtual void keep() = 0;

  virtual void forget() = 0;
  virtual std::uint64_t round() const noexcept = 0;
  virtual bool has_previous() const noexcept = 0;
};

std::unique_ptr<RowMemory> make_cpu_memory();
/// @throws Error unsupported in a build without CUDA.
std::unique_ptr<RowMemory> make_cuda_memory(const Options& options);

/// `request`: of a shard of `whole`, which has `slices` of it; it outlives the backend. @throws Error as
/// Plan's constructor.
std::unique_ptr<ShardBackend> make_cpu_shard(const PlanRequest& request, const PlanRequest& whole,
                                             std::span<const Slice> slices);
std::unique_ptr<ShardBackend> make_cuda_shard(const PlanRequest& request, const PlanRequest& whole,
                                              std::span<const Slice> slices);

}  // namespace bragg::detail
