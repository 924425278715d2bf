// SPDX-License-Identifier: Apache-2.0
// Coordinate-wise trimmed mean, Yin et al. 2018. With client weights: f rows per side are dropped, whatever
// they weigh.
#include <algorithm>

#include "host/reference/coordinate_wise.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

/// With weights the mean jumps where values of unequal weight change places across the border. Those of rows
/// are exact; those of mixed points are not.
void decide_border(Stage& stage, const Column& sorted, int f) {
  const auto low = sorted.begin() + f;
  const auto high = sorted.end() - f;
  const auto decide = [&](const Entry& smaller, const Entry& larger) {
    if (smaller.weight == larger.weight) return;
    stage.decided(smaller.value, larger.value, std::max(smaller.magnitude, larger.magnitude));
  };
  for (auto kept = low; kept != high; ++kept) {
    for (auto left = sorted.begin(); left != low; ++left) decide(*left, *kept);
    for (auto left = high; left != sorted.end(); ++left) decide(*kept, *left);
  }
}

}  // namespace

template <>
Point apply(const TrimmedMean& rule, Stage& stage) {
  return each_coordinate(stage, [&](std::size_t c) {
    const Column sorted = column(stage, c);
    if (stage.weighted && stage.mixed) decide_border(stage, sorted, rule.f);
    return trimmed_mean_of(sorted, rule.f);
  });
}

}  // namespace bragg::reference
