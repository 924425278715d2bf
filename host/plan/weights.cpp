// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "host/plan/engine.hpp"
#include "rules/needs.hpp"
#include "rules/table.hpp"

namespace bragg::detail {

namespace {

/// The fixed point of p_i ← min(p_i, share·Σp): it caps the k largest at one value, which is returned. In
/// long double, whose range holds the ratios of all finite weights.
long double cap_on_weights(const std::vector<double>& weights, double share,
                           const std::vector<std::uint8_t>& invalid) {
  std::vector<double> sorted;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!invalid[i]) sorted.push_back(weights[i]);
  }
  std::sort(sorted.begin(), sorted.end());
  const std::size_t n = sorted.size();
  if (share * static_cast<double>(n) < 1 - 1e-12) {
    throw Error(
        Status::invalid_argument,
        fmt::format("max_weight_share = {} cannot hold for {} rows with weight: their shares sum to 1; needs "
                    "at least 1/{} = {}",
                    share, n, n, 1.0 / static_cast<double>(n)));
  }
  // The double nearest to 1/k is meant to hold for k equal weights.
  constexpr long double slack = 1 + 1e-18L;
  const long double whole = 1 / std::round(1 / static_cast<long double>(share));
  const long double exact = std::fabs(share - whole) < 1e-12L * whole ? whole : share;
  // Sums from the small end: what is left of a sum of all after subtracting the large is their rounding.
  std::vector<long double> up_to(n);  // sums of the smallest
  long double sum = 0;
  for (std::size_t i = 0; i < n; ++i) up_to[i] = sum += sorted[i];
  for (std::size_t capped = 0; capped < n; ++capped) {
    const std::size_t last = n - 1 - capped;
    const long double left = 1 - exact * static_cast<long double>(capped);
    if (left <= 1e-12L) break;
    const long double cap = exact * (up_to[last] / left);
    if (sorted[last] <= cap * slack) return cap;
  }
  return sorted.front();  // all capped: every weight is the same
}

/// What to do about weights that a rule has no use for.
const char* remedy_of(const ActiveRows& rest, int n) {
  const bool alike =
      std::none_of(rest.invalid.begin(), rest.invalid.end(), [](std::uint8_t bad) { return bad != 0; }) &&
      std::all_of(rest.weights.begin(), rest.weights.end(), [](double weight) { return weight == 1; });
  if (!alike) return "leave the weights out";
  return rest.rows.size() == static_cast<std::size_t>(n)
             ? "these are all alike, so leave them out"
             : "these are alike where they are not 0, so leave them out, and the rows of weight 0, too";
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
  if (!(largest > 0)) return;
  long double most = largest;
  if (max_weight_share > 0) {
    most = std::min(most, cap_on_weights(active.weights, max_weight_share, active.invalid));
  }
  // Only ratios matter; sums of weights of 1e308 must not overflow.
  for (double& weight : active.weights) {
    weight = static_cast<double>(std::min(static_cast<long double>(weight), most) / most);
  }
}

std::optional<Pipeline> remaining_pipeline(const Pipeline& pipeline, const ActiveRows& active) {
  Pipeline remaining = pipeline;
  const std::optional<Pivot> trusted = pivot_of(pipeline);
  if (trusted && trusted->is_row) {
    const auto at = std::lower_bound(active.rows.begin(), active.rows.end(), trusted->index);
    if (at == active.rows.end() || *at != trusted->index) return std::nullopt;
    set_pivot(remaining, static_cast<int>(at - active.rows.begin()));
  }
  return remaining;
}

int check_active_rows(const Pipeline& pipeline, int n, const ActiveRows& rest) {
  const int rows = static_cast<int>(rest.rows.size());
  const std::optional<Pivot> trusted = pivot_of(pipeline);
  if (rest.weighted && !takes_weights(pipeline)) refuse_weights(pipeline, remedy_of(rest, n));
  if (rows == n) return trusted ? trusted->index : 0;
  if (rows < 1) {
    throw Error(Status::invalid_argument, "weights: every row has weight 0; at least one must count");
  }
  const std::optional<Pipeline> remaining = remaining_pipeline(pipeline, rest);
  if (!remaining) {
    throw Error(Status::invalid_argument,
                fmt::format("{}: pivot = {} is a row of weight 0; choose one that counts", trusted->rule,
                            trusted->index));
  }
  try {
    validate(*remaining, rows);
  } catch (const Error& error) {
    throw Error(error.status(), fmt::format("weights: {} of {} rows have weight 0 and are left out: {}",
                                            n - rows, n, error.what()));
  }
  return trusted ? pivot_of(*remaining)->index : 0;
}

bool can_be_weighted(const Pipeline& pipeline, int n, int rows) {
  if (rows < 1 || !takes_weights(pipeline)) return false;
  Pipeline remaining = pipeline;
  if (rows < n && pivot_of(pipeline)) set_pivot(remaining, 0);
  try {
    validate(remaining, rows);
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace bragg::detail
