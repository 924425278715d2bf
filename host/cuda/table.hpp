// SPDX-License-Identifier: Apache-2.0
// A run's arguments for the device: one piece of memory, filled on the host and uploaded whole.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/common/rows.hpp"

namespace bragg::detail::cuda {

/// [rows' addresses | the outputs' | the copy's | weights | coefficients | numbers | alignment | invalid]
class RunTable {
 public:
  RunTable() = default;
  /// `numbers`: room for as many int64 of the user's choice.
  RunTable(std::size_t tensors, int most_rows, std::size_t numbers = 0, std::size_t outputs = 1)
      : tensors_(tensors) {
    const auto rows = static_cast<std::size_t>(most_rows);
    std::size_t used = 0;
    const auto take = [&](std::size_t bytes) {
      const std::size_t at = used;
      used += (bytes + 15) / 16 * 16;
      return at;
    };
    rows_at_ = take(sizeof(void*) * tensors * rows);
    target_at_ = take(sizeof(void*) * tensors * outputs);
    copy_at_ = take(sizeof(void*) * tensors);
    weights_at_ = take(sizeof(double) * rows);
    coefficients_at_ = take(sizeof(double) * rows);
    numbers_at_ = take(sizeof(std::int64_t) * numbers);
    alignment_at_ = take(tensors);
    invalid_at_ = take(rows);
    bytes_.resize(used / sizeof(Unit));
  }

  const void* data() const noexcept { return bytes_.data(); }
  std::size_t bytes() const noexcept { return bytes_.size() * sizeof(Unit); }

  std::size_t rows_at() const noexcept { return rows_at_; }
  std::size_t target_at() const noexcept { return target_at_; }
  std::size_t copy_at() const noexcept { return copy_at_; }
  std::size_t weights_at() const noexcept { return weights_at_; }
  std::size_t coefficients_at() const noexcept { return coefficients_at_; }
  std::size_t numbers_at() const noexcept { return numbers_at_; }
  std::size_t alignment_at() const noexcept { return alignment_at_; }
  std::size_t invalid_at() const noexcept { return invalid_at_; }

  double* weights() noexcept { return at<double>(weights_at_); }
  double* coefficients() noexcept { return at<double>(coefficients_at_); }
  std::int64_t* numbers() noexcept { return at<std::int64_t>(numbers_at_); }
  std::uint8_t* invalid() noexcept { return at<std::uint8_t>(invalid_at_); }

  bool has_invalid() const noexcept { return has_invalid_; }
  void set_has_invalid(bool value) noexcept { has_invalid_ = value; }

  /// Forgets the last run; this one has `rows` rows.
  void start(int rows) {
    rows_ = static_cast<std::size_t>(rows);
    std::fill(bytes_.begin(), bytes_.end(), Unit{});
    std::fill_n(at<std::uint8_t>(alignment_at_), tensors_, static_cast<std::uint8_t>(Alignment::vector));
  }
  void set_row(std::size_t tensor, int row, const void* data, DType dtype) {
    at<const void*>(rows_at_)[tensor * rows_ + static_cast<std::size_t>(row)] = data;
    lower_alignment(tensor, data, dtype);
  }
  void set_target(std::size_t tensor, void* data, DType dtype, std::size_t output = 0) {
    at<void*>(target_at_)[output * tensors_ + tensor] = data;
    lower_alignment(tensor, data, dtype);
  }
  void set_copy(std::size_t tensor, void* data) { at<void*>(copy_at_)[tensor] = data; }

 private:
  /// The unit of an upload: its size is a multiple of it, and it is aligned to it.
  struct alignas(16) Unit {
    std::byte bytes[16] = {};
  };

  template <class T>
  T* at(std::size_t offset) noexcept {
    return reinterpret_cast<T*>(reinterpret_cast<std::byte*>(bytes_.data()) + offset);
  }

  void lower_alignment(std::size_t tensor, const void* data, DType dtype) {
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    const Alignment has = address % 16 == 0               ? Alignment::vector
                          : address % size_of(dtype) == 0 ? Alignment::element
                                                          : Alignment::byte;
    std::uint8_t& least = at<std::uint8_t>(alignment_at_)[tensor];
    least = std::min(least, static_cast<std::uint8_t>(has));
  }

  std::size_t tensors_ = 0;
  std::size_t rows_ = 0;
  bool has_invalid_ = false;
  std::size_t rows_at_ = 0, target_at_ = 0, copy_at_ = 0, weights_at_ = 0, coefficients_at_ = 0,
              numbers_at_ = 0, alignment_at_ = 0, invalid_at_ = 0;
  std::vector<Unit> bytes_;
};

}  // namespace bragg::detail::cuda
