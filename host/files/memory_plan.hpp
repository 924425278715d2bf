// SPDX-License-Identifier: Apache-2.0
// How much of the inputs is in memory at a time.
#pragma once

#include <bragg/sharded.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "host/files/inputs.hpp"
#include "host/files/output_plan.hpp"
#include "host/files/window_passes.hpp"
#include "host/files/windows.hpp"

namespace bragg::detail {

struct MemoryPlan {
  std::vector<Window> kinds;         ///< per tensor: the types of its windows; no pieces
  std::vector<std::int64_t> widest;  ///< per tensor: bytes of an element read, summed or written, the most
  SlotShape slot;

  /// Cuts some of the tensors, in that order, into windows that fit into a slot. Rows are judged by the first
  /// `judged` of them. `own`: of each of the inputs' tensors what is to be there, if anything; it begins at a
  /// multiple of gram_block.
  std::vector<Window> cut(std::span<const std::size_t> tensors, std::span<const std::optional<Slice>> own,
                          std::size_t judged = 0) const;
};

/// Bytes that are needed beside windows.
struct Mathematics {
  std::int64_t bytes = 0;
  std::int64_t sample_bytes = 0;  ///< more of them, of samples
  std::string samples = {};       ///< Engine::describe_samples
};

/// `rows`: those that are read, the base among them.
/// @throws Error invalid_argument, out_of_memory: options.memory is too small.
MemoryPlan plan_memory(const Inputs& inputs, const OutputPlan& output, int rows,
                       const Mathematics& mathematics, const FileOptions& options);

}  // namespace bragg::detail
