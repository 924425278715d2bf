// SPDX-License-Identifier: Apache-2.0
// Covariance-bound agnostic filter, Allouah et al. 2025.
#include <algorithm>
#include <cmath>

#include "host/reference/eigen.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

constexpr long double eigenspace_gap = 1e-9L;
constexpr long double length_gap = 1e-12L;
/// Rows whose τ is the largest but for this share are as far as the furthest, and leave with it: the weight
/// of 1e-16 that rounding would leave one of two twins keeps it the furthest row all the same.
constexpr long double twin_gap = 1e-12L;
/// A weight that has shrunk below this is as good as none: what is left of it, down to nothing, is for
/// rounding.
constexpr long double faint = 1e-8L;

/// The mean and the top eigenspace of the covariance of points weighted by c.
struct Spread {
  Point mean;
  long double total = 0;  ///< Σc
  long double eigenvalue = 0;
  long double terms = 0;        ///< size of the terms that it comes from
  std::vector<Vector> top;      ///< orthonormal basis of the top eigenspace
  std::vector<Vector> centred;  ///< x_i − μ; empty where c_i = 0
};

Spread spread_of(Stage& stage, const Vector& c) {
  Spread out;
  for (const long double x : c) out.total += x;
  Vector share = c;
  for (long double& x : share) x /= out.total;
  out.mean = combination(stage.points, share);
  std::vector<Vector>
      scaled;  // rows √(c_i/Σc)·(x_i − μ): their inner products have the covariance's eigenvalues
  for (std::size_t i = 0; i < c.size(); ++i) {
    out.centred.emplace_back();
    if (c[i] == 0) continue;
    out.centred.back() = difference(stage.points[i].value, out.mean.value);
    scaled.push_back(out.centred.back());
    for (long double& x : scaled.back()) x *= std::sqrt(share[i]);
    out.terms += share[i] * stage.points[i].size * stage.points[i].size;
  }
  std::vector<Vector> gram;
  for (const Vector& a : scaled) {
    gram.emplace_back();
    for (const Vector& b : scaled) gram.back().push_back(dot(a, b));
  }
  const Eigen decomposition = eigen(gram);
  out.eigenvalue = decomposition.values.front();
  // Equal rows differ from their computed mean by rounding alone, which in a fast path decides their weights.
  // That matters where they differ in the rest.
  if (out.eigenvalue <= 1e-34L * out.terms) {
    out.eigenvalue = 0;
    if (!out.mean.rest.empty()) stage.margin = 0;
    return out;
  }
  for (std::size_t k = 0; k < decomposition.values.size(); ++k) {
    const long double value = decomposition.values[k];
    if (value < out.eigenvalue * (1 - eigenspace_gap)) {
      stage.decided(value, out.eigenvalue, out.terms);
      break;
    }
    Vector direction(out.mean.value.size(), 0);
    for (std::size_t i = 0; i < scaled.size(); ++i) {
      for (std::size_t j = 0; j < direction.size(); ++j)
        direction[j] += decomposition.vectors[k][i] * scaled[i][j];
    }
    const long double length = std::sqrt(dot(direction, direction));
    for (long double& x : direction) x /= length;
    out.top.push_back(direction);
  }
  return out;
}

/// τ_i = ⟨v, x_i − μ⟩², v the direction of the longest projection of a centred row onto the top eigenspace.
Vector squared_projections(Stage& stage, const Spread& spread) {
  std::vector<Vector> projection;  // per row, in the basis of the eigenspace
  long double longest = 0;
  for (const Vector& row : spread.centred) {
    projection.emplace_back();
    for (const Vector& direction : spread.top)
      projection.back().push_back(row.empty() ? 0 : dot(row, direction));
    longest = std::max(longest, dot(projection.back(), projection.back()));
  }
  // Lengths that are equal but for rounding tie: the lowest index wins.
  std::size_t axis = 0;
  while (dot(projection[axis], projection[axis]) < longest * (1 - length_gap)) ++axis;
  if (spread.top.size() > 1) {
    for (std::size_t i = 0; i < projection.size(); ++i) {
      if (spread.centred[i].empty() || spread.centred[i] == spread.centred[axis]) continue;
      const long double border = longest * (1 - length_gap);
      stage.decided(0, std::abs(dot(projection[i], projection[i]) - border), spread.terms);
    }
  }
  const long double length = std::sqrt(longest);
  Vector tau;
  for (const Vector& p : projection) {
    const long double along = dot(p, projection[axis]) / length;
    tau.push_back(along * along);
  }
  return tau;
}

}  // namespace

template <>
Point apply(const Caf& rule, Stage& stage) {
  tolerate_infinite(stage, rule.f);
  const auto n = static_cast<long double>(stage.n());
  Vector c;
  for (const Point& point : stage.points) c.push_back(point.infinite ? 0 : 1);
  std::vector<bool> faded(c.size(), false);
  const long double limit = n - 2 * rule.f + 1e-9L * n;
  long double sum;
  std::vector<Spread> seen;
  do {
    seen.push_back(spread_of(stage, c));
    if (seen.back().eigenvalue == 0) break;  // all that is left is equal
    const Vector tau = squared_projections(stage, seen.back());
    const long double largest =
        *std::max_element(tau.begin(), tau.end());  // rows of c = 0 have no projection
    sum = 0;
    for (std::size_t i = 0; i < c.size(); ++i) {
      const long double left = 1 - tau[i] / largest;
      c[i] = left > twin_gap ? c[i] * left : 0;
      faded[i] = faded[i] || (c[i] > 0 && c[i] < faint);
      sum += c[i];
    }
    stage.decided(0, std::abs(sum - limit), n);
  } while (sum > limit);

  const auto best = std::min_element(
      seen.begin(), seen.end(), [](const Spread& a, const Spread& b) { return a.eigenvalue < b.eigenvalue; });
  for (auto other = seen.begin(); other != seen.end(); ++other) {
    if (other != best)
      stage.decided(best->eigenvalue, other->eigenvalue, std::max(best->terms, other->terms));
  }
  Point out = best->mean;
  for (std::size_t i = 0; i < c.size(); ++i) {
    for (std::size_t k = 0; faded[i] && k < out.magnitude.size(); ++k)
      out.magnitude[k] += faint / best->total * stage.points[i].magnitude[k];
  }
  return out;
}

}  // namespace bragg::reference
