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

}  // namespace

void DistanceShares::start(const GramSums& sums, int inputs) {
  inputs_ = inputs;
  before_.assign(sums.products.size(), 0.0);
  own_.resize(static_cast<std::size_t>(sums.rows));
  of_row_.reserve(own_.size());
  of_rows_.reserve(own_.size());
  std::fill(typical_.begin(), typical_.end(), 0.0);
}

double DistanceShares::typical_distance(const GramSums& sums) noexcept {
  const std::size_t rows = own_.size();
  const auto inputs = static_cast<std::size_t>(inputs_);
  const auto distance = [&](std::size_t i, std::size_t j) {
    const std::size_t at = std::max(i, j) * rows + std::min(i, j);
    return std::max(0.0, own_[i] + own_[j] - 2 * (sums.products[at] - before_[at]));
  };
  of_rows_.clear();
  for (std::size_t i = 0; i < inputs; ++i) {
    if (!std::isfinite(own_[i])) continue;
    if (!sums.pairs) {
      if (std::isfinite(own_[inputs])) of_rows_.push_back(distance(i, inputs));
      continue;
    }
    of_row_.clear();
    for (std::size_t j = 0; j < inputs; ++j) {
      if (j != i && std::isfinite(own_[j])) of_row_.push_back(distance(i, j));
    }
    of_rows_.push_back(median(of_row_));
  }
  return median(of_rows_);
}

void DistanceShares::end(const GramSums& sums, std::size_t tensor) noexcept {
  const std::size_t rows = own_.size();
  for (std::size_t i = 0; i < rows; ++i) own_[i] = sums.products[i * rows + i] - before_[i * rows + i];
  const double typical = typical_distance(sums);
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
