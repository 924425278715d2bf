// SPDX-License-Identifier: Apache-2.0
// What select prepares before its threads start: networks, and coefficients in the order they are used.
#pragma once

#include <array>
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
  Networks networks_for(const SelectRule& rule, int points, DType dtype);
  FewRows few_rows(const RowTable& table, const PointTable& points);
  bool find_subsets(const RowTable& table, const PointTable& points);
  Products products(const RowTable& table, const PointTable& points);
  void prepare_mix(const RowTable& table, const PointTable& points, SelectJob& job);

  // Kept while the rule and the number of points are the same.
  std::vector<Comparator> merges_;
  std::array<int, 4> merges_of_ = {-1, 0, 0, 0};  // points, chunk, first and last rank

  std::vector<std::uint8_t> is_used_;
  std::vector<int> used_rows_;
  std::vector<MixEntry> entries_;
  std::vector<std::size_t> group_start_;
  std::vector<double> subset_coefficients_;
  std::vector<std::uint16_t> subsets_wanted_;
  bool are_means_ = false;
  std::vector<std::uint64_t> subsets_;
  std::vector<int> few_start_, few_rows_;
  std::vector<double> few_coefficients_;
};

}  // namespace bragg::detail::cpu
