// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <bragg/updates.hpp>

#include <numeric>

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
  for (std::size_t t = 0; t < sizes.size(); ++t) {
    if (sizes[t] < 0) refuse(fmt::format("sizes[{}] = {}; needs a size ≥ 0", t, sizes[t]));
  }
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

std::int64_t Updates::d() const noexcept {
  return std::accumulate(sizes_.begin(), sizes_.end(), std::int64_t{0});
}

}  // namespace v0
}  // namespace bragg
