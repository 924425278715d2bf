// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "host/pipeline/engine.hpp"

namespace bragg::detail {

namespace {

/// p_i ← min(p_i, share·Σp) repeated until it holds, in one go: the fixed point caps the k largest at one
/// value.
void cap_shares(std::vector<double>& weights, double share, const std::vector<std::uint8_t>& invalid) {
  std::vector<double> sorted;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!invalid[i]) sorted.push_back(weights[i]);
  }
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  if (share * static_cast<double>(sorted.size()) < 1 - 1e-12) {
    throw Error(
        Status::invalid_argument,
        fmt::format("max_weight_share = {} cannot hold for {} rows with weight: their shares sum to 1; needs "
                    "at least 1/{} = {}",
                    share, sorted.size(), sorted.size(), 1.0 / static_cast<double>(sorted.size())));
  }
  double rest = 0;  // sum of those not capped
  for (const double weight : sorted) rest += weight;
  double cap = share * rest;
  for (std::size_t k = 0; k < sorted.size() && sorted[k] > cap; ++k) {
    rest -= sorted[k];
    const double left = 1 - share * static_cast<double>(k + 1);
    // All capped: every weight is the same, and only the ratio to the smallest can set it.
    if (left <= 1e-12 || rest <= 0) {
      cap = sorted.back();
      break;
    }
    cap = share * rest / left;
  }
  for (double& weight : weights) weight = std::min(weight, cap);
}

}  // namespace

void set_active_rows(std::span<const double> weights, int n, double max_weight_share, ActiveRows& active) {
  active.rows.clear();
  active.weights.clear();
  active.invalid.clear();
  active.weighted = !weights.empty();
  if (!active.weighted) {
    active.rows.resize(static_cast<std::size_t>(n));
    for (int i = 0; i < n; ++i) active.rows[static_cast<std::size_t>(i)] = i;
    active.invalid.assign(static_cast<std::size_t>(n), 0);
    return;
  }
  if (weights.size() != static_cast<std::size_t>(n)) {
    throw Error(
        Status::invalid_argument,
        fmt::format("weights has {} values for n = {} rows; pass one per row, or none", weights.size(), n));
  }
  double largest = 0;
  for (int i = 0; i < n; ++i) {
    const double weight = weights[static_cast<std::size_t>(i)];
    if (weight == 0) continue;
    const bool valid = std::isfinite(weight) && weight > 0;
    active.rows.push_back(i);
    active.invalid.push_back(!valid);
    active.weights.push_back(valid ? weight : 0);
    largest = std::max(largest, active.weights.back());
  }
  // Only ratios matter; sums of weights of 1e308 must not overflow.
  for (double& weight : active.weights) weight = largest > 0 ? weight / largest : 0;
  if (max_weight_share > 0 && largest > 0) cap_shares(active.weights, max_weight_share, active.invalid);
}

}  // namespace bragg::detail
