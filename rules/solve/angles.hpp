// SPDX-License-Identifier: Apache-2.0
// Directions in which points are seen from o.
#pragma once

#include "rules/solve/points.hpp"

namespace bragg::detail {

/// ⟨x_i − o, x_j − o⟩.
BRAGG_HD inline double product_about_origin(const Points& points, int i, int j) {
  const int o = points.origin();
  return (points.product(i, j) + points.product(o, o)) - (points.product(i, o) + points.product(j, o));
}

/// The cosine of the angle between finite points i and j, seen from o; 0 where one of them is at o. Of alike
/// points it is 1 but for its last bit, however little is known of their lengths: all it is made of is alike.
BRAGG_HD inline double cosine(const Points& points, int i, int j) {
  const double first = product_about_origin(points, i, i);
  const double second = product_about_origin(points, j, j);
  if (!(first > 0 && second > 0)) return 0;
  const double value = product_about_origin(points, i, j) / (std::sqrt(first) * std::sqrt(second));
  return value > 1 ? 1 : value < -1 ? -1 : value;
}

}  // namespace bragg::detail
