// SPDX-License-Identifier: Apache-2.0
#include "host/cpu/network.hpp"

#include <algorithm>
#include <cstddef>
#include <span>

#include "kernels/select/networks.hpp"

namespace bragg::detail::cpu {
namespace {

void append_table(std::vector<Comparator>& network, const std::uint8_t* wires,
                  std::span<const std::uint16_t> start, int size, int base, int points) {
  for (std::size_t k = start[static_cast<std::size_t>(size)]; k < start[static_cast<std::size_t>(size) + 1];
       ++k) {
    const int low = base + wires[2 * k];
    const int high = base + wires[2 * k + 1];
    // Wires from `points` on stand for +inf: a comparator with one of them changes nothing.
    if (high < points) {
      network.push_back({static_cast<std::uint16_t>(low), static_cast<std::uint16_t>(high), true, true});
    }
  }
}

// Batcher's merge of the sorted halves of wires base, base + step, … (count of them, a power of two).
void append_merge(std::vector<Comparator>& network, int base, int step, int count, int points) {
  const auto compare = [&](int low, int high) {
    if (high < points) {
      network.push_back({static_cast<std::uint16_t>(low), static_cast<std::uint16_t>(high), true, true});
    }
  };
  if (count == 2) return compare(base, base + step);
  append_merge(network, base, 2 * step, count / 2, points);
  append_merge(network, base + step, 2 * step, count / 2, points);
  for (int i = 1; i + 1 < count; i += 2) compare(base + i * step, base + (i + 1) * step);
}

void append_sort(std::vector<Comparator>& network, int base, int count, int points) {
  if (base >= points) return;
  if (count <= largest_network) return append_table(network, sort_wires, sort_start, count, base, points);
  append_sort(network, base, count / 2, points);
  append_sort(network, base + count / 2, count / 2, points);
  append_merge(network, base, 1, count, points);
}

// Drops what wires first … last do not depend on.
std::vector<Comparator> pruned(std::vector<Comparator> network, int points, int first, int last) {
  std::vector<bool> needed(static_cast<std::size_t>(points), false);
  for (int wire = first; wire <= last; ++wire) needed[static_cast<std::size_t>(wire)] = true;
  for (std::size_t k = network.size(); k-- > 0;) {
    Comparator& c = network[k];
    c.need_low = needed[c.low];
    c.need_high = needed[c.high];
    if (c.need_low || c.need_high) needed[c.low] = needed[c.high] = true;
  }
  std::erase_if(network, [](const Comparator& c) { return !c.need_low && !c.need_high; });
  return network;
}

std::size_t outputs(const std::vector<Comparator>& network) {
  std::size_t count = 0;
  for (const Comparator& c : network) count += static_cast<std::size_t>(c.need_low) + c.need_high;
  return count;
}

}  // namespace

std::vector<Comparator> selection_network(int points, int first, int last) {
  std::vector<Comparator> network;
  if (points <= largest_network) {
    append_table(network, sort_wires, sort_start, points, 0, points);
  } else {
    int count = largest_network;
    while (count < points) count *= 2;
    append_sort(network, 0, count, points);
  }
  network = pruned(std::move(network), points, first, last);
  if (points >= 3 && points <= largest_network && first >= (points - 1) / 2 && last <= points / 2) {
    std::vector<Comparator> median;
    append_table(median, median_wires, median_start, points, 0, points);
    if (points % 2 == 0) {  // the lists bring the two middle values there in any order
      median.push_back(
          {static_cast<std::uint16_t>(points / 2 - 1), static_cast<std::uint16_t>(points / 2), true, true});
    }
    median = pruned(std::move(median), points, first, last);
    if (outputs(median) < outputs(network)) network = std::move(median);
  }
  return network;
}

}  // namespace bragg::detail::cpu
