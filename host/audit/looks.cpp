// SPDX-License-Identifier: Apache-2.0
#include "host/audit/looks.hpp"

#include <fmt/format.h>
#include <bragg/plan.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "host/attacks/honest.hpp"
#include "host/attacks/triangle.hpp"

namespace bragg::detail {

namespace {

// Workers of different data differ by factors: a row looks bad only beyond any that others differ by.
constexpr double far_factor = 3;         // from the median, at least
constexpr double far_deviations = 4;     // and in deviations of the logarithms
constexpr double chance_deviations = 2;  // of the cosine of rows that have nothing in common
constexpr double copy_share = 1e-3;      // of the median distance
constexpr double least_dimension = 8;    // rows of fewer coordinates are near each other, or apart, by chance
constexpr double normal_factor = 1.4826;  // the deviation of normal values, in median absolute deviations

double median_of(std::vector<double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto middle = values.begin() + (std::ssize(values) - 1) / 2;
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 != 0) return *middle;
  return std::midpoint(*middle, *std::min_element(middle + 1, values.end()));
}

/// The deviation of the half of the values that is nearest to their median, as of normal ones.
double robust_deviation(const std::vector<double>& values) {
  const double median = median_of(values);
  std::vector<double> off;
  for (const double x : values) off.push_back(std::abs(x - median));
  return normal_factor * median_of(std::move(off));
}

/// By how many times their median positive figures differ, at most.
double range_of(const std::vector<double>& values) {
  std::vector<double> logarithms;
  for (const double x : values) {
    if (x > 0) logarithms.push_back(std::log(x));
  }
  return std::max(far_factor, std::exp(far_deviations * robust_deviation(logarithms)));
}

/// The rows in as many coordinates as there are rows; of those that hold what cannot be squared nothing.
/// `dimension`: as of how many coordinates alike in size the rows are.
std::vector<Vector> read_rows(AuditRows& rows, Looks& looks, double& dimension) {
  long double squares = 0, fourths = 0;
  std::vector<double> sizes;
  const auto n = static_cast<std::size_t>(rows.n());
  std::vector<std::int64_t> huge(n, 0);
  Triangle triangle(n);
  std::vector<double> block;
  rows.read([&](std::size_t, std::int64_t, std::size_t count, const double* values) {
    block.assign(count * n, 0.0);
    for (std::size_t i = 0; i < count; ++i) {
      sizes.clear();
      for (std::size_t row = 0; row < n; ++row) sizes.push_back(std::abs(values[row * count + i]));
      std::erase_if(sizes, [](double x) { return !(x <= 0x1p480); });
      const auto middle = sizes.begin() + (std::ssize(sizes) - 1) / 2;
      if (sizes.empty()) continue;
      std::nth_element(sizes.begin(), middle, sizes.end());
      const long double square = static_cast<long double>(*middle) * *middle;
      squares += square;
      fourths += square * square;
    }
    for (std::size_t row = 0; row < n; ++row) {
      for (std::size_t i = 0; i < count; ++i) {
        const double x = values[row * count + i];
        if (std::abs(x) <= 0x1p480) {
          block[i * n + row] = x;
        } else if (std::isfinite(x)) {
          ++huge[row];
        } else {
          ++looks.rows[row].nonfinite;
        }
      }
    }
    triangle.add(count, block.data());
  });
  dimension = fourths > 0 ? static_cast<double>(squares * squares / fourths) : 0;
  std::vector<Vector> columns;
  for (std::size_t row = 0; row < n; ++row) {
    AuditRow& found = looks.rows[row];
    if (const std::string bad = rows.bad(static_cast<int>(row)); !bad.empty()) {
      found.nonfinite = 0;
      found.findings.push_back({Evidence::bad_input, bad});
    } else if (found.nonfinite > 0) {
      found.findings.push_back(
          {Evidence::nonfinite, fmt::format("{} value{} NaN or infinite", found.nonfinite,
                                            found.nonfinite == 1 ? " is" : "s are")});
    } else if (huge[row] > 0) {
      found.findings.push_back({Evidence::huge, fmt::format("{} value{} beyond 2^480", huge[row],
                                                            huge[row] == 1 ? " is" : "s are")});
    }
    looks.finite.push_back(found.findings.empty());
    columns.push_back(triangle.column(row));
  }
  return columns;
}

Vector geometric_median_of(const std::vector<const Vector*>& rows) {
  std::vector<const void*> pointers;
  for (const Vector* const row : rows) pointers.push_back(row->data());
  const auto size = static_cast<std::int64_t>(rows.front()->size());
  Vector out(rows.front()->size());
  Plan plan(GeometricMedian{},
            Shape{.n = static_cast<int>(rows.size()), .sizes = {size}, .dtype = DType::f64});
  plan.run(Updates::rows(pointers, size, DType::f64), Output(out));
  if (plan.status() != Status::ok) out.assign(out.size(), 0.0);  // nothing points against it then
  return out;
}

/// The finite rows beside each other.
class Comparison {
 public:
  Comparison(const std::vector<Vector>& columns, Looks& looks) : looks_(looks) {
    for (std::size_t row = 0; row < columns.size(); ++row) {
      if (!looks.finite[row]) continue;
      numbers_.push_back(row);
      vectors_.push_back(&columns[row]);
    }
    const std::size_t m = vectors_.size();
    distances_.assign(m, std::vector<double>(m, 0.0));
    std::vector<double> pairs;
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        // What the frame rounds is no difference.
        const double rounding = 1e-13 * std::sqrt(dot(*vectors_[i], *vectors_[i]));
        const double distance = std::sqrt(squared_distance(*vectors_[i], *vectors_[j]));
        distances_[i][j] = distances_[j][i] = distance > rounding ? distance : 0;
        pairs.push_back(distances_[i][j]);
      }
    }
    median_distance_ = median_of(pairs);
  }

  void measure() {
    const std::size_t m = vectors_.size();
    for (std::size_t i = 0; i < m; ++i) {
      AuditRow& row = found(i);
      row.norm = std::sqrt(dot(*vectors_[i], *vectors_[i]));
      std::vector<double> others = distances_[i];
      others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
      const auto half = others.begin() + (std::ssize(others) - 1) / 2;
      std::nth_element(others.begin(), half, others.end());
      row.distance = *half;
      // Without the row itself: where noise is long, a row's own share of a centre is what it points along.
      std::vector<const Vector*> rest = vectors_;
      rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
      const Vector centre = geometric_median_of(rest);
      const double length = std::sqrt(dot(centre, centre));
      const double product = dot(*vectors_[i], centre);
      row.cosine = row.norm > 0 && length > 0 ? product / row.norm / length : 0;
    }
  }

  void judge(std::int64_t d, double dimension) {
    judge_far(&AuditRow::norm, Evidence::norm, "");
    judge_far(&AuditRow::distance, Evidence::distance, " from the nearest half of the others");
    if (dimension >= least_dimension) {
      judge_short();
      judge_direction(dimension);
    }
    if (static_cast<double>(d) >= least_dimension) judge_copies();
  }

 private:
  AuditRow& found(std::size_t i) { return looks_.rows[numbers_[i]]; }

  std::vector<double> figures(double AuditRow::*figure) {
    std::vector<double> values;
    for (std::size_t i = 0; i < numbers_.size(); ++i) values.push_back(found(i).*figure);
    return values;
  }

  void judge_far(double AuditRow::*figure, Evidence evidence, const char* of) {
    const std::vector<double> values = figures(figure);
    const double median = median_of(values), limit = median * range_of(values);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!(values[i] > limit)) continue;
      found(i).findings.push_back(
          {evidence,
           fmt::format("{:.4g}{}, where {:.4g} is the median and more than {:.4g} looks bad", values[i], of,
                       median, limit),
           {}});
    }
  }

  void judge_short() {
    const std::vector<double> values = figures(&AuditRow::norm);
    const double median = median_of(values), limit = median / range_of(values);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!(values[i] < limit)) continue;
      found(i).findings.push_back(
          {Evidence::norm, fmt::format("{:.4g}, where {:.4g} is the median and less than {:.4g} looks bad",
                                       values[i], median, limit)});
    }
  }

  void judge_direction(double dimension) {
    const std::vector<double> values = figures(&AuditRow::cosine);
    const double median = median_of(values);
    // Rows of noise alone are at right angles, but for chance.
    const double chance = chance_deviations / std::sqrt(dimension);
    const double limit = std::min(-chance, median - far_deviations * robust_deviation(values));
    if (!(median > 0)) return;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!(values[i] < limit)) continue;
      found(i).findings.push_back(
          {Evidence::direction,
           fmt::format("cosine {:.2f} with the others' geometric median, where {:.2f} is the "
                       "median and less than {:.2f} looks bad",
                       values[i], median, limit)});
    }
  }

  void judge_copies() {
    const std::size_t m = numbers_.size();
    std::vector<std::vector<std::size_t>> copies(m);
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < m; ++j) {
        if (j != i && distances_[i][j] <= copy_share * median_distance_) copies[i].push_back(j);
      }
      // Where most rows are the same, that is how rows are.
      if (2 * (copies[i].size() + 1) > m) {
        looks_.most_are_copies = true;
        return;
      }
    }
    const std::vector<bool> spared = spared_of(copies);
    for (std::size_t i = 0; i < m; ++i) {
      if (copies[i].empty() || spared[i]) continue;
      constexpr std::size_t named = 5;
      AuditFinding copy{.evidence = Evidence::copy, .text = {}, .rows = {}};
      double farthest = 0;
      for (const std::size_t j : copies[i]) {
        if (copy.rows.size() < named) copy.rows.push_back(static_cast<int>(numbers_[j]));
        farthest = std::max(farthest, distances_[i][j]);
      }
      copy.text = fmt::format("{} other row{} at a distance of {:.2g}, where {:.4g} is the median",
                              copies[i].size(), copies[i].size() == 1 ? "" : "s", farthest, median_distance_);
      found(i).findings.push_back(std::move(copy));
    }
  }

  /// Of rows that are each other's copies one is what the others copied. It may be a bad row, too, and all
  /// are taken for bad while a majority remains. Else the first of them that nothing else speaks against is
  /// not.
  std::vector<bool> spared_of(const std::vector<std::vector<std::size_t>>& copies) {
    std::size_t good = 0;
    for (std::size_t i = 0; i < copies.size(); ++i)
      good += copies[i].empty() && found(i).findings.empty() ? 1 : 0;
    std::vector<bool> spared(copies.size(), false);
    if (2 * good > looks_.rows.size()) return spared;
    for (std::size_t i = 0; i < copies.size(); ++i) {
      const bool has_one =
          std::any_of(copies[i].begin(), copies[i].end(), [&](std::size_t j) { return spared[j]; });
      spared[i] = !copies[i].empty() && found(i).findings.empty() && !has_one;
      looks_.spares_copies = looks_.spares_copies || spared[i];
    }
    return spared;
  }

  Looks& looks_;
  std::vector<std::size_t> numbers_;
  std::vector<const Vector*> vectors_;
  std::vector<std::vector<double>> distances_;
  double median_distance_ = 0;
};

}  // namespace

std::vector<int> Looks::honest() const {
  std::vector<int> numbers;
  for (std::size_t row = 0; row < rows.size(); ++row) {
    if (rows[row].findings.empty()) numbers.push_back(static_cast<int>(row));
  }
  return numbers;
}

Looks look_at(AuditRows& rows) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  Looks looks;
  looks.rows.assign(static_cast<std::size_t>(rows.n()),
                    AuditRow{.findings = {}, .nonfinite = 0, .norm = nan, .distance = nan, .cosine = nan});
  double dimension = 0;
  const std::vector<Vector> columns = read_rows(rows, looks, dimension);
  if (looks.honest().size() < 3) return looks;
  Comparison comparison(columns, looks);
  comparison.measure();
  const std::span<const std::int64_t> sizes = rows.sizes();
  comparison.judge(std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}), dimension);
  return looks;
}

}  // namespace bragg::detail
