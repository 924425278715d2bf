// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <bragg/updates.hpp>

#include <algorithm>
#include <numeric>
#include <utility>

#include "host/base/sizes.hpp"

namespace bragg {
inline namespace v0 {

namespace {

[[noreturn]] void refuse(const std::string& message) {
  throw Error(Status::invalid_argument, "updates: " + message);
}

void check_count(std::size_t n) {
  if (n < 1) refuse("there are no rows; pass at least one");
}

}  // namespace

const char* to_string(DType dtype) noexcept {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f16:
      return "f16";
    case DType::bf16:
      return "bf16";
    case DType::f64:
      return "f64";
  }
  return "unknown dtype";
}

Updates Updates::matrix(const void* data, int n, std::int64_t d, DType dtype, std::int64_t row_stride,
                        MemorySpace space) {
  if (row_stride == -1) row_stride = d;
  if (n < 1) refuse(fmt::format("n = {}; needs at least 1 row", n));
  if (d < 0) refuse(fmt::format("d = {}; needs d ≥ 0", d));
  if (row_stride < d)
    refuse(fmt::format("row_stride = {} elements is less than d = {}: rows would overlap", row_stride, d));
  const std::int64_t most = detail::most_elements / n;
  if (row_stride > most) {
    refuse(fmt::format("{} = {} with n = {}; needs at most {}, so that bytes can be counted",
                       row_stride == d ? "d" : "row_stride", row_stride, n, most));
  }
  if (data == nullptr && d > 0) refuse(fmt::format("data is null, with n = {} and d = {}", n, d));
  Updates updates;
  updates.n_ = n;
  updates.dtype_ = dtype;
  updates.space_ = space;
  updates.sizes_ = {d};
  updates.pointers_.resize(static_cast<std::size_t>(n));
  const auto* bytes = static_cast<const std::byte*>(data);
  for (std::size_t i = 0; i < updates.pointers_.size(); ++i) {
    updates.pointers_[i] =
        d > 0 ? bytes + i * static_cast<std::size_t>(row_stride) * size_of(dtype) : nullptr;
  }
  return updates;
}

namespace {

/// The address of a matrix whose last row the span holds. The void* form checks the rest.
template <class T>
const void* checked_data(std::span<const T> data, int n, std::int64_t d, std::int64_t row_stride) {
  if (n < 1 || d < 1 || (row_stride != -1 && row_stride < d)) return data.data();
  const auto elements = static_cast<std::int64_t>(data.size());
  const std::int64_t stride = row_stride == -1 ? d : row_stride;
  // (n − 1) · stride + d elements, without a product that could overflow.
  if (elements < d || (n > 1 && (elements - d) / (n - 1) < stride)) {
    refuse(fmt::format("data: a span of {} elements, too short for n = {} rows of d = {}{}", elements, n, d,
                       stride == d ? "" : fmt::format(" with row_stride = {}", stride)));
  }
  return data.data();
}

DType checked_bits(DType dtype) {
  if (dtype == DType::f16 || dtype == DType::bf16) return dtype;
  throw Error(Status::invalid_argument,
              fmt::format("dtype = {} for a span of 16-bit values; needs f16 or bf16", to_string(dtype)));
}

}  // namespace

Row::Row(std::span<const std::uint16_t> bits, DType dtype)
    : tensors{bits.data()}, extent{{bits.size(), checked_bits(dtype)}} {}

Output::Output(std::span<std::uint16_t> bits, DType dtype)
    : tensors{bits.data()}, extent{{bits.size(), checked_bits(dtype)}} {}

Updates Updates::matrix(std::span<const float> data, int n, std::int64_t d, std::int64_t row_stride,
                        MemorySpace space) {
  return matrix(checked_data(data, n, d, row_stride), n, d, DType::f32, row_stride, space);
}

Updates Updates::matrix(std::span<const double> data, int n, std::int64_t d, std::int64_t row_stride,
                        MemorySpace space) {
  return matrix(checked_data(data, n, d, row_stride), n, d, DType::f64, row_stride, space);
}

Updates Updates::matrix(std::span<const std::uint16_t> bits, int n, std::int64_t d, DType dtype,
                        std::int64_t row_stride, MemorySpace space) {
  return matrix(checked_data(bits, n, d, row_stride), n, d, checked_bits(dtype), row_stride, space);
}

Updates Updates::rows(std::span<const void* const> rows, std::int64_t d, DType dtype, MemorySpace space) {
  check_count(rows.size());
  if (d < 0) refuse(fmt::format("d = {}; needs d ≥ 0", d));
  Updates updates;
  updates.n_ = static_cast<int>(rows.size());
  updates.dtype_ = dtype;
  updates.space_ = space;
  updates.sizes_ = {d};
  updates.pointers_.assign(rows.begin(), rows.end());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] == nullptr && d > 0) refuse(fmt::format("row {} is null, with d = {}", i, d));
  }
  return updates;
}

Updates Updates::tensors(std::span<const std::vector<const void*>> tensors,
                         std::span<const std::int64_t> sizes, DType dtype, MemorySpace space) {
  check_count(tensors.size());
  if (const auto fault = detail::fault_of_sizes(sizes)) refuse(*fault);
  Updates updates;
  updates.n_ = static_cast<int>(tensors.size());
  updates.dtype_ = dtype;
  updates.space_ = space;
  updates.sizes_.assign(sizes.begin(), sizes.end());
  updates.pointers_.resize(tensors.size() * sizes.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].size() != sizes.size()) {
      refuse(fmt::format("row {} has {} tensors, sizes has {}", i, tensors[i].size(), sizes.size()));
    }
    for (std::size_t t = 0; t < sizes.size(); ++t) {
      if (tensors[i][t] == nullptr && sizes[t] > 0) {
        refuse(fmt::format("row {}, tensor {} is null, with {} elements", i, t, sizes[t]));
      }
      updates.pointers_[t * tensors.size() + i] = tensors[i][t];
    }
  }
  return updates;
}

Updates Updates::tensors(std::span<const std::vector<const void*>> tensors,
                         std::span<const std::int64_t> sizes, std::span<const DType> dtypes,
                         MemorySpace space) {
  if (dtypes.size() != sizes.size())
    refuse(fmt::format("dtypes has {} entries, sizes has {}", dtypes.size(), sizes.size()));
  Updates updates = Updates::tensors(tensors, sizes, dtypes.empty() ? DType::f32 : dtypes.front(), space);
  const bool differ = std::any_of(dtypes.begin(), dtypes.end(), [&](DType t) { return t != dtypes.front(); });
  if (differ) updates.dtypes_.assign(dtypes.begin(), dtypes.end());
  return updates;
}

Updates& Updates::judge_by(std::vector<bool> judged) {
  if (judged.size() != sizes_.size())
    refuse(fmt::format("judged: {} marks; needs one for each of {} tensors", judged.size(), sizes_.size()));
  if (!judged.empty() && std::find(judged.begin(), judged.end(), true) == judged.end())
    refuse("judged: no tensor is; rows need at least one to be judged by");
  judged_ = std::move(judged);
  return *this;
}

std::int64_t Updates::d() const noexcept {
  return std::accumulate(sizes_.begin(), sizes_.end(), std::int64_t{0});
}

}  // namespace v0
}  // namespace bragg
