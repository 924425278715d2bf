// SPDX-License-Identifier: Apache-2.0
// Geometric median: Weiszfeld's iteration with the step of Vardi & Zhang 2000 at input rows. Asked to run to
// convergence, it goes on far beyond the rule's tolerance, with Newton steps, so that it stands for the
// argmin itself.
#include <algorithm>
#include <cmath>
#include <optional>

#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

/// Σ p_i ‖v − x_i‖ over the finite points of positive weight, distances floored at nu.
struct Problem {
  std::vector<Point> points;
  Vector p;
  long double nu = 0;

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

/// v − H⁻¹∇ where no distance is at or below the floor. With units u_i = (x_i − v)/‖x_i − v‖, w_i = p_i/‖x_i
/// − v‖ and U = [√w_i u_i]: H = WI − UUᵀ, W = Σw_i, hence H⁻¹ = (I + U(WI − UᵀU)⁻¹Uᵀ)/W. Nothing for
/// collinear points.
std::optional<Point> newton_step(const Problem& problem, const Point& v) {
  const Vector length = distances(problem, v);
  long double w_total = 0;
  std::vector<Vector> u;
  for (std::size_t i = 0; i < length.size(); ++i) {
    if (length[i] <= problem.nu) return std::nullopt;
    const long double w = problem.p[i] / length[i];
    w_total += w;
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
  if (weight_at(problem, length) > 0) return infinity;
  const Vector r = resultant(problem, v, length);
  return std::sqrt(dot(r, r));
}

/// Goes on from v until nothing moves any more.
Point polish(const Problem& problem, Point v) {
  for (int iteration = 0; iteration < 100000; ++iteration) {
    for (;;) {
      const std::optional<Point> next = newton_step(problem, v);
      if (!next || !(slope(problem, *next) < slope(problem, v) / 2)) break;
      v = *next;
    }
    std::optional<Point> next = step(problem, v);
    if (!next) return v;
    const long double rounding = 8 * std::numeric_limits<long double>::epsilon() * v.size;
    const bool settled = distance(*next, v) <= 1e-16L * typical_distance(problem, v) + rounding;
    v = std::move(*next);  // a Weiszfeld step last: it gives v its coefficients
    if (settled) break;
  }
  return v;
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

Point start_of(Start start, const Problem& problem, Stage& stage) {
  if (start == Start::origin) {
    need_finite(stage.origin);
    return stage.origin;
  }
  if (start == Start::mean) {
    long double total = 0;
    for (const long double p : problem.p) total += p;
    Vector share = problem.p;
    for (long double& x : share) x /= total;
    return combination(problem.points, share);
  }
  return medoid_of(problem, stage);
}

}  // namespace

Point apply(const GeometricMedian& rule, Stage& stage) {
  Problem problem;
  problem.nu = rule.nu;
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

  const bool to_convergence = rule.max_iters >= 100 && rule.tol <= 1e-8;
  if (to_convergence && rule.nu == 0) {
    if (const Point* row = strict_optimum(problem)) {
      if (rule.start == Start::origin) need_finite(stage.origin);
      return *row;
    }
  }
  Point v = start_of(rule.start, problem, stage);
  for (int iteration = 0; iteration < rule.max_iters; ++iteration) {
    std::optional<Point> next = step(problem, v);
    if (!next) return v;
    const bool settled = distance(*next, v) <= rule.tol * typical_distance(problem, v);
    v = std::move(*next);
    if (settled) break;
  }
  return to_convergence ? polish(problem, v) : v;
}

}  // namespace bragg::reference
