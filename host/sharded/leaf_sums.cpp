// SPDX-License-Identifier: Apache-2.0
#include "host/sharded/leaf_sums.hpp"

#include <algorithm>
#include <numeric>

namespace bragg::detail {

namespace {

/// The products that a rank adds.
Slice entries_of(std::size_t rank, std::size_t ranks, std::size_t entries) {
  return {static_cast<std::int64_t>(entries * rank / ranks),
          static_cast<std::int64_t>(entries * (rank + 1) / ranks)};
}

std::byte* bytes_of(std::vector<double>& values) { return reinterpret_cast<std::byte*>(values.data()); }

std::vector<std::int64_t> bytes_of_counts(std::vector<std::int64_t> counts) {
  for (std::int64_t& count : counts) count *= static_cast<std::int64_t>(sizeof(double));
  return counts;
}

/// This rank's slice of the sums of all leaves, and what adding them lost.
std::vector<double> add_slice(Communicator& communicator, std::span<const Stretch> stretches,
                              const GramSums& mine) {
  const auto ranks = static_cast<std::size_t>(communicator.size());
  const auto rank = static_cast<std::size_t>(communicator.rank());
  const LeafRecords& records = *mine.records;
  const std::size_t entries = records.entries.size();
  const std::int64_t per_entry = mine.leaf_blocks > 1 ? 2 : 1;  // a leaf of one block has lost nothing
  const Slice own = entries_of(rank, ranks, entries);
  const auto count = static_cast<std::size_t>(own.size());

  std::vector<std::int64_t> leaves(ranks, 0);
  for (const Stretch& stretch : stretches) leaves[stretch.rank] += stretch.leaves;
  std::vector<std::int64_t> sent(ranks), received(ranks);
  std::vector<double> send, receive;
  send.reserve(records.values.size());
  for (std::size_t r = 0; r < ranks; ++r) {
    const Slice theirs = entries_of(r, ranks, entries);
    sent[r] = leaves[rank] * per_entry * theirs.size();
    received[r] = leaves[r] * per_entry * own.size();
    for (std::size_t at = 0; at < records.values.size(); at += entries) {
      const auto from = records.values.begin() + static_cast<std::ptrdiff_t>(at);
      send.insert(send.end(), from + theirs.begin, from + theirs.end);
    }
  }
  receive.resize(
      static_cast<std::size_t>(std::accumulate(received.begin(), received.end(), std::int64_t{0})));
  communicator.all_to_all(bytes_of(send), bytes_of_counts(sent), bytes_of(receive),
                          bytes_of_counts(received));

  std::vector<const double*> next(ranks);
  const double* at = receive.data();
  for (std::size_t r = 0; r < ranks; ++r) {
    next[r] = at;
    at += received[r];
  }
  std::vector<double> sums(2 * count, 0.0);
  for (const Stretch& stretch : stretches) {
    const double*& leaf = next[stretch.rank];
    for (std::int64_t k = 0; k < stretch.leaves; ++k) {
      for (std::size_t e = 0; e < count; ++e) {
        GramSums::two_sum(sums[e], sums[count + e], leaf[e]);
        if (per_entry == 2) sums[count + e] += leaf[count + e];
      }
      leaf += per_entry * own.size();
    }
  }
  return sums;
}

}  // namespace

std::vector<Stretch> stretches_of(const Sharding& sharding, std::span<const std::size_t> tensors,
                                  std::int64_t leaf_blocks) {
  const std::int64_t leaf = leaf_blocks * gram_block;
  std::vector<Stretch> stretches;
  for (const std::size_t t : tensors) {
    for (int rank = 0; rank < sharding.ranks(); ++rank) {
      const std::int64_t leaves = (sharding.slices(rank)[t].size() + leaf - 1) / leaf;
      if (leaves > 0) stretches.push_back({static_cast<std::size_t>(rank), leaves});
    }
  }
  return stretches;
}

void add_up(Communicator& communicator, std::span<const Stretch> stretches, const GramSums& mine,
            GramSums& totals) {
  const auto ranks = static_cast<std::size_t>(communicator.size());
  const auto n = static_cast<std::size_t>(totals.rows);
  const std::size_t entries = totals.wanted ? mine.records->entries.size() : 0;
  std::vector<double> message;
  if (totals.wanted) message = add_slice(communicator, stretches, mine);
  for (const std::int64_t count : mine.nonfinite) message.push_back(static_cast<double>(count));
  message.insert(message.end(), mine.max_abs.begin(), mine.max_abs.end());
  message.push_back(mine.rounding);
  message.push_back(mine.wide ? 1 : 0);

  std::vector<std::int64_t> counts(ranks);
  for (std::size_t r = 0; r < ranks; ++r)
    counts[r] = 2 * entries_of(r, ranks, entries).size() + 2 * totals.rows + 2;
  std::vector<double> all(
      static_cast<std::size_t>(std::accumulate(counts.begin(), counts.end(), std::int64_t{0})));
  communicator.all_gather(bytes_of(message), bytes_of(all), bytes_of_counts(counts));

  const double* from = all.data();
  for (std::size_t r = 0; r < ranks; ++r) {
    const Slice theirs = entries_of(r, ranks, entries);
    const auto count = static_cast<std::size_t>(theirs.size());
    for (std::size_t e = 0; e < count; ++e) {
      const std::size_t place = mine.records->entries[static_cast<std::size_t>(theirs.begin) + e];
      const std::size_t mirrored = place % n * n + place / n;
      totals.products[place] = totals.products[mirrored] = from[e];
      totals.low[place] = totals.low[mirrored] = from[count + e];
    }
    from += 2 * count;
    for (std::size_t i = 0; i < n; ++i) totals.nonfinite[i] += static_cast<std::int64_t>(*from++);
    for (std::size_t i = 0; i < n; ++i) totals.max_abs[i] = std::max(totals.max_abs[i], *from++);
    totals.rounding = std::max(totals.rounding, *from++);
    totals.wide = *from++ != 0 || totals.wide;
  }
}

}  // namespace bragg::detail
