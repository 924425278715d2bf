// SPDX-License-Identifier: Apache-2.0
// Smallest maximum eigenvalue averaging, Allouah et al. 2023: every (n−f)-subset is looked at.
#include <algorithm>

#include "host/reference/eigen.hpp"
#include "host/reference/rules.hpp"
#include "host/reference/subsets.hpp"

namespace bragg::reference {

namespace {

/// Of the covariance (1/m) Σ (x_i − μ)(x_i − μ)ᵀ, by the matrix of inner products, which has the same
/// eigenvalues.
long double top_eigenvalue(const Stage& stage, const std::vector<int>& subset) {
  const Point mean = mean_of(stage, subset);
  std::vector<Vector> centred;
  for (const int i : subset) centred.push_back(difference(stage.points[i].value, mean.value));
  std::vector<Vector> gram;
  for (const Vector& a : centred) {
    gram.emplace_back();
    for (const Vector& b : centred)
      gram.back().push_back(dot(a, b) / static_cast<long double>(subset.size()));
  }
  return eigen(gram).values.front();
}

/// The subset's points as a sorted list of vectors: equal lists have equal means.
std::vector<Vector> content(const Stage& stage, const std::vector<int>& subset) {
  std::vector<Vector> out;
  for (const int i : subset) {
    out.push_back(stage.points[i].value);
    out.back().insert(out.back().end(), stage.points[i].rest.begin(), stage.points[i].rest.end());
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

template <>
Point apply(const Smea& rule, Stage& stage) {
  tolerate_infinite(stage, rule.f);
  struct Candidate {
    std::vector<int> subset;
    long double eigenvalue;
  };
  std::vector<Candidate> candidates;
  for_each_subset(stage.n(), stage.n() - rule.f, [&](const std::vector<int>& subset) {
    if (std::any_of(subset.begin(), subset.end(), [&](int i) { return stage.points[i].infinite; })) return;
    candidates.push_back({subset, top_eigenvalue(stage, subset)});
  });
  // A tie is what differs by the rounding of Jacobi's method only.
  const Candidate* best = &candidates.front();
  for (const Candidate& candidate : candidates) {
    if (candidate.eigenvalue < best->eigenvalue * (1 - 1e-16L)) best = &candidate;
  }
  const auto terms_of = [&](const std::vector<int>& subset) {
    long double terms = 0;
    for (const int i : subset) terms += stage.points[i].size * stage.points[i].size;
    return terms / static_cast<long double>(subset.size());
  };
  const std::vector<Vector> best_content = content(stage, best->subset);
  const long double best_terms = terms_of(best->subset);
  for (const Candidate& candidate : candidates) {
    if (&candidate == best || content(stage, candidate.subset) == best_content) continue;
    stage.decided(best->eigenvalue, candidate.eigenvalue, std::max(best_terms, terms_of(candidate.subset)));
  }
  return mean_of(stage, best->subset);
}

}  // namespace bragg::reference
