// SPDX-License-Identifier: Apache-2.0
// Geometric median: Weiszfeld's iteration with the step of Vardi & Zhang 2000 at input rows. Asked to run to
// convergence, it goes on far beyond the rule's tolerance, with Newton steps and with searches along lines,
// until it stands for the argmin itself; what it may be off is in the result. With a floor on distances the
// argmin is Huber's.
#include <algorithm>
#include <cmath>
#include <optional>

#include "host/reference/geometric_median.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

/// Σ p_i ‖v − x_i‖ over the finite points of positive weight, distances floored at nu: below it a term is
/// r²/(2ν) + ν/2, of which the step is the same.
struct Problem {
  std::vector<Point> points;
  Vector p;
  long double nu = 0;

  bool smooth() const { return nu > 0; }

  long double pull(std::size_t i, long double distance) const { return p[i] / std::max(nu, distance); }
};

Vector distances(const Problem& problem, const Point& v) {
  Vector out;
  for (const Point& point : problem.points) out.push_back(distance(point, v));
  return out;
}

/// Σ p_i (x_i − v)/max(ν, ‖x_i − v‖) over the points away from v: minus the gradient.
Vector resultant(const Problem& problem, const Point& v, const Vector& length) {
  Vector out(v.value.size(), 0);
  for (std::size_t i = 0; i < length.size(); ++i) {
    if (length[i] == 0) continue;
    for (std::size_t c = 0; c < out.size(); ++c) {
      out[c] += problem.pull(i, length[i]) * (problem.points[i].value[c] - v.value[c]);
    }
  }
  return out;
}

long double weight_at(const Problem& problem, const Vector& length) {
  long double weight = 0;
  for (std::size_t i = 0; i < length.size(); ++i) weight += length[i] == 0 ? problem.p[i] : 0;
  return weight;
}

/// The next iterate; nothing when v is an input row that is optimal.
std::optional<Point> step(const Problem& problem, const Point& v) {
  const Vector length = distances(problem, v);
  const bool smooth = problem.nu > 0;  // then every weight is finite, and v is moved by all rows alike
  Vector a;
  long double total = 0;
  for (std::size_t i = 0; i < length.size(); ++i) {
    a.push_back(length[i] == 0 && !smooth ? 0 : problem.pull(i, length[i]));
    total += a.back();
  }
  const long double here = smooth ? 0 : weight_at(problem, length);
  long double stay = 0;
  if (here > 0) {
    const Vector r = resultant(problem, v, length);
    const long double pull = std::sqrt(dot(r, r));
    // Two rows pull with exactly 1 at each other: equality must survive rounding.
    if (pull <= here * (1 + 1e-18L)) return std::nullopt;
    stay = here / pull;
  }
  for (long double& x : a) x /= total;
  return blend(combination(problem.points, a), v, stay);
}

/// The weighted lower median of the distances to v: the scale that `tol` refers to.
long double typical_distance(const Problem& problem, const Point& v) {
  const Vector length = distances(problem, v);
  std::vector<std::pair<long double, long double>> sorted;
  long double total = 0;
  for (std::size_t i = 0; i < length.size(); ++i) {
    sorted.emplace_back(length[i], problem.p[i]);
    total += problem.p[i];
  }
  std::sort(sorted.begin(), sorted.end());
  long double below = 0;
  for (const auto& [distance, weight] : sorted) {
    below += weight;
    if (2 * below >= total) return distance;
  }
  return sorted.back().first;
}

/// The input row that is the one and only argmin, if there is one.
const Point* strict_optimum(const Problem& problem) {
  for (const Point& point : problem.points) {
    const Vector length = distances(problem, point);
    const Vector r = resultant(problem, point, length);
    if (std::sqrt(dot(r, r)) < weight_at(problem, length) * (1 - 1e-15L)) return &point;
  }
  return nullptr;
}

/// Solves A y = b for symmetric positive definite A by Gaussian elimination; nothing when A is singular to
/// rounding.
std::optional<Vector> solve(std::vector<Vector> a, Vector b, long double size) {
  const std::size_t n = b.size();
  for (std::size_t k = 0; k < n; ++k) {
    if (!(a[k][k] > 1e-14L * size)) return std::nullopt;
    for (std::size_t i = k + 1; i < n; ++i) {
      const long double factor = a[i][k] / a[k][k];
      for (std::size_t j = k; j < n; ++j) a[i][j] -= factor * a[k][j];
      b[i] -= factor * b[k];
    }
  }
  for (std::size_t k = n; k-- > 0;) {
    for (std::size_t j = k + 1; j < n; ++j) b[k] -= a[k][j] * b[j];
    b[k] /= a[k][k];
  }
  return b;
}

