// SPDX-License-Identifier: Apache-2.0
// Coordinate-wise trimmed mean, Yin et al. 2018. With client weights: f rows a side go, whatever they weigh.
#include "host/reference/coordinate_wise.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

Point apply(const TrimmedMean& rule, Stage& stage) {
  return each_coordinate(stage, [&](std::size_t c) { return trimmed_mean_of(column(stage, c), rule.f); });
}

}  // namespace bragg::reference
