// SPDX-License-Identifier: Apache-2.0
#include "host/plan/cpu_rows.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "host/base/dtype.hpp"
#include "host/base/team.hpp"
#include "host/cpu/kernels.hpp"
#include "rules/floating_environment.hpp"

namespace bragg::detail {

namespace {

/// Products of rows[0], rows[1], … with each other are those of `some` from now on.
void replace_some(std::span<const int> rows, const GramSums& some, GramSums& sums) {
  std::size_t from = 0;
  for (const int i : rows) {
    for (const int j : rows) {
      const std::size_t to =
          static_cast<std::size_t>(i) * static_cast<std::size_t>(sums.rows) + static_cast<std::size_t>(j);
      sums.products[to] = some.products[from];
      sums.low[to] = some.low[from];
      ++from;
    }
  }
}

}  // namespace

CpuRows::CpuRows(const PlanRequest& request, const PlanRequest& whole, std::span<const Slice> slices)
    : request_(request),
      engine_(request.pipeline, request.shape.n, request.options, request.point_outputs > 0),
      threads_(threads_of(request.options.threads)) {
  make_parts(number_coordinates(whole, slices));
}

std::vector<std::int64_t> CpuRows::number_coordinates(const PlanRequest& whole,
                                                      std::span<const Slice> slices) {
  std::vector<std::int64_t> first;
  const std::vector<std::int64_t>& sizes = whole.shape.sizes;
  const bool together = whole.options.scope == Scope::whole;
  std::vector<std::int64_t> judged;  // of the part
  std::int64_t total = 0;
  const auto end_part = [&] {
    leaf_blocks_.push_back(leaf_blocks_of(judged));
    coordinates_.push_back(std::exchange(total, 0));
    judged.clear();
  };
  for (std::size_t t = 0; t < sizes.size(); ++t) {
    first.push_back(total + (slices.empty() ? 0 : slices[t].begin));
    if (whole.judged.empty() || whole.judged[t]) {
      judged.push_back(sizes[t]);
      total += sizes[t];
    }
    if (!together) end_part();
  }
  if (together) end_part();
  return first;
}

void CpuRows::make_parts(std::span<const std::int64_t> first) {
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
    group->first.push_back(first[t]);
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

void CpuRows::widen_reference(const Row& reference) {
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

void CpuRows::build_tables(const Updates& updates, const Output& out, const Row& reference) {
  const auto rows = static_cast<std::size_t>(engine_.table_rows());
  const std::size_t tensors = request_.shape.sizes.size();
  if (use_previous_ && !reference.empty()) widen_reference(reference);
  for (Part& part : parts_) {
    for (Group& group : part.groups) {
      const bool widened = use_previous_ && group.dtype != group.out_dtype;
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
        if (use_previous_) row[active_.rows.size() + 1] = previous_[t].data();
      }
      for (std::size_t first = 0; first < out.tensors.size(); first += tensors) {
        for (const std::size_t t : group.tensors) group.out.push_back(out.tensors[first + t]);
      }
    }
  }
}

RowTable CpuRows::table_of(const Group& group) const {
  return {.dtype = group.dtype,
          .reference_dtype = use_previous_ ? group.out_dtype : group.dtype,
          .inputs = static_cast<int>(active_.rows.size()),
          .rows = engine_.table_rows(),
          .sizes = group.sizes,
          .data = group.table.data()};
}

std::vector<std::size_t> CpuRows::judged_tensors(std::size_t part) const {
  std::vector<std::size_t> tensors;
  for (const Group& group : parts_[part].groups) {
    if (group.judged) tensors.insert(tensors.end(), group.tensors.begin(), group.tensors.end());
  }
  return tensors;
}

void CpuRows::scan_unjudged(std::size_t p) {
  Part& part = parts_[p];
  if (request_.judged.empty()) return;
  part.unjudged_nonfinite.assign(static_cast<std::size_t>(engine_.table_rows()), 0);
  for (const Group& group : part.groups) {
    if (!group.judged) engine_.count_nonfinite(table_of(group), part.unjudged_nonfinite);
  }
}

void CpuRows::accumulate(std::size_t p, GramSums& sums) {
  const Part& part = parts_[p];
  for (const Group& group : part.groups) {
    if (!group.judged) continue;
    engine_.sample(table_of(group), group.first, sums);
    if (part.widen && group.dtype != DType::f64) {
      accumulate_widened(group, sums);
    } else {
      engine_.accumulate(table_of(group), sums);
    }
  }
  for (std::size_t i = 0; i < part.unjudged_nonfinite.size(); ++i)
    sums.nonfinite[i] += part.unjudged_nonfinite[i];
}

void CpuRows::accumulate_some(const Part& part, std::span<const int> rows, GramSums& sums) {
  const auto count = static_cast<int>(rows.size());
  for (const Group& group : part.groups) {
    if (!group.judged) continue;
    const RowTable table = table_of(group);
    some_data_.clear();
    for (std::size_t t = 0; t < table.sizes.size(); ++t) {
      const void* const* const row = table.data + t * static_cast<std::size_t>(table.rows);
      for (const int i : rows) some_data_.push_back(row[i]);
    }
    engine_.accumulate({.dtype = group.dtype,
                        .inputs = count,
                        .rows = count,
                        .sizes = table.sizes,
                        .data = some_data_.data()},
                       sums);
  }
}

/// By the shape, and by what the middle of the largest tensor looks like.
bool CpuRows::is_worth_f32(std::size_t p) {
  const Part& part = parts_[p];
  const auto rows = static_cast<int>(active_.rows.size());
  const F32Limits& limits = f32_limits();
  if (rows < limits.rows || rows > CpuPasses::most_f32_rows || coordinates_[p] < limits.coordinates ||
      !cpu::has_gram_f32())
    return false;
  const Group* largest = nullptr;
  std::size_t tensor = 0;
  for (const Group& group : part.groups) {
    if (group.judged && group.dtype == DType::f64) return false;
    for (std::size_t t = 0; group.judged && t < group.sizes.size(); ++t) {
      if (largest != nullptr && group.sizes[t] <= largest->sizes[tensor]) continue;
      largest = &group;
      tensor = t;
    }
  }
  if (largest == nullptr) return false;
  const std::int64_t length = std::min(f32_probe, largest->sizes[tensor]);
  const std::int64_t skipped =
      (largest->sizes[tensor] - length) / 2 * static_cast<std::int64_t>(size_of(largest->dtype));
  const RowTable table = table_of(*largest);
  some_rows_.reserve(static_cast<std::size_t>(rows));
  some_data_.reserve(static_cast<std::size_t>(rows) * request_.shape.sizes.size());
  some_data_.clear();
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i) {
    const void* const row = table.data[tensor * static_cast<std::size_t>(table.rows) + i];
    some_data_.push_back(static_cast<const std::byte*>(row) + skipped);
  }
  some_.leaf_blocks = leaf_blocks_[p];
  some_.reset(rows, true, 1);
  some_.f32 = true;
  engine_.accumulate({.dtype = largest->dtype,
                      .inputs = rows,
                      .rows = rows,
                      .sizes = {&length, 1},
                      .data = some_data_.data()},
                     some_);
  distances_.read(some_, rows, length);
  return !distances_.look_hopeless();
}

void CpuRows::sum_up(std::size_t p, GramSums& sums) {
  sums.leaf_blocks = leaf_blocks_[p];
  sums.coordinates = coordinates_[p];
  if (!rank(p, sums)) sum_over(engine_, sums, [&](GramSums& to) { accumulate(p, to); });
}

bool CpuRows::rank(std::size_t p, GramSums& sums) {
  const std::optional<NeededOrder> order = engine_.needed_order();
  if (!order || !is_worth_f32(p)) return false;
  engine_.reset(sums);
  sums.f32 = true;
  accumulate(p, sums);
  distances_.read(sums, static_cast<int>(active_.rows.size()), coordinates_[p]);
  if (!distances_.find_undecided(*order, some_rows_)) return false;
  if (!some_rows_.empty()) {
    some_.reset(static_cast<int>(some_rows_.size()), true, 1);
    accumulate_some(parts_[p], some_rows_, some_);
    replace_some(some_rows_, some_, sums);
  }
  sums.distance_error = distances_.error();
  return true;
}

/// Stretch by stretch, whose copies stay in a cache.
void CpuRows::accumulate_widened(const Group& group, GramSums& sums) {
  constexpr std::int64_t stretch = 4 * gram_block;
  const RowTable narrow = table_of(group);
  const auto rows = static_cast<std::size_t>(narrow.rows);
  widened_.resize(rows * stretch);
  widened_rows_.resize(rows);
  for (std::size_t k = 0; k < group.tensors.size(); ++k) {
    for (std::int64_t begin = 0; begin < group.sizes[k]; begin += stretch) {
      const std::int64_t length = std::min(stretch, group.sizes[k] - begin);
#pragma omp parallel num_threads(team(threads_))
      {
        const FloatingEnvironment environment;
#pragma omp for schedule(dynamic)
        for (std::size_t i = 0; i < rows; ++i) {
          const void* const from = narrow.data[k * rows + i];
          double* const to = widened_.data() + i * stretch;
          widened_rows_[i] = from == nullptr ? nullptr : to;
          if (from == nullptr) continue;
          const DType dtype = narrow.dtype_of(static_cast<int>(i));
          const std::size_t skipped = static_cast<std::size_t>(begin) * size_of(dtype);
          widen_to_f64(dtype, static_cast<const std::byte*>(from) + skipped, length, to);
        }
      }
      engine_.accumulate({.dtype = DType::f64,
                          .reference_dtype = DType::f64,
                          .inputs = narrow.inputs,
                          .rows = narrow.rows,
                          .sizes = {&length, 1},
                          .data = widened_rows_.data(),
                          .unfinished = begin + length < group.sizes[k]},
                         sums);
    }
  }
}

void CpuRows::begin(const Updates& updates, const Output& out, const RunArguments& arguments) {
  set_active_rows(arguments.weights, request_.shape.n, request_.options.max_weight_share, active_);
  use_previous_ = request_.stateful && has_previous_;
  engine_.begin(active_, !arguments.base.empty(), use_previous_, round_);
  build_tables(updates, out, arguments.base);
}

Status CpuRows::finish(std::span<Solution> solutions) {
  // One failing tensor leaves the whole output unwritten.
  const auto failed = std::find_if(solutions.begin(), solutions.end(),
                                   [](const Solution& solution) { return solution.status != Status::ok; });
  if (failed != solutions.end()) {
    fail();
    return failed->status;
  }
  if (request_.stateful) make_room_for_previous();  // before anything is written
  for (std::size_t p = 0; p < parts_.size(); ++p) {
    for (const Group& group : parts_[p].groups) {
      const OutTable to{.dtype = group.out_dtype, .data = group.out.data(), .stride = group.tensors.size()};
      engine_.apply(table_of(group), solutions[p], to);
    }
  }
  return Status::ok;
}

void CpuRows::fail() {
  if (request_.options.on_failure == OnFailure::keep) return;
  const double value =
      request_.options.on_failure == OnFailure::zero ? 0 : std::numeric_limits<double>::quiet_NaN();
  for (const Part& part : parts_) {
    for (const Group& group : part.groups) {
      for (std::size_t first = 0; first < group.out.size(); first += group.tensors.size())
        CpuPasses::fill(group.sizes, {.dtype = group.out_dtype, .data = group.out.data() + first}, value);
    }
  }
}

void CpuRows::make_room_for_previous() {
  const std::vector<std::int64_t>& sizes = request_.shape.sizes;
  previous_.resize(sizes.size());
  for (std::size_t t = 0; t < sizes.size(); ++t)
    previous_[t].reserve(static_cast<std::size_t>(sizes[t]) * size_of(request_.out_dtype_of(t)));
}

void CpuRows::keep() {
  ++round_;
  if (!request_.stateful) return;
  for (const Part& part : parts_) {
    for (const Group& group : part.groups) {
      for (std::size_t k = 0; k < group.tensors.size(); ++k) {
        const auto* const data = static_cast<const std::byte*>(group.out[k]);
        previous_[group.tensors[k]].assign(
            data, data + static_cast<std::size_t>(group.sizes[k]) * size_of(group.out_dtype));
      }
    }
  }
  has_previous_ = true;
}

}  // namespace bragg::detail
