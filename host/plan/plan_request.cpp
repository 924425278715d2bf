// SPDX-License-Identifier: Apache-2.0
#include "host/plan/plan_request.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "host/base/sizes.hpp"
#include "host/plan/engine.hpp"
#include "rules/needs.hpp"

namespace bragg::detail {

namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

/// The dtype of the output where the inputs, which the message calls `what`, are of dtype `in`.
DType checked_out_dtype(DType in, const Options& options, const std::string& what) {
  const DType out = options.out_dtype.value_or(in);
  const bool widens = out == DType::f32 && size_of(in) == 2;
  if (out != in && !widens) {
    refuse(fmt::format("out_dtype = {} for {}; needs {}{}", to_string(out), what, to_string(in),
                       size_of(in) == 2 ? " or f32" : ""));
  }
  return out;
}

}  // namespace

Device device_of(const Updates& updates, const Options& options) {
  const bool on_device = updates.space() == MemorySpace::cuda;
  const Device device = on_device ? Device::cuda : Device::cpu;
  if (options.device && *options.device != device) {
    refuse(fmt::format("options.device = {}, but the updates are in {} memory; leave it out, or move them",
                       on_device ? "cpu" : "cuda", on_device ? "a CUDA device's" : "host"));
  }
  return device;
}

PlanRequest::PlanRequest(Pipeline pipeline_in, Shape shape_in, const Options& options_in)
    : pipeline(std::move(pipeline_in)),
      shape(std::move(shape_in)),
      options(options_in),
      out_dtype(options.out_dtype.value_or(shape.dtype)) {
  check_dtypes();
  check_request(pipeline, shape.n, options);
  if (const auto fault = fault_of_sizes(shape.sizes)) refuse(*fault);
  stateful = keeps_previous(pipeline);
  if (shape.sizes.empty()) options.scope = Scope::whole;  // one (empty) report
  check_judged();
  if (options.scope == Scope::per_tensor) parts = shape.sizes.size();
}

void PlanRequest::check_dtypes() {
  if (shape.dtypes.empty()) {
    out_dtype = checked_out_dtype(shape.dtype, options, fmt::format("{} updates", to_string(shape.dtype)));
    return;
  }
  if (shape.dtypes.size() != shape.sizes.size()) {
    refuse(fmt::format("dtypes: {} of them; needs one for each of {} tensors", shape.dtypes.size(),
                       shape.sizes.size()));
  }
  for (std::size_t t = 0; t < shape.dtypes.size(); ++t) {
    const DType in = shape.dtypes[t];
    if (in != shape.dtypes.front() && options.device == Device::cuda) {
      refuse(fmt::format("tensor {} is {}, tensor 0 {}; on a CUDA device all need one dtype: cast them", t,
                         to_string(in), to_string(shape.dtypes.front())));
    }
    out_dtypes_.push_back(checked_out_dtype(in, options, fmt::format("tensor {} of {}", t, to_string(in))));
  }
  shape.dtype = shape.dtypes.front();
  out_dtype = out_dtypes_.front();
}

/// Where all tensors are judged, or nobody asks, `judged` stays empty.
void PlanRequest::check_judged() {
  if (shape.judged.empty()) return;
  if (shape.judged.size() != shape.sizes.size()) {
    refuse(fmt::format("judged: {} marks; needs one for each of {} tensors", shape.judged.size(),
                       shape.sizes.size()));
  }
  const auto unjudged = std::count(shape.judged.begin(), shape.judged.end(), false);
  if (unjudged == 0) return;
  if (unjudged == std::ssize(shape.judged))
    refuse("judged: no tensor is; rows need at least one to be judged by");
  if (options.scope == Scope::per_tensor) {
    refuse(
        fmt::format("judged: {} of {} tensors are not, but with scope = per_tensor each is judged by "
                    "itself; leave one of the two out",
                    unjudged, shape.judged.size()));
  }
  if (needs_of(pipeline).judge_rows()) judged = shape.judged;
}

void PlanRequest::check(const Updates& updates, std::span<const Output> out, const Row& base) {
  check_shape(updates, out, base);
  check_overlap(updates, out, base);
}

std::string PlanRequest::name_of(std::size_t output) const {
  return point_outputs == 0 ? "out" : fmt::format("out[{}]", output);
}

