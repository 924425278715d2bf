// SPDX-License-Identifier: Apache-2.0
#include "host/audit/prices.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <optional>
#include <utility>

#include "host/attacks/aimed.hpp"
#include "host/attacks/triangle.hpp"
#include "host/attacks/uniform.hpp"
#include "host/audit/kappa.hpp"
#include "rules/bucketing.hpp"
#include "rules/solve/points.hpp"

namespace bragg::detail {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// One coordinate of each of so many equal stretches of d, in their order.
std::vector<std::int64_t> draw_sample(std::int64_t d, std::int64_t count, std::uint64_t seed) {
  std::vector<std::int64_t> drawn;
  // What is left over of d/count goes to the first stretches.
  const std::int64_t length = d / count, longer = d % count;
  for (std::int64_t k = 0, begin = 0; k < count; ++k) {
    const std::int64_t size = length + (k < longer ? 1 : 0);
    const double uniform = uniform_at(seed, static_cast<std::uint64_t>(k));
    drawn.push_back(begin +
                    std::min(size - 1, static_cast<std::int64_t>(uniform * static_cast<double>(size))));
    begin += size;
  }
  return drawn;
}

std::vector<int> permuted(const std::vector<int>& numbers, std::uint64_t seed) {
  std::vector<int> places(numbers.size()), made;
  draw_permutation({.seed = seed}, static_cast<int>(numbers.size()), places.data());
  for (const int place : places) made.push_back(numbers[static_cast<std::size_t>(place)]);
  return made;
}

AuditVector plus(const AuditVector& a, double factor, const AuditVector& b) {
  return {detail::plus(a.frame, factor, b.frame), detail::plus(a.sample, factor, b.sample)};
}

AuditVector filled(const AuditVector& like, double value) {
  return {Vector(like.frame.size(), value), Vector(like.sample.size(), value)};
}

bool is_valid(const Pipeline& pipeline, int n) {
  try {
    validate(pipeline, n);
  } catch (const Error&) {
    return false;
  }
  return true;
}

/// What of a row a pipeline is run on.
enum class View : std::uint8_t { frame, some, all };

/// A search among attacks looks at no more coordinates than this.
constexpr std::size_t searched = 4096;

Vector seen(const AuditVector& row, View view) {
  Vector made = row.frame;
  const std::size_t step =
      view == View::some ? std::max<std::size_t>(1, row.sample.size() / searched) : std::size_t{1};
  if (view != View::frame) {
    for (std::size_t k = 0; k < row.sample.size(); k += step) made.push_back(row.sample[k]);
  }
  return made;
}

}  // namespace

/// A share of the spread, and its standard error.
struct Prices::Figure {
  double value = nan;
  double error = 0;
};

/// A pipeline on honest rows, and f more.
class Prices::Trial {
 public:
  Trial(const Pipeline& pipeline, std::vector<const AuditVector*> honest, int f, bool all)
      : pipeline_(pipeline),
        honest_(std::move(honest)),
        f_(f),
        all_(all),
        combines_(is_combination(pipeline.rule)) {
    mean_ = filled(*honest_.front(), 0);
    for (const AuditVector* const row : honest_) mean_ = plus(mean_, share(), *row);
    variance_ = Vector(mean_.sample.size(), 0.0);
    for (const AuditVector* const row : honest_) {
      deviations_.push_back(detail::plus(row->frame, -1, mean_.frame));
      spread_ += share() * dot(deviations_.back(), deviations_.back());
      for (std::size_t k = 0; k < variance_.size(); ++k) {
        const double off = row->sample[k] - mean_.sample[k];
        variance_[k] += share() * off * off;
      }
    }
  }

  bool differ() const { return spread_ > 0; }
  const AuditVector& mean() const { return mean_; }
  const std::vector<Vector>& deviations() const { return deviations_; }

  /// On these rows as they are, honest or not.
  Figure run_beside(const std::vector<const AuditVector*>& rows) {
    std::vector<Vector> values;
    for (const AuditVector* const row : rows) values.push_back(seen(*row, widest()));
    detail::Target target = target_of(std::move(values), widest(), 0);
    return run(target, {});
  }

  Figure run(const AuditVector& bad) {
    if (!full_) full_.emplace(target_of(honest_values(widest()), widest(), f_));
    return run(*full_, seen(bad, widest()));
  }

