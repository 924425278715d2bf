// SPDX-License-Identifier: Apache-2.0
// Rows at drawn coordinates, on the device.
#pragma once

#include "kernels/common/rows.hpp"
#include "kernels/runtime/stream.hpp"
#include "rules/sampling.hpp"

namespace bragg::detail::cuda {

struct SampleArguments {
  Rows rows;
  Cut coordinates;  ///< of length 1: pieces are the coordinates that are drawn from
  /// [tensors] Of a shard: elements before its slices of the tensors, which `coordinates` numbers whole. What
  /// it has not is 0. Null: rows are whole.
  const std::int64_t* begins = nullptr;
  Sampling sampling;
  int sample = 0;                        ///< which of the samples
  const std::uint64_t* round = nullptr;  ///< *round: the run's number
  bool per_tensor = false;               ///< a part is a tensor; else all of them
  int parts = 0;
  /// Coordinates of the part that has most of them.
  std::int64_t longest = 0;
  /// [part * rows.count + row] where a row's values at the part's coordinates go, in the order in which they
  /// are drawn: the rows of f64 that the Gram pass reads next.
  const void* const* to = nullptr;
};

/// Enqueues the pass. @throws Error as simt::launch.
void sample(const SampleArguments& arguments, Stream stream);

}  // namespace bragg::detail::cuda