template <class RowT>
void PlanRequest::check_row(const std::string& name, const RowT& row, DType dtype) const {
  const std::size_t tensors = shape.sizes.size();
  if (row.tensors.size() != tensors) {
    refuse(fmt::format("{}: {} tensors; the plan is for {}", name, row.tensors.size(), tensors));
  }
  if (row.extent && tensors == 1) {
    const auto elements = static_cast<std::size_t>(shape.sizes[0]);
    if (row.extent->dtype != dtype) {
      refuse(fmt::format("{}: a span of {}; needs {}", name, to_string(row.extent->dtype), to_string(dtype)));
    }
    if (row.extent->elements != elements) {
      refuse(fmt::format("{}: a span of {} elements; needs {}", name, row.extent->elements, elements));
    }
  }
  for (std::size_t t = 0; t < tensors; ++t) {
    if (row.tensors[t] == nullptr && shape.sizes[t] > 0) {
      refuse(fmt::format("{}: tensor {} is null, with {} elements", name, t, shape.sizes[t]));
    }
  }
}
template void PlanRequest::check_row(const std::string& name, const Row& row, DType dtype) const;
template void PlanRequest::check_row(const std::string& name, const Output& row, DType dtype) const;

void PlanRequest::check_shape(const Updates& updates, std::span<const Output> out, const Row& base) const {
  if (updates.n() != shape.n)
    refuse(fmt::format("updates: n = {}; the plan is for n = {}", updates.n(), shape.n));
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
    if (updates.dtype(t) != shape.dtype_of(t)) {
      refuse(fmt::format("updates: {} {}; the plan is for {}",
                         shape.dtypes.empty() ? "dtype" : fmt::format("tensor {} is", t),
                         to_string(updates.dtype(t)), to_string(shape.dtype_of(t))));
    }
  }
  if (updates.judged() != shape.judged) {
    refuse(
        "updates: judged by other tensors than the plan's are; give Shape::judged and Updates::judge_by the "
        "same");
  }
  for (std::size_t k = 0; k < out.size(); ++k) {
    check_row(name_of(k), out[k], out_dtype);
  }
  if (!base.empty()) check_row("base", base, shape.dtype);
}

void PlanRequest::check_outputs(std::span<const Output> out) {
  outputs_.clear();
  for (std::size_t k = 0; k < out.size(); ++k) {
    for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
      const auto* const begin = static_cast<const std::byte*>(out[k].tensors[t]);
      if (shape.sizes[t] == 0) continue;
      outputs_.push_back(
          {begin, begin + static_cast<std::size_t>(shape.sizes[t]) * size_of(out_dtype_of(t)), k, t});
    }
  }
  std::sort(outputs_.begin(), outputs_.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (std::size_t k = 1; k < outputs_.size(); ++k) {
    const Extent& first = outputs_[k - 1];
    const Extent& second = outputs_[k];
    if (second.begin >= first.end) continue;
    if (first.output == second.output) {
      refuse(
          fmt::format("{}: tensors {} and {} overlap", name_of(first.output), first.tensor, second.tensor));
    }
    refuse(fmt::format("{}: tensor {} overlaps tensor {} of {}", name_of(first.output), first.tensor,
                       second.tensor, name_of(second.output)));
  }
}

std::string PlanRequest::overlap(std::size_t t, const void* read, std::size_t bytes,
                                 const void* in_place) const {
  if (bytes == 0) return {};
  const auto* const begin = static_cast<const std::byte*>(read);
  // Outputs are disjoint and sorted: the first that ends behind the input's begin is the one to look from.
  auto hit = std::upper_bound(outputs_.begin(), outputs_.end(), begin,
                              [](const std::byte* at, const Extent& e) { return at < e.end; });
  for (; hit != outputs_.end() && hit->begin < begin + bytes; ++hit) {
    if (hit->tensor == t && hit->begin == in_place && out_dtype_of(t) == shape.dtype_of(t)) continue;
    return fmt::format("{}: tensor {} overlaps tensor {} of", name_of(hit->output), hit->tensor, t);
  }
  return {};
}

/// The rule's output may be exactly a row that is read (then each tile is read before it is written), and
/// overlap nothing else.
void PlanRequest::check_overlap(const Updates& updates, std::span<const Output> out, const Row& base) {
  check_outputs(out);
  const bool may_be_one = point_outputs == 0;
  const auto check = [&](const void* data, std::size_t t, auto name) {
    const std::size_t bytes = static_cast<std::size_t>(shape.sizes[t]) * size_of(shape.dtype_of(t));
    const std::string found = overlap(t, data, bytes, may_be_one ? data : nullptr);
    if (found.empty()) return;
    refuse(fmt::format("{} {}; {}", found, name(),
                       may_be_one ? "it may be exactly one of them or apart" : "it has to lie apart"));
  };
  for (std::size_t t = 0; t < shape.sizes.size(); ++t) {
    for (int i = 0; i < shape.n; ++i) check(updates.data(i, t), t, [&] { return fmt::format("row {}", i); });
    if (!base.empty()) check(base.tensors[t], t, [] { return std::string("the base"); });
  }
}

}  // namespace bragg::detail
