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

/// Leaves of one shard that follow each other in the order of all.
struct Stretch {
  std::size_t shard = 0;
  std::int64_t leaves = 0;
};

/// The leaves of a row, or of a part of it.
struct Leaves {
  /// Those of tensors, in this order, each of `length` coordinates but for a shard's last of a tensor.
  Leaves(const Sharding& sharding, std::span<const std::size_t> tensors, std::int64_t length);

  std::vector<Stretch> stretches;   ///< in the order in which one process adds them
  std::vector<std::int64_t> count;  ///< [shard]
};

/// The k-th of so many slices of the products.
Slice slice_of(std::size_t products, std::size_t k, std::size_t slices);

/// The sums of a slice of `count` products over all leaves, and behind them what adding lost. `next[shard]`:
/// the shard's leaves, of each its products and, where `per_entry` is 2, what these had lost.
std::vector<double> add_leaves(const Leaves& leaves, std::vector<const std::byte*> next, std::size_t count,
                               std::size_t per_entry);

/// Puts such sums in their places: `entries` are the slice's, of LeafRecords::entries.
void place_sums(std::span<const std::size_t> entries, std::span<const double> sums, GramSums& totals);

/// Collective. `mine`: pass 1 over this rank's slices, whose leaves are in mine.records; `totals`: reset for
/// the same pass. They come to be of all ranks' slices, with the bits of one process.
/// @throws Error communication.
void add_up(Communicator& communicator, const Leaves& leaves, const GramSums& mine, GramSums& totals);

}  // namespace bragg::detail
