// SPDX-License-Identifier: Apache-2.0
// Rows of more than 2³¹ coordinates that lie in one buffer, row i beginning 8·i elements in: f16, 0 but in a
// few short windows, which tell whether a coordinate was ever counted in 32 bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "rules/solve/team.hpp"
#include "tests/support/values.hpp"

namespace bragg::test {

/// Judges a coordinate of an output by the buffer that the rows lie in. Integers only, so a device judges all
/// of them by the same code.
struct LongRowsJudge {
  enum class Want : std::uint8_t {
    median,
    row,    ///< a row's own value
    small,  ///< at most 1 in magnitude: that it was written at all
  };
  static constexpr int n = 5;

  const std::uint16_t* elements;
  const std::uint16_t* out;
  Want want;
  int row = 0;

  /// f16 values that are no NaN, in their order; both zeros are one.
  BRAGG_HD static int order(std::uint16_t bits) {
    const int magnitude = bits & 0x7FFF;
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
  }
  BRAGG_HD bool is_wrong(std::int64_t coordinate) const {
    const std::uint16_t got = out[coordinate];
    if (want == Want::small) return (got & 0x7FFF) > 0x3C00;
    if (got == 0x8000) return true;  // zero is written as +0
    if (want == Want::row) return order(got) != order(elements[coordinate + 8 * row]);
    int below = 0;
    int above = 0;
    for (int i = 0; i < n; ++i) {
      const int value = order(elements[coordinate + 8 * i]);
      below += value < order(got) ? 1 : 0;
      above += value > order(got) ? 1 : 0;
    }
    return below > n / 2 || above > n / 2 || below + above == n;
  }
};

class LongRows {
 public:
  static constexpr int n = LongRowsJudge::n;
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
