// SPDX-License-Identifier: Apache-2.0
// Allouah et al. 2023 for trimmed_mean, median, krum, multi_krum, geometric_median, nnm and smea. A bound for
// all subsets of n−F honest rows holds for any larger set of them, too: its mean is the mean of the subsets'
// means, and its spread is no less than theirs on average.
#include "host/audit/kappa.hpp"

#include <cstddef>
#include <variant>

namespace bragg::detail {

namespace {

/// What the last rule says of f bad rows of n.
std::optional<double> kappa_of_rule(const Aggregator& rule, int n, int f) {
  const double r = static_cast<double>(f) / (n - 2 * f);
  const auto is_default = [n](const auto& score) {
    return !score.neighbors || *score.neighbors == n - score.f - 2;
  };
  if (const auto* const trimmed = std::get_if<TrimmedMean>(&rule))
    return trimmed->f == f ? std::optional(6 * r * (1 + r)) : std::nullopt;
  if (const auto* const one = std::get_if<Krum>(&rule))
    return one->f == f && is_default(*one) ? std::optional(6 * (1 + r)) : std::nullopt;
  if (const auto* const many = std::get_if<MultiKrum>(&rule)) {
    return many->f == f && is_default(*many) && many->m.value_or(n - f) <= n - f ? std::optional(6 * (1 + r))
                                                                                 : std::nullopt;
  }
  if (const auto* const smea = std::get_if<Smea>(&rule))
    return smea->f == f ? std::optional(4 * r) : std::nullopt;
  if (std::holds_alternative<Median>(rule)) {
    // The midpoint is the mean of the lower and the upper median, of which each is as good.
    return 4 * (1 + r) * (1 + r);
  }
  if (const auto* const median = std::get_if<GeometricMedian>(&rule)) {
    const GeometricMedian plain;
    const bool converges =
        median->nu == 0 && median->max_iters >= plain.max_iters && median->tol <= plain.tol;
    return converges ? std::optional(4 * (1 + r) * (1 + r)) : std::nullopt;
  }
  return std::nullopt;
}

/// The F that a rule is told; none: it takes none.
std::optional<int> told(const Aggregator& rule) {
  return std::visit(
      [](const auto& r) -> std::optional<int> {
        if constexpr (requires { r.f; }) return r.f;
        return std::nullopt;
      },
      rule);
}

}  // namespace

std::optional<double> kappa_of(const Pipeline& pipeline, int n, int f) {
  // Every stage must be for the same number of bad rows, and for as many as there are.
  std::optional<int> all = told(pipeline.rule);
  for (const PreAggregator& stage : pipeline.pre) {
    const auto* const nnm = std::get_if<Nnm>(&stage);
    if (nnm == nullptr || (all && *all != nnm->f)) return std::nullopt;
    all = nnm->f;
  }
  const int bad = all.value_or(f);
  if (bad < f || 2 * bad >= n) return std::nullopt;
  std::optional<double> kappa = kappa_of_rule(pipeline.rule, n, bad);
  for (std::size_t k = 0; kappa && k < pipeline.pre.size(); ++k)
    *kappa = 8.0 * bad / (n - bad) * (*kappa + 1);
  return kappa;
}

}  // namespace bragg::detail
