// SPDX-License-Identifier: Apache-2.0
#include "host/files/memory_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "host/plan/engine.hpp"

namespace bragg::detail {

namespace {

constexpr std::uint64_t least_memory = 1 << 20;
// Windows beyond these gain nothing: the first keeps reads long, the second keeps the window in a cache.
constexpr std::int64_t long_read = 1 << 19;
constexpr std::int64_t cached_window = 16 << 20;

bool mixes_f64(const Inputs& inputs) {
  const auto is_f64 = [&](std::size_t t) { return element_type_of(inputs.tensors[t]).dtype == DType::f64; };
  return std::any_of(inputs.floating.begin(), inputs.floating.end(), is_f64) &&
         !std::all_of(inputs.floating.begin(), inputs.floating.end(), is_f64);
}

/// `widen`: products of all tensors must be of one scale, as f64 ones are. `stepped`: what pass 2 makes is
/// not yet the output, and is not rounded to 16 bits.
Window kind_of(const TensorInfo& in, const TensorInfo& out, bool widen, bool stepped, Scope scope) {
  Window kind{.type = &element_type_of(in), .out = &element_type_of(out), .pieces = {}};
  if (kind.type->kind != ElementKind::floating) return kind;
  // Values of 8 bits are no dtype of the passes: they are read as the next wider one.
  const DType own = kind.type->dtype;
  const bool direct =
      kind.out->bytes > 1 && (kind.out->dtype == own || (kind.out->dtype == DType::f32 && size_of(own) == 2));
  // What the passes cannot write they make in f64, which is then rounded once.
  kind.combined = direct ? own : DType::f64;
  kind.made = !direct ? DType::f64 : stepped && size_of(kind.out->dtype) == 2 ? DType::f32 : kind.out->dtype;
  kind.judged = scope == Scope::per_tensor ? kind.combined : widen ? DType::f64 : own;
  return kind;
}

std::int64_t widest_of(const Window& kind) {
  const std::int64_t files = std::max(kind.type->bytes, kind.out->bytes);
  if (kind.type->kind != ElementKind::floating) return files;
  const auto rows = static_cast<std::int64_t>(std::max(size_of(kind.judged), size_of(kind.combined)));
  return std::max({files, rows, static_cast<std::int64_t>(size_of(kind.made))});
}

/// What the tables of tensors take, and the reports on them, beyond what the program itself has room for.
std::int64_t table_bytes(const Inputs& inputs, int rows, Scope scope) {
  constexpr std::int64_t room = 48 << 20;
  constexpr std::int64_t entries = 640;  // of a tensor, in all tables: measured
  constexpr std::int64_t names = 4;      // copies
  std::int64_t bytes = -room;
  for (const TensorInfo& tensor : inputs.tensors)
    bytes += entries + names * static_cast<std::int64_t>(tensor.name.size());
  std::set<const std::vector<Place>*> layouts;  // one is among the entries
  for (const PlacedModel& model : inputs.models) layouts.insert(model.places.get());
  layouts.erase(nullptr);
  if (layouts.size() > 1)
    bytes += static_cast<std::int64_t>((layouts.size() - 1) * inputs.tensors.size() * sizeof(Place));
  if (scope == Scope::per_tensor) {
    const auto report =
        static_cast<std::int64_t>(sizeof(Report) + static_cast<std::size_t>(rows) * sizeof(RowReport));
    bytes += static_cast<std::int64_t>(inputs.floating.size()) * report;
  }
  return std::max<std::int64_t>(0, bytes);
}

}  // namespace

/// Half of what the n-sized mathematics leaves is for windows; the rest is for headers and the passes'
/// scratch.
MemoryPlan plan_memory(const Inputs& inputs, const OutputPlan& output, int rows,
                       const Mathematics& mathematics, const FileOptions& options) {
  if (options.memory < least_memory) {
    throw Error(Status::invalid_argument,
                fmt::format("memory = {} bytes; needs at least {} (1 MiB)", options.memory, least_memory));
  }
  MemoryPlan plan{.kinds = {}, .widest = {}, .slot = {.rows = rows}};
  const bool widen = mixes_f64(inputs);
  std::int64_t largest = 1, row_bytes = 0;
  constexpr std::int64_t plenty = std::int64_t{1} << 40;
  for (std::size_t t = 0; t < inputs.tensors.size(); ++t) {
    Window kind = kind_of(inputs.tensors[t], output.tensors[t], widen, options.server.has_value(),
                          options.options.scope);
    // A copy needs no pass, and any dtype of the output can be made of f64.
    if (std::binary_search(inputs.copied.begin(), inputs.copied.end(), t))
      kind.combined = kind.made = DType::f64;
    plan.kinds.push_back(std::move(kind));
    const std::int64_t widest = widest_of(plan.kinds.back());
    plan.widest.push_back(widest);
    largest = std::max(largest, widest);
    row_bytes = std::min(plenty, row_bytes + std::min(plenty, inputs.tensors[t].elements) * widest);
  }
  const std::int64_t n = rows;
  const std::int64_t block = (n + 1) * gram_block * largest;
  const auto memory =
      static_cast<std::int64_t>(std::min<std::uint64_t>(options.memory, std::uint64_t{1} << 62));
  const std::int64_t slots = options.options.device == Device::cuda ? 2 : 1;
  const std::int64_t beside =
      mathematics.bytes + mathematics.sample_bytes + table_bytes(inputs, rows, options.options.scope);
  const std::int64_t needed = beside + slots * (block + block / 4);
  if (needed > memory) {
    const auto mebis = [](std::int64_t bytes) {
      return fmt::format("{}{:.0f} MiB", bytes >= Engine::most_bytes ? "more than " : "",
                         std::ceil(static_cast<double>(bytes) / (1 << 20)));
    };
    std::string what = fmt::format(
        "memory = {:.4g} MiB is too small for {} row{} of {} tensor{} with elements of {} byte{}; "
        "needs {}",
        static_cast<double>(options.memory) / (1 << 20), rows, rows == 1 ? "" : "s", inputs.tensors.size(),
        inputs.tensors.size() == 1 ? "" : "s", largest, largest == 1 ? "" : "s", mebis(needed));
    if (2 * mathematics.sample_bytes > needed) {
      what += fmt::format(", {} of it for {}; lower iters or sample", mebis(mathematics.sample_bytes),
                          mathematics.samples);
    }
    throw Error(Status::out_of_memory, what);
  }
  const std::int64_t affordable =
      std::min((memory - beside) / (2 * slots), std::max(cached_window, n * long_read));
  const std::int64_t useful = (n + 1) * std::min(plenty, row_bytes + gram_block * largest);
  plan.slot.row_stride = std::max(block, std::min(affordable, useful)) / (n + 1) / 64 * 64;
  return plan;
}

std::vector<Window> MemoryPlan::cut(std::span<const std::size_t> tensors,
                                    std::span<const std::optional<Slice>> own, std::size_t judged) const {
  std::vector<Window> windows;
  bool open = false;  // whether the last window may be continued
  for (std::size_t k = 0; k < tensors.size(); ++k) {
    const std::size_t t = tensors[k];
    if (!own[t]) continue;
    const Slice all = *own[t];
    const Window& kind = kinds[t];
    const std::int64_t most = slot.row_stride / widest[t] / gram_block * gram_block;
    if (all.size() > most) {
      for (std::int64_t begin = all.begin; begin < all.end; begin += most) {
        const std::int64_t size = std::min(most, all.end - begin);
        windows.push_back(kind);
        windows.back().pieces.push_back({t, begin, begin + size});
        windows.back().elements = size;
        windows.back().judged_pieces = k < judged ? 1 : 0;
      }
      open = false;
      continue;
    }
    open = open && windows.back().type == kind.type && windows.back().out == kind.out &&
           windows.back().elements + all.size() <= most;
    if (!open) windows.push_back(kind);
    windows.back().pieces.push_back({t, all.begin, all.end});
    windows.back().elements += all.size();
    if (k < judged) windows.back().judged_pieces = windows.back().pieces.size();
    open = true;
  }
  return windows;
}

}  // namespace bragg::detail
