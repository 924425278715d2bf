// SPDX-License-Identifier: Apache-2.0
#include "host/plan/bounded_distances.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "rules/solve/points.hpp"

namespace bragg::detail {

namespace {

/// As Points::squared_distance.
double squared_distance(const GramSums& sums, int i, int j) {
  const auto product = [&](int r, int c) {
    const std::size_t at =
        static_cast<std::size_t>(r) * static_cast<std::size_t>(sums.rows) + static_cast<std::size_t>(c);
    return sums.products[at] + sums.low[at];
  };
  const double value = (product(i, i) - product(i, j)) + (product(j, j) - product(i, j));
  return value > 0 ? value : 0;
}

/// What is first in any order of values within their bounds, and what may be or not: of `count` values the
/// `first` least. Calls uncertain(k) for each of the latter.
template <class LowF, class HighF, class UncertainF>
void divide(int count, int first, const LowF& low, const HighF& high, std::vector<double>& work,
            const UncertainF& uncertain) {
  if (count <= first || first < 1) return;
  // At least `first` values are no more than `most`, and at least all others are no less than `least`.
  work.clear();
  for (int k = 0; k < count; ++k) work.push_back(high(k));
  std::nth_element(work.begin(), work.begin() + (first - 1), work.end());
  const double most = work[static_cast<std::size_t>(first) - 1];
  work.clear();
  for (int k = 0; k < count; ++k) work.push_back(low(k));
  std::nth_element(work.begin(), work.begin() + first, work.end());
  const double least = work[static_cast<std::size_t>(first)];
  for (int k = 0; k < count; ++k) {
    if (!(low(k) > most) && !(high(k) < least)) uncertain(k);
  }
}

}  // namespace

F32Limits& f32_limits() noexcept {
  static F32Limits limits;
  return limits;
}

void BoundedDistances::read(const GramSums& sums, int rows, std::int64_t coordinates) {
  const auto n = static_cast<std::size_t>(rows);
  rows_ = rows;
  finite_.clear();
  finite_.reserve(n);
  for (auto* const line : {&work_, &least_, &most_}) line->reserve(n);
  length_.assign(n, 0);
  wanted_.assign(n, 0);
  low_.assign(n * n, 0);
  high_.assign(n * n, 0);
  // What a product loses where f32 underflows, even if it is set to flush to zero.
  const double lost = static_cast<double>(coordinates) * 0x1p-125;
  const double rounding = (sums.rounding + gram_f64_rounding()) * 1.001;
  for (int i = 0; i < rows; ++i) {
    const auto r = static_cast<std::size_t>(i);
    if (sums.nonfinite[r] > 0) continue;
    finite_.push_back(i);
    const double square = sums.products[r * static_cast<std::size_t>(sums.rows) + r];
    // A sum of squares that had overflowed would have made more of it, whether overflow is infinite or, where
    // the processor is set to round toward zero, the largest float; and no sum of products is larger.
    length_[r] = square <= 0x1p126 ? std::sqrt((square + lost) * (1 + 2 * rounding)) : infinity;
  }
  for (const int i : finite_) {
    for (const int j : finite_) {
      if (i == j) continue;
      const bool overflowed = !(reach(i, j) < infinity);
      const double found = overflowed ? 0 : squared_distance(sums, i, j);
      const double error = rounding * reach(i, j) * reach(i, j) + 4 * lost;
      low(i, j) = std::max(found - error, 0.0);
      high(i, j) = found + error;
    }
  }
}

/// At most majority_spread of products in f64.
double BoundedDistances::find_spread() {
  double least = infinity;
  for (const int i : finite_) {
    work_.assign(static_cast<std::size_t>(rows_), infinity);
    for (const int j : finite_) work_[static_cast<std::size_t>(j)] = low(i, j);
    std::sort(work_.begin(), work_.end());
    const auto half = static_cast<std::size_t>(rows_) / 2;
    double total = rows_ % 2 == 0 ? 0 : work_[half] / 2;
    for (std::size_t k = 0; k < half; ++k) total += work_[k];
    least = std::min(least, total / (rows_ / 2.0));
  }
  return least < infinity ? least : 0;
}

/// Whether CertifyStep would leave products in f64 as they are.
bool BoundedDistances::are_clear() const {
  for (const int i : finite_) {
    for (const int j : finite_) {
      const double error = gram_f64_rounding() * reach(i, j) * reach(i, j);
      if (i != j && !(error <= 0.9 * clear_share * (low(i, j) + spread_))) return false;
    }
  }
  return true;
}

bool BoundedDistances::find_neighbors(int taken, std::vector<int>& rows) {
  std::fill(wanted_.begin(), wanted_.end(), std::uint8_t{0});
  const auto count = static_cast<int>(finite_.size());
  const auto other = [&](int k) { return finite_[static_cast<std::size_t>(k)]; };
  for (const int i : finite_) {
    divide(
        count, taken, [&](int k) { return low(i, other(k)); }, [&](int k) { return high(i, other(k)); },
        work_,
        [&](int k) {
          wanted_[static_cast<std::size_t>(i)] = 1;
          wanted_[static_cast<std::size_t>(other(k))] = 1;
        });
  }
  for (int i = 0; i < rows_; ++i) {
    if (wanted_[static_cast<std::size_t>(i)] != 0) rows.push_back(i);
  }
  // Half of all pairs cost as much as f32 has saved.
  return 2 * rows.size() * rows.size() <= wanted_.size() * wanted_.size();
}

bool BoundedDistances::find_scores(const NeededOrder& order) {
  const auto count = static_cast<int>(finite_.size());
  // A score then counts rows that are infinite.
  if (count <= order.taken) return false;
  const auto sum = [&](int i, const auto& bound) {
    work_.clear();
    for (const int j : finite_) {
      if (j != i) work_.push_back(bound(i, j));
    }
    std::nth_element(work_.begin(), work_.begin() + (order.taken - 1), work_.end());
    double total = 0;
    for (int k = 0; k < order.taken; ++k) total += work_[static_cast<std::size_t>(k)];
    return total;
  };
  const double rounding = 4 * rows_ * 0x1p-53;
  least_.clear();
  most_.clear();
  for (const int i : finite_) {
    least_.push_back(sum(i, [&](int a, int b) { return low(a, b); }) * (1 - rounding));
    most_.push_back(sum(i, [&](int a, int b) { return high(a, b); }) * (1 + rounding));
  }
  bool known = true;
  divide(
      count, order.kept, [&](int k) { return least_[static_cast<std::size_t>(k)]; },
      [&](int k) { return most_[static_cast<std::size_t>(k)]; }, work_, [&](int) { known = false; });
  return known;
}

bool BoundedDistances::find_undecided(const NeededOrder& order, std::vector<int>& rows) {
  rows.clear();
  spread_ = find_spread();
  // Where f32 has overflowed nothing is clear.
  if (!are_clear()) return false;
  return order.by_score ? find_scores(order) : find_neighbors(order.taken, rows);
}

bool BoundedDistances::look_hopeless() const {
  std::size_t pairs = 0;
  std::size_t unclear = 0;
  for (const int i : finite_) {
    for (const int j : finite_) {
      if (i == j) continue;
      ++pairs;
      unclear += reach(i, j) < infinity && high(i, j) >= reach(i, j) * reach(i, j) / 32 ? 0 : 1;
    }
  }
  return 2 * unclear > pairs;
}

double BoundedDistances::error() const {
  double worst = 0;
  for (const int i : finite_) {
    for (const int j : finite_) {
      if (i == j) continue;
      const double off = (high(i, j) - low(i, j)) / (low(i, j) + spread_);
      worst = std::max(worst, off < 1 ? off : 1);
    }
  }
  return worst;
}

}  // namespace bragg::detail
