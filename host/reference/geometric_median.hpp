// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "host/reference/points.hpp"

namespace bragg::reference {

/// Weiszfeld's iteration with weights p_i/max(floor, ‖x_i − v‖), and what it goes to.
struct SumOfDistances {
  long double floor = 0;
  bool to_convergence = false;  ///< else `max_iters` steps, or until one is shorter than `tol` says
  int max_iters = 0;
  long double tol = 0;
  GeometricMedian::Start start = GeometricMedian::Start::medoid;
};

/// @throws Failed too_many_nonfinite: half of the weight or more; nonfinite_base: it starts there.
Point minimiser(const SumOfDistances& rule, Stage& stage);

/// argmin_v Σ w_i ‖x_i − v‖; where that is not unique, what the search from `start` comes to.
Point weighted_median(const std::vector<Point>& points, const Vector& weight, const Point& start,
                      Stage& stage);

}  // namespace bragg::reference
