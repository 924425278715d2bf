// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <optional>
#include <vector>

#include "host/plan/engine.hpp"
#include "host/plan/plan_backend.hpp"

namespace bragg::detail {

namespace {

class CpuPlan final : public PlanBackend {
 public:
  explicit CpuPlan(const PlanRequest& request)
      : request_(request),
        engine_(request.pipeline, request.shape.n, request.options, request.point_outputs > 0) {
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
  void widen_reference(const Row& reference);
  void build_table(const Updates& updates, const Row& reference, bool use_previous);
  void keep_output(const Output& out);

  const PlanRequest& request_;
  Engine engine_;

  // State.
  std::uint64_t round_ = 0;
  bool has_previous_ = false;
  std::vector<std::vector<std::byte>> previous_;  // [tensor], of out_dtype

  // Of the run.
  ActiveRows active_;
  GramSums sums_;
  std::vector<Solution> solutions_;
  std::vector<Report> reports_;
  std::vector<const void*> table_;  // [tensor * rows + row]
  // A 16-bit reference beside a previous output of f32: the passes read both as one dtype.
  std::vector<std::vector<std::byte>> widened_reference_;
  std::vector<void*> widen_to_;
  std::optional<CpuPasses> widener_;
  Status status_ = Status::ok;
};

void CpuPlan::widen_reference(const Row& reference) {
  const std::size_t tensors = request_.shape.sizes.size();
  widened_reference_.resize(tensors);
  widen_to_.resize(tensors);
  for (std::size_t t = 0; t < tensors; ++t) {
    widened_reference_[t].resize(static_cast<std::size_t>(request_.shape.sizes[t]) *
                                 size_of(request_.out_dtype));
    widen_to_[t] = widened_reference_[t].data();
  }
  const RowTable one{.dtype = request_.shape.dtype,
                     .inputs = 1,
                     .rows = 1,
                     .sizes = request_.shape.sizes,
                     .data = reference.tensors.data()};
  const double copy = 1;
  if (!widener_) widener_.emplace(1, request_.options.threads);
  widener_->combine(one, {&copy, 1}, {.dtype = request_.out_dtype, .data = widen_to_.data()}, {});
}

void CpuPlan::build_table(const Updates& updates, const Row& reference, bool use_previous) {
  const auto rows = static_cast<std::size_t>(engine_.table_rows());
  const bool widen = use_previous && !reference.empty() && request_.out_dtype != request_.shape.dtype;
  if (widen) widen_reference(reference);
  table_.assign(rows * request_.shape.sizes.size(), nullptr);
  for (std::size_t t = 0; t < request_.shape.sizes.size(); ++t) {
    const void** const row = table_.data() + t * rows;
    for (std::size_t i = 0; i < active_.rows.size(); ++i) row[i] = updates.data(active_.rows[i], t);
    if (!reference.empty())
      row[active_.rows.size()] = widen ? widened_reference_[t].data() : reference.tensors[t];
    if (use_previous) row[active_.rows.size() + 1] = previous_[t].data();
  }
}

void CpuPlan::keep_output(const Output& out) {
  previous_.resize(request_.shape.sizes.size());
  for (std::size_t t = 0; t < request_.shape.sizes.size(); ++t) {
    const auto* const data = static_cast<const std::byte*>(out.tensors[t]);
    previous_[t].assign(
        data, data + static_cast<std::size_t>(request_.shape.sizes[t]) * size_of(request_.out_dtype));
  }
  has_previous_ = true;
}

void CpuPlan::run(const Updates& updates, const Output& out, StreamHandle, const RunArguments& arguments) {
  const Shape& shape = request_.shape;
  set_active_rows(arguments.weights, shape.n, request_.options.max_weight_share, active_);
  const bool use_previous = request_.stateful && has_previous_;
  engine_.begin(active_, !arguments.base.empty(), use_previous, round_);
  build_table(updates, arguments.base, use_previous);

  const auto rows = static_cast<std::size_t>(engine_.table_rows());
  const std::size_t parts = solutions_.size();
  const auto window = [&](std::size_t part) {
    const bool whole = request_.options.scope == Scope::whole;
    return RowTable{.dtype = shape.dtype,
                    .reference_dtype = use_previous ? request_.out_dtype : shape.dtype,
                    .inputs = static_cast<int>(active_.rows.size()),
                    .rows = static_cast<int>(rows),
                    .sizes = whole ? std::span<const std::int64_t>(shape.sizes)
                                   : std::span<const std::int64_t>(shape.sizes).subspan(part, 1),
                    .data = table_.data() + (whole ? 0 : part * rows)};
  };
  const auto target = [&](std::size_t part) {
    return OutTable{.dtype = request_.out_dtype,
                    .data = out.tensors.data() + (request_.options.scope == Scope::whole ? 0 : part),
                    .stride = shape.sizes.size()};
  };

  status_ = Status::ok;
  for (std::size_t part = 0; part < parts; ++part) {
    solve_over(engine_, sums_, solutions_[part],
               [&](GramSums& sums) { engine_.accumulate(window(part), sums); });
    if (status_ == Status::ok) status_ = solutions_[part].status;
  }
  // One failing tensor leaves the whole output unwritten.
  if (status_ == Status::ok) {
    for (std::size_t part = 0; part < parts; ++part)
      engine_.apply(window(part), solutions_[part], target(part));
    ++round_;
    if (request_.stateful) keep_output(out);
  } else if (request_.options.on_failure != OnFailure::keep) {
    const bool zero = request_.options.on_failure == OnFailure::zero;
    for (std::size_t first = 0; first < out.tensors.size(); first += shape.sizes.size()) {
      CpuPasses::fill(shape.sizes, {.dtype = request_.out_dtype, .data = out.tensors.data() + first},
                      zero ? 0 : std::numeric_limits<double>::quiet_NaN());
    }
  }
  for (std::size_t part = 0; part < parts; ++part) reports_[part] = solutions_[part].report;
}

}  // namespace

std::unique_ptr<PlanBackend> make_cpu_plan(const PlanRequest& request) {
  return std::make_unique<CpuPlan>(request);
}

}  // namespace bragg::detail
