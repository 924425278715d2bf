// SPDX-License-Identifier: Apache-2.0
// Attacks that are as strong as the honest rows, or the rule, let them be.
#include <bragg/attacks.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include "host/attacks/honest.hpp"

namespace bragg {
inline namespace v0 {
namespace attacks {

using detail::dot, detail::Frame, detail::squared_distance, detail::Vector;

namespace {

/// p in the frame's coordinates.
Vector vector_of(const Frame& frame, Direction direction) {
  Vector p = direction == Direction::unit   ? frame.mean
             : direction == Direction::sign ? frame.sign
                                            : frame.deviation;
  const double length = direction == Direction::unit ? std::sqrt(dot(p, p)) : 1;
  for (double& x : p) x = length > 0 ? -x / length : 0;
  return p;
}

/// μ + strength · p.
template <class T>
Found<T> found(const Frame& frame, Direction direction, double strength) {
  const Moments& honest = frame.moments;
  const double length = std::sqrt(dot(frame.mean, frame.mean));
  Found<T> result{std::vector<T>(honest.mean.size()), strength};
  for (std::size_t k = 0; k < result.row.size(); ++k) {
    const double mean = honest.mean[k];
    const double p = direction == Direction::std    ? -honest.deviation[k]
                     : direction == Direction::sign ? -((mean > 0) - (mean < 0))
                     : length > 0                   ? -mean / length
                                                    : 0;
    result.row[k] = static_cast<T>(mean + strength * p);
  }
  return result;
}

/// The largest γ with aγ² − 2bγ ≤ c, for a > 0 and c ≥ 0; neither branch subtracts what is nearly equal.
double largest_root(double a, double b, double c) {
  const double root = std::sqrt(b * b + a * std::max(c, 0.0));
  return b >= 0 ? (b + root) / a : std::max(c, 0.0) / (root - b);
}

}  // namespace

template <class T>
Found<T> min_max(const Updates& honest, Direction direction) {
  const Frame frame = detail::frame_of(honest);
  const std::vector<Vector>& rows = frame.deviations;
  const Vector p = vector_of(frame, direction);
  double diameter = 0;
  for (const Vector& row : rows) {
    for (const Vector& other : rows) diameter = std::max(diameter, squared_distance(row, other));
  }
  const double a = dot(p, p);
  double gamma = a > 0 ? std::numeric_limits<double>::infinity() : 0;
  if (a > 0) {
    for (const Vector& row : rows)
      gamma = std::min(gamma, largest_root(a, dot(p, row), diameter - dot(row, row)));
  }
  return found<T>(frame, direction, gamma);
}

template <class T>
Found<T> min_sum(const Updates& honest, Direction direction) {
  const Frame frame = detail::frame_of(honest);
  const std::vector<Vector>& rows = frame.deviations;
  const Vector p = vector_of(frame, direction);
  double greatest = 0, squares = 0, products = 0;
  for (const Vector& row : rows) {
    double sum = 0;
    for (const Vector& other : rows) sum += squared_distance(row, other);
    greatest = std::max(greatest, sum);
    squares += dot(row, row);
    products += dot(p, row);
  }
  const double a = static_cast<double>(rows.size()) * dot(p, p);
  return found<T>(frame, direction, a > 0 ? largest_root(a, products, greatest - squares) : 0);
}

#define BRAGG_DEFINE_ATTACKS(T)                            \
  template Found<T> min_max<T>(const Updates&, Direction); \
  template Found<T> min_sum<T>(const Updates&, Direction)
BRAGG_DEFINE_ATTACKS(float);
BRAGG_DEFINE_ATTACKS(double);

}  // namespace attacks
}  // namespace v0
}  // namespace bragg
