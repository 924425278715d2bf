// SPDX-License-Identifier: Apache-2.0
#include "host/cpu/selection.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <utility>

#include "rules/networks/order.hpp"

namespace bragg::detail::cpu {
namespace {

/// Entries a point, on average, up to which each point reads its own rows: clipped rows have one, or two with
/// a reference.
constexpr std::size_t most_few_entries = 2;

/// Below this many points there is less to share than the table of subsets costs.
constexpr int least_subset_points = 4;

/// Medians and trimmed means of more points are bisected. For every kind of key merging two sorted chunks
/// costs less than bisection, and merging three costs more.
constexpr int most_sorted_points = 2 * most_column_points;

/// Whether bisection is what costs least.
bool bisects(const SelectRule& rule, int points) {
  const bool trimmed = rule.kind == SelectRule::Kind::trimmed_mean;
  if (!trimmed && rule.kind != SelectRule::Kind::median) return false;
  return points > most_sorted_points && points <= most_bisected_points;
}

}  // namespace

std::pair<int, int> ranks_of(const SelectRule& rule, int points) {
  switch (rule.kind) {
    case SelectRule::Kind::median:
      return {rule.even == EvenMedian::upper ? points / 2 : (points - 1) / 2,
              rule.even == EvenMedian::lower ? (points - 1) / 2 : points / 2};
    case SelectRule::Kind::trimmed_mean:
      return {rule.f, points - 1 - rule.f};
    case SelectRule::Kind::closest_to_median:
    case SelectRule::Kind::closest_to_trimmed_mean:
    case SelectRule::Kind::sign_vote:
    case SelectRule::Kind::none:
      break;
  }
  return {0, points - 1};
}

Networks Selection::networks_for(const SelectRule& rule, int points, DType dtype) {
  const bool middle = rule.kind == SelectRule::Kind::median;
  Networks job;
  std::tie(job.first_rank, job.last_rank) = ranks_of(rule, points);
  job.chunk = points;
  job.network = column_network(dtype, points, middle);
  if (job.network.sort != nullptr) {
    job.middle_only = middle;
    job.wires = job.network.wires;
    if (middle) {
      job.low_wires = (job.wires - 1) / 2 - (points - 1) / 2;
      job.first_rank = (points - 1) / 2;
      job.last_rank = points / 2;
    }
    return job;
  }
  job.chunk = most_column_points;
  while (column_network(dtype, job.chunk, false).sort == nullptr) job.chunk /= 2;
  job.network = column_network(dtype, job.chunk, false);
  const int rest = points % job.chunk;
  job.wires = points;
  if (rest > 0) {
    job.last_network = column_network(dtype, rest, false);
    job.wires += job.last_network.wires - rest;
  }
  if (job.two_chunks()) return job;
  const std::array merges_of{points, job.chunk, job.first_rank, job.last_rank};
  if (merges_of_ != merges_of) {
    merges_ = merge_network(points, job.chunk, job.first_rank, job.last_rank);
    merges_of_ = merges_of;
  }
  job.merges = merges_;
  return job;
}

/// Where each point's coefficients are all the same: which of its groups' subsets it adds up.
bool Selection::find_subsets(const RowTable& table, const PointTable& points) {
  if (points.count < least_subset_points || used_rows_.empty()) return false;
  are_means_ = true;
  // Inputs come first, then references.
  if (table.dtype_of(used_rows_.back()) != table.dtype_of(used_rows_.front())) return false;
  const std::size_t words = (used_rows_.size() + 15) / 16;
  const auto count = static_cast<std::size_t>(points.count);
  subset_coefficients_.assign(count, 0);
  subsets_.assign(count * words, 0);
  subsets_wanted_.assign(words * 4, 0);
  for (std::size_t p = 0; p < count; ++p) {
    const double* const mix = points.mix.data() + p * static_cast<std::size_t>(table.rows);
    int rows = 0;
    for (std::size_t group = 0; group < words * 4; ++group) {
      unsigned subset = 0;
      for (std::size_t u = 4 * group; u < std::min(4 * group + 4, used_rows_.size()); ++u) {
        const double coefficient = mix[used_rows_[u]];
        if (coefficient == 0) continue;
        if (subset_coefficients_[p] == 0) subset_coefficients_[p] = coefficient;
        if (coefficient != subset_coefficients_[p]) return false;
        subset |= 1U << (u % 4);
        ++rows;
      }
      subsets_wanted_[group] |= static_cast<std::uint16_t>(1U << subset);
      const std::size_t place = (group % subset_groups * 16 + subset) * subset_place;
      subsets_[p * words + group / 4] |= std::uint64_t{place} << (16 * (group % 4));
    }
    // 2⁻²⁶: half of what would round beyond the largest f32.
    are_means_ = are_means_ && std::abs(subset_coefficients_[p]) * rows <= 1 + 0x1p-26;
  }
  return true;
}

/// From points' coefficients to rows' for four points at a time, rows ascending.
Products Selection::products(const RowTable& table, const PointTable& points) {
  entries_.clear();
  entries_.reserve(used_rows_.size() * static_cast<std::size_t>((points.count + 3) / 4));
  group_start_.assign(1, 0);
  for (int first = 0; first < points.count; first += 4) {
    for (std::size_t u = 0; u < used_rows_.size(); ++u) {
      MixEntry entry{.row = static_cast<int>(u)};
      bool any = false;
      for (int p = 0; p < std::min(4, points.count - first); ++p) {
        entry.coefficient[p] =
            points.mix[static_cast<std::size_t>(first + p) * static_cast<std::size_t>(table.rows) +
                       static_cast<std::size_t>(used_rows_[u])];
        any = any || entry.coefficient[p] != 0;
      }
      if (any) entries_.push_back(entry);
    }
    group_start_.push_back(entries_.size());
  }
  return {.used = used_rows_, .entries = entries_.data(), .group_start = group_start_.data()};
}

/// Each point's rows.
FewRows Selection::few_rows(const RowTable& table, const PointTable& points) {
  few_start_.assign(1, 0);
  few_rows_.clear();
  few_coefficients_.clear();
  const double* coefficient = points.mix.data();
  for (int p = 0; p < points.count; ++p) {
    for (int r = 0; r < table.rows; ++r, ++coefficient) {
      if (*coefficient == 0) continue;
      few_rows_.push_back(r);
      few_coefficients_.push_back(*coefficient);
    }
    few_start_.push_back(static_cast<int>(few_rows_.size()));
  }
  return {.start = few_start_.data(), .rows = few_rows_.data(), .coefficients = few_coefficients_.data()};
}

void Selection::prepare_mix(const RowTable& table, const PointTable& points, SelectJob& job) {
  const auto rows = static_cast<std::size_t>(table.rows);
  is_used_.assign(rows, 0);
  std::size_t entries = 0;
  for (std::size_t k = 0; k < points.mix.size(); ++k) {
    if (points.mix[k] == 0) continue;
    ++entries;
    is_used_[k % rows] = 1;
  }
  if (entries <= most_few_entries * static_cast<std::size_t>(points.count)) {
    job.source = few_rows(table, points);
    return;
  }
  used_rows_.clear();
  for (int r = 0; r < table.rows; ++r) {
    if (is_used_[static_cast<std::size_t>(r)] != 0) used_rows_.push_back(r);
  }
  if (find_subsets(table, points)) {
    job.source = Subsets{.used = used_rows_,
                         .dtype = table.dtype_of(used_rows_.front()),
                         .coefficients = subset_coefficients_.data(),
                         .wanted = subsets_wanted_.data(),
                         .are_means = are_means_,
                         .places = subsets_.data()};
  } else {
    job.source = products(table, points);
  }
}

SelectJob Selection::prepare(const RowTable& table, const SelectRule& rule, const PointTable& points,
                             bool counted) {
  SelectJob job;
  job.rule = rule;
  job.points = points.count;
  if (!points.infinite.empty()) job.infinite = points.infinite.data();
  if (points.mixed()) {
    job.dtype = table.dtype == DType::f64 ? DType::f64 : DType::f32;
    prepare_mix(table, points, job);
  } else {
    job.dtype = table.dtype;
    job.source = Rows{.rows = points.rows, .count_nonfinite = counted};
  }
  if (rule.kind == SelectRule::Kind::none) {
    job.method = Written{};
  } else if (rule.kind == SelectRule::Kind::sign_vote) {
    job.method = Votes{.origin = points.origin, .step = rule.step, .weights = points.weights};
  } else if (!points.weights.empty()) {
    job.method = Weighted{.weights = points.weights,
                          .total = std::accumulate(points.weights.begin(), points.weights.end(), 0.0)};
  } else if (bisects(rule, points.count)) {
    const auto [first_rank, last_rank] = ranks_of(rule, points.count);
    job.method = Bisection{.is_median = rule.kind == SelectRule::Kind::median,
                           .points = points.count,
                           .dtype = job.dtype,
                           .first_rank = first_rank,
                           .last_rank = last_rank};
  } else {
    job.method = networks_for(rule, points.count, job.dtype);
  }
  return job;
}

ColumnNetwork column_network(DType dtype, int points, bool middle) {
  if (dtype == DType::f64) return column_network_f64(points, middle);
  if (dtype == DType::f32) return column_network_f32(points, middle);
  return column_network_sixteen(points, middle);
}

}  // namespace bragg::detail::cpu
