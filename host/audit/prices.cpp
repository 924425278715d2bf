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
#include <variant>

#include "host/attacks/aimed.hpp"
#include "host/attacks/triangle.hpp"
#include "host/attacks/uniform.hpp"
#include "host/audit/kappa.hpp"
#include "rules/bucketing.hpp"
#include "rules/needs.hpp"
#include "rules/solve/points.hpp"

namespace bragg::detail {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// One of each of so many equal stretches of [begin, begin + d), in their order, is added.
void draw_stretches(std::int64_t begin, std::int64_t d, std::int64_t count, std::uint64_t seed,
                    std::vector<std::int64_t>& drawn) {
  // What is left over of d/count goes to the first stretches.
  const std::int64_t length = d / count, longer = d % count;
  for (std::int64_t k = 0; k < count; ++k) {
    const std::int64_t size = length + (k < longer ? 1 : 0);
    const double uniform = uniform_at(seed, drawn.size());
    drawn.push_back(begin +
                    std::min(size - 1, static_cast<std::int64_t>(uniform * static_cast<double>(size))));
    begin += size;
  }
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

/// A sample of all coordinates (an audit refuses a smaller one) as one of all of a basis, which may have
/// more.
Pipeline in_any_basis(Pipeline pipeline) {
  if (auto* const dnc = std::get_if<Dnc>(&pipeline.rule)) dnc->sample = std::numeric_limits<int>::max();
  return pipeline;
}

std::pair<double, double> mean_and_deviation(const Vector& values) {
  const auto count = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double x : values) squares += (x - mean) * (x - mean);
  return {mean, values.size() > 1 ? std::sqrt(squares / (count - 1)) : 0};
}

/// A search among attacks looks at no more than twice as many coordinates.
constexpr std::size_t searched = 4096;

}  // namespace

/// What of a row a pipeline is run on: the sample, or that of it which searches look at.
enum class Prices::View : std::uint8_t { frame, some, all };

Vector Prices::seen(const AuditVector& row, View view) const {
  Vector made = row.frame;
  if (view == View::all) made.insert(made.end(), row.sample.begin(), row.sample.end());
  if (view == View::some) {
    for (const std::size_t k : search_) made.push_back(row.sample[k]);
  }
  return made;
}

/// All that hold much of the spread, and some of the rest, which stand for it.
void Prices::choose_searched(const Vector& held) {
  const double all = std::accumulate(held.begin(), held.end(), 0.0);
  const std::size_t step = std::max<std::size_t>(1, (held.size() + searched - 1) / searched);
  for (std::size_t k = 0; k < held.size(); ++k) {
    const bool is_large = held[k] * static_cast<double>(searched) > all;
    if (!is_large && k % step != 0) continue;
    search_.push_back(k);
    search_weights_.push_back(weights_[k] * (is_large ? 1.0 : static_cast<double>(step)));
  }
}

/// A share of the spread, and its standard error.
struct Prices::Figure {
  double value = nan;
  double error = 0;
};

/// A pipeline on honest rows, and f more.
class Prices::Trial {
 public:
  Trial(const Prices& prices, const Pipeline& pipeline, std::vector<const AuditVector*> honest, int f)
      : prices_(prices),
        pipeline_(in_any_basis(pipeline)),
        honest_(std::move(honest)),
        f_(f),
        combines_(is_combination(pipeline.rule) || needs_of(pipeline).sampling.count > 0) {
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
    for (const AuditVector* const row : rows) values.push_back(prices_.seen(*row, widest()));
    detail::Target target = target_of(std::move(values), widest(), 0);
    return run(target, {});
  }

  Figure run(const AuditVector& bad) {
    if (!full_) full_.emplace(target_of(honest_values(widest()), widest(), f_));
    return run(*full_, prices_.seen(bad, widest()));
  }

