// SPDX-License-Identifier: Apache-2.0
// Rows as they are seen from o.
#pragma once

#include "host/reference/points.hpp"

namespace bragg::reference {

/// Whether a finite point is not at o.
bool has_direction(Stage& stage, const Point& point);
/// The cosine of the angle between two points, seen from o; 0 where one of them is at o.
long double cosine(const Stage& stage, const Point& a, const Point& b);
/// Notes that a comparison of cosines, or of what is made of them, comes out as the difference says.
void decided_by_angle(Stage& stage, long double difference);
/// Coefficients of the points are made of cosines, whose errors count so many times in a coordinate.
void count_angles(Point& out, long double times);

}  // namespace bragg::reference
