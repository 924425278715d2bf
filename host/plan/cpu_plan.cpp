// SPDX-License-Identifier: Apache-2.0
#include <omp.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "host/base/dtype.hpp"
#include "host/base/team.hpp"
#include "host/plan/engine.hpp"
#include "host/plan/plan_backend.hpp"

namespace bragg::detail {

namespace {

class CpuPlan final : public PlanBackend {
 public:
  explicit CpuPlan(const PlanRequest& request)
      : request_(request),
        engine_(request.pipeline, request.shape.n, request.options, request.point_outputs > 0),
        threads_(request.options.threads > 0 ? request.options.threads : omp_get_max_threads()) {
    make_parts();
    solutions_.resize(request.parts);
    reports_.resize(request.parts);
  }

  void run(const Updates& updates, const Output& out, StreamHandle, const RunArguments& arguments) override;
  void wait(StreamHandle) override {}  // a run is over when it returns
  Status status() const noexcept override { return status_; }
  std::span<const Report> reports() const noexcept override { return reports_; }
  std::size_t workspace_bytes() const noexcept override { return 0; }
  void reset() override {
    round_ = 0;
    has_previous_ = false;
  }

 private:
  /// Tensors that a pass takes at once: of one part and of one dtype, judged or not.
  struct Group {
    DType dtype, out_dtype;
    bool judged = true;
    std::vector<std::size_t> tensors = {};
    std::vector<std::int64_t> sizes = {};
    std::vector<const void*> table = {};  // [tensor * rows + row]
    std::vector<void*> out = {};          // [output * tensors + tensor]
  };
  struct Part {
    std::vector<Group> groups;
    bool widen = false;  ///< f64 beside others: pass 1 has one scale for all, and takes all as f64
    std::vector<std::int64_t> unjudged_nonfinite = {};  // [row] of the groups that are not judged
  };

  void make_parts();
  void widen_reference(const Row& reference);
  void build_tables(const Updates& updates, const Output& out, const Row& reference, bool use_previous);
  RowTable table_of(const Group& group, bool use_previous) const;
  void scan_unjudged(Part& part, bool use_previous);
  void accumulate(const Part& part, bool use_previous, GramSums& sums);
  void accumulate_widened(const Group& group, bool use_previous, GramSums& sums);
  void keep_output(const Output& out);

  const PlanRequest& request_;
  Engine engine_;
  int threads_;
  std::vector<Part> parts_;

  // State.
  std::uint64_t round_ = 0;
  bool has_previous_ = false;
  std::vector<std::vector<std::byte>> previous_;  // [tensor], of its out_dtype

