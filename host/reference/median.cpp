// SPDX-License-Identifier: Apache-2.0
// Coordinate-wise median, Yin et al. 2018.
#include "host/reference/coordinate_wise.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
Point apply(const Median& rule, Stage& stage) {
  return each_coordinate(stage, [&](std::size_t c) { return median_of(column(stage, c), rule.even); });
}

}  // namespace bragg::reference
