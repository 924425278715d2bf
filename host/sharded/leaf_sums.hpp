// SPDX-License-Identifier: Apache-2.0
// Sums of leaves that ranks have made, added up in the order in which one process adds them.
#pragma once

#include <bragg/communicator.hpp>
#include <bragg/sharded.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "host/cpu/passes.hpp"

namespace bragg::detail {

/// Leaves of one rank that follow each other in the order of all.
struct Stretch {
  std::size_t rank = 0;
  std::int64_t leaves = 0;
};

/// The leaves of tensors, in this order, of which ranks have slices; of each `leaf_blocks` blocks.
std::vector<Stretch> stretches_of(const Sharding& sharding, std::span<const std::size_t> tensors,
                                  std::int64_t leaf_blocks);

/// Collective. `mine`: pass 1 over this rank's slices, whose leaves are in mine.records; `totals`: reset for
/// the same pass. They come to be of all ranks' slices, with the bits of one process.
/// @throws Error communication.
void add_up(Communicator& communicator, std::span<const Stretch> stretches, const GramSums& mine,
            GramSums& totals);

}  // namespace bragg::detail
