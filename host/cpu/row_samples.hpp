// SPDX-License-Identifier: Apache-2.0
// Rows at a few coordinates, gathered while a pass goes over all of them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "rules/sampling.hpp"

namespace bragg::detail {

struct RowTable;

class RowSamples {
 public:
  /// Of rows of d coordinates, in run number `run`. Forgets all rows.
  void draw(const Sampling& sampling, std::uint64_t run, std::int64_t d, int rows);
  int count() const noexcept { return static_cast<int>(samples_.size()); }

  /// Takes what is wanted of the window, the coordinates of whose tensor t are numbers first[t] and on.
  void take(const RowTable& window, std::span<const std::int64_t> first, int threads);

  /// Sample t as f64 rows of one tensor. Good until the next call.
  RowTable table(int t, int inputs);

  /// f(values of one row, coordinates) of every stretch whose coordinates are among [first, end), in an order
  /// that follows from what was drawn.
  template <class F>
  void for_stretches(std::int64_t first, std::int64_t end, F f) {
    for (Sample& sample : samples_) {
      const Stretch here = stretch(sample, first, end);
      for (std::size_t row = 0; row < rows_ && here.count > 0; ++row)
        f(sample.values.data() + row * sample.coordinates.size() + here.begin, here.count);
    }
  }

 private:
  struct Sample {
    std::vector<std::int64_t> coordinates;  // ascending
    std::vector<double> values;             // [row][coordinate]
  };
  struct Stretch {
    std::size_t begin, count;
  };
  static Stretch stretch(const Sample& sample, std::int64_t first, std::int64_t end);

  std::size_t rows_ = 0;
  std::vector<Sample> samples_;
  std::int64_t size_ = 0;             // of the table
  std::vector<const void*> address_;  // of the table
};

}  // namespace bragg::detail
