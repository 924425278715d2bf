// SPDX-License-Identifier: Apache-2.0
// Mean around the median, Xie et al. 2018.
#include "host/reference/coordinate_wise.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
Point apply(const Meamed& rule, Stage& stage) {
  return each_coordinate(stage, [&](std::size_t c) {
    const Column sorted = column(stage, c);
    return mean_of_closest(stage, sorted, median_of(sorted, EvenMedian::midpoint), stage.n() - rule.f);
  });
}

}  // namespace bragg::reference
