// SPDX-License-Identifier: Apache-2.0
#include "host/reference/angles.hpp"

#include <algorithm>
#include <cmath>

namespace bragg::reference {

bool has_direction(Stage& stage, const Point& point) {
  if (squared_distance(point, stage.origin) > 0) return true;
  // Of a mixed point that may be what rounding has left of a direction.
  if (stage.mixed && distance_terms(point, stage.origin) > 0) stage.margin = 0;
  return false;
}

long double cosine(const Stage& stage, const Point& a, const Point& b) {
  const Vector u = difference(a.value, stage.origin.value);
  const Vector v = difference(b.value, stage.origin.value);
  const long double lengths = std::sqrt(dot(u, u)) * std::sqrt(dot(v, v));
  return lengths > 0 ? std::clamp(dot(u, v) / lengths, -1.0L, 1.0L) : 0;
}

void decided_by_angle(Stage& stage, long double difference) {
  // Two points' products, of differences from o, are in doubt by at most twice their terms: so is the cosine,
  // as a share of their lengths, and by as much for these lengths. Of mixed points products may be taken
  // about any of the others.
  Vector lengths;
  Vector terms;
  for (const Point& point : stage.points) {
    if (point.infinite || !has_direction(stage, point)) continue;
    lengths.push_back(squared_distance(point, stage.origin));
    terms.push_back(distance_terms(point, stage.origin));
  }
  if (lengths.empty()) return;
  const long double most_terms = *std::max_element(terms.begin(), terms.end());
  const auto [shortest, longest] = std::minmax_element(lengths.begin(), lengths.end());
  long double worst = 1;
  for (std::size_t i = 0; i < lengths.size(); ++i)
    worst = std::max(worst, (stage.mixed ? most_terms : terms[i]) / lengths[i]);
  // Squares so far apart do not fit into float64 together: rows that are so short count as at o.
  if (*shortest < std::ldexp(*longest, -900)) stage.margin = 0;
  stage.decided(0, std::abs(difference), 4 * worst);
}

void count_angles(Point& out, long double times) {
  for (long double& x : out.magnitude) x *= times;
}

}  // namespace bragg::reference