  /// start − strength · step, for the strength that does most damage.
  AuditVector strongest(const AuditVector& start, const AuditVector& step) {
    constexpr double most = 10;  // as attacks::optimal_alie and optimal_ipm
    const View view = combines_ ? View::frame : View::some;
    detail::Target target = target_of(honest_values(view), view, f_);
    const Vector first = seen(start, view), along = seen(step, view), mean = seen(mean_, view);
    const auto begin = combines_ ? 0 : static_cast<std::ptrdiff_t>(mean_.frame.size());
    const Best best = detail::strongest(most, [&](double strength) {
      if (target.run(detail::plus(first, -strength, along)) != Status::ok) return -1.0;
      const Vector off = detail::plus(target.out(), -1, mean);
      return std::inner_product(off.begin() + begin, off.end(), off.begin() + begin, 0.0);
    });
    return plus(start, -best.strength, step);
  }

 private:
  double share() const { return 1.0 / static_cast<double>(honest_.size()); }
  View widest() const { return combines_ ? View::frame : View::all; }

  std::vector<Vector> honest_values(View view) const {
    std::vector<Vector> values;
    for (const AuditVector* const row : honest_) values.push_back(seen(*row, view));
    return values;
  }

  detail::Target target_of(std::vector<Vector> values, View view, int f) const {
    const auto frame = static_cast<std::int64_t>(mean_.frame.size());
    const auto rest = static_cast<std::int64_t>(values.front().size()) - frame;
    if (view == View::frame) return {pipeline_, std::move(values), {frame}, {}, f};
    return {pipeline_, std::move(values), {frame, rest}, {true, false}, f};
  }

  Figure run(detail::Target& target, const Vector& bad) const {
    const Status status = target.run(bad);
    // Too long a search says nothing of the data; that there is no result, because of the rows, does.
    if (status == Status::too_large || status == Status::not_converged) return {};
    if (status != Status::ok) return {infinity, 0};
    if (!std::all_of(target.out().begin(), target.out().end(), [](double x) { return std::isfinite(x); }))
      return {infinity, 0};
    if (combines_) return {squared_distance(target.out(), mean_.frame) / spread_, 0};
    return of_sample(target.out().data() + mean_.frame.size());
  }

  /// A ratio of sums over the sample, and its error from how parts of the sample differ.
  Figure of_sample(const double* out) const {
    const std::size_t size = variance_.size(), parts = std::min<std::size_t>(64, size);
    std::vector<double> off(parts, 0.0), spread(parts, 0.0);
    for (std::size_t k = 0; k < size; ++k) {
      const double difference = out[k] - mean_.sample[k];
      off[k % parts] += difference * difference;
      spread[k % parts] += variance_[k];
    }
    const double all_off = std::accumulate(off.begin(), off.end(), 0.0);
    const double all_spread = std::accumulate(spread.begin(), spread.end(), 0.0);
    if (!(all_spread > 0)) return {};  // rows differ elsewhere
    const double value = all_off / all_spread;
    if (all_) return {value, 0};
    double squares = 0;
    for (std::size_t p = 0; p < parts; ++p) {
      const double left = off[p] - value * spread[p];
      squares += left * left;
    }
    const double count = static_cast<double>(parts);
    return {value, parts > 1 ? std::sqrt(squares * count / (count - 1)) / all_spread : infinity};
  }

  const Pipeline& pipeline_;
  std::vector<const AuditVector*> honest_;
  int f_;
  bool all_, combines_;
  AuditVector mean_;
  std::vector<Vector> deviations_;
  Vector variance_;  // of the sampled coordinates
  double spread_ = 0;
  std::optional<detail::Target> full_;
};