/// v − H⁻¹∇ where there is a gradient; a term below the floor has no u_i, for it bends alike in all
/// directions. With units u_i = (x_i − v)/‖x_i − v‖, w_i = p_i/‖x_i
/// − v‖ and U = [√w_i u_i]: H = WI − UUᵀ, W = Σw_i, hence H⁻¹ = (I + U(WI − UᵀU)⁻¹Uᵀ)/W. Nothing for
/// collinear points.
std::optional<Point> newton_step(const Problem& problem, const Point& v) {
  const Vector length = distances(problem, v);
  long double w_total = 0;
  std::vector<Vector> u;
  for (std::size_t i = 0; i < length.size(); ++i) {
    if (length[i] == 0 && !problem.smooth()) return std::nullopt;
    const long double w = problem.pull(i, length[i]);
    w_total += w;
    if (length[i] <= problem.nu) continue;
    u.push_back(difference(problem.points[i].value, v.value));
    for (long double& x : u.back()) x *= std::sqrt(w) / length[i];
  }
  const Vector r = resultant(problem, v, length);
  std::vector<Vector> inner(u.size());
  Vector right;
  for (std::size_t i = 0; i < u.size(); ++i) {
    for (std::size_t j = 0; j < u.size(); ++j) inner[i].push_back((i == j ? w_total : 0) - dot(u[i], u[j]));
    right.push_back(dot(u[i], r));
  }
  const std::optional<Vector> y = solve(inner, right, w_total);
  if (!y) return std::nullopt;
  Point next = v;
  for (std::size_t c = 0; c < next.value.size(); ++c) {
    long double move = r[c];
    for (std::size_t i = 0; i < u.size(); ++i) move += u[i][c] * (*y)[i];
    next.value[c] += move / w_total;
  }
  return next;
}

/// ‖∇‖ at v; infinite at an input row, where there is none.
long double slope(const Problem& problem, const Point& v) {
  const Vector length = distances(problem, v);
  if (!problem.smooth() && weight_at(problem, length) > 0) return infinity;
  const Vector r = resultant(problem, v, length);
  return std::sqrt(dot(r, r));
}

/// The largest distance that pulls depend on: a pull of no more than it is off by a share of it.
long double reach(const Problem& problem, const Point& v) {
  if (!problem.smooth()) return 0;
  long double farthest = 0;
  for (const long double length : distances(problem, v)) farthest = std::max(farthest, length);
  return std::min(problem.nu, farthest);
}

/// Goes on from v until steps are too short to tell.
Point polish(const Problem& problem, Point v) {
  int pause = 1;  // Newton's steps take long, and where they do not help they seldom do a little later
  int next_try = 0;
  for (int iteration = 0; iteration < 100000; ++iteration) {
    for (bool helped = false; iteration >= next_try; helped = true) {
      const std::optional<Point> next = newton_step(problem, v);
      if (!next || !(slope(problem, *next) < slope(problem, v) / 2)) {
        pause = helped ? 1 : std::min(2 * pause, 1024);
        next_try = iteration + pause;
        break;
      }
      v = *next;
    }
    std::optional<Point> next = step(problem, v);
    if (!next) return v;
    // Where all points are one, a step is the rounding of its sum.
    const auto terms = problem.smooth() ? static_cast<long double>(problem.points.size()) : 1;
    const long double rounding =
        8 * std::numeric_limits<long double>::epsilon() * terms * (v.size + reach(problem, v));
    const bool settled = distance(*next, v) <= 1e-16L * typical_distance(problem, v) + rounding;
    v = std::move(*next);  // a Weiszfeld step last: it gives v its coefficients
    if (settled) break;
  }
  return v;
}

/// The points in the order of their distance to v, and what follows from the k nearest taken as one point.
struct Surroundings {
  std::vector<std::size_t> order;
  Vector length;             ///< in that order
  std::vector<Vector> pull;  ///< [k] Σ p_i (x_i − v)/max(ν, ‖x_i − v‖) over all but the k nearest
  Vector weight;             ///< [k] of the k nearest
  Vector moment;             ///< [k] their Σ p_i ‖x_i − v‖
  long double farthest = infinity;  ///< the argmin is not farther from v
  long double middle = infinity;    ///< more than half of the weight is within it
  long double gap = infinity;       ///< Σ p_i ‖x_i − v‖ is at most this above its minimum
};

