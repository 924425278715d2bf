// SPDX-License-Identifier: Apache-2.0
// Huber's minimiser: the gradient of Σ p_i φ(‖x_i − v‖) is tau times that of the sum whose terms have a
// floor.
#include "host/reference/geometric_median.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

template <>
Point apply(const Huber& rule, Stage& stage) {
  return minimiser({.floor = rule.tau,
                    .to_convergence = rule.max_iters >= 100,
                    .max_iters = rule.max_iters,
                    .tol = rule.tol,
                    .start = rule.start},
                   stage);
}

}  // namespace bragg::reference
