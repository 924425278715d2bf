// SPDX-License-Identifier: Apache-2.0
#include "host/bench/work.hpp"

#include <algorithm>
#include <functional>
#include <set>

#include "host/cpu/selection.hpp"
#include "rules/needs.hpp"
#include "rules/networks/order.hpp"

namespace bragg::bench {

using detail::SelectRule;

namespace {

double bytes_of(double elements, DType dtype) { return elements * static_cast<double>(size_of(dtype)); }

/// Conversions of so many elements to f64 or from it.
double conversions_of(double elements, DType dtype) { return dtype == DType::f64 ? 0 : elements; }

/// Minima and maxima per coordinate that the rule needs of so many points.
double min_max_of(const SelectRule& rule, int points) {
  const auto [first, last] = detail::cpu::ranks_of(rule, points);
  double count = 0;
  for (const detail::Comparator& c : detail::cpu::selection_network(points, first, last)) {
    count += static_cast<double>(c.need_low) + static_cast<double>(c.need_high);
  }
  return count;
}

/// Ranks whose values are added up; a median is one value, or the middle of two.
int summed_ranks(const SelectRule& rule, int points) {
  if (rule.kind == SelectRule::Kind::median) return 0;
  if (rule.kind == SelectRule::Kind::trimmed_mean) return points - 2 * rule.f;
  return rule.keep;
}

void add_selection(PassWork& work, const SelectRule& rule, int points, std::int64_t d) {
  if (rule.kind == SelectRule::Kind::sign_vote) return;  // nothing is sorted
  const auto columns = static_cast<double>(d);
  const double summed = summed_ranks(rule, points) * columns;
  work.fma += summed;
  if (work.lane_bits < 64) work.conversions += summed;
  if (points <= most_network_points) {
    const auto [first, last] = detail::cpu::ranks_of(rule, points);
    work.min_max = min_max_of(rule, points) * columns;
    work.keys = (points + last - first + 1) * columns;
  } else {
    work.note =
        "selection of more than 128 points, which takes about n·log²(n)/4 comparators, is not in the floor";
  }
}

}  // namespace

PassWork gram_work(int n, std::int64_t d, DType dtype) {
  PassWork work = statistics_work(n, d, dtype);
  work.name = "gram";
  work.fma = 0.5 * n * (n + 1.0) * static_cast<double>(d);
  work.conversions = conversions_of(n * static_cast<double>(d), dtype);
  return work;
}

PassWork statistics_work(int n, std::int64_t d, DType dtype) {
  return {.name = "statistics", .bytes_read = bytes_of(n * static_cast<double>(d), dtype)};
}

PassWork combine_work(int k, std::int64_t d, DType dtype) {
  const double elements = k * static_cast<double>(d);
  return {.name = "combine",
          .bytes_read = bytes_of(elements, dtype),
          .bytes_written = bytes_of(static_cast<double>(d), dtype),
          .fma = elements,
          .conversions = conversions_of(elements, dtype)};
}

PassWork select_work(const SelectRule& rule, int points, std::int64_t d, DType dtype) {
  PassWork work{.name = "select",
                .bytes_read = bytes_of(points * static_cast<double>(d), dtype),
                .bytes_written = bytes_of(static_cast<double>(d), dtype),
                .lane_bits = static_cast<int>(8 * size_of(dtype))};
  add_selection(work, rule, points, d);
  return work;
}

PassWork mix_select_work(const SelectRule& rule, int points, int rows, double mixing, std::int64_t d,
                         DType dtype) {
  PassWork work{.name = "mix+select",
                .bytes_read = bytes_of(rows * static_cast<double>(d), dtype),
                .bytes_written = bytes_of(static_cast<double>(d), dtype),
                .fma = mixing * static_cast<double>(d),
                .conversions = conversions_of((rows + points) * static_cast<double>(d), dtype),
                .lane_bits = dtype == DType::f64 ? 64 : 32};  // a mean of 16-bit values needs more bits
  add_selection(work, rule, points, d);
  return work;
}

double mixing_work(int points, int rows, double entries, bool equal) {
  // Of four rows: 11 sums of two or more of them, and one for each point.
  const int groups = (rows + 3) / 4;
  return equal ? std::min(entries, static_cast<double>(groups) * (11 + points)) : entries;
}

namespace {

/// What mixed points are made of.
struct Mixture {
  std::set<std::size_t> rows;  // that have a coefficient
  double entries = 0;
  bool equal = true;  // each point's coefficients are all the same
};

Mixture mixture_of(const detail::Solution& solution) {
  Mixture mixture;
  const std::size_t rows = solution.mix.size() / static_cast<std::size_t>(solution.points);
  double share = 0;  // of the point
  for (std::size_t k = 0; k < solution.mix.size(); ++k) {
    if (k % rows == 0) share = 0;
    const double coefficient = solution.mix[k];
    if (coefficient == 0) continue;
    if (share == 0) share = coefficient;
    mixture.equal = mixture.equal && coefficient == share;
    mixture.entries += 1;
    mixture.rows.insert(k % rows);
  }
  return mixture;
}

}  // namespace

std::vector<PassWork> passes_of(const Pipeline& pipeline, int n, std::int64_t d, DType dtype,
                                const detail::Solution& solution) {
  const bool previous = detail::keeps_previous(pipeline);
  const int rows = n + (previous ? 1 : 0);  // with data
  std::vector<PassWork> passes;
  const detail::PassNeeds needs = detail::needs_of(pipeline);
  if (needs.products) {
    passes.push_back(gram_work(rows, d, dtype));
    if (!needs.pairs)
      passes.back().fma = static_cast<double>(rows) * static_cast<double>(d);  // lengths alone
  } else if (needs.statistics) {
    passes.push_back(statistics_work(rows, d, dtype));
  }
  if (!solution.coordinate_wise) {
    // The table has a row more than there is data, the origin: nothing is read of it.
    int used = 0;
    for (const double c : solution.coefficients) used += c != 0 ? 1 : 0;
    passes.push_back(combine_work(std::min(used, rows), d, dtype));
    if (previous) passes.back().bytes_written *= 2;  // the output is kept
  } else if (solution.mixed) {
    const Mixture mixture = mixture_of(solution);
    const auto used = static_cast<int>(mixture.rows.size());
    const double mixing = mixing_work(solution.points, used, mixture.entries, mixture.equal);
    passes.push_back(mix_select_work(solution.rule, solution.points, used, mixing, d, dtype));
  } else {
    passes.push_back(select_work(solution.rule, solution.points, d, dtype));
  }
  return passes;
}

detail::Solution solution_of(const Pipeline& pipeline, std::vector<const void*> rows, std::int64_t d,
                             DType dtype) {
  const auto n = static_cast<int>(rows.size());
  const bool previous = detail::keeps_previous(pipeline);
  const std::vector<unsigned char> zeros(static_cast<std::size_t>(d) * size_of(dtype));
  rows.push_back(nullptr);  // the origin
  if (previous) rows.push_back(zeros.data());
  const detail::RowTable table{.dtype = dtype,
                               .reference_dtype = dtype,
                               .inputs = n,
                               .rows = static_cast<int>(rows.size()),
                               .sizes = {&d, 1},
                               .data = rows.data()};
  detail::Engine engine(pipeline, n, {});
  detail::ActiveRows active;
  detail::set_active_rows({}, n, 0, active);
  engine.begin(active, false, previous, 1);
  detail::GramSums sums;
  sums.coordinates = d;
  detail::Solution solution;
  const std::int64_t first = 0;
  solve_over(engine, sums, solution, [&](detail::GramSums& to) {
    engine.sample(table, {&first, 1}, to);
    engine.accumulate(table, to);
  });
  return solution;
}

Floor floor_of(const PassWork& work, const Rates& rates) {
  const auto time_of = [](double amount, double rate) { return rate > 0 ? amount / rate : 0; };
  const double copied = 2 * std::min(work.bytes_read, work.bytes_written);
  const double memory = time_of(copied, std::max(rates.copy, rates.read)) +
                        time_of(work.bytes() - copied, rates.read > 0 ? rates.read : rates.copy);
  const MinMaxRates& min_max = rates.min_max(work.lane_bits);
  const double as_floats = time_of(work.min_max, min_max.floats);
  const double as_integers = time_of(work.min_max + 2 * work.keys, min_max.integers);
  const double compared = as_floats == 0     ? as_integers
                          : as_integers == 0 ? as_floats
                                             : std::min(as_floats, as_integers);
  const double arithmetic = time_of(work.fma, rates.fma_f64) + time_of(work.fma_f32, rates.fma_f32) +
                            time_of(work.conversions, rates.to_f64) + compared;
  if (memory >= arithmetic) return {memory, "memory"};
  return {arithmetic, "arithmetic"};
}

}  // namespace bragg::bench
