// SPDX-License-Identifier: Apache-2.0
#include "host/pipeline/plan_request.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "host/pipeline/engine.hpp"

namespace bragg::detail {

namespace {

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

}  // namespace

PlanRequest::PlanRequest(Pipeline pipeline_in, Shape shape_in, const Options& options_in)
    : pipeline(std::move(pipeline_in)),
      shape(std::move(shape_in)),
      options(options_in),
      out_dtype(checked_out_dtype(shape, options)) {
  check_request(pipeline, shape.n, options);
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    if (shape.sizes[t] < 0) refuse(fmt::format("sizes[{}] = {}; needs a size ≥ 0", t, shape.sizes[t]));
  }
  const auto* clipping = std::get_if<CenteredClipping>(&pipeline.rule);
  stateful = clipping != nullptr && clipping->start == Start::previous;
  if (shape.sizes.empty()) options.scope = Scope::whole;  // one (empty) report
  if (options.scope == Scope::per_tensor) parts = shape.sizes.size();
}

void PlanRequest::check(const Updates& updates, const Output& out, const Row& reference) {
  check_shape(updates, out, reference);
  check_overlap(updates, out, reference);
}

PlanRequest::Extent PlanRequest::extent(const void* data, std::int64_t elements, DType dtype,
                                        std::size_t tensor) {
  const auto* bytes = static_cast<const std::byte*>(data);
  return {bytes, bytes + static_cast<std::size_t>(elements) * size_of(dtype), tensor};
}

void PlanRequest::check_shape(const Updates& updates, const Output& out, const Row& reference) const {
  if (updates.n() != shape.n)
    refuse(fmt::format("updates: n = {}; the plan is for n = {}", updates.n(), shape.n));
  if (updates.dtype() != shape.dtype) {
    refuse(fmt::format("updates: dtype {}; the plan is for {}", to_string(updates.dtype()),
                       to_string(shape.dtype)));
  }
  const bool on_device = options.device == Device::cuda;
  if ((updates.space() == MemorySpace::cuda) != on_device) {
    refuse(on_device ? "updates: in host memory; the plan is for a CUDA device: make them with "
                       "MemorySpace::cuda, of addresses on the device"
                     : "updates: in a CUDA device's memory; the plan is for the CPU: make it with "
                       "Options::device = Device::cuda");
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
void PlanRequest::check_overlap(const Updates& updates, const Output& out, const Row& reference) {
  outputs_.clear();
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    if (shape.sizes[t] > 0) outputs_.push_back(extent(out.tensors[t], shape.sizes[t], out_dtype, t));
  }
  std::sort(outputs_.begin(), outputs_.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (std::size_t k = 1; k < outputs_.size(); ++k) {
    if (outputs_[k].begin < outputs_[k - 1].end) {
      refuse(fmt::format("out: tensors {} and {} overlap", outputs_[k - 1].tensor, outputs_[k].tensor));
    }
  }
  const auto check = [&](const void* data, std::size_t t, auto name) {
    if (shape.sizes[t] == 0) return;
    const Extent in = extent(data, shape.sizes[t], shape.dtype, t);
    // Outputs are disjoint and sorted: the first that ends behind `in` begins is the only candidate to look
    // from.
    auto hit = std::upper_bound(outputs_.begin(), outputs_.end(), in.begin,
                                [](const std::byte* at, const Extent& e) { return at < e.end; });
    if (hit == outputs_.end() || hit->begin >= in.end) return;
    if (hit->tensor == t && hit->begin == in.begin && out_dtype == shape.dtype) return;
    refuse(fmt::format("out: tensor {} overlaps tensor {} of {}; it may be exactly one of them or apart",
                       hit->tensor, t, name()));
  };
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    for (int i = 0; i < shape.n; ++i) check(updates.data(i, t), t, [&] { return fmt::format("row {}", i); });
    if (!reference.empty()) check(reference.tensors[t], t, [] { return std::string("the reference"); });
  }
}

}  // namespace bragg::detail
