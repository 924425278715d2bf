// SPDX-License-Identifier: Apache-2.0
// The bounds on parameters that rules share. Each throws Error invalid_argument with the rule, the parameter,
// its value and the bound that it breaks.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bragg::detail {

/// The points that reach a stage.
struct StagePoints {
  int n = 0;
  int workers = 0;         ///< the rows that the pipeline started with; more than n after bucketing
  bool regrouped = false;  ///< point i is no longer row i's
};

/// "n = 5 rows", for a message.
std::string rows_text(const StagePoints& points);

/// 2f < n.
void need_majority(std::string_view rule, int f, const StagePoints& points);
/// n ≥ factor·f + 3.
void need_more_than(std::string_view rule, int factor, int f, const StagePoints& points);
/// `bound`: low ≤ value ≤ high, for the message.
void need_between(std::string_view rule, std::string_view parameter, int value, int low, int high,
                  std::string_view bound);
void need_at_least(std::string_view rule, std::string_view parameter, int value, int low);
/// Finite, and above 0 or also 0.
void need_finite(std::string_view rule, std::string_view parameter, double value, bool zero_allowed);
/// 0 < value ≤ 1, or also 0.
void need_share(std::string_view rule, std::string_view parameter, double value, bool zero_allowed = false);
/// n > dropped = ⌈c·f⌉.
void need_more_than_dropped(std::string_view rule, int f, double c, double dropped,
                            const StagePoints& points);
/// n ≥ least.
void need_points(std::string_view rule, int least, const StagePoints& points);
/// The index of a row, which points must be of.
void need_pivot(std::string_view rule, int pivot, const StagePoints& points);
/// Empty, or each of 0 to n−1 once.
void need_permutation(std::string_view rule, std::string_view parameter, const std::vector<int>& values,
                      const StagePoints& points);

}  // namespace bragg::detail
