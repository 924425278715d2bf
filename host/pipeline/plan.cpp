// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <bragg/plan.hpp>

#include <algorithm>
#include <limits>
#include <numeric>

#include "host/pipeline/engine.hpp"
#include "host/pipeline/report.hpp"

namespace bragg {

namespace {

using detail::ActiveRows;
using detail::Engine;
using detail::GramSums;
using detail::OutTable;
using detail::RowTable;
using detail::Solution;

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

DType checked_out_dtype(const Shape& shape, const Options& options) {
  const DType out = options.out_dtype.value_or(shape.dtype);
  const bool widens = out == DType::f32 && (shape.dtype == DType::f16 || shape.dtype == DType::bf16);
  if (out != shape.dtype && !widens) {
    refuse(fmt::format("out_dtype = {} for {} updates; needs {}, or f32 for 16-bit updates", to_string(out),
                       to_string(shape.dtype), to_string(shape.dtype)));
  }
  return out;
}

/// Bytes [begin, end) of one tensor.
struct Extent {
  const std::byte* begin;
  const std::byte* end;
  std::size_t tensor;
};

Extent extent(const void* data, std::int64_t elements, DType dtype, std::size_t tensor) {
  const auto* bytes = static_cast<const std::byte*>(data);
  return {bytes, bytes + static_cast<std::size_t>(elements) * size_of(dtype), tensor};
}

}  // namespace

struct Plan::Impl {
  Shape shape;
  Options options;
  DType out_dtype;
  Engine engine;
  bool stateful = false;

  // State.
  std::uint64_t round = 0;
  bool has_previous = false;
  std::vector<std::vector<std::byte>> previous;  ///< [tensor], of out_dtype

  // Of the run.
  ActiveRows active;
  GramSums sums;
  std::vector<Solution> solutions;
  std::vector<Report> reports;
  std::vector<const void*> table;  ///< [tensor * rows + row]
  std::vector<Extent> outputs;
  // A 16-bit reference beside a previous output of f32: the passes read both as one dtype.
  std::vector<std::vector<std::byte>> widened_reference;
  std::vector<void*> widen_to;
  std::optional<detail::CpuPasses> widener;
  Status status = Status::ok;

  Impl(Pipeline pipeline, Shape shape_in, const Options& options_in)
      : shape(std::move(shape_in)),
        options(options_in),
        out_dtype(checked_out_dtype(shape, options)),
        engine(std::move(pipeline), shape.n, options) {
    for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
      if (shape.sizes[t] < 0) refuse(fmt::format("sizes[{}] = {}; needs a size ≥ 0", t, shape.sizes[t]));
    }
    const auto* clipping = std::get_if<CenteredClipping>(&engine.pipeline().rule);
    if (shape.sizes.empty()) options.scope = Scope::whole;  // one (empty) report
    stateful = clipping != nullptr && clipping->start == Start::previous;
    solutions.resize(options.scope == Scope::per_tensor ? shape.sizes.size() : 1);
    reports.resize(solutions.size());
  }

  void check_shape(const Updates& updates, const Output& out, const Row& reference) const;
  void check_overlap(const Updates& updates, const Output& out, const Row& reference);
  void build_table(const Updates& updates, const Row& reference, bool use_previous);
  void widen_reference(const Row& reference);
  void keep_output(const Output& out);
};

