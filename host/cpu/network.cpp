// SPDX-License-Identifier: Apache-2.0
#include "host/cpu/network.hpp"

#include <cstddef>

namespace bragg::detail::cpu {

std::vector<Comparator> selection_network(int points, int first, int last) {
  std::vector<Comparator> list, other;
  std::vector<bool> needed(static_cast<std::size_t>(points));
  network::make_selection(list, other, needed, points, first, last);
  return list;
}

}  // namespace bragg::detail::cpu