Surroundings surroundings(const Problem& problem, const Point& v) {
  const std::size_t n = problem.points.size();
  const Vector length = distances(problem, v);
  Surroundings s;
  s.order.resize(n);
  for (std::size_t i = 0; i < n; ++i) s.order[i] = i;
  std::sort(s.order.begin(), s.order.end(),
            [&](std::size_t a, std::size_t b) { return length[a] < length[b]; });
  for (const std::size_t i : s.order) s.length.push_back(length[i]);
  s.weight.assign(n + 1, 0);
  s.moment.assign(n + 1, 0);
  for (std::size_t k = 0; k < n; ++k) {
    const long double p = problem.p[s.order[k]];
    s.weight[k + 1] = s.weight[k] + p;
    s.moment[k + 1] = s.moment[k] + p * s.length[k];
  }
  s.pull.assign(n + 1, Vector(v.value.size(), 0));
  for (std::size_t k = n; k-- > 0;) {
    s.pull[k] = s.pull[k + 1];
    if (s.length[k] == 0) continue;
    const Vector y = difference(problem.points[s.order[k]].value, v.value);
    const long double scale = problem.pull(s.order[k], s.length[k]);
    for (std::size_t c = 0; c < y.size(); ++c) s.pull[k][c] += scale * y[c];
  }
  // Beyond `farthest` the points of a majority alone add more than all others can take away. (With a floor a
  // term is up to half of it less than a distance.)
  for (std::size_t k = 1; k <= n; ++k) {
    const long double lead = 2 * s.weight[k] - s.weight[n];
    if (lead <= 1e-15L * s.weight[n]) continue;
    s.farthest = std::min(s.farthest, (2 * s.moment[k] + s.weight[k] * problem.nu / 2) / lead);
    s.middle = std::min(s.middle, s.length[k - 1]);
  }
  for (std::size_t k = 0; k < n; ++k) {
    const long double excess = std::sqrt(dot(s.pull[k], s.pull[k])) - s.weight[k];
    const long double floors = s.weight[k] * problem.nu / 2;  // a term is at most so much above a distance
    s.gap = std::min(s.gap, 2 * s.moment[k] + floors + std::max(excess, 0.0L) * s.farthest);
  }
  return s;
}

/// The objective at a less that at b, point by point: a huge one swallows nothing.
long double objective_change(const Problem& problem, const Vector& a, const Vector& b) {
  long double total = 0;
  for (std::size_t i = 0; i < problem.points.size(); ++i) {
    const Vector to_a = difference(problem.points[i].value, a);
    const Vector to_b = difference(problem.points[i].value, b);
    const long double from_a = std::sqrt(dot(to_a, to_a));
    const long double from_b = std::sqrt(dot(to_b, to_b));
    const long double lengths = std::max(problem.nu, from_a) + std::max(problem.nu, from_b);
    if (lengths == 0) continue;
    long double squares = 0;  // their difference
    for (std::size_t c = 0; c < a.size(); ++c) squares += (b[c] - a[c]) * (to_a[c] + to_b[c]);
    const auto [inner, outer] = std::minmax(from_a, from_b);
    long double change = squares / lengths;
    if (inner < problem.nu && problem.nu < outer) {
      change = (outer - problem.nu) + (problem.nu - inner) * (problem.nu + inner) / (2 * problem.nu);
      if (from_a < from_b) change = -change;
    }
    total += problem.p[i] * change;
  }
  return total;
}

/// The least of the objective on the ray from v along the unit vector `direction`, to `most`.
Vector least_on_ray(const Problem& problem, const Vector& v, const Vector& direction, long double most) {
  const auto at = [&](long double t) {
    Vector out = v;
    for (std::size_t c = 0; c < v.size(); ++c) out[c] += t * direction[c];
    return out;
  };
  long double low = 0;
  long double high = most;
  for (int k = 0; k < 80; ++k) {
    const long double t = (low + high) / 2;
    const Vector here = at(t);
    long double rise = 0;
    for (std::size_t i = 0; i < problem.points.size(); ++i) {
      const Vector y = difference(here, problem.points[i].value);
      const long double length = std::sqrt(dot(y, y));
      if (length > 0) rise += problem.pull(i, length) * dot(y, direction);
    }
    (rise < 0 ? low : high) = t;
  }
  return at(low);
}

/// Where the k nearest points, as one, do not hold v against the pull of the others: the best of the rays
/// along those pulls, over k. Steps of Weiszfeld's or Newton's from among them are as short as they are near.
/// Nothing when no ray leads down.
std::optional<Point> leave_cluster(const Problem& problem, const Point& v, const Surroundings& s) {
  std::optional<Point> best;
  long double most = 0;
  for (std::size_t k = 0; k < s.order.size(); ++k) {
    const long double pull = std::sqrt(dot(s.pull[k], s.pull[k]));
    if (!(pull > s.weight[k])) continue;
    Vector direction = s.pull[k];
    for (long double& x : direction) x /= pull;
    Point next = v;
    next.value = least_on_ray(problem, v.value, direction, s.farthest);
    const long double change = objective_change(problem, next.value, v.value);
    if (!(change < most)) continue;
    most = change;
    best = std::move(next);
  }
  return best;
}

