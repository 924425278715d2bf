// SPDX-License-Identifier: Apache-2.0
// Comparator networks, built at run time as lists of comparators.
#pragma once

#include <vector>

#include "rules/networks/network.hpp"

namespace bragg::detail::cpu {

/// After the network, wires first … last hold the order statistics of those (0-based) ranks; other wires hold
/// anything. The best known networks to 64 points, Batcher's odd-even merges of them above.
std::vector<Comparator> selection_network(int points, int first, int last);

/// The same, where wires [0, chunk), [chunk, 2·chunk), … are sorted already; chunk is a power of two.
std::vector<Comparator> merge_network(int points, int chunk, int first, int last);

}  // namespace bragg::detail::cpu