  // Of the run.
  ActiveRows active_;
  GramSums sums_;
  std::vector<Solution> solutions_;
  std::vector<Report> reports_;
  // A 16-bit reference beside a previous output of f32: the passes read both as one dtype.
  std::vector<std::vector<std::byte>> widened_reference_;
  std::optional<CpuPasses> widener_;
  std::vector<double> widened_;            // a stretch of each row
  std::vector<const void*> widened_rows_;  // its addresses
  Status status_ = Status::ok;
};

void CpuPlan::make_parts() {
  const Shape& shape = request_.shape;
  parts_.resize(request_.parts);
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    Part& part = parts_[request_.options.scope == Scope::whole ? 0 : t];
    const DType dtype = shape.dtype_of(t);
    const bool judged = request_.judged.empty() || request_.judged[t];
    auto group = std::find_if(part.groups.begin(), part.groups.end(), [&](const Group& other) {
      return other.dtype == dtype && other.judged == judged;
    });
    if (group == part.groups.end()) {
      part.groups.push_back({.dtype = dtype, .out_dtype = request_.out_dtype_of(t), .judged = judged});
      group = part.groups.end() - 1;
    }
    group->tensors.push_back(t);
    group->sizes.push_back(shape.sizes[t]);
  }
  for (Part& part : parts_) {
    const auto with_wide = [&](bool wide) {
      return std::any_of(part.groups.begin(), part.groups.end(), [&](const Group& group) {
        return group.judged && (group.dtype == DType::f64) == wide;
      });
    };
    part.widen = with_wide(true) && with_wide(false);
    // A row of no coordinates has sums and a report too.
    if (part.groups.empty()) part.groups.push_back({.dtype = shape.dtype, .out_dtype = request_.out_dtype});
  }
}

void CpuPlan::widen_reference(const Row& reference) {
  widened_reference_.resize(request_.shape.sizes.size());
  if (!widener_) widener_.emplace(1, request_.options.threads);
  for (const Part& part : parts_) {
    for (const Group& group : part.groups) {
      if (group.dtype == group.out_dtype) continue;
      for (std::size_t k = 0; k < group.tensors.size(); ++k) {
        const std::size_t t = group.tensors[k];
        widened_reference_[t].resize(static_cast<std::size_t>(group.sizes[k]) * size_of(group.out_dtype));
        const RowTable one{.dtype = group.dtype,
                           .inputs = 1,
                           .rows = 1,
                           .sizes = {&group.sizes[k], 1},
                           .data = &reference.tensors[t]};
        const double copy = 1;
        void* const to = widened_reference_[t].data();
        widener_->combine(one, {&copy, 1}, {.dtype = group.out_dtype, .data = &to}, {});
      }
    }
  }
}

void CpuPlan::build_tables(const Updates& updates, const Output& out, const Row& reference,
                           bool use_previous) {
  const auto rows = static_cast<std::size_t>(engine_.table_rows());
  const std::size_t tensors = request_.shape.sizes.size();
  if (use_previous && !reference.empty()) widen_reference(reference);
  for (Part& part : parts_) {
    for (Group& group : part.groups) {
      const bool widened = use_previous && group.dtype != group.out_dtype;
      const std::size_t count = group.tensors.size();
      group.table.assign(rows * count, nullptr);
      group.out.clear();
      for (std::size_t k = 0; k < count; ++k) {
        const std::size_t t = group.tensors[k];
        const void** const row = group.table.data() + k * rows;
        for (std::size_t i = 0; i < active_.rows.size(); ++i) row[i] = updates.data(active_.rows[i], t);
        if (!reference.empty()) {
          row[active_.rows.size()] = widened ? widened_reference_[t].data() : reference.tensors[t];
        }
        if (use_previous) row[active_.rows.size() + 1] = previous_[t].data();
      }
      for (std::size_t first = 0; first < out.tensors.size(); first += tensors) {
        for (const std::size_t t : group.tensors) group.out.push_back(out.tensors[first + t]);
      }
    }
  }
}

RowTable CpuPlan::table_of(const Group& group, bool use_previous) const {
  return {.dtype = group.dtype,
          .reference_dtype = use_previous ? group.out_dtype : group.dtype,
          .inputs = static_cast<int>(active_.rows.size()),
          .rows = engine_.table_rows(),
          .sizes = group.sizes,
          .data = group.table.data()};
}

/// What is not finite makes its row infinite wherever it is.
void CpuPlan::scan_unjudged(Part& part, bool use_previous) {
  if (request_.judged.empty()) return;
  part.unjudged_nonfinite.assign(static_cast<std::size_t>(engine_.table_rows()), 0);
  for (const Group& group : part.groups) {
    if (!group.judged) engine_.count_nonfinite(table_of(group, use_previous), part.unjudged_nonfinite);
  }
}

void CpuPlan::accumulate(const Part& part, bool use_previous, GramSums& sums) {
  for (const Group& group : part.groups) {
    if (!group.judged) continue;
    if (part.widen && group.dtype != DType::f64) {
      accumulate_widened(group, use_previous, sums);
    } else {
      engine_.accumulate(table_of(group, use_previous), sums);
    }
  }
  for (std::size_t i = 0; i < part.unjudged_nonfinite.size(); ++i)
    sums.nonfinite[i] += part.unjudged_nonfinite[i];
}

/// Stretch by stretch, whose copies stay in a cache.
void CpuPlan::accumulate_widened(const Group& group, bool use_previous, GramSums& sums) {
  constexpr std::int64_t stretch = 4 * gram_block;
  const RowTable narrow = table_of(group, use_previous);
  const auto rows = static_cast<std::size_t>(narrow.rows);
  widened_.resize(rows * stretch);
  widened_rows_.resize(rows);
  for (std::size_t k = 0; k < group.tensors.size(); ++k) {
    for (std::int64_t begin = 0; begin < group.sizes[k]; begin += stretch) {
      const std::int64_t length = std::min(stretch, group.sizes[k] - begin);
#pragma omp parallel for schedule(dynamic) num_threads(team(threads_))
      for (std::size_t i = 0; i < rows; ++i) {
        const void* const from = narrow.data[k * rows + i];
        double* const to = widened_.data() + i * stretch;
        widened_rows_[i] = from == nullptr ? nullptr : to;
        if (from == nullptr) continue;
        const DType dtype = narrow.dtype_of(static_cast<int>(i));
        const std::size_t skipped = static_cast<std::size_t>(begin) * size_of(dtype);
        widen_to_f64(dtype, static_cast<const std::byte*>(from) + skipped, length, to);
      }
      engine_.accumulate({.dtype = DType::f64,
                          .reference_dtype = DType::f64,
                          .inputs = narrow.inputs,
                          .rows = narrow.rows,
                          .sizes = {&length, 1},
                          .data = widened_rows_.data()},
                         sums);
    }
  }
}

void CpuPlan::keep_output(const Output& out) {
  previous_.resize(request_.shape.sizes.size());
  for (std::size_t t = 0; t < request_.shape.sizes.size(); ++t) {
    const auto* const data = static_cast<const std::byte*>(out.tensors[t]);
    previous_[t].assign(
        data, data + static_cast<std::size_t>(request_.shape.sizes[t]) * size_of(request_.out_dtype_of(t)));
  }
  has_previous_ = true;
}

void CpuPlan::run(const Updates& updates, const Output& out, StreamHandle, const RunArguments& arguments) {
  set_active_rows(arguments.weights, request_.shape.n, request_.options.max_weight_share, active_);
  const bool use_previous = request_.stateful && has_previous_;
  engine_.begin(active_, !arguments.base.empty(), use_previous, round_);
  build_tables(updates, out, arguments.base, use_previous);
  const auto target = [](const Group& group) {
    return OutTable{.dtype = group.out_dtype, .data = group.out.data(), .stride = group.tensors.size()};
  };

  status_ = Status::ok;
  for (std::size_t p = 0; p < parts_.size(); ++p) {
    scan_unjudged(parts_[p], use_previous);
    solve_over(engine_, sums_, solutions_[p],
               [&](GramSums& sums) { accumulate(parts_[p], use_previous, sums); });
    if (status_ == Status::ok) status_ = solutions_[p].status;
  }
  // One failing tensor leaves the whole output unwritten.
  if (status_ == Status::ok) {
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      for (const Group& group : parts_[p].groups)
        engine_.apply(table_of(group, use_previous), solutions_[p], target(group));
    }
    ++round_;
    if (request_.stateful) keep_output(out);
  } else if (request_.options.on_failure != OnFailure::keep) {
    const bool zero = request_.options.on_failure == OnFailure::zero;
    for (const Part& part : parts_) {
      for (const Group& group : part.groups) {
        for (std::size_t first = 0; first < group.out.size(); first += group.tensors.size()) {
          CpuPasses::fill(group.sizes, {.dtype = group.out_dtype, .data = group.out.data() + first},
                          zero ? 0 : std::numeric_limits<double>::quiet_NaN());
        }
      }
    }
  }
  for (std::size_t p = 0; p < parts_.size(); ++p) reports_[p] = solutions_[p].report;
}

}  // namespace

std::unique_ptr<PlanBackend> make_cpu_plan(const PlanRequest& request) {
  return std::make_unique<CpuPlan>(request);
}

}  // namespace bragg::detail
