// SPDX-License-Identifier: Apache-2.0
// What select prepares before its threads start: networks, and coefficients in the order they are used.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "host/cpu/passes.hpp"
#include "host/cpu/select.hpp"

namespace bragg::detail::cpu {

/// Ranks that the rule reads, the first and the last.
std::pair<int, int> ranks_of(const SelectRule& rule, int points);

class Selection {
 public:
  /// The job points into the arguments and into this object, until the next call. `counted`: non-finite
  /// values are wanted.
  SelectJob prepare(const RowTable& table, const SelectRule& rule, const PointTable& points, bool counted);

 private:
  void prepare_network(SelectJob& job);
  void prepare_mix(const RowTable& table, const PointTable& points, SelectJob& job);
  bool prepare_subsets(const RowTable& table, const PointTable& points, SelectJob& job);
  void prepare_products(const RowTable& table, const PointTable& points, SelectJob& job);
  void prepare_few(const RowTable& table, const PointTable& points, SelectJob& job);

  // Kept while the rule and the number of points are the same.
  std::vector<Comparator> merges_;
  int merges_points_ = -1, merges_chunk_ = 0, merges_first_ = 0, merges_last_ = 0;

  std::vector<std::uint8_t> is_used_;
  std::vector<int> used_rows_;
  std::vector<MixEntry> entries_;
  std::vector<std::size_t> group_start_;
  std::vector<double> subset_coefficients_;
  std::vector<std::uint64_t> subsets_;
  std::vector<int> few_start_, few_rows_;
  std::vector<double> few_coefficients_;
};

}  // namespace bragg::detail::cpu
