// SPDX-License-Identifier: Apache-2.0
// Points as vectors, and the few operations on them that the rules share.
#pragma once

#include <limits>
#include <vector>

#include "host/reference/oracle.hpp"

namespace bragg::reference {

inline constexpr long double infinity = std::numeric_limits<long double>::infinity();

/// A row, or what a pre-aggregator made of rows.
struct Point {
  Vector value;            ///< the coordinates that distances are about
  Vector rest;             ///< the others
  Vector magnitude;        ///< Σ|a_i||x_i| where value = Σ a_i x_i; then of the rest
  Vector coefficients;     ///< a_i of the input rows, in the caller's order
  long double size = 0;    ///< Σ|a_i|‖x_i‖
  long double weight = 1;  ///< client weight p
  bool infinite = false;   ///< infinitely far from every other point
  bool invalid = false;    ///< infinite because of its client weight
  int label = 0;           ///< the caller's index of the row; after bucketing the bucket's

  std::size_t coordinates() const { return value.size() + rest.size(); }
  /// Of the value, then of the rest.
  long double coordinate(std::size_t c) const { return c < value.size() ? value[c] : rest[c - value.size()]; }
};

/// The points that reach one stage of a pipeline.
struct Stage {
  std::vector<Point> points;
  bool weighted = false;
  bool mixed = false;           ///< a pre-aggregator has run
  Point origin;                 ///< o: the origin or the caller's reference
  std::vector<Point> previous;  ///< the previous output, or nothing
  std::uint64_t round = 0;
  long double margin = infinity;
  long double unseen = 0;  ///< squared distances below it may count as 0
  long double gap = 0;     ///< what the objective of the rule's result may be above its minimum
  long double reach = 0;   ///< as in Result

  int n() const { return static_cast<int>(points.size()); }
  int finite_count() const;
  /// Notes a decision for `taken` against `left`, both computed from terms of size `terms`.
  void decided(long double taken, long double left, long double terms);
};

/// Ends a run with a status: bad data, as opposed to bad arguments.
struct Failed {
  Status status;
};

/// @throws Failed too_many_nonfinite when more than f points are infinite.
void tolerate_infinite(const Stage& stage, int f);
/// @throws Failed nonfinite_base.
void need_finite(const Point& reference);

/// The point that the caller's row `pivot` has become.
/// @throws std::invalid_argument: it does not take part.
const Point& trusted(const Stage& stage, int pivot);

/// Notes that distances of a mixed point are no decision where huge rows cancelled in it: products leave the
/// rounding of those rows there, and another point may stand for it.
void heed_cancellation(Stage& stage);

long double dot(const Vector& a, const Vector& b);
Vector difference(const Vector& a, const Vector& b);
/// ‖a − b‖² and ‖a − b‖; +inf when either point is infinite.
long double squared_distance(const Point& a, const Point& b);
long double distance(const Point& a, const Point& b);
/// The size of the terms of ‖a − b‖² written as inner products.
long double distance_terms(const Point& a, const Point& b);

/// Σ a_i · points_i. A coefficient of 0 keeps its point out altogether.
Point combination(const std::vector<Point>& points, const Vector& a);
/// (1 − t)·a + t·b.
Point blend(const Point& a, const Point& b, long double t);
/// min(1, bound/length), 0 where it would be below 2^-1000.
long double clip_factor(long double length, long double bound);
/// o + (x − o)·clip_factor(‖x − o‖, bound); an infinite point becomes o.
void clip(const Stage& stage, Point& point, long double bound);
/// The coefficient of `a` in `out` is what `share` leaves of 1: both are terms of it, however small it is.
void count_difference(Point& out, const Point& a, long double share);
/// Mean, weighted where the stage is, of the finite ones among the chosen points; all alike when all weigh 0.
Point mean_of(const Stage& stage, const std::vector<int>& chosen);
/// The same of the k lowest-index finite points.
Point mean_of_first_finite(const Stage& stage, int k);

/// The `keep` indices of least score, ascending by (score, index). terms[i]: size of the terms of score[i].
/// `candidates`: which point each score belongs to.
std::vector<int> least(Stage& stage, const std::vector<int>& candidates, const Vector& score,
                       const Vector& terms, int keep);
/// The same for scores of all points.
std::vector<int> least(Stage& stage, const Vector& score, const Vector& terms, int keep);

/// The points nearest to `centre`, ascending by (distance, index).
std::vector<int> nearest(Stage& stage, const Point& centre, int keep);

}  // namespace bragg::reference
