// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/error.hpp>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
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

/// Where the elements of `Updates`, `Output` and `Row` live.
enum class MemorySpace : std::uint8_t {
  host = 0,
  cuda = 1,  ///< memory that a CUDA device can access
};

/// What converts to a span of T: a vector, an array, a span. No pointer: it has no length.
template <class RangeT, class T>
concept SpanOf = std::constructible_from<std::span<T>, RangeT>;

/// Elements and dtype of a row of one tensor that was given as a span.
struct Extent {
  std::size_t elements = 0;
  DType dtype = DType::f32;
};

/// One row: d coordinates held as a list of tensors, each contiguous. Non-owning; `data` may be unaligned.
/// A tensor of no elements may have a null pointer. Of a span a run checks length and dtype; a pointer is
/// believed.
struct BRAGG_API Row {
  std::vector<const void*> tensors;
  std::optional<Extent> extent = {};  ///< of `tensors[0]`, where it is the only one and was given as a span

  Row() = default;
  template <SpanOf<const float> RangeT>
  explicit Row(const RangeT& data) : Row(std::span<const float>(data), DType::f32) {}
  template <SpanOf<const double> RangeT>
  explicit Row(const RangeT& data) : Row(std::span<const double>(data), DType::f64) {}
  /// `bits` of f16 or bf16. @throws Error invalid_argument: another dtype.
  Row(std::span<const std::uint16_t> bits, DType dtype);
  explicit Row(const void* data) : tensors{data} {}
  explicit Row(std::vector<const void*> tensors_in) : tensors(std::move(tensors_in)) {}
  bool empty() const noexcept { return tensors.empty(); }

 private:
  template <class T>
  Row(std::span<const T> data, DType dtype) : tensors{data.data()}, extent{{data.size(), dtype}} {}
};

/// A non-owning view of n worker updates of d coordinates each.
///
/// Each row is a list of tensors (segments): a model's parameters need not be concatenated. Every row has the
/// same tensor sizes. The elements are only read. The pointed-to data must outlive every use of the view.
class BRAGG_API Updates {
 public:
  /// An n × d row-major matrix; row i starts at element i * row_stride (-1: d) of `data`.
  /// @throws Error invalid_argument: n < 1, d < 0, row_stride < d, or `data` ends before the last row does.
  static Updates matrix(std::span<const float> data, int n, std::int64_t d, std::int64_t row_stride = -1,
                        MemorySpace space = MemorySpace::host);
  static Updates matrix(std::span<const double> data, int n, std::int64_t d, std::int64_t row_stride = -1,
                        MemorySpace space = MemorySpace::host);
  /// `bits` of f16 or bf16. @throws Error invalid_argument also for another dtype.
  static Updates matrix(std::span<const std::uint16_t> bits, int n, std::int64_t d, DType dtype,
                        std::int64_t row_stride = -1, MemorySpace space = MemorySpace::host);

  /// The same of a bare pointer, for bindings: nobody checks that so many elements of the dtype are there.
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

  /// The same, tensor t of every row being of `dtypes[t]`: a model's norms may be f32 beside weights of bf16.
  /// Rows are judged by all tensors together, and each is read, and written, in its own dtype.
  /// @throws Error invalid_argument also where there is not one dtype for each tensor.
  static Updates tensors(std::span<const std::vector<const void*>> tensors,
                         std::span<const std::int64_t> sizes, std::span<const DType> dtypes,
                         MemorySpace space = MemorySpace::host);

  /// Judges the rows by some of their tensors: distances and norms, and with them scores, clip factors and f,
  /// are about those alone, and what follows from them holds for all tensors. Whom they are judged by is no
  /// matter for a pipeline that takes no distances, nor for which rows are infinite: a value that is not
  /// finite makes its row so in whichever tensor it is. What a row holds in the other tensors is believed of
  /// every row that is kept: see docs/choosing.md.
  /// @throws Error invalid_argument: not one for each tensor, or there are tensors and none is judged.
  Updates& judge_by(std::vector<bool> judged);

  int n() const noexcept { return n_; }
  /// Coordinates of a row, all tensors together.
  std::int64_t d() const noexcept;
  /// Of all tensors; where they differ, of the first.
  DType dtype() const noexcept { return dtype_; }
  DType dtype(std::size_t tensor) const noexcept { return dtypes_.empty() ? dtype_ : dtypes_[tensor]; }
  /// Of each tensor, where they differ; else empty.
  const std::vector<DType>& dtypes() const noexcept { return dtypes_; }
  MemorySpace space() const noexcept { return space_; }
  /// Elements of each tensor.
  std::span<const std::int64_t> sizes() const noexcept { return sizes_; }
  /// Per tensor, whether rows are judged by it; empty: by all.
  const std::vector<bool>& judged() const noexcept { return judged_; }
  /// Address of tensor t of row i.
  const void* data(int row, std::size_t tensor) const noexcept {
    return pointers_[tensor * static_cast<std::size_t>(n_) + static_cast<std::size_t>(row)];
  }

 private:
  Updates() = default;
  int n_ = 0;
  DType dtype_ = DType::f32;
  std::vector<DType> dtypes_;
  MemorySpace space_ = MemorySpace::host;
  std::vector<std::int64_t> sizes_;
  std::vector<const void*> pointers_;  // [tensor * n + row]
  std::vector<bool> judged_;
};

/// Where one aggregated row is written: a list of tensors with the sizes of the updates. Non-owning.
///
/// May be exactly one of the inputs, or the base (every tensor at the same address and of the same dtype);
/// any other overlap is an error. Of a span a run checks length and dtype; a pointer is believed.
struct BRAGG_API Output {
  std::vector<void*> tensors;
  std::optional<Extent> extent = {};  ///< of `tensors[0]`, where it is the only one and was given as a span

  Output() = default;
  // NOLINTBEGIN(bugprone-forwarding-reference-overload): no Output is a span
  template <SpanOf<float> RangeT>
  explicit Output(RangeT&& data) : Output(std::span<float>(data), DType::f32) {}
  template <SpanOf<double> RangeT>
  explicit Output(RangeT&& data) : Output(std::span<double>(data), DType::f64) {}
  // NOLINTEND(bugprone-forwarding-reference-overload)
  /// `bits` of f16 or bf16. @throws Error invalid_argument: another dtype.
  Output(std::span<std::uint16_t> bits, DType dtype);
  explicit Output(void* data) : tensors{data} {}
  explicit Output(std::vector<void*> tensors_in) : tensors(std::move(tensors_in)) {}

 private:
  template <class T>
  Output(std::span<T> data, DType dtype) : tensors{data.data()}, extent{{data.size(), dtype}} {}
};

}  // namespace v0
}  // namespace bragg
