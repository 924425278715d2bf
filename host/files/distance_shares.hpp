// SPDX-License-Identifier: Apache-2.0
// Which part of the rows' distances each tensor makes.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "host/cpu/passes.hpp"

namespace bragg::detail {

/// Of each tensor a typical squared distance is kept: the median over the rows of the median of a row's
/// distances to the others (of lengths about o, where a pipeline takes those alone). What fewer than half of
/// those others hold decides neither, so no liar can make a tensor look dominant, or hide one that is.
class DistanceShares {
 public:
  /// Tensors are told by numbers below `tensors`.
  explicit DistanceShares(std::size_t tensors) : typical_(tensors, 0.0) {}

  /// Sums begin at 0.
  void start(const GramSums& sums, int inputs);
  /// `tensor` was added to the sums last.
  void end(const GramSums& sums, std::size_t tensor) noexcept;

  /// Typical distances, of tensors that have not ended 0: others may have found them.
  std::span<double> typical() noexcept { return typical_; }
  /// Of each tensor the typical distance as a share of the sum of all; empty: rows do not differ.
  std::vector<double> shares() const;

 private:
  /// Of the tensor that ends; `j` below `i`.
  double distance(const GramSums& sums, std::size_t i, std::size_t j) const noexcept;
  double typical_length(const GramSums& sums) noexcept;
  double typical_distance(const GramSums& sums) noexcept;

  int inputs_ = 0;
  std::vector<double> before_;       // products up to the last tensor, columns up to the row
  std::vector<double> own_;          // [row] the tensor's product of the row with itself
  std::vector<std::size_t> finite_;  // inputs, in the tensor
  std::vector<double> distances_;    // between these
  std::vector<double> of_rows_;
  std::vector<double> typical_;
};

/// The tensor that makes more than 90 % of the distances, and whose size does not explain it: the others make
/// less than a tenth of what their elements would. `shares` is empty, or has one for each.
std::optional<std::size_t> dominant_tensor(std::span<const double> shares,
                                           std::span<const std::int64_t> elements);

}  // namespace bragg::detail