  /// start − strength · step, for the strength that does most damage.
  AuditVector strongest(const AuditVector& start, const AuditVector& step) {
    constexpr double most = 10;  // as attacks::optimal_alie and optimal_ipm
    Search search(*this);
    const Vector first = search.seen(start), along = search.seen(step);
    const Best best = detail::strongest(
        most, [&](double strength) { return search.damage_of(detail::plus(first, -strength, along)); });
    return plus(start, -best.strength, step);
  }

  /// The honest row whose f copies do most damage.
  const AuditVector& most_harmful() {
    Search search(*this);
    const AuditVector* worst = honest_.front();
    double most = -1;
    for (const AuditVector* const row : honest_) {
      const double damage = search.damage_of(search.seen(*row));
      if (!(damage > most)) continue;
      most = damage;
      worst = row;
    }
    return *worst;
  }

 private:
  /// Among attacks, on few coordinates.
  struct Search {
    explicit Search(const Trial& trial_in)
        : trial(trial_in),
          view(trial.combines_ ? View::frame : View::some),
          target(trial.target_of(trial.honest_values(view), view, trial.f_)),
          mean(seen(trial.mean_)) {
      weights.assign(trial.mean_.frame.size(), trial.combines_ ? 1.0 : 0.0);
      if (!trial.combines_)
        weights.insert(weights.end(), trial.prices_.search_weights_.begin(),
                       trial.prices_.search_weights_.end());
    }

    Vector seen(const AuditVector& row) const { return trial.prices_.seen(row, view); }
    /// −1: there is no result.
    double damage_of(const Vector& bad) {
      if (target.run(bad) != Status::ok) return -1.0;
      double damage = 0;
      for (std::size_t k = 0; k < mean.size(); ++k) {
        const double off = target.out()[k] - mean[k];
        if (weights[k] > 0) damage += weights[k] * off * off;
      }
      return damage;
    }

    const Trial& trial;
    View view;
    detail::Target target;
    Vector mean, weights;
  };

  double share() const { return 1.0 / static_cast<double>(honest_.size()); }
  View widest() const { return combines_ ? View::frame : View::all; }

