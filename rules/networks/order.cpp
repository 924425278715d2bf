// SPDX-License-Identifier: Apache-2.0
#include "rules/networks/order.hpp"

#include <cstddef>

namespace bragg::detail::cpu {

std::vector<Comparator> selection_network(int points, int first, int last) {
  std::vector<Comparator> list, other;
  std::vector<bool> needed(static_cast<std::size_t>(points));
  network::make_selection(list, other, needed, points, first, last);
  return list;
}

std::vector<Comparator> merge_network(int points, int chunk, int first, int last) {
  std::vector<Comparator> list;
  std::vector<bool> needed(static_cast<std::size_t>(points));
  int count = chunk;
  while (count < points) count *= 2;
  network::append_merges(list, 0, count, chunk, points);
  network::prune(list, needed, points, first, last);
  return list;
}

}  // namespace bragg::detail::cpu
