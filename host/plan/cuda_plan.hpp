// SPDX-License-Identifier: Apache-2.0
// A plan on a CUDA device: what is enqueued, and where everything lies. A run is a fixed list of launches for
// a shape; no decision waits for the host, but for the two rules that search there.
#pragma once

#include <bragg/plan.hpp>
#include <bragg/sharded.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "host/cuda/layout.hpp"
#include "host/cuda/table.hpp"
#include "host/plan/plan_backend.hpp"
#include "host/plan/report.hpp"
#include "kernels/gram/gram.hpp"
#include "kernels/runtime/runtime.hpp"
#include "kernels/select/select.hpp"
#include "kernels/solve/step.hpp"
#include "rules/search.hpp"

namespace bragg::detail::cuda {

class CudaPlan : public PlanBackend {
 public:
  /// `request` outlives it. `shard_of`: its rows are a shard of this request's, `slices` of its tensors,
  /// whose sums are those of the whole rows' chunks; each chunk's record is kept then.
  explicit CudaPlan(const PlanRequest& request, const PlanRequest* shard_of = nullptr,
                    std::span<const Slice> slices = {});

  void run(const Updates& updates, const Output& out, Stream stream, const RunArguments& arguments) override;
  void wait(Stream stream) override;
  Status status() const noexcept override { return status_; }
  std::span<const Report> reports() const noexcept override { return reports_; }
  std::size_t workspace_bytes() const noexcept override { return workspace_bytes_; }
  void reset() override;

 protected:
  /// All of a run up to what the kernels do with the rows.
  void start(const Updates& updates, const Output& out, Stream stream, const RunArguments& arguments);
  void prepare_previous(Stream stream);
  /// Pass 1 for the first time (0), or once more, which does nothing where the sums have settled.
  GramArguments gram_arguments(int pass) const;
  /// The same of a sample's rows.
  GramArguments sample_arguments(int sample, int pass) const;
  /// What pass 1 is over: `partial` has room for `batch` chunks.
  GramArguments arguments_of(const Rows& rows, const Cut& chunks, const SolveBlock& b, const PassNeeds& needs,
                             const Recentring& recentring, int pass) const;
  void enqueue_unjudged(Stream stream);
  /// What cuBLAS takes, where it computes products.
  GramLibrary library() const {
    return blas_ ? GramLibrary{.blas = blas_.get(), .memory = library_at_.in(workspace_)} : GramLibrary{};
  }
  /// Looks at the sums of a pass, whether they have settled.
  void enqueue_certify(int pass, Stream stream);
  int passes_after_the_first() const;
  /// What rows hold at the coordinates by which the rule judges them.
  void gather_samples(Stream stream);
  /// The products of it.
  void enqueue_samples(Stream stream);
  /// Of all samples, as they lie.
  std::size_t sampled_doubles() const {
    std::size_t count = 0;
    for (const std::int64_t size : sample_sizes_) count += padded(static_cast<std::size_t>(size), 2);
    return count * static_cast<std::size_t>(needs_.sampling.count) * static_cast<std::size_t>(rows_.count);
  }
  /// f(sample, part, row, number of its first value) of all that is gathered, as it lies.
  template <class F>
  void for_sampled_rows(F f) const {
    std::size_t first = 0;
    for (int t = 0; t < needs_.sampling.count; ++t) {
      for (std::size_t part = 0; part < sample_sizes_.size(); ++part) {
        for (int row = 0; row < rows_.count; ++row) {
          f(t, part, row, first);
          first += padded(static_cast<std::size_t>(sample_sizes_[part]), 2);
        }
      }
    }
  }
  void enqueue_steps(Stream stream);
  void enqueue_pass_2(Stream stream);
  void share_on_host();
  /// What the records of all chunks take, of the most rows that there can be. Where products are needed.
  std::size_t record_doubles() const;
  /// Each coordinate is judged by itself: nothing of the data needs to be known before pass 2, and the host
  /// can say all there is to say.
  bool needs_no_steps() const { return !needs_.statistics && !finish_.combine; }

