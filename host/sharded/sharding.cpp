// SPDX-License-Identifier: Apache-2.0
#include <bragg/sharded.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "host/base/sizes.hpp"
#include "host/cpu/passes.hpp"

namespace bragg {
inline namespace v0 {

Sharding::Sharding(std::span<const std::int64_t> sizes, int ranks)
    : ranks_(ranks), sizes_(sizes.begin(), sizes.end()) {
  if (ranks < 1) throw Error(Status::invalid_argument, fmt::format("ranks = {}; needs at least 1", ranks));
  if (const auto fault = detail::fault_of_sizes(sizes_)) throw Error(Status::invalid_argument, *fault);
  slices_.resize(static_cast<std::size_t>(ranks) * sizes_.size());
}

Sharding Sharding::even(std::span<const std::int64_t> sizes, int ranks) {
  Sharding made(sizes, ranks);
  const std::int64_t leaf = detail::leaf_blocks_of(sizes) * detail::gram_block;
  const auto total = static_cast<long double>(std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}));
  // Rank k ends where a leaf ends, as near to its share as can be.
  std::size_t tensor = 0;
  std::int64_t at = 0;      // in the tensor
  std::int64_t before = 0;  // coordinates of the tensors before
  for (int rank = 0; rank < ranks; ++rank) {
    const long double wanted = total * (rank + 1) / ranks;
    for (; tensor < sizes.size(); ++tensor, at = 0) {
      const std::int64_t size = sizes[tensor];
      const auto here =
          static_cast<long double>(leaf) *
          std::floor((wanted - static_cast<long double>(before)) / static_cast<long double>(leaf) + 0.5L);
      const std::int64_t end = rank + 1 == ranks || here >= static_cast<long double>(size)
                                   ? size
                                   : std::max(at, static_cast<std::int64_t>(here));
      made.slices_[static_cast<std::size_t>(rank) * sizes.size() + tensor] = {at, end};
      if (end < size) {
        at = end;
        break;
      }
      before += size;
    }
  }
  return made;
}

Sharding Sharding::each_tensor(std::span<const std::int64_t> sizes, int ranks) {
  Sharding made(sizes, ranks);
  const std::int64_t leaf = detail::leaf_blocks_of(sizes) * detail::gram_block;
  for (std::size_t t = 0; t < sizes.size(); ++t) {
    const std::int64_t leaves = (sizes[t] + leaf - 1) / leaf;
    for (std::int64_t rank = 0; rank < ranks; ++rank) {
      made.slices_[static_cast<std::size_t>(rank) * sizes.size() + t] = {
          std::min(sizes[t], leaves * rank / ranks * leaf),
          std::min(sizes[t], leaves * (rank + 1) / ranks * leaf)};
    }
  }
  return made;
}

Sharding Sharding::owners(std::span<const std::int64_t> sizes, std::span<const int> owner, int ranks) {
  Sharding made(sizes, ranks);
  if (owner.size() != sizes.size()) {
    throw Error(
        Status::invalid_argument,
        fmt::format("owner has {} entries; needs one for each of {} tensors", owner.size(), sizes.size()));
  }
  for (std::size_t t = 0; t < sizes.size(); ++t) {
    if (owner[t] < 0 || owner[t] >= ranks) {
      throw Error(Status::invalid_argument,
                  fmt::format("owner[{}] = {}; needs a rank in [0, {})", t, owner[t], ranks));
    }
    made.slices_[static_cast<std::size_t>(owner[t]) * sizes.size() + t] = {0, sizes[t]};
  }
  return made;
}

std::vector<std::int64_t> Sharding::sizes_of(int rank) const {
  std::vector<std::int64_t> found;
  for (const Slice& slice : slices(rank)) found.push_back(slice.size());
  return found;
}

std::int64_t Sharding::coordinates(int rank) const noexcept {
  std::int64_t total = 0;
  for (const Slice& slice : slices(rank)) total += slice.size();
  return total;
}

Communicator::~Communicator() = default;

}  // namespace v0
}  // namespace bragg
