// SPDX-License-Identifier: Apache-2.0
// The rows of a plan as the CPU's passes see them: tables of what they read and write, and the previous
// output.
#pragma once

#include <bragg/sharded.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "host/plan/bounded_distances.hpp"
#include "host/plan/engine.hpp"
#include "host/plan/plan_request.hpp"

namespace bragg::detail {

class CpuRows {
 public:
  /// `request` outlives it; its rows may be a shard of `whole`'s, of which it has `slices`. @throws Error as
  /// Engine.
  CpuRows(const PlanRequest& request, const PlanRequest& whole, std::span<const Slice> slices = {});

  // A run is: begin; pass 1 of each part, once more until its sums have settled, and solve; finish; keep.

  /// The arguments are checked. @throws Error as Engine::begin, and for weights.
  void begin(const Updates& updates, const Output& out, const RunArguments& arguments);

  Engine& engine() noexcept { return engine_; }
  const Engine& engine() const noexcept { return engine_; }
  const ActiveRows& active() const noexcept { return active_; }
  std::size_t parts() const noexcept { return parts_.size(); }
  /// Of a part, in the order in which pass 1 takes them.
  std::vector<std::size_t> judged_tensors(std::size_t part) const;
  /// Of a part, for its sums.
  std::int64_t leaf_blocks(std::size_t part) const { return leaf_blocks_[part]; }
  std::int64_t coordinates(std::size_t part) const { return coordinates_[part]; }

  /// Pass 1, when a run has begun: what makes rows infinite that they are not judged by.
  void scan_unjudged(std::size_t part);
  void accumulate(std::size_t part, GramSums& sums);
  /// All of pass 1 where the rows are whole, until the engine may solve: in f32 where that tells all that the
  /// run needs of distances.
  void sum_up(std::size_t part, GramSums& sums);
  /// Pass 2 of every part, where all could be solved; else what the options say of a failure.
  Status finish(std::span<Solution> solutions);
  /// The run was good: the state goes on.
  void keep();

  void reset() noexcept {
    round_ = 0;
    has_previous_ = false;
  }
  std::uint64_t round() const noexcept { return round_; }
  bool has_previous() const noexcept { return has_previous_; }

 private:
  void make_room_for_previous();
  /// Tensors that a pass takes at once: of one part and of one dtype, judged or not.
  struct Group {
    DType dtype, out_dtype;
    bool judged = true;
    std::vector<std::size_t> tensors = {};
    std::vector<std::int64_t> sizes = {};
    std::vector<std::int64_t> first = {};  // [tensor] number of its first coordinate, among the part's
    std::vector<const void*> table = {};   // [tensor * rows + row]
    std::vector<void*> out = {};           // [output * tensors + tensor]
  };
  struct Part {
    std::vector<Group> groups;
    bool widen = false;  ///< f64 beside others: pass 1 has one scale for all, and takes all as f64
    std::vector<std::int64_t> unjudged_nonfinite = {};  // [row] of the groups that are not judged
  };

  /// Of each tensor the number of its first coordinate here, among those that its part is judged by.
  std::vector<std::int64_t> number_coordinates(const PlanRequest& whole, std::span<const Slice> slices);
  void make_parts(std::span<const std::int64_t> first);
  void widen_reference(const Row& reference);
  void build_tables(const Updates& updates, const Output& out, const Row& reference);
  RowTable table_of(const Group& group) const;
  /// Whether products in f32 told all.
  bool rank(std::size_t part, GramSums& sums);
  /// Adds products of some rows alone.
  void accumulate_some(const Part& part, std::span<const int> rows, GramSums& sums);
  bool is_worth_f32(std::size_t part);
  void accumulate_widened(const Group& group, GramSums& sums);
  void fail();

  const PlanRequest& request_;
  std::vector<std::int64_t> leaf_blocks_;  // [part]
  std::vector<std::int64_t> coordinates_;  // [part] that whole rows are judged by
  Engine engine_;
  int threads_;
  std::vector<Part> parts_;

  // State.
  std::uint64_t round_ = 0;
  bool has_previous_ = false;
  std::vector<std::vector<std::byte>> previous_;  // [tensor], of its out_dtype

  // Of the run.
  ActiveRows active_;
  bool use_previous_ = false;
  // A 16-bit reference beside a previous output of f32: the passes read both as one dtype.
  std::vector<std::vector<std::byte>> widened_reference_;
  std::optional<CpuPasses> widener_;
  std::vector<double> widened_;            // a stretch of each row
  std::vector<const void*> widened_rows_;  // its addresses

  // Of rank.
  BoundedDistances distances_;
  GramSums some_;  // of some rows, or of some coordinates
  std::vector<int> some_rows_;
  std::vector<const void*> some_data_;  // [tensor * rows + row]
};

}  // namespace bragg::detail