void Plan::Impl::check_shape(const Updates& updates, const Output& out, const Row& reference) const {
  if (updates.n() != shape.n)
    refuse(fmt::format("updates: n = {}; the plan is for n = {}", updates.n(), shape.n));
  if (updates.dtype() != shape.dtype) {
    refuse(fmt::format("updates: dtype {}; the plan is for {}", to_string(updates.dtype()),
                       to_string(shape.dtype)));
  }
  const std::size_t tensors = shape.sizes.size();
  if (updates.sizes().size() != tensors) {
    refuse(fmt::format("updates: {} tensors; the plan is for {}", updates.sizes().size(), tensors));
  }
  for (std::size_t t = 0; t < tensors; ++t) {
    if (updates.sizes()[t] != shape.sizes[t]) {
      refuse(fmt::format("updates: tensor {} has {} elements; the plan is for {}", t, updates.sizes()[t],
                         shape.sizes[t]));
    }
  }
  const auto check_row = [&](const char* name, std::size_t count, auto data) {
    if (count != tensors) refuse(fmt::format("{}: {} tensors; the plan is for {}", name, count, tensors));
    for (std::size_t t = 0; t < tensors; ++t) {
      if (data(t) == nullptr && shape.sizes[t] > 0) {
        refuse(fmt::format("{}: tensor {} is null, with {} elements", name, t, shape.sizes[t]));
      }
    }
  };
  check_row("out", out.tensors.size(), [&](std::size_t t) { return out.tensors[t]; });
  if (!reference.empty()) {
    check_row("reference", reference.tensors.size(), [&](std::size_t t) { return reference.tensors[t]; });
  }
}

/// `out` may be exactly a row that is read (then each tile is read before it is written), and overlap nothing
/// else.
void Plan::Impl::check_overlap(const Updates& updates, const Output& out, const Row& reference) {
  outputs.clear();
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    if (shape.sizes[t] > 0) outputs.push_back(extent(out.tensors[t], shape.sizes[t], out_dtype, t));
  }
  std::sort(outputs.begin(), outputs.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (std::size_t k = 1; k < outputs.size(); ++k) {
    if (outputs[k].begin < outputs[k - 1].end) {
      refuse(fmt::format("out: tensors {} and {} overlap", outputs[k - 1].tensor, outputs[k].tensor));
    }
  }
  const auto check = [&](const void* data, std::size_t t, auto name) {
    if (shape.sizes[t] == 0) return;
    const Extent in = extent(data, shape.sizes[t], shape.dtype, t);
    // Outputs are disjoint and sorted: the first that ends behind `in` begins is the only candidate to look
    // from.
    auto hit = std::upper_bound(outputs.begin(), outputs.end(), in.begin,
                                [](const std::byte* at, const Extent& e) { return at < e.end; });
    if (hit == outputs.end() || hit->begin >= in.end) return;
    if (hit->tensor == t && hit->begin == in.begin && out_dtype == shape.dtype) return;
    refuse(fmt::format("out: tensor {} overlaps tensor {} of {}; it may be exactly one of them or apart",
                       hit->tensor, t, name()));
  };
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    for (int i = 0; i < shape.n; ++i) check(updates.data(i, t), t, [&] { return fmt::format("row {}", i); });
    if (!reference.empty()) check(reference.tensors[t], t, [] { return std::string("the reference"); });
  }
}

void Plan::Impl::widen_reference(const Row& reference) {
  const std::size_t tensors = shape.sizes.size();
  widened_reference.resize(tensors);
  widen_to.resize(tensors);
  for (std::size_t t = 0; t < tensors; ++t) {
    widened_reference[t].resize(static_cast<std::size_t>(shape.sizes[t]) * size_of(out_dtype));
    widen_to[t] = widened_reference[t].data();
  }
  const RowTable one{
      .dtype = shape.dtype, .inputs = 1, .rows = 1, .sizes = shape.sizes, .data = reference.tensors.data()};
  const double copy = 1;
  if (!widener) widener.emplace(1, options.threads);
  widener->combine(one, {&copy, 1}, {.dtype = out_dtype, .data = widen_to.data()}, {});
}

void Plan::Impl::build_table(const Updates& updates, const Row& reference, bool use_previous) {
  const auto rows = static_cast<std::size_t>(engine.table_rows());
  const bool widen = use_previous && !reference.empty() && out_dtype != shape.dtype;
  if (widen) widen_reference(reference);
  table.assign(rows * shape.sizes.size(), nullptr);
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    const void** const row = table.data() + t * rows;
    for (std::size_t i = 0; i < active.rows.size(); ++i) row[i] = updates.data(active.rows[i], t);
    if (!reference.empty())
      row[active.rows.size()] = widen ? widened_reference[t].data() : reference.tensors[t];
    if (use_previous) row[active.rows.size() + 1] = previous[t].data();
  }
}