  std::vector<Vector> honest_values(View view) const {
    std::vector<Vector> values;
    for (const AuditVector* const row : honest_) values.push_back(prices_.seen(*row, view));
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

  /// A ratio of sums over the sample, and its error. How parts of what is not there whole differ tells it,
  /// but where few coordinates hold most of the spread: then all parts are alike, or the sample has none of
  /// these. So it is not less than coordinates differ, over as many as count; and what the sample misses of
  /// the spread, which is known, is as unsure as a coordinate.
  Figure of_sample(const double* out) const {
    constexpr std::size_t parts = 64;
    const Vector& weights = prices_.weights_;
    std::vector<double> off(parts, 0.0), spread(parts, 0.0), shares;
    double all_off = 0, all_spread = 0, squares = 0;
    for (std::size_t k = 0; k < variance_.size(); ++k) {
      const double difference = out[k] - mean_.sample[k];
      const double held = weights[k] * variance_[k];
      all_off += weights[k] * difference * difference;
      all_spread += held;
      if (!(weights[k] > 1)) continue;
      off[k % parts] += weights[k] * difference * difference;
      spread[k % parts] += held;
      squares += held * held;
      if (held > 0) shares.push_back(difference * difference / variance_[k]);
    }
    if (!(all_spread > 0)) return {};  // rows differ elsewhere
    const double value = all_off / all_spread;
    if (shares.empty()) return {value, 0};
    const auto [mean_share, deviation] = mean_and_deviation(shares);
    Vector left;
    for (std::size_t p = 0; p < parts; ++p) left.push_back(off[p] - value * spread[p]);
    const double among_parts = mean_and_deviation(left).second * std::sqrt(parts) / all_spread;
    const double among_coordinates = deviation * std::sqrt(squares) / all_spread;
    const double missed = std::min(1.0, std::abs(1 - all_spread / spread_));
    constexpr double usual = 0.05;
    return {value, std::max(among_parts, among_coordinates) +
                       (missed > usual ? missed * (mean_share + deviation) : 0.0)};
  }

  const Prices& prices_;
  Pipeline pipeline_;
  std::vector<const AuditVector*> honest_;
  int f_;
  bool combines_;
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
  draw(rows.sizes(), options.sample == 0 ? audit.d : std::min(options.sample, audit.d), options.seed);
  audit.sample = std::ssize(sampled_);
  // Bad rows that can be computed with have columns, too, behind all others, which they leave as they are.
  std::erase_if(bad_, [&](int row) { return !looks.finite[static_cast<std::size_t>(row)]; });
  read(rows, audit);
  bad_.clear();
  for (int row = 0; row < rows.n(); ++row) {
    const auto i = static_cast<std::size_t>(row);
    if (!looks.rows[i].findings.empty()) bad_.push_back(row);
    // By coordinate such a row is what it is.
    if (!looks.finite[i]) rows_[i].frame.assign(mean_.frame.size(), nan);
  }
  describe(audit);
}

/// By their sizes, but of small tensors more, or all: they may be what rows differ in most (statistics of
/// batch normalisation).
void Prices::draw(std::span<const std::int64_t> sizes, std::int64_t count, std::uint64_t seed) {
  constexpr std::int64_t enough = 1024;
  const std::int64_t d = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  const std::int64_t least = std::min(enough, count / std::max<std::int64_t>(1, std::ssize(sizes)));
  std::int64_t begin = 0;
  for (const std::int64_t size : sizes) {
    const auto part = static_cast<std::int64_t>(
        std::ceil(static_cast<double>(count) * (static_cast<double>(size) / static_cast<double>(d))));
    const std::int64_t drawn = count == d ? size : std::min(size, std::max(part, least));
    if (drawn > 0) draw_stretches(begin, size, drawn, seed, sampled_);
    weights_.resize(sampled_.size(), drawn > 0 ? static_cast<double>(size) / static_cast<double>(drawn) : 0);
    begin += size;
  }
}

void Prices::read(AuditRows& rows, Audit& audit) {
  const std::size_t n = rows_.size(), m = order_.size(), deviations = deviations_.size();
  // Honest rows less their mean, the mean, deviations, bad rows.
  const std::size_t columns = m + 1 + deviations + bad_.size();
  std::vector<std::size_t> places(n);
  for (std::size_t row = 0; row < n; ++row) rows_[row].sample.reserve(sampled_.size());
  for (AuditVector& deviation : deviations_) deviation.sample.reserve(sampled_.size());
  audit.shares.assign(rows.sizes().size(), 0.0);
  Triangle triangle(columns);
  std::vector<double> block, line(columns);
  std::size_t next = 0;
  std::int64_t before = 0;
  double skewness = 0;
  double varying = 0;
  Vector held;  // of the spread, by what a sampled coordinate stands for
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
      if (next == sampled_.size() || sampled_[next] != before + static_cast<std::int64_t>(i)) continue;
      const double weight = weights_[next++];
      for (std::size_t row = 0; row < n; ++row) rows_[row].sample.push_back(value(static_cast<int>(row)));
      mean_.sample.push_back(mean);
      held.push_back(weight * squares);
      for (std::size_t k = 0; k < deviations; ++k) deviations_[k].sample.push_back(line[m + 1 + k]);
      if (!(squares > 0)) continue;
      double cubes = 0;
      const double deviation = std::sqrt(squares / static_cast<double>(m));
      for (std::size_t k = 0; k < m; ++k) {
        const double off = line[k] / deviation;
        cubes += off * off * off;
      }
      skewness += weight * std::abs(cubes / static_cast<double>(m));
      varying += weight;
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
  choose_searched(held);
  if (varying > 0) audit.skewness = skewness / varying;
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
  Trial trial(*this, pipeline, left, f);
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
  if (!consider("mimic", trial.most_harmful())) return;
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
    const Figure found = Trial(*this, pipeline, honest, 0).run_beside(rows);
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
