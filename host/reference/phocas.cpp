// SPDX-License-Identifier: Apache-2.0
// Phocas, Xie et al. 2018: mean around the trimmed mean.
#include "host/reference/coordinate_wise.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
Point apply(const Phocas& rule, Stage& stage) {
  return each_coordinate(stage, [&](std::size_t c) {
    const Column sorted = column(stage, c);
    return mean_of_closest(stage, sorted, trimmed_mean_of(sorted, rule.f), stage.n() - rule.f);
  });
}

}  // namespace bragg::reference
