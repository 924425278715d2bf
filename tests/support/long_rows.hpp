// SPDX-License-Identifier: Apache-2.0
// Rows of more than 2³¹ coordinates that lie in one buffer, row i beginning 8·i elements in: f16, 0 but in a
// few short windows, which tell whether a coordinate was ever counted in 32 bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "tests/support/values.hpp"

namespace bragg::test {

class LongRows {
 public:
  static constexpr int n = 5;
  static constexpr std::int64_t d = (std::int64_t{1} << 31) + 5003;
  static constexpr std::int64_t elements = d + 8 * (n - 1);

  struct Window {
    std::int64_t begin;
    std::vector<std::uint16_t> bits;  ///< of the buffer's elements from there on
  };

  explicit LongRows(std::mt19937_64& random) {
    for (const std::int64_t begin :
         {std::int64_t{0}, d / 2, (std::int64_t{1} << 31) - 20, elements - length}) {
      Window& window = windows_.emplace_back(Window{begin, std::vector<std::uint16_t>(length)});
      for (std::size_t k = 0; k < length; ++k) {
        store(DType::f16, window.bits.data(), k, std::uniform_real_distribution(-1.0, 1.0)(random));
      }
    }
  }

  const std::vector<Window>& windows() const { return windows_; }

  /// What row i has at a coordinate.
  long double value(int row, std::int64_t coordinate) const {
    const std::int64_t at = coordinate + 8 * row;
    for (const Window& window : windows_) {
      if (at < window.begin || at >= window.begin + length) continue;
      return load(DType::f16, window.bits.data(), static_cast<std::size_t>(at - window.begin));
    }
    return 0;
  }

  /// Coordinates about the windows, and some between them.
  std::vector<std::int64_t> interesting(std::mt19937_64& random) const {
    std::vector<std::int64_t> coordinates;
    for (const Window& window : windows_) {
      for (std::int64_t j = window.begin - 100; j < window.begin + 2 * length; ++j) {
        if (j >= 0 && j < d) coordinates.push_back(j);
      }
    }
    for (int k = 0; k < 1000; ++k) coordinates.push_back(static_cast<std::int64_t>(random() % d));
    return coordinates;
  }

  /// The rows' median, of f16 values.
  long double median(std::int64_t coordinate) const {
    std::vector<long double> values;
    for (int i = 0; i < n; ++i) values.push_back(value(i, coordinate));
    std::sort(values.begin(), values.end());
    return values[n / 2];
  }

 private:
  static constexpr std::int64_t length = 64;
  std::vector<Window> windows_;
};

}  // namespace bragg::test
