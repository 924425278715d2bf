// SPDX-License-Identifier: Apache-2.0
// What a pipeline needs of those who run it.
#pragma once

#include <bragg/pipeline.hpp>
#include <cstddef>
#include <optional>
#include <string_view>

#include "rules/needed_order.hpp"
#include "rules/sampling.hpp"

namespace bragg::detail {

/// What pass 1 has to give.
struct PassNeeds {
  bool statistics = false;  ///< which rows are finite
  bool products = false;
  bool pairs = false;      ///< products of all rows; else only of each with itself and with the references
  Sampling sampling = {};  ///< of the rule

  /// Some coordinates decide between rows.
  bool judge_rows() const { return products || sampling.count > 0; }
};

PassNeeds needs_of(const Pipeline& pipeline);

/// Whether distances between rows are wanted, and not only those to the references.
bool takes_pairs(const Pipeline& pipeline);
/// Whether a stage from number `first` on takes inner products of its points.
bool takes_products(const Pipeline& pipeline, std::size_t first);

/// Of n rows, where the result depends on their distances by nothing but an order of theirs.
std::optional<NeededOrder> needed_order_of(const Pipeline& pipeline, int n);

/// A plan keeps its last output for the next run.
bool keeps_previous(const Pipeline& pipeline);
/// A plan's next run may differ from its last, of the same data.
bool has_memory(const Pipeline& pipeline);
/// The n-sized mathematics of n rows, at the most, in multiply-adds of `tridiagonalize`.
double work_of(const Pipeline& pipeline, int n);

/// The point that a rule trusts.
struct Pivot {
  std::string_view rule;
  int index = 0;
  bool is_row = true;  ///< of the caller's; else a bucket
};
/// None: the rule trusts no point.
std::optional<Pivot> pivot_of(const Pipeline& pipeline);
/// Of a pipeline that has one.
void set_pivot(Pipeline& pipeline, int index);

/// A step of the rule runs on the host, whatever runs the others.
bool searches_on_host(const Pipeline& pipeline);

}  // namespace bragg::detail
