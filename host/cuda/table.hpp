// SPDX-License-Identifier: Apache-2.0
// A run's arguments for the device: one piece of memory, filled on the host and uploaded whole.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "host/cuda/layout.hpp"
#include "kernels/common/rows.hpp"

namespace bragg::detail::cuda {

class RunTable {
 public:
  /// Where its arrays lie, on the host and on the device.
  struct Places {
    Place<const void*> rows;     ///< [tensor][row]
    Place<void*> target;         ///< [output][tensor]
    Place<void*> copy;           ///< [tensor]
    Place<double> weights;       ///< [row]
    Place<double> coefficients;  ///< [row]
    Place<std::int64_t> numbers;
    Place<std::uint8_t> alignment;  ///< [tensor]
    Place<std::uint8_t> invalid;    ///< [row]
  };

  RunTable() = default;
  /// `numbers`: room for as many int64 of the user's choice.
  RunTable(std::size_t tensors, int most_rows, std::size_t numbers = 0, std::size_t outputs = 1)
      : tensors_(tensors) {
    const auto rows = static_cast<std::size_t>(most_rows);
    Layout layout;
    at_ = {.rows = layout.add<const void*>(tensors * rows),
           .target = layout.add<void*>(tensors * outputs),
           .copy = layout.add<void*>(tensors),
           .weights = layout.add<double>(rows),
           .coefficients = layout.add<double>(rows),
           .numbers = layout.add<std::int64_t>(numbers),
           .alignment = layout.add<std::uint8_t>(tensors),
           .invalid = layout.add<std::uint8_t>(rows)};
    bytes_.resize(layout.bytes() / sizeof(Unit));
  }

  const void* data() const noexcept { return bytes_.data(); }
  std::size_t bytes() const noexcept { return bytes_.size() * sizeof(Unit); }

  const Places& at() const noexcept { return at_; }

  double* weights() noexcept { return here(at_.weights); }
  double* coefficients() noexcept { return here(at_.coefficients); }
  std::int64_t* numbers() noexcept { return here(at_.numbers); }
  std::uint8_t* invalid() noexcept { return here(at_.invalid); }

  bool has_invalid() const noexcept { return has_invalid_; }
  void set_has_invalid(bool value) noexcept { has_invalid_ = value; }

  /// Forgets the last run; this one has `rows` rows.
  void start(int rows) {
    rows_ = static_cast<std::size_t>(rows);
    std::fill(bytes_.begin(), bytes_.end(), Unit{});
    std::fill_n(here(at_.alignment), tensors_, static_cast<std::uint8_t>(Alignment::vector));
  }
  void set_row(std::size_t tensor, int row, const void* data, DType dtype) {
    here(at_.rows)[tensor * rows_ + static_cast<std::size_t>(row)] = data;
    lower_alignment(tensor, data, dtype);
  }
  void set_target(std::size_t tensor, void* data, DType dtype, std::size_t output = 0) {
    here(at_.target)[output * tensors_ + tensor] = data;
    lower_alignment(tensor, data, dtype);
  }
  void set_copy(std::size_t tensor, void* data) { here(at_.copy)[tensor] = data; }

 private:
  /// The unit of an upload: its size is a multiple of it, and it is aligned to it.
  struct alignas(16) Unit {
    std::byte bytes[16] = {};
  };

  template <class T>
  T* here(Place<T> place) noexcept {
    return place.in(bytes_.data());
  }

  void lower_alignment(std::size_t tensor, const void* data, DType dtype) {
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    const Alignment has = address % 16 == 0               ? Alignment::vector
                          : address % size_of(dtype) == 0 ? Alignment::element
                                                          : Alignment::byte;
    std::uint8_t& least = here(at_.alignment)[tensor];
    least = std::min(least, static_cast<std::uint8_t>(has));
  }

  std::size_t tensors_ = 0;
  std::size_t rows_ = 0;
  bool has_invalid_ = false;
  Places at_;
  std::vector<Unit> bytes_;
};

}  // namespace bragg::detail::cuda
