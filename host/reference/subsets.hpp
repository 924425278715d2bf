// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <numeric>
#include <vector>

namespace bragg::reference {

/// Calls visit(indices) for every k-subset of 0..n−1, in lexicographic order.
template <class VisitT>
void for_each_subset(int n, int k, VisitT visit) {
  std::vector<int> subset(static_cast<std::size_t>(k));
  std::iota(subset.begin(), subset.end(), 0);
  for (;;) {
    visit(subset);
    int last = k - 1;
    while (last >= 0 && subset[last] == n - k + last) --last;
    if (last < 0) return;
    ++subset[last];
    for (int j = last + 1; j < k; ++j) subset[j] = subset[j - 1] + 1;
  }
}

}  // namespace bragg::reference
