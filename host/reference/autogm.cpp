// SPDX-License-Identifier: Apache-2.0
// AutoGM, Li et al. 2022: weights and their geometric median in turn. Where this ends may depend on the way,
// so it is gone again with distances and weights as far off as those of a fast path may be.
#include <algorithm>
#include <cmath>
#include <random>

#include "host/reference/geometric_median.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

/// α_i = max(0, (η − r_i)/lam) of sum 1.
Vector weights_of(const Vector& r, long double lam) {
  Vector sorted = r;
  std::sort(sorted.begin(), sorted.end());
  long double sum = 0;  // of (r_i − r_0) over those that have some
  std::size_t k = 0;
  for (; k < sorted.size(); ++k) {
    const long double q = sorted[k] - sorted[0];
    if (static_cast<long double>(k) * q - sum >= lam) break;
    sum += q;
  }
  const auto count = static_cast<long double>(k);
  Vector alpha;
  for (const long double x : r)
    alpha.push_back(std::max(0.0L, 1 / count + (sum / count - (x - sorted[0])) / lam));
  return alpha;
}

/// The least distance to v within which more than half of the points are.
long double typical(const std::vector<Point>& points, const Point& v) {
  Vector r;
  for (const Point& point : points) r.push_back(distance(point, v));
  std::nth_element(r.begin(), r.begin() + static_cast<std::ptrdiff_t>(r.size() / 2), r.end());
  return r[r.size() / 2];
}

/// The medians, one after another, up to their limit.
struct Way {
  std::vector<Point> medians;
  bool settled = false;  ///< else the turns ran out
  long double rest = 0;  ///< from the last one to the limit
};

/// What the square of the point's distance from v may be off in a fast path.
long double unclear(const std::vector<Point>& points, const Point& point, const Point& v) {
  return 64 * 0x1p-53L * static_cast<long double>(points.size()) * std::pow(point.size + v.size, 2);
}

/// `off`: by how many times its error each point's distance is off, and its weight. `near`: a way not far
/// from it, or null.
Way go(const AutoGm& rule, const std::vector<Point>& points, const Point& start, const Vector& off,
       const Way* near, Stage& stage) {
  constexpr long double least_doubt = 1e-9L;  // of weights
  const std::size_t n = points.size();
  Way way;
  long double last = 0;
  for (int turn = 0; turn < rule.max_iters; ++turn) {
    const Point v = turn == 0 ? start : way.medians.back();
    Vector r;
    Vector doubt;
    for (std::size_t i = 0; i < n; ++i) {
      const long double apart = distance(points[i], v);
      const long double error = unclear(points, points[i], v);
      r.push_back(apart > 0 ? std::max(0.0L, apart + off[i] * std::min(std::sqrt(error), error / apart)) : 0);
      doubt.push_back(least_doubt + (apart > 0 ? std::min(0.1L, error / (apart * apart)) : 0));
    }
    Vector alpha = turn == 0 ? Vector(n, 1 / static_cast<long double>(n)) : weights_of(r, rule.lam);
    for (std::size_t i = 0; i < n; ++i) alpha[i] *= 1 + off[i] * doubt[i];
    const bool led = near != nullptr && way.medians.size() < near->medians.size();
    way.medians.push_back(weighted_median(points, alpha, led ? near->medians[way.medians.size()] : v, stage));
    const Point& next = way.medians.back();
    const long double moved = turn == 0 ? infinity : distance(next, v);
    const long double rest = moved < last ? moved * (moved / (last - moved)) : infinity;
    last = moved;
    const long double short_way = 1e-13L * typical(points, next);
    way.settled = moved <= 64 * std::numeric_limits<long double>::epsilon() * next.size;
    if (way.settled) break;
    if (moved > short_way || rest > short_way) continue;
    way.settled = true;
    way.rest = rest;
    break;
  }
  return way;
}

}  // namespace

template <>
Point apply(const AutoGm& rule, Stage& stage) {
  constexpr long double near = 1e-3L;  // ways that end within this share of the typical distance end as one
  std::vector<Point> points;
  for (const Point& point : stage.points) {
    if (!point.infinite) points.push_back(point);
  }
  const std::size_t n = points.size();
  if (2 * n <= stage.points.size()) throw Failed{Status::too_many_nonfinite};
  Vector sums;
  for (const Point& candidate : points) {
    sums.push_back(0);
    for (const Point& point : points) sums.back() += distance(candidate, point);
  }
  const Point& medoid =
      points[static_cast<std::size_t>(std::min_element(sums.begin(), sums.end()) - sums.begin())];
  const Way way = go(rule, points, medoid, Vector(n, 0), nullptr, stage);
  const Point& v = way.medians.back();
  const long double length = typical(points, v);
  std::mt19937_64 random(n);
  Vector off(n);
  for (long double& x : off)
    x = (random() % 2 == 0 ? 1 : -1) * std::uniform_real_distribution<double>(0.5, 1)(random);
  for (const bool other : {false, true}) {
    // Of a way that hardly chooses between two ends, these are on either side.
    if (other) std::transform(off.begin(), off.end(), off.begin(), std::negate<>());
    const Way another = go(rule, points, medoid, off, &way, stage);
    stage.reach = std::max(stage.reach, 4 * distance(another.medians.back(), v));
    // Between two medians that are as good, weights that follow from one may choose the other, and turn back
    // for ever.
    if (!way.settled || another.settled) continue;
    for (std::size_t turn = way.medians.size(); turn < another.medians.size(); ++turn)
      stage.reach = std::max(stage.reach, 4 * distance(another.medians[turn], v));
  }
  if (!(stage.reach <= near * length)) stage.margin = 0;
  stage.reach += way.rest + 8 * std::max<long double>(rule.tol, 1e-10L) * length;
  // Points that are no farther from v than this may count as one with it.
  long double merged = 0;
  for (const Point& point : points) {
    const long double within = 8 * std::sqrt(unclear(points, point, v));
    if (distance(point, v) <= within) merged = std::max(merged, within);
  }
  stage.reach += merged;
  return v;
}

}  // namespace bragg::reference
