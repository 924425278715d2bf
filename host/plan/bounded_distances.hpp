// SPDX-License-Identifier: Apache-2.0
// Whether products in f32 tell the order of distances that products in f64 have (docs/numerics.md).
#pragma once

#include <cstdint>
#include <vector>

#include "host/cpu/passes.hpp"
#include "rules/needed_order.hpp"

namespace bragg::detail {

/// How many rows and coordinates make it worth trying. With fewer rows memory takes as long, with fewer
/// coordinates all the rest does. Tests lower them.
struct F32Limits {
  int rows = 8;
  std::int64_t coordinates = 65536;
};
F32Limits& f32_limits() noexcept;

/// Coordinates that tell whether f32 is worth trying.
inline constexpr std::int64_t f32_probe = 1024;

/// Squared distances between rows, each with bounds that hold what products in f64 make of it. It allocates
/// nothing for as many rows as before.
class BoundedDistances {
 public:
  /// Of the first `rows` rows of f32 products. `coordinates`: that were multiplied.
  void read(const GramSums& sums, int rows, std::int64_t coordinates);

  /// To `rows`, the rows whose products with each other must be those of f64 for the order to be that of
  /// f64; none: it is. False: the products of all must be, or f64 takes them about a centre.
  bool find_undecided(const NeededOrder& order, std::vector<int>& rows);

  /// Lengths are so much larger than distances that f32 is not worth trying.
  bool look_hopeless() const;

  /// As Report::distance_error. After find_undecided.
  double error() const;

 private:
  double& low(int i, int j) { return low_[at(i, j)]; }
  double& high(int i, int j) { return high_[at(i, j)]; }
  double low(int i, int j) const { return low_[at(i, j)]; }
  double high(int i, int j) const { return high_[at(i, j)]; }
  std::size_t at(int i, int j) const {
    return static_cast<std::size_t>(i) * static_cast<std::size_t>(rows_) + static_cast<std::size_t>(j);
  }
  double reach(int i, int j) const {
    return length_[static_cast<std::size_t>(i)] + length_[static_cast<std::size_t>(j)];
  }
  bool are_clear() const;
  double find_spread();
  bool find_neighbors(int taken, std::vector<int>& rows);
  bool find_scores(const NeededOrder& order);

  int rows_ = 0;
  std::vector<int> finite_;     // the rows that are
  std::vector<double> length_;  // per row, at most
  std::vector<double> low_, high_;
  double spread_ = 0;

  // Per row.
  std::vector<double> work_, least_, most_;
  std::vector<std::uint8_t> wanted_;
};

}  // namespace bragg::detail