Prices::Prices(AuditRows& rows, const Looks& looks, const AuditOptions& options, Audit& audit)
    : honest_(looks.honest()), order_(permuted(honest_, options.seed)) {
  for (int row = 0; row < rows.n(); ++row) {
    if (!looks.rows[static_cast<std::size_t>(row)].findings.empty()) bad_.push_back(row);
  }
  const int most = (audit.n - 1) / 2, honest = static_cast<int>(honest_.size());
  most_replaced_ = std::clamp(most - static_cast<int>(bad_.size()), 0, honest - 1);
  rows_.resize(static_cast<std::size_t>(audit.n));
  deviations_.resize(static_cast<std::size_t>(most_replaced_) + 1);
  all_ = options.sample == 0 || options.sample >= audit.d;
  audit.sample = all_ ? audit.d : options.sample;
  // Bad rows that can be computed with have columns, too, behind all others, which they leave as they are.
  std::erase_if(bad_, [&](int row) { return !looks.finite[static_cast<std::size_t>(row)]; });
  read(rows, draw_sample(audit.d, audit.sample, options.seed), audit);
  bad_.clear();
  for (int row = 0; row < rows.n(); ++row) {
    const auto i = static_cast<std::size_t>(row);
    if (!looks.rows[i].findings.empty()) bad_.push_back(row);
    if (!looks.finite[i]) rows_[i] = filled(mean_, nan);
  }
  describe(audit);
}

void Prices::read(AuditRows& rows, const std::vector<std::int64_t>& sampled, Audit& audit) {
  const std::size_t n = rows_.size(), m = order_.size(), deviations = deviations_.size();
  // Honest rows less their mean, the mean, deviations, bad rows.
  const std::size_t columns = m + 1 + deviations + bad_.size();
  std::vector<std::size_t> places(n);
  for (std::size_t row = 0; row < n; ++row) rows_[row].sample.reserve(sampled.size());
  for (AuditVector& deviation : deviations_) deviation.sample.reserve(sampled.size());
  audit.shares.assign(rows.sizes().size(), 0.0);
  Triangle triangle(columns);
  std::vector<double> block, line(columns);
  std::size_t next = 0;
  std::int64_t before = 0;
  double skewness = 0;
  std::int64_t varying = 0;
  rows.read([&](std::size_t tensor, std::int64_t, std::size_t count, const double* values) {
    block.resize(count * columns);
    for (std::size_t i = 0; i < count; ++i) {
      const auto value = [&](int row) { return values[static_cast<std::size_t>(row) * count + i]; };
      double mean = 0;
      for (const int row : order_) mean += value(row);
      mean /= static_cast<double>(m);
      double squares = 0;
      for (std::size_t k = 0; k < m; ++k) {
        line[k] = value(order_[k]) - mean;
        squares += line[k] * line[k];
      }
      audit.shares[tensor] += squares;
      line[m] = mean;
      // The last rows of the order, one more each time: their mean and sum of squares.
      double some_mean = 0, some_squares = 0;
      for (std::size_t k = m; k-- > 0;) {
        const auto taken = static_cast<double>(m - k);
        const double off = line[k] - some_mean;
        some_mean += off / taken;
        some_squares += off * (line[k] - some_mean);
        if (k < deviations) line[m + 1 + k] = std::sqrt(std::max(0.0, some_squares) / taken);
      }
      for (std::size_t k = 0; k < bad_.size(); ++k) line[m + 1 + deviations + k] = value(bad_[k]);
      std::copy(line.begin(), line.end(), block.begin() + static_cast<std::ptrdiff_t>(i * columns));
      if (next == sampled.size() || sampled[next] != before + static_cast<std::int64_t>(i)) continue;
      ++next;
      for (std::size_t row = 0; row < n; ++row) rows_[row].sample.push_back(value(static_cast<int>(row)));
      mean_.sample.push_back(mean);
      for (std::size_t k = 0; k < deviations; ++k) deviations_[k].sample.push_back(line[m + 1 + k]);
      if (!(squares > 0)) continue;
      double cubes = 0;
      const double deviation = std::sqrt(squares / static_cast<double>(m));
      for (std::size_t k = 0; k < m; ++k) {
        const double off = line[k] / deviation;
        cubes += off * off * off;
      }
      skewness += std::abs(cubes / static_cast<double>(m));
      ++varying;
    }
    before += static_cast<std::int64_t>(count);
    triangle.add(count, block.data());
  });
  mean_.frame = triangle.column(m);
  for (std::size_t k = 0; k < m; ++k)
    rows_[static_cast<std::size_t>(order_[k])].frame = detail::plus(mean_.frame, 1, triangle.column(k));
  for (std::size_t k = 0; k < deviations; ++k) deviations_[k].frame = triangle.column(m + 1 + k);
  for (std::size_t k = 0; k < bad_.size(); ++k)
    rows_[static_cast<std::size_t>(bad_[k])].frame = triangle.column(m + 1 + deviations + k);
  if (varying > 0) audit.skewness = skewness / static_cast<double>(varying);
}

