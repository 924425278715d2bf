// SPDX-License-Identifier: Apache-2.0
// Comparator networks that bring wanted order statistics to their place: the same lists for the CPU, which
// makes them at run time, and for kernels, which have them as constants.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "rules/networks/best_known.hpp"

namespace bragg::detail {

/// The smaller value goes to wire `low`; an output that nobody reads is not computed.
struct Comparator {
  std::uint16_t low = 0;
  std::uint16_t high = 0;
  bool need_low = true;
  bool need_high = true;
};

namespace network {

// A ListT has push_back, size and operator[], as std::vector.

template <class ListT>
constexpr void append_known(ListT& list, std::string_view network, int base) {
  for (std::size_t k = 0; k < network.size(); k += 2) {
    list.push_back({static_cast<std::uint16_t>(base + network[k] - '0'),
                    static_cast<std::uint16_t>(base + network[k + 1] - '0')});
  }
}

/// Batcher's odd-even merge of the sorted halves of wires base, base + step, … (count of them, a power of
/// two). Wires from `points` on stand for +inf: a comparator with one of them changes nothing.
template <class ListT>
constexpr void append_merge(ListT& list, int base, int step, int count, int points) {
  const auto compare = [&](int low, int high) {
    if (high < points) list.push_back({static_cast<std::uint16_t>(low), static_cast<std::uint16_t>(high)});
  };
  if (count == 2) return compare(base, base + step);
  append_merge(list, base, 2 * step, count / 2, points);
  append_merge(list, base + step, 2 * step, count / 2, points);
  for (int i = 1; i + 1 < count; i += 2) compare(base + i * step, base + (i + 1) * step);
}

template <class ListT>
constexpr void append_sort(ListT& list, int base, int count, int points) {
  if (base >= points) return;
  if (count <= largest_network) {
    return append_known(list, sort_networks[points - base < count ? points - base : count], base);
  }
  append_sort(list, base, count / 2, points);
  append_sort(list, base + count / 2, count / 2, points);
  append_merge(list, base, 1, count, points);
}

/// What makes sorted chunks of `chunk` wires (a power of two) one sorted list of `count` from `base` on.
template <class ListT>
constexpr void append_merges(ListT& list, int base, int count, int chunk, int points) {
  if (count <= chunk || base >= points) return;
  append_merges(list, base, count / 2, chunk, points);
  append_merges(list, base + count / 2, count / 2, chunk, points);
  append_merge(list, base, 1, count, points);
}

/// Drops what wires first … last do not depend on. `needed`: a flag per point. Returns the number of minima
/// and maxima that are left.
template <class ListT, class FlagsT>
constexpr std::size_t prune(ListT& list, FlagsT& needed, int points, int first, int last) {
  for (int wire = 0; wire < points; ++wire) {
    needed[static_cast<std::size_t>(wire)] = wire >= first && wire <= last;
  }
  std::size_t outputs = 0;
  for (std::size_t k = list.size(); k-- > 0;) {
    Comparator& c = list[k];
    c.need_low = needed[c.low];
    c.need_high = needed[c.high];
    if (c.need_low || c.need_high) needed[c.low] = needed[c.high] = true;
    outputs += static_cast<std::size_t>(c.need_low) + static_cast<std::size_t>(c.need_high);
  }
  std::size_t kept = 0;
  for (std::size_t k = 0; k < list.size(); ++k) {
    if (list[k].need_low || list[k].need_high) list[kept++] = list[k];
  }
  list.resize(kept);
  return outputs;
}

/// After the network, wires first … last hold the order statistics of those (0-based) ranks; other wires hold
/// anything. The best known networks to 64 points, Batcher's odd-even merges of them above. `list` and
/// `other` are empty; the result is in `list`.
template <class ListT, class FlagsT>
constexpr void make_selection(ListT& list, ListT& other, FlagsT& needed, int points, int first, int last) {
  int count = largest_network;
  while (count < points) count *= 2;
  append_sort(list, 0, count, points);
  const std::size_t outputs = prune(list, needed, points, first, last);
  if (points < 3 || points > largest_network || first < (points - 1) / 2 || last > points / 2) return;
  append_known(other, median_networks[points], 0);
  if (points % 2 == 0) {  // the lists bring the two middle values there in any order
    other.push_back({static_cast<std::uint16_t>(points / 2 - 1), static_cast<std::uint16_t>(points / 2)});
  }
  if (prune(other, needed, points, first, last) < outputs) list = other;
}

/// A list of bounded length without memory of its own, for constants.
template <std::size_t kCapacity>
struct FixedList {
  Comparator items[kCapacity] = {};
  std::size_t length = 0;

  constexpr void push_back(const Comparator& c) { items[length++] = c; }
  constexpr void resize(std::size_t wanted) { length = wanted; }
  constexpr std::size_t size() const { return length; }
  constexpr Comparator& operator[](std::size_t k) { return items[k]; }
  constexpr const Comparator& operator[](std::size_t k) const { return items[k]; }
};

/// More comparators than a sorting network of `points` ≤ 128 wires has.
constexpr std::size_t most_comparators(int points) {
  return points <= largest_network ? sort_networks[points].size() / 2 + 1 : std::size_t{1500};
}

template <int kPoints, int kFirst, int kLast>
constexpr auto make_constant() {
  FixedList<most_comparators(kPoints)> list, other;
  bool needed[kPoints] = {};
  make_selection(list, other, needed, kPoints, kFirst, kLast);
  return list;
}

/// The network of kPoints ≤ 128 wires for ranks kFirst … kLast as a constant.
template <int kPoints, int kFirst, int kLast>
inline constexpr auto constant = make_constant<kPoints, kFirst, kLast>();

}  // namespace network
}  // namespace bragg::detail
