// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/error.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace bragg {
inline namespace v0 {

/// Element types of updates. 16-bit values are passed as their bits (uint16_t).
enum class DType : std::uint8_t { f32 = 0, f16 = 1, bf16 = 2, f64 = 3 };

/// Bytes of one element.
constexpr std::size_t size_of(DType dtype) noexcept {
  return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2;
}

/// "f32", "f16", "bf16" or "f64".
BRAGG_API const char* to_string(DType dtype) noexcept;

/// Where the elements of `Updates`, `Output` and references live.
enum class MemorySpace : std::uint8_t {
  host = 0,
  cuda = 1,  ///< memory that a CUDA device can access
};

/// One row: d coordinates held as a list of tensors, each contiguous. Non-owning; `data` may be unaligned.
/// A tensor of no elements may have a null pointer.
struct BRAGG_API Row {
  std::vector<const void*> tensors;

  Row() = default;
  explicit Row(const void* data) : tensors{data} {}
  explicit Row(std::vector<const void*> tensors_in) : tensors(std::move(tensors_in)) {}
  bool empty() const noexcept { return tensors.empty(); }
};

/// A non-owning view of n worker updates of d coordinates each.
///
/// Each row is a list of tensors (segments): a model's parameters need not be concatenated. Every row has the
/// same tensor sizes. The elements are only read. The pointed-to data must outlive every use of the view.
class BRAGG_API Updates {
 public:
  /// An n × d row-major matrix; row i starts at `data + i * row_stride` elements.
  /// @throws Error invalid_argument: n < 1, d < 0, row_stride < d, or data null while n·d > 0.
  static Updates matrix(const void* data, int n, std::int64_t d, DType dtype, std::int64_t row_stride = -1,
                        MemorySpace space = MemorySpace::host);

  /// n rows of d contiguous elements, each at its own address.
  static Updates rows(std::span<const void* const> rows, std::int64_t d, DType dtype,
                      MemorySpace space = MemorySpace::host);

  /// n rows, each a list of tensors; `tensors[i][t]` has `sizes[t]` contiguous elements.
  static Updates tensors(std::span<const std::vector<const void*>> tensors,
                         std::span<const std::int64_t> sizes, DType dtype,
                         MemorySpace space = MemorySpace::host);

  int n() const noexcept { return n_; }
  /// Coordinates of a row, all tensors together.
  std::int64_t d() const noexcept;
  DType dtype() const noexcept { return dtype_; }
  MemorySpace space() const noexcept { return space_; }
  /// Elements of each tensor.
  std::span<const std::int64_t> sizes() const noexcept { return sizes_; }
  /// Address of tensor t of row i.
  const void* data(int row, std::size_t tensor) const noexcept {
    return pointers_[tensor * static_cast<std::size_t>(n_) + static_cast<std::size_t>(row)];
  }

 private:
  Updates() = default;
  int n_ = 0;
  DType dtype_ = DType::f32;
  MemorySpace space_ = MemorySpace::host;
  std::vector<std::int64_t> sizes_;
  std::vector<const void*> pointers_;  // [tensor * n + row]
};

/// Where one aggregated row is written: a list of tensors with the sizes of the updates. Non-owning.
///
/// May be exactly one of the inputs, or the reference (every tensor at the same address and of the same
/// dtype); any other overlap is an error.
struct BRAGG_API Output {
  std::vector<void*> tensors;

  Output() = default;
  explicit Output(void* data) : tensors{data} {}
  explicit Output(std::vector<void*> tensors_in) : tensors(std::move(tensors_in)) {}
};

}  // namespace v0
}  // namespace bragg