/// The row of least Σ p_j ‖x_i − x_j‖, ties to the lowest index.
Point medoid_of(const Problem& problem, Stage& stage) {
  Vector sums;
  Vector terms;
  for (const Point& candidate : problem.points) {
    const Vector length = distances(problem, candidate);
    sums.push_back(0);
    terms.push_back(0);
    for (std::size_t i = 0; i < length.size(); ++i) {
      sums.back() += problem.p[i] * length[i];
      if (length[i] > 0)
        terms.back() += problem.p[i] * distance_terms(candidate, problem.points[i]) / length[i];
    }
  }
  const auto best = static_cast<std::size_t>(std::min_element(sums.begin(), sums.end()) - sums.begin());
  for (std::size_t i = 0; i < sums.size(); ++i) {
    if (problem.points[i].value == problem.points[best].value) continue;
    stage.decided(sums[best], sums[i], std::max(terms[best], terms[i]));
  }
  return problem.points[best];
}

Point start_of(GeometricMedian::Start start, const Problem& problem, Stage& stage) {
  if (start == GeometricMedian::Start::origin) return stage.origin;
  if (start == GeometricMedian::Start::mean) {
    long double total = 0;
    for (const long double p : problem.p) total += p;
    Vector share = problem.p;
    for (long double& x : share) x /= total;
    return combination(problem.points, share);
  }
  return medoid_of(problem, stage);
}

/// On from v to the argmin. The stage keeps how far off it may be; where that is too much, the result decides
/// nothing.
Point minimize(const Problem& problem, Point v, Stage& stage) {
  constexpr int most_rounds = 50;
  long double relative = infinity;
  for (int round = 0; round < most_rounds; ++round) {
    v = polish(problem, std::move(v));
    const Surroundings s = surroundings(problem, v);
    // Where rows beyond the floor pull, no length is known to less than a share of it.
    const long double length = std::max(s.middle, 0x1p-20L * reach(problem, v));
    const long double term = !problem.smooth()      ? s.middle
                             : length <= problem.nu ? length * length / (2 * problem.nu)
                                                    : length - problem.nu / 2;
    const long double scale = s.weight.back() * term;
    const long double before = relative;
    relative = s.gap > 0 ? s.gap / scale : 0;
    stage.gap = s.gap;
    if (relative <= 1e-13L) break;
    if (problem.smooth() && !(relative < before / 2)) break;  // all that is left is rounding
    std::optional<Point> next = leave_cluster(problem, v, s);
    if (!next && !problem.smooth()) break;
    if (next) v = std::move(*next);
  }
  if (!(relative <= 1e-10L)) stage.margin = 0;
  return v;
}

}  // namespace

Point minimiser(const SumOfDistances& rule, Stage& stage) {
  if (rule.start == GeometricMedian::Start::origin) need_finite(stage.origin);
  Problem problem;
  problem.nu = rule.floor;
  long double lost = 0;
  long double kept = 0;
  for (const Point& point : stage.points) {
    const long double p = stage.weighted ? point.weight : 1;
    (point.infinite ? lost : kept) += p;
    if (point.infinite || p == 0) continue;
    problem.points.push_back(point);
    problem.p.push_back(p);
  }
  if (lost >= kept) throw Failed{Status::too_many_nonfinite};

  if (rule.to_convergence && !problem.smooth()) {
    if (const Point* row = strict_optimum(problem)) return *row;
  }
  Point v = start_of(rule.start, problem, stage);
  if (rule.to_convergence && rule.start != GeometricMedian::Start::medoid) {
    // The medoid is the start where the one given is far from it.
    Stage aside = stage;
    const Point medoid = medoid_of(problem, aside);
    if (distance(v, medoid) > 4 * surroundings(problem, medoid).middle) v = medoid;
  }
  for (int iteration = 0; iteration < rule.max_iters; ++iteration) {
    std::optional<Point> next = step(problem, v);
    if (!next) return v;
    const bool settled = distance(*next, v) <= rule.tol * typical_distance(problem, v);
    v = std::move(*next);
    if (settled) break;
  }
  return rule.to_convergence ? minimize(problem, std::move(v), stage) : v;
}

Point weighted_median(const std::vector<Point>& points, const Vector& weight, const Point& start,
                      Stage& stage) {
  Problem problem;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (weight[i] == 0) continue;
    problem.points.push_back(points[i]);
    problem.p.push_back(weight[i]);
  }
  const Point* const row = strict_optimum(problem);
  return row != nullptr ? *row : minimize(problem, start, stage);
}

template <>
Point apply(const GeometricMedian& rule, Stage& stage) {
  return minimiser({.floor = rule.nu,
                    .to_convergence = rule.max_iters >= 100 && rule.nu == 0,
                    .max_iters = rule.max_iters,
                    .tol = rule.tol,
                    .start = rule.start},
                   stage);
}

}  // namespace bragg::reference
