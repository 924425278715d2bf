// SPDX-License-Identifier: Apache-2.0
#include "host/reference/coordinate_wise.hpp"

#include <algorithm>
#include <cmath>

namespace bragg::reference {

Column column(const Stage& stage, std::size_t c) {
  Column out;
  for (const Point& point : stage.points) {
    const bool lost = point.invalid || (stage.mixed && point.infinite);
    const long double x = lost || std::isnan(point.coordinate(c)) ? infinity : point.coordinate(c);
    out.push_back({x, std::isinf(x) ? 0 : point.magnitude[c], stage.weighted ? point.weight : 1});
  }
  std::stable_sort(out.begin(), out.end(), [](const Entry& a, const Entry& b) { return a.value < b.value; });
  return out;
}

namespace {

/// Entries of weight 0 contribute nothing, unless there are no others.
Column with_weight(const Column& entries) {
  Column out;
  std::copy_if(entries.begin(), entries.end(), std::back_inserter(out),
               [](const Entry& e) { return e.weight > 0; });
  if (!out.empty()) return out;
  out = entries;
  for (Entry& entry : out) entry.weight = 1;
  return out;
}

long double total_weight(const Column& entries) {
  long double total = 0;
  for (const Entry& entry : entries) total += entry.weight;
  return total;
}

long double midpoint(long double a, long double b) {
  if (std::isinf(a)) return a;  // a ≤ b: −∞ wins, and +∞ is both
  return a / 2 + b / 2;
}

/// Values that rounding, to f32 at the coarsest, could put among those from `low` to `high` count with their
/// size.
long double magnitude_of_rivals(const Column& column, long double low, long double high) {
  constexpr long double reach = 1e-6L;
  long double largest = 0;
  for (const Entry& entry : column) {
    const long double off = reach * entry.magnitude;
    if (entry.value >= low - off && entry.value <= high + off) largest = std::max(largest, entry.magnitude);
  }
  return largest;
}

}  // namespace

Summary mean_of(const Column& kept) {
  const Column entries = with_weight(kept);
  const long double total = total_weight(entries);
  Summary out{0, 0};
  long double low = infinity;
  long double high = -infinity;
  for (const Entry& entry : entries) {
    low = std::min(low, entry.value);
    high = std::max(high, entry.value);
    out.value += entry.weight / total * entry.value;
    out.magnitude = std::max(out.magnitude, entry.magnitude);
  }
  out.value = std::isinf(low) ? low : std::isinf(high) ? high : std::clamp(out.value, low, high);
  return out;
}

Summary median_of(const Column& sorted, EvenMedian even) {
  const Column entries = with_weight(sorted);
  const long double total = total_weight(entries);
  long double below = 0;
  std::size_t k = 0;
  // Sums of weights are equal when they differ by rounding only.
  const auto splits_evenly = [&] { return std::abs(2 * below - total) <= 1e-12L * total; };
  for (;; ++k) {
    below += entries[k].weight;
    if (2 * below >= total || splits_evenly()) break;
  }
  const Entry lower = entries[k];
  const Entry upper = splits_evenly() && k + 1 < entries.size() ? entries[k + 1] : lower;
  const long double magnitude = magnitude_of_rivals(entries, lower.value, upper.value);
  if (even == EvenMedian::lower) return {lower.value, magnitude};
  if (even == EvenMedian::upper) return {upper.value, magnitude};
  return {midpoint(lower.value, upper.value), magnitude};
}

Summary trimmed_mean_of(const Column& sorted, int f) {
  const Column kept(sorted.begin() + f, sorted.end() - f);
  return {mean_of(kept).value, magnitude_of_rivals(sorted, kept.front().value, kept.back().value)};
}

Summary mean_of_closest(Stage& stage, const Column& sorted, const Summary& centre, int keep) {
  if (std::isinf(centre.value)) return centre;
  Column entries = sorted;
  const auto distance_of = [&](const Entry& entry) { return std::abs(entry.value - centre.value); };
  std::stable_sort(entries.begin(), entries.end(),
                   [&](const Entry& a, const Entry& b) { return distance_of(a) < distance_of(b); });
  // A centre that is no double is rounded by a fast path, which then sees no tie.
  const bool is_double = centre.value == static_cast<long double>(static_cast<double>(centre.value));
  const auto border = entries.begin() + keep;
  for (auto taken = entries.begin(); taken != border; ++taken) {
    for (auto left = border; left != entries.end(); ++left) {
      if (taken->value == left->value) continue;
      if (!is_double && distance_of(*taken) == distance_of(*left)) stage.margin = 0;
      const long double terms = std::max({taken->magnitude, left->magnitude, centre.magnitude});
      stage.decided(distance_of(*taken), distance_of(*left), terms);
    }
  }
  Column kept(entries.begin(), border);
  const auto by_value = [](const Entry& a, const Entry& b) { return a.value < b.value; };
  const auto [low, high] = std::minmax_element(kept.begin(), kept.end(), by_value);
  return {mean_of(kept).value, magnitude_of_rivals(sorted, low->value, high->value)};
}

}  // namespace bragg::reference
