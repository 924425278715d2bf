// SPDX-License-Identifier: Apache-2.0
#include "host/bench/timing.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace bragg::bench {

namespace {

using Clock = std::chrono::steady_clock;

double quantile(const std::vector<double>& sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  if (below + 1 == sorted.size()) return sorted[below];
  return sorted[below] + (place - std::floor(place)) * (sorted[below + 1] - sorted[below]);
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {.least = values.front(),
          .q1 = quantile(values, 0.25),
          .median = quantile(values, 0.5),
          .q3 = quantile(values, 0.75),
          .most = values.back()};
}

Timing time_batches(const std::function<double(int)>& ms_of, const Budget& budget) {
  constexpr double shortest_ms = 0.2;  // a timing below it is batched
  constexpr double warm_ms = 20;
  constexpr std::size_t most_timings = 100000;
  const double wanted = 1e3 * budget.seconds;
  double once = 0;
  double warm = 0;
  for (int k = 0; k < 2 || warm < std::min(warm_ms, wanted); ++k) {
    once = ms_of(1);
    warm += once;
  }
  Timing timing;
  timing.batch = once < shortest_ms ? static_cast<int>(std::ceil(shortest_ms / std::max(once, 1e-4))) : 1;
  std::vector<double> ms;
  double total = 0;
  const auto more = [&] {
    const int done = static_cast<int>(ms.size());
    if (done < budget.few) return true;
    if (done < budget.calls) return total < 20 * wanted;
    return total < wanted && ms.size() < most_timings;
  };
  while (more()) {
    const double taken = ms_of(timing.batch);
    total += taken;
    ms.push_back(taken / timing.batch);
  }
  timing.timings = static_cast<int>(ms.size());
  timing.ms = spread_of(std::move(ms));
  return timing;
}

Timing time_calls(const std::function<void()>& call, const Budget& budget) {
  const auto ms_of = [&](int calls) {
    const Clock::time_point start = Clock::now();
    for (int k = 0; k < calls; ++k) call();
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  };
  return time_batches(ms_of, budget);
}

}  // namespace bragg::bench