void Prices::describe(Audit& audit) {
  const auto m = static_cast<double>(honest_.size());
  const double all = std::accumulate(audit.shares.begin(), audit.shares.end(), 0.0);
  if (!std::isfinite(all)) throw Error(Status::bad_file, "a row that was finite changed while it was read");
  spread_ = all / m;
  for (double& share : audit.shares) share = all > 0 ? share / all : 0;
  audit.mean_norm = std::sqrt(dot(mean_.frame, mean_.frame));
  audit.spread = std::sqrt(spread_);
  std::vector<double> distances;
  for (std::size_t i = 0; i < honest_.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      distances.push_back(std::sqrt(squared_distance(rows_[static_cast<std::size_t>(honest_[i])].frame,
                                                     rows_[static_cast<std::size_t>(honest_[j])].frame)));
    }
  }
  std::sort(distances.begin(), distances.end());
  audit.least_distance = distances.front();
  audit.median_distance = distances[(distances.size() - 1) / 2];
  audit.greatest_distance = distances.back();
  // The deviation of m normal values' skewness, and from it the mean of its size.
  audit.normal_skewness = std::sqrt(6 * (m - 2) / ((m + 1) * (m + 3))) * std::sqrt(2 / std::numbers::pi);
}

void Prices::attack(const Pipeline& pipeline, int f, AuditPoint& point) const {
  const auto replaced = static_cast<std::size_t>(std::max(0, f - static_cast<int>(bad_.size())));
  std::vector<const AuditVector*> left;
  for (std::size_t k = replaced; k < order_.size(); ++k)
    left.push_back(&rows_[static_cast<std::size_t>(order_[k])]);
  point.rows = static_cast<int>(left.size()) + f;
  if (!is_valid(pipeline, point.rows)) return;
  point.kappa = kappa_of(pipeline, point.rows, f);
  Trial trial(pipeline, left, f, all_);
  if (!trial.differ()) return;
  const AuditVector& mean = trial.mean();
  const AuditVector& deviation = deviations_[replaced];
  const AuditVector nothing = filled(mean, 0);
  const auto consider = [&](const char* name, const AuditVector& bad) {
    const Figure found = trial.run(bad);
    if (point.attack.empty() || found.value > point.worst || std::isnan(found.value)) {
      point.worst = found.value;
      point.worst_error = found.error;
      point.attack = name;
    }
    // Nothing is worse, and of what is not known nothing can be said.
    return std::isfinite(point.worst);
  };
  Vector against = deviation.frame;
  for (double& x : against) x = -x;
  if (!consider("nan", filled(mean, nan))) return;
  if (!consider("far", plus(mean, -1e6, deviation))) return;
  if (!consider("sign_flip", plus(nothing, -1, mean))) return;
  if (!consider("min_max", plus(mean, -min_max_strength(trial.deviations(), against), deviation))) return;
  if (!consider("optimal_alie", trial.strongest(mean, deviation))) return;
  consider("optimal_ipm", trial.strongest(nothing, mean));
}

AuditPoint Prices::point(const Pipeline& pipeline, int f) const {
  AuditPoint point;
  point.f = f;
  const auto m = static_cast<int>(honest_.size());
  point.bound = f < m ? static_cast<double>(f) / (m - f) : infinity;
  std::vector<const AuditVector*> honest, all;
  for (const int row : honest_) honest.push_back(&rows_[static_cast<std::size_t>(row)]);
  for (const AuditVector& row : rows_) all.push_back(&row);
  const auto beside = [&](const std::vector<const AuditVector*>& rows, double& value, double& error) {
    if (!is_valid(pipeline, static_cast<int>(rows.size()))) return;
    const Figure found = Trial(pipeline, honest, 0, all_).run_beside(rows);
    value = found.value;
    error = found.error;
  };
  beside(honest, point.price, point.price_error);
  if (!bad_.empty()) beside(all, point.given, point.given_error);
  if (f > 0) {
    attack(pipeline, f, point);
  } else {
    point.rows = m;
    point.worst = point.price;
    point.worst_error = point.price_error;
    if (is_valid(pipeline, m)) point.kappa = kappa_of(pipeline, m, 0);
  }
  return point;
}

}  // namespace bragg::detail
