// SPDX-License-Identifier: Apache-2.0
// What a pipeline needs of those who run it.
#pragma once

#include <bragg/pipeline.hpp>
#include <cstddef>

namespace bragg::detail {

/// What pass 1 has to give.
struct PassNeeds {
  bool statistics = false;  ///< which rows are finite
  bool products = false;
  bool pairs = false;  ///< products of all rows; else only of each with itself and with the references
};

PassNeeds needs_of(const Pipeline& pipeline);

/// Whether distances between rows are wanted, and not only those to the references.
bool takes_pairs(const Pipeline& pipeline);
/// Whether a stage from number `first` on takes inner products of its points.
bool takes_products(const Pipeline& pipeline, std::size_t first);

/// A plan keeps its last output for the next run.
bool keeps_previous(const Pipeline& pipeline);
/// A plan's next run may differ from its last, of the same data.
bool has_memory(const Pipeline& pipeline);
/// The n-sized mathematics of n rows, at the most, in multiply-adds of `tridiagonalize`.
double work_of(const Pipeline& pipeline, int n);

/// A step of the rule runs on the host, whatever runs the others.
bool searches_on_host(const Pipeline& pipeline);

}  // namespace bragg::detail
