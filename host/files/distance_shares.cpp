// SPDX-License-Identifier: Apache-2.0
#include "host/files/distance_shares.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace bragg::detail {

namespace {

/// The lower one; 0 of none.
double median(std::vector<double>& values) noexcept {
  if (values.empty()) return 0;
  const auto middle = values.begin() + (std::ssize(values) - 1) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Sorts each column of a square matrix: Batcher's merge exchange, of all columns side by side. Tensors may
/// be small and many, and a branch for each value would cost more than the value.
void sort_columns(double* matrix, std::size_t rows) noexcept {
  const auto exchange = [&](std::size_t upper, std::size_t lower) {
    double* __restrict const a = matrix + upper * rows;
    double* __restrict const b = matrix + lower * rows;
    for (std::size_t c = 0; c < rows; ++c) {
      const double low = std::min(a[c], b[c]);
      b[c] = std::max(a[c], b[c]);
      a[c] = low;
    }
  };
  for (std::size_t merged = 1; merged < rows; merged *= 2) {
    for (std::size_t step = merged; step > 0; step /= 2) {
      for (std::size_t first = step % merged; first + step < rows; first += 2 * step) {
        for (std::size_t i = first; i < std::min(first + step, rows - step); ++i) {
          if (i / (2 * merged) == (i + step) / (2 * merged)) exchange(i, i + step);
        }
      }
    }
  }
}

}  // namespace

void DistanceShares::start(const GramSums& sums, int inputs) {
  inputs_ = inputs;
  before_.assign(sums.products.size(), 0.0);
  own_.resize(static_cast<std::size_t>(sums.rows));
  finite_.reserve(own_.size());
  of_rows_.reserve(own_.size());
  if (sums.pairs) distances_.resize(static_cast<std::size_t>(inputs) * static_cast<std::size_t>(inputs));
  std::fill(typical_.begin(), typical_.end(), 0.0);
}

double DistanceShares::distance(const GramSums& sums, std::size_t i, std::size_t j) const noexcept {
  const std::size_t at = i * own_.size() + j;
  return std::max(0.0, own_[i] + own_[j] - 2 * (sums.products[at] - before_[at]));
}

double DistanceShares::typical_length(const GramSums& sums) noexcept {
  const auto origin = static_cast<std::size_t>(inputs_);
  of_rows_.clear();
  for (const std::size_t i : finite_) {
    if (std::isfinite(own_[origin])) of_rows_.push_back(distance(sums, origin, i));
  }
  return median(of_rows_);
}

double DistanceShares::typical_distance(const GramSums& sums) noexcept {
  const std::size_t count = finite_.size();
  if (count < 2) return 0;
  for (std::size_t r = 0; r < count; ++r) {
    double* const row = distances_.data() + r * count;
    for (std::size_t c = 0; c < r; ++c) {
      row[c] = distance(sums, finite_[r], finite_[c]);
      distances_[c * count + r] = row[c];
    }
    row[r] = 0;  // a row's own: the least of its column
  }
  sort_columns(distances_.data(), count);
  // The lower median of the others.
  const double* const medians = distances_.data() + (1 + (count - 2) / 2) * count;
  of_rows_.assign(medians, medians + count);
  return median(of_rows_);
}

void DistanceShares::end(const GramSums& sums, std::size_t tensor) noexcept {
  const std::size_t rows = own_.size();
  for (std::size_t i = 0; i < rows; ++i) own_[i] = sums.products[i * rows + i] - before_[i * rows + i];
  finite_.clear();
  for (std::size_t i = 0; i < static_cast<std::size_t>(inputs_); ++i) {
    if (std::isfinite(own_[i])) finite_.push_back(i);
  }
  const double typical = sums.pairs ? typical_distance(sums) : typical_length(sums);
  if (std::isfinite(typical)) typical_[tensor] = typical;
  // What is not finite stays so in all sums to come: the row is infinite.
  std::copy(sums.products.begin(), sums.products.end(), before_.begin());
}

std::vector<double> DistanceShares::shares() const {
  const double all = std::accumulate(typical_.begin(), typical_.end(), 0.0);
  if (!(all > 0) || !std::isfinite(all)) return {};
  std::vector<double> shares = typical_;
  for (double& share : shares) share /= all;
  return shares;
}

std::optional<std::size_t> dominant_tensor(std::span<const double> shares,
                                           std::span<const std::int64_t> elements) {
  const auto largest = std::max_element(shares.begin(), shares.end());
  if (largest == shares.end() || !(*largest > 0.9)) return std::nullopt;
  const auto t = static_cast<std::size_t>(largest - shares.begin());
  const auto all = static_cast<double>(std::accumulate(elements.begin(), elements.end(), std::int64_t{0}));
  const double others = 1 - static_cast<double>(elements[t]) / all;
  if (!(10 * (1 - *largest) < others)) return std::nullopt;
  return t;
}

}  // namespace bragg::detail
