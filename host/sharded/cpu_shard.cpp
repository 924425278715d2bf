// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <vector>

#include "host/plan/cpu_rows.hpp"
#include "host/sharded/agreement.hpp"
#include "host/sharded/shard_backend.hpp"
#include "host/sharded/solution_digest.hpp"

namespace bragg::detail {

namespace {

class HostMemory final : public RowMemory {
 public:
  MemorySpace space() const noexcept override { return MemorySpace::host; }
  void set_stream(StreamHandle) override {}
  std::shared_ptr<std::byte> allocate(std::size_t bytes) override {
    return std::shared_ptr<std::byte>(new std::byte[bytes], std::default_delete<std::byte[]>());
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void to_host(void* to, const void* from, std::size_t bytes) override { copy(to, from, bytes); }
  void from_host(void* to, const void* from, std::size_t bytes) override { copy(to, from, bytes); }
  void finish() override {}
};

class CpuShard final : public ShardBackend {
 public:
  CpuShard(const PlanRequest& request, const PlanRequest& whole, std::span<const Slice> slices)
      : rows_(request, whole, slices), solutions_(rows_.parts()) {}

  const char* device() const noexcept override { return "CPU"; }
  std::size_t part_count() const noexcept override { return rows_.parts(); }
  std::vector<std::size_t> judged_tensors(std::size_t part) const override {
    return rows_.judged_tensors(part);
  }
  std::int64_t leaf_length(std::size_t part) const override { return rows_.leaf_blocks(part) * gram_block; }
  /// A leaf of one block has lost nothing.
  int doubles_per_entry(std::size_t part) const override { return rows_.leaf_blocks(part) > 1 ? 2 : 1; }

  void begin(const Updates& updates, const Output& out, StreamHandle,
             const RunArguments& arguments) override {
    rows_.begin(updates, out, arguments);
    first_pass_ = true;
  }
  bool needs_statistics() const noexcept override { return rows_.engine().needs_statistics(); }

  void reset_sums(std::span<PartSums> parts) override {
    const auto inputs = static_cast<int>(rows_.active().rows.size());
    for (std::size_t p = 0; p < parts.size(); ++p) {
      PartSums& part = parts[p];
      part.settled = false;
      part.totals.coordinates = rows_.coordinates(p);
      rows_.engine().reset(part.totals);
      part.entries.clear();
      if (part.totals.wanted) part.entries = gram_entries(part.totals.rows, inputs, part.totals.pairs);
    }
  }

  void sum(std::span<const PartSums> parts, std::span<ShardSums> sums) override {
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const PartSums& part = parts[p];
      if (part.settled) continue;
      if (first_pass_) rows_.scan_unjudged(p);
      LeafRecords& records = sums[p].records;
      records.entries = part.entries;
      sums_.leaf_blocks = rows_.leaf_blocks(p);
      sums_.records = &records;
      sums_.reset_for(part.totals);
      rows_.accumulate(p, sums_);
      GramSums& counted = sums[p].counted;
      counted.nonfinite = sums_.nonfinite;
      counted.max_abs = sums_.max_abs;
      counted.rounding = sums_.rounding;
      counted.wide = sums_.wide;
      counted.samples = std::move(sums_.samples);
    }
    first_pass_ = false;
  }

  /// Centre and scale are in the sums, which all shards see.
  void settle(std::span<PartSums> parts, bool follower) override {
    for (PartSums& part : parts) {
      if (!follower && !part.settled) part.settled = rows_.engine().settled(part.totals);
    }
  }

  void solve(std::span<PartSums> parts, const ShardBackend* first) override {
    if (first != nullptr) {
      solutions_ = static_cast<const CpuShard*>(first)->solutions_;
      return;
    }
    for (std::size_t p = 0; p < parts.size(); ++p) rows_.engine().solve(parts[p].totals, solutions_[p]);
  }
  Status apply() override { return rows_.finish(solutions_); }

  std::uint64_t solution_digest() override {
    Digest digest;
    for (const Solution& solution : solutions_) digest.add(digest_of(solution));
    return digest.value();
  }
  const Report& report(std::size_t part) const override { return solutions_[part].report; }
  bool counts_are_whole(std::size_t part) const override { return solutions_[part].counted; }
  void keep() override { rows_.keep(); }
  void forget() override { rows_.reset(); }
  std::uint64_t round() const noexcept override { return rows_.round(); }
  bool has_previous() const noexcept override { return rows_.has_previous(); }

 private:
  CpuRows rows_;
  std::vector<Solution> solutions_;
  GramSums sums_;
  bool first_pass_ = true;
};

}  // namespace

std::unique_ptr<RowMemory> make_cpu_memory() { return std::make_unique<HostMemory>(); }

std::unique_ptr<ShardBackend> make_cpu_shard(const PlanRequest& request, const PlanRequest& whole,
                                             std::span<const Slice> slices) {
  return std::make_unique<CpuShard>(request, whole, slices);
}

}  // namespace bragg::detail
