// SPDX-License-Identifier: Apache-2.0
#include "host/reference/points.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace bragg::reference {

int Stage::finite_count() const {
  return static_cast<int>(
      std::count_if(points.begin(), points.end(), [](const Point& p) { return !p.infinite; }));
}

void Stage::decided(long double taken, long double left, long double terms) {
  if (std::isinf(left) || terms == 0) return;  // nothing finite can be mistaken for infinite
  // The same numbers compared: each other's neighbours, or values so coarse that any arithmetic is exact.
  if (left == taken && !mixed) return;
  margin = std::min(margin, (left - taken) / std::max(terms, unseen));
}

void tolerate_infinite(const Stage& stage, int f) {
  if (stage.n() - stage.finite_count() > f) throw Failed{Status::too_many_nonfinite};
}

void need_finite(const Point& reference) {
  if (reference.infinite) throw Failed{Status::nonfinite_base};
}

const Point& trusted(const Stage& stage, int pivot) {
  const auto found = std::find_if(stage.points.begin(), stage.points.end(),
                                  [&](const Point& point) { return point.label == pivot; });
  if (found == stage.points.end()) throw std::invalid_argument("the pivot does not take part");
  return *found;
}

long double dot(const Vector& a, const Vector& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0L);
}

Vector difference(const Vector& a, const Vector& b) {
  Vector out(a.size());
  std::transform(a.begin(), a.end(), b.begin(), out.begin(), std::minus<>());
  return out;
}

long double squared_distance(const Point& a, const Point& b) {
  if (a.infinite || b.infinite) return infinity;
  long double sum = 0;
  for (std::size_t c = 0; c < a.value.size(); ++c) {
    const long double x = a.value[c] - b.value[c];
    sum += x * x;
  }
  return sum;
}

long double distance(const Point& a, const Point& b) { return std::sqrt(squared_distance(a, b)); }

long double distance_terms(const Point& a, const Point& b) {
  if (a.infinite || b.infinite) return infinity;
  return a.size * a.size + b.size * b.size;
}

void heed_cancellation(Stage& stage) {
  constexpr long double unclear = 0x1p24L;  // of squares
  if (!stage.mixed) return;
  // About the point that has the others nearest.
  Vector lengths;
  long double reach = infinity;
  for (const Point& centre : stage.points) {
    Vector around;
    for (const Point& point : stage.points) around.push_back(squared_distance(point, centre));
    Vector sorted = around;
    const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
    std::nth_element(sorted.begin(), middle, sorted.end());
    if (!lengths.empty() && !(*middle < reach)) continue;
    reach = *middle;
    lengths = std::move(around);
  }
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const Point& point = stage.points[i];
    if (!point.infinite && point.size * point.size > unclear * (reach + lengths[i])) stage.margin = 0;
  }
}

Point combination(const std::vector<Point>& points, const Vector& a) {
  Point out;
  out.value.assign(points.front().value.size(), 0);
  out.rest.assign(points.front().rest.size(), 0);
  out.magnitude.assign(out.coordinates(), 0);
  out.coefficients.assign(points.front().coefficients.size(), 0);
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (a[i] == 0) continue;
    out.size += std::abs(a[i]) * points[i].size;
    for (std::size_t c = 0; c < out.value.size(); ++c) out.value[c] += a[i] * points[i].value[c];
    for (std::size_t c = 0; c < out.rest.size(); ++c) out.rest[c] += a[i] * points[i].rest[c];
    for (std::size_t c = 0; c < out.magnitude.size(); ++c)
      out.magnitude[c] += std::abs(a[i]) * points[i].magnitude[c];
    for (std::size_t r = 0; r < out.coefficients.size(); ++r) {
      out.coefficients[r] += a[i] * points[i].coefficients[r];
    }
  }
  return out;
}

Point blend(const Point& a, const Point& b, long double t) { return combination({a, b}, {1 - t, t}); }

void count_difference(Point& out, const Point& a, long double share) {
  out.size += 2 * share * a.size;
  for (std::size_t c = 0; c < out.magnitude.size(); ++c)
    out.magnitude[c] += 2 * share * std::abs(a.coordinate(c));
}

long double clip_factor(long double length, long double bound) {
  if (!(length > bound)) return 1;
  const long double factor = bound / length;
  return factor < 0x1p-1000L ? 0 : factor;
}

void clip(const Stage& stage, Point& point, long double bound) {
  const long double factor = point.infinite ? 0 : clip_factor(distance(point, stage.origin), bound);
  if (factor == 1) return;
  Point clipped = blend(stage.origin, point, factor);
  count_difference(clipped, stage.origin, factor);
  clipped.weight = point.weight;
  clipped.label = point.label;
  point = clipped;
}

Point mean_of(const Stage& stage, const std::vector<int>& chosen) {
  Vector a(stage.points.size(), 0);
  for (const bool alike : {false, true}) {
    long double total = 0;
    for (const int i : chosen) {
      const Point& point = stage.points[i];
      a[i] = point.infinite ? 0 : alike || !stage.weighted ? 1 : point.weight;
      total += a[i];
    }
    if (total == 0) continue;
    for (long double& x : a) x /= total;
    break;
  }
  return combination(stage.points, a);
}

Point mean_of_first_finite(const Stage& stage, int k) {
  std::vector<int> chosen;
  for (int i = 0; i < stage.n() && static_cast<int>(chosen.size()) < k; ++i) {
    if (!stage.points[i].infinite) chosen.push_back(i);
  }
  return mean_of(stage, chosen);
}

namespace {

bool interchangeable(const Point& a, const Point& b) {
  if (a.infinite || b.infinite) return a.infinite && b.infinite;
  return a.weight == b.weight && a.value == b.value && a.rest == b.rest;
}

}  // namespace

std::vector<int> least(Stage& stage, const std::vector<int>& candidates, const Vector& score,
                       const Vector& terms, int keep) {
  std::vector<int> order(candidates.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return score[a] < score[b]; });
  for (std::size_t k = 0; k < order.size(); ++k) {
    for (std::size_t l = static_cast<std::size_t>(keep);
         k < static_cast<std::size_t>(keep) && l < order.size(); ++l) {
      const int taken = order[k];
      const int left = order[l];
      if (interchangeable(stage.points[candidates[taken]], stage.points[candidates[left]])) continue;
      stage.decided(score[taken], score[left], std::max(terms[taken], terms[left]));
    }
  }
  std::vector<int> out;
  for (int k = 0; k < keep; ++k) out.push_back(candidates[order[k]]);
  return out;
}

std::vector<int> least(Stage& stage, const Vector& score, const Vector& terms, int keep) {
  std::vector<int> all(stage.points.size());
  std::iota(all.begin(), all.end(), 0);
  return least(stage, all, score, terms, keep);
}

std::vector<int> nearest(Stage& stage, const Point& centre, int keep) {
  Vector score;
  Vector terms;
  for (const Point& point : stage.points) {
    score.push_back(squared_distance(centre, point));
    terms.push_back(distance_terms(centre, point));
  }
  return least(stage, score, terms, keep);
}

}  // namespace bragg::reference