 private:
  void make_constants(const PlanRequest& whole);
  void plan_workspace();
  void rehearse();
  int references() const { return request_.stateful ? 2 : 1; }
  SolveLayout layout(int inputs) const {
    return {.rows = inputs + references(),
            .products = needs_.products,
            .stages = !request_.pipeline.pre.empty(),
            .samples = needs_.sampling.count};
  }
  /// Those of a sample in the parts' blocks.
  SolveBlocks sample_blocks(int sample) const;
  Rows sample_rows(int sample) const;
  void make_sample_constants(const PlanRequest& whole, std::span<const Slice> slices);
  void fill_sample_table();
  PrepareStep prepare_step() const;

  Stage first_stage() const;
  void lay_out(bool has_reference);
  void fill_table(const Updates& updates, const Output& out, const RunArguments& arguments);
  void upload_table(Stream stream);
  void enqueue(Stream stream);
  void enqueue_gram(Stream stream);
  template <class RuleT>
  void search_on_host(const SearchStep<RuleT>& step, Stream stream);
  SelectArguments select_arguments() const;
  /// Where pass 2 counts non-finite values, because pass 1 did not.
  unsigned long long* counters() const {
    return needs_.statistics ? nullptr : reinterpret_cast<unsigned long long*>(blocks_.first.nonfinite);
  }
  Gate gate() const { return {.status = &state_->status, .on_failure = request_.options.on_failure}; }

  /// The first part's block as addresses on the device.
  Parts parts() const {
    return {.per_tensor = request_.options.scope == Scope::per_tensor, .stride = blocks_.stride};
  }

 protected:
  const PlanRequest& request_;
  int device_;
  const GramUnit unit_;  // that is wanted
  PassNeeds needs_;

  const bool keeps_records_;
  std::unique_ptr<Blas> blas_;  // where GramUnit::cublas has something to compute

  // On the device as long as the plan: sizes and cuts, permutations, the state.
  DeviceMemory constants_;
  std::vector<const int*> permutations_;  // [pre-aggregator]; null: its own
  PlanState* state_ = nullptr;
  const std::int64_t* sizes_ = nullptr;
  Cut tiles_, chunks_;
  Cut unjudged_chunks_;  // of the tensors that distances are not about
  // Of the samples: a tensor for each part.
  Cut coordinates_, sample_chunks_;
  std::vector<std::int64_t> sampled_from_, sample_sizes_;  // [part] coordinates: all, and those drawn
  const std::int64_t* sample_sizes_at_ = nullptr;
  const std::int64_t* slice_begins_ = nullptr;  // of a shard
  DeviceMemory sample_constants_;
  DeviceMemory previous_memory_;
  std::vector<void*> previous_;  // [tensor] the previous output, aligned to 16 bytes

  // The workspace: [table | blocks | products of a batch of chunks | medians of one | cuBLAS' own | table and
  // rows of the samples | select's own].
  RunTable table_, sample_table_;
  Place<std::byte> sample_table_at_;
  Place<double> samples_at_;
  Place<std::byte> blocks_at_;
  Place<double> partial_at_;
  Place<std::byte> centers_at_, library_at_, select_at_;
  std::size_t workspace_bytes_ = 0;
  std::int64_t batch_ = 0;
  DeviceMemory own_workspace_;

  // Of the run.
  ActiveRows active_;
  int pivot_ = 0;
  void* workspace_ = nullptr;
  Rows rows_;
  Target target_;
  SolveLayout layout_;
  SolveBlocks blocks_;
  Finish finish_;
  bool has_run_ = false;
  bool has_reference_ = false;
  bool equal_weights_ = true;
  std::vector<std::max_align_t> host_block_;

  Status status_ = Status::ok;
  std::vector<Report> reports_;
};

}  // namespace bragg::detail::cuda
