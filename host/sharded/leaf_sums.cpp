// SPDX-License-Identifier: Apache-2.0
#include "host/sharded/leaf_sums.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace bragg::detail {

namespace {

std::byte* bytes_of(std::vector<double>& values) { return reinterpret_cast<std::byte*>(values.data()); }

std::vector<std::int64_t> bytes_of_counts(std::vector<std::int64_t> counts) {
  for (std::int64_t& count : counts) count *= static_cast<std::int64_t>(sizeof(double));
  return counts;
}

std::span<const std::size_t> part_of(const std::vector<std::size_t>& entries, Slice slice) {
  return std::span(entries).subspan(static_cast<std::size_t>(slice.begin),
                                    static_cast<std::size_t>(slice.size()));
}

/// This rank's slice of the sums of all leaves, and what adding them lost.
std::vector<double> add_slice(Communicator& communicator, const Leaves& leaves, const GramSums& mine) {
  const auto ranks = static_cast<std::size_t>(communicator.size());
  const auto rank = static_cast<std::size_t>(communicator.rank());
  const LeafRecords& records = *mine.records;
  const std::size_t entries = records.entries.size();
  const std::int64_t per_entry = mine.leaf_blocks > 1 ? 2 : 1;  // a leaf of one block has lost nothing
  const Slice own = slice_of(entries, rank, ranks);
  std::vector<std::int64_t> sent(ranks), received(ranks);
  std::vector<double> send, receive;
  send.reserve(records.values.size());
  for (std::size_t r = 0; r < ranks; ++r) {
    const Slice theirs = slice_of(entries, r, ranks);
    sent[r] = leaves.count[rank] * per_entry * theirs.size();
    received[r] = leaves.count[r] * per_entry * own.size();
    for (std::size_t at = 0; at < records.values.size(); at += entries) {
      const auto from = records.values.begin() + static_cast<std::ptrdiff_t>(at);
      send.insert(send.end(), from + theirs.begin, from + theirs.end);
    }
  }
  receive.resize(
      static_cast<std::size_t>(std::accumulate(received.begin(), received.end(), std::int64_t{0})));
  const std::vector<std::int64_t> received_bytes = bytes_of_counts(received);
  communicator.all_to_all(bytes_of(send), bytes_of_counts(sent), bytes_of(receive), received_bytes);
  std::vector<const std::byte*> next;
  const std::byte* at = bytes_of(receive);
  for (const std::int64_t bytes : received_bytes) {
    next.push_back(at);
    at += bytes;
  }
  return add_leaves(leaves, std::move(next), static_cast<std::size_t>(own.size()),
                    static_cast<std::size_t>(per_entry));
}

}  // namespace

Leaves::Leaves(const Sharding& sharding, std::span<const std::size_t> tensors, std::int64_t length)
    : count(static_cast<std::size_t>(sharding.ranks()), 0) {
  for (const std::size_t t : tensors) {
    for (std::size_t shard = 0; shard < count.size(); ++shard) {
      const std::int64_t size = sharding.slices(static_cast<int>(shard))[t].size();
      const std::int64_t leaves = (size + length - 1) / length;
      if (leaves > 0) stretches.push_back({shard, leaves});
      count[shard] += leaves;
    }
  }
}

Slice slice_of(std::size_t products, std::size_t k, std::size_t slices) {
  return {static_cast<std::int64_t>(products * k / slices),
          static_cast<std::int64_t>(products * (k + 1) / slices)};
}

std::vector<double> add_leaves(const Leaves& leaves, std::vector<const std::byte*> next, std::size_t count,
                               std::size_t per_entry) {
  std::vector<double> sums(2 * count, 0.0);
  std::vector<double> leaf(2 * count, 0.0);
  const std::size_t bytes = count * per_entry * sizeof(double);
  for (const Stretch& stretch : leaves.stretches) {
    for (std::int64_t k = 0; k < stretch.leaves && bytes > 0; ++k) {
      std::memcpy(leaf.data(), next[stretch.shard], bytes);
      next[stretch.shard] += bytes;
      for (std::size_t e = 0; e < count; ++e) {
        GramSums::two_sum(sums[e], sums[count + e], leaf[e]);
        sums[count + e] += leaf[count + e];
      }
    }
  }
  return sums;
}

void place_sums(std::span<const std::size_t> entries, std::span<const double> sums, GramSums& totals) {
  const auto n = static_cast<std::size_t>(totals.rows);
  for (std::size_t e = 0; e < entries.size(); ++e) {
    const std::size_t place = entries[e];
    const std::size_t mirrored = place % n * n + place / n;
    totals.products[place] = totals.products[mirrored] = sums[e];
    totals.low[place] = totals.low[mirrored] = sums[entries.size() + e];
  }
}

void add_up(Communicator& communicator, const Leaves& leaves, const GramSums& mine, GramSums& totals) {
  const auto ranks = static_cast<std::size_t>(communicator.size());
  const auto n = static_cast<std::size_t>(totals.rows);
  const std::size_t entries = totals.wanted ? mine.records->entries.size() : 0;
  std::vector<double> message;
  if (totals.wanted) message = add_slice(communicator, leaves, mine);
  for (const std::int64_t count : mine.nonfinite) message.push_back(static_cast<double>(count));
  message.insert(message.end(), mine.max_abs.begin(), mine.max_abs.end());
  message.push_back(mine.rounding);
  message.push_back(mine.wide ? 1 : 0);

  std::vector<std::int64_t> counts(ranks);
  for (std::size_t r = 0; r < ranks; ++r)
    counts[r] = 2 * slice_of(entries, r, ranks).size() + 2 * totals.rows + 2;
  std::vector<double> all(
      static_cast<std::size_t>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0})));
  communicator.all_gather(bytes_of(message), bytes_of(all), bytes_of_counts(counts));

  const double* from = all.data();
  for (std::size_t r = 0; r < ranks; ++r) {
    const auto count = static_cast<std::size_t>(slice_of(entries, r, ranks).size());
    if (count > 0)
      place_sums(part_of(mine.records->entries, slice_of(entries, r, ranks)), {from, 2 * count}, totals);
    from += 2 * count;
    for (std::size_t i = 0; i < n; ++i) totals.nonfinite[i] += static_cast<std::int64_t>(*from++);
    for (std::size_t i = 0; i < n; ++i) totals.max_abs[i] = std::max(totals.max_abs[i], *from++);
    totals.rounding = std::max(totals.rounding, *from++);
    totals.wide = *from++ != 0 || totals.wide;
  }
}

}  // namespace bragg::detail
