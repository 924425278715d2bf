// SPDX-License-Identifier: Apache-2.0
// Columns that are too long for memory, in coordinates as few as there are columns.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace bragg::detail {

/// The triangle of a QR decomposition, of rows that come in blocks. Its columns have the lengths and products
/// of the whole matrix's columns.
class Triangle {
 public:
  explicit Triangle(std::size_t columns) : columns_(columns), r_(columns * columns, 0.0), sums_(columns) {}

  /// Takes in `count` rows, row-major, which it destroys: Householder's reflections of the triangle on top
  /// of the block, whose own zeros stay.
  void add(std::size_t count, double* block) {
    for (std::size_t c = 0; c < columns_; ++c) {
      double below = 0;
      for (std::size_t i = 0; i < count; ++i) below += block[i * columns_ + c] * block[i * columns_ + c];
      if (below == 0) continue;
      double* const top = &r_[c * columns_];
      const double length = std::sqrt(top[c] * top[c] + below);
      const double end = top[c] > 0 ? -length : length;
      const double first = top[c] - end;  // the reflection's vector is (1, block column / first)
      const double factor = -first / end;
      std::copy(top + c + 1, top + columns_, sums_.begin());
      const std::size_t rest = columns_ - c - 1;
      for (std::size_t i = 0; i < count; ++i) {
        double* const line = block + i * columns_ + c;
        line[0] /= first;
        for (std::size_t j = 0; j < rest; ++j) sums_[j] += line[0] * line[j + 1];
      }
      for (std::size_t j = 0; j < rest; ++j) top[c + 1 + j] -= factor * sums_[j];
      for (std::size_t i = 0; i < count; ++i) {
        double* const line = block + i * columns_ + c;
        for (std::size_t j = 0; j < rest; ++j) line[j + 1] -= factor * line[0] * sums_[j];
      }
      top[c] = end;
    }
  }

  std::vector<double> column(std::size_t c) const {
    std::vector<double> made(columns_, 0.0);
    for (std::size_t i = 0; i <= c; ++i) made[i] = r_[i * columns_ + c];
    return made;
  }

 private:
  std::size_t columns_;
  std::vector<double> r_;     // [i * columns_ + j], 0 where j < i
  std::vector<double> sums_;  // of the block's later columns with the reflection's vector
};

}  // namespace bragg::detail