void Plan::Impl::keep_output(const Output& out) {
  previous.resize(shape.sizes.size());
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    const auto* const data = static_cast<const std::byte*>(out.tensors[t]);
    previous[t].assign(data, data + static_cast<std::size_t>(shape.sizes[t]) * size_of(out_dtype));
  }
  has_previous = true;
}

Plan::Plan(Pipeline pipeline, Shape shape, Options options)
    : impl_(std::make_unique<Impl>(std::move(pipeline), std::move(shape), options)) {}
Plan::~Plan() = default;
Plan::Plan(Plan&&) noexcept = default;
Plan& Plan::operator=(Plan&&) noexcept = default;

void Plan::run(const Updates& updates, const Output& out, const RunArguments& arguments) {
  Impl& p = *impl_;
  Engine& engine = p.engine;
  p.check_shape(updates, out, arguments.reference);
  p.check_overlap(updates, out, arguments.reference);
  const ActiveRows& active = p.active;
  detail::set_active_rows(arguments.weights, p.shape.n, p.options.max_weight_share, p.active);
  const bool use_previous = p.stateful && p.has_previous;
  engine.begin(active, !arguments.reference.empty(), use_previous, p.round);
  p.build_table(updates, arguments.reference, use_previous);

  const auto rows = static_cast<std::size_t>(engine.table_rows());
  const std::size_t parts = p.solutions.size();
  const auto window = [&](std::size_t part) {
    const bool whole = p.options.scope == Scope::whole;
    return RowTable{.dtype = p.shape.dtype,
                    .reference_dtype = use_previous ? p.out_dtype : p.shape.dtype,
                    .inputs = static_cast<int>(active.rows.size()),
                    .rows = static_cast<int>(rows),
                    .sizes = whole ? std::span<const std::int64_t>(p.shape.sizes)
                                   : std::span<const std::int64_t>(p.shape.sizes).subspan(part, 1),
                    .data = p.table.data() + (whole ? 0 : part * rows)};
  };
  const auto target = [&](std::size_t part) {
    return OutTable{.dtype = p.out_dtype,
                    .data = out.tensors.data() + (p.options.scope == Scope::whole ? 0 : part)};
  };

  p.status = Status::ok;
  for (std::size_t part = 0; part < parts; ++part) {
    if (engine.needs_statistics()) {
      engine.reset(p.sums);
      do {
        engine.accumulate(window(part), p.sums);
      } while (!engine.settled(p.sums));
    }
    engine.solve(p.sums, p.solutions[part]);
    if (p.status == Status::ok) p.status = p.solutions[part].status;
  }
  // One failing tensor leaves the whole output unwritten.
  if (p.status == Status::ok) {
    for (std::size_t part = 0; part < parts; ++part)
      engine.apply(window(part), p.solutions[part], target(part));
    ++p.round;
    if (p.stateful) p.keep_output(out);
  } else if (p.options.on_failure != OnFailure::keep) {
    const bool zero = p.options.on_failure == OnFailure::zero;
    detail::CpuPasses::fill(p.shape.sizes, {.dtype = p.out_dtype, .data = out.tensors.data()},
                            zero ? 0 : std::numeric_limits<double>::quiet_NaN());
  }
  for (std::size_t part = 0; part < parts; ++part) p.reports[part] = p.solutions[part].report;
}

Status Plan::status() const noexcept { return impl_->status; }
std::span<const Report> Plan::reports() const noexcept { return impl_->reports; }

void Plan::reset() noexcept {
  impl_->round = 0;
  impl_->has_previous = false;
}

const Pipeline& Plan::pipeline() const noexcept { return impl_->engine.pipeline(); }
const Shape& Plan::shape() const noexcept { return impl_->shape; }

std::vector<Report> aggregate(const Pipeline& pipeline, const Updates& updates, const Output& out,
                              const RunArguments& arguments, const Options& options) {
  Plan plan(pipeline, Shape::of(updates), options);
  plan.run(updates, out, arguments);
  if (plan.status() != Status::ok)
    throw Error(plan.status(), detail::describe_failure(plan.status(), plan.reports()));
  return {plan.reports().begin(), plan.reports().end()};
}

}  // namespace bragg
