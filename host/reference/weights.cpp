// SPDX-License-Identifier: Apache-2.0
// Client weights. p = 0 removes the row; a negative or non-finite p marks the row infinite and counts as 0.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

/// p_i ← min(p_i, s·Σp), repeated until it holds.
void cap(Vector& p, long double share) {
  const auto positive = std::count_if(p.begin(), p.end(), [](long double x) { return x > 0; });
  if (positive == 0) return;
  // With less than one share a head the only fixed point is p = 0. A share given as the double 1/n is meant
  // to pass.
  if (!(share > 0) || static_cast<long double>(positive) * share < 1 - 1e-12L) {
    throw std::invalid_argument("max_weight_share is below 1/n");
  }
  share = std::max(share, 1 / static_cast<long double>(positive));
  // So is any 1/k, for k equal weights beside some that hardly count.
  const long double whole = 1 / std::round(1 / share);
  if (std::abs(share - whole) < 1e-12L * whole) share = whole;
  for (;;) {
    const long double bound = share * std::accumulate(p.begin(), p.end(), 0.0L);
    if (std::none_of(p.begin(), p.end(), [&](long double x) { return x > bound * (1 + 1e-18L); })) return;
    for (long double& x : p) x = std::min(x, bound);
  }
}

}  // namespace

ClientWeights client_weights(const Input& input) {
  const std::size_t n = input.rows.size();
  ClientWeights out;
  if (input.weights.empty()) {
    out.active.resize(n);
    std::iota(out.active.begin(), out.active.end(), 0);
    out.weight.assign(n, 1);
    out.invalid.assign(n, false);
    return out;
  }
  if (input.weights.size() != n) throw std::invalid_argument("weights must be n numbers or none");
  for (std::size_t i = 0; i < n; ++i) {
    const double p = input.weights[i];
    if (p == 0) continue;
    const bool invalid = !std::isfinite(p) || p < 0;
    out.active.push_back(static_cast<int>(i));
    out.weight.push_back(invalid ? 0 : p);
    out.invalid.push_back(invalid);
  }
  if (input.max_weight_share != 0) cap(out.weight, input.max_weight_share);
  return out;
}

}  // namespace bragg::reference
