// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "host/verify/aimed.hpp"

namespace bragg::verify {

namespace {

using Vector = std::vector<long double>;

/// See aimed.hpp.
constexpr long double of_bound = 1 + 0x1p-15L;     ///< of a squared bound that distances decided
constexpr long double of_spread = 0x1p-14L;        ///< of s², likewise
constexpr long double of_coefficients = 0x1p-16L;  ///< of the spread
constexpr long double of_factor = 0x1p-19L;        ///< of a clipping factor
constexpr long double of_objective = 1e-9L;
/// Honest rows whose spread is more than so many times the length that they are clipped to: what distances of
/// clipped points are off by is a share of their squares before, as of_product of extents squared.
constexpr long double far_beyond_clip = 4;
constexpr long double of_product = 0x1p-40L;
/// Of a squared distance and the spread, what a distance that is clear may be off by.
constexpr long double of_clear = 0x1p-20L;
/// Of the distance from o: f64 rows that differ by less count as one where rows are measured from o.
constexpr long double of_reference = 0x1p-900L;

/// A row, or what a pre-aggregator made of rows, from the base on.
struct Point {
  Vector at;
  bool bad = false;
  bool infinite = false;  ///< then `at` says nothing
  long double weight = 1;
};

long double length(const Vector& x) {
  long double squared = 0;
  for (const long double value : x) squared += value * value;
  return std::sqrt(squared);
}

long double distance(const Vector& a, const Vector& b) {
  long double squared = 0;
  for (std::size_t j = 0; j < a.size(); ++j) squared += (a[j] - b[j]) * (a[j] - b[j]);
  return std::sqrt(squared);
}

/// Whether a row counts as infinite.
bool is_infinite(const Vector& row, DType dtype) {
  return std::any_of(row.begin(), row.end(), [&](long double x) {
    return !std::isfinite(x) || (dtype == DType::f64 && std::fabs(x) > 0x1p500L);
  });
}

bool is_coordinate_wise(const Aggregator& rule) {
  return std::holds_alternative<Median>(rule) || std::holds_alternative<TrimmedMean>(rule) ||
         std::holds_alternative<Meamed>(rule) || std::holds_alternative<Phocas>(rule) ||
         std::holds_alternative<SignVote>(rule) || std::holds_alternative<Bulyan>(rule);
}

template <class T>
bool has(const Pipeline& pipeline) {
  return std::any_of(pipeline.pre.begin(), pipeline.pre.end(),
                     [](const PreAggregator& stage) { return std::holds_alternative<T>(stage); });
}

int f_of(const Aggregator& rule, int otherwise) {
  return std::visit(
      [&](const auto& one) {
        if constexpr (requires { one.f; }) return one.f;
        return otherwise;
      },
      rule);
}

/// The part of a case that is judged by itself: all coordinates, or a tensor's.
class Part {
 public:
  Part(const Case& drawn, const Vector& out, std::int64_t first, std::int64_t size, Verdict& verdict);
  /// A run that says it has not converged is held to the gap that it proves.
  void heed(const Report& report) {
    if (!report.converged && report.optimality_gap > gap_) gap_ = report.optimality_gap;
    converged_ = report.converged;
  }
  void judge();

 private:
  void measure_from(const Vector& base);
  void apply(const PreAggregator& stage);
  void clip_to(long double most);
  void mix(const Bucketing& stage);
  void measure_points();
  void set_allowances();

  void judge_rule();
  void judge_after_nnm(int f);
  void judge_lengths();
  void judge_inside();
  void judge_ranges(long double beyond);
  void judge_votes(long double step);
  void judge_mean_of_clipped();
  void judge_krum(int f, int neighbors, int m);
  void judge_sum_of_distances(long double floor, bool to_convergence);
  void judge_objective(long double floor);
  void judge_autogm(long double lam);
  void judge_centered_clipping(const CenteredClipping& rule);
  void judge_is_a_row();

  void check_ball(const Vector& centre, long double radius, const char* what);
  void check_kappa(long double kappa, const char* what);
  void breach(std::string what, std::size_t j, long double got, long double expected, long double bound);

  /// A radius that distances decided.
  long double decided(long double radius) const {
    const long double beside = of_coefficients * spread_ + merged_ + displaced_ + 2 * blurred_;
    return radius > 0 ? std::sqrt(radius * radius * of_bound + of_spread * spread_ * spread_) + beside
                      : beside;
  }
  /// What the square of a point's distance from the result may be off, where the result is.
  long double unclear(const Point& point) const;
  /// What may be added to the sum of distances by points about the result whose side of it is not known.
  long double around(const std::vector<const Point*>& points) const;
  /// The honest points' distances to `from`, ascending.
  std::vector<long double> honest_distances(const Vector& from) const;
  /// The distance of the mean of the n−f points nearest to `from`, of n, from the mean of the n−f honest ones
  /// nearest to it; `centre` is set to the latter.
  long double replaced(const Vector& from, int f, Vector& centre) const;
  std::vector<long double> krum_scores(int neighbors) const;

  const Case& drawn_;
  const Pipeline& pipeline_;
  DType dtype_;
  Verdict& verdict_;
  std::int64_t first_;
  std::size_t d_;
  Vector given_;  ///< the output as it is
  Vector out_;    ///< from the base on
  Vector base_;
  Vector reference_;  ///< o, absolute
  bool from_reference_ = false;
  std::vector<Point> points_;
  long double longest_ = 0;      ///< of all rows, from the base on
  long double rows_spread_ = 0;  ///< of honest rows, before any pre-aggregator
  long double merged_ = 0;       ///< rows this near to each other are one to distances: f64 rows far from o
  long double clipped_to_ = -1;  ///< no point is farther from o; -1: nothing is known
  bool mixed_ = false;
  long double gap_ = of_objective;
  bool converged_ = true;
  long double of_weights_ = 0;  ///< what the points' weights may be off, added up
  long double displaced_ = 0;   ///< honest points are known to this: clip factors
  long double blurred_ = 0;  ///< distances are known to this: honest rows far beyond what they are clipped to
  Vector allowance_;

  int n_ = 0;
  int bad_ = 0;
  std::vector<const Vector*> honest_;
  Vector mean_;
  long double spread_ = 0;
  long double honest_weight_ = 0;
  long double bad_weight_ = 0;
};

Part::Part(const Case& drawn, const Vector& out, std::int64_t first, std::int64_t size, Verdict& verdict)
    : drawn_(drawn),
      pipeline_(drawn.pipeline),
      dtype_(drawn.request.dtype),
      verdict_(verdict),
      first_(first),
      d_(static_cast<std::size_t>(size)) {
  const auto slice = [&](const Vector& row) {
    return Vector(row.begin() + first, row.begin() + first + size);
  };
  const Request& request = drawn.request;
  given_ = slice(out);
  out_ = given_;
  reference_ = request.reference.empty() ? Vector(d_, 0) : slice(request.reference);
  for (std::size_t i = 0; i < request.rows.size(); ++i) {
    if (drawn.roles[i] == Role::absent) continue;
    Point point{.at = slice(request.rows[i]), .bad = drawn.roles[i] == Role::bad};
    point.infinite = is_infinite(point.at, dtype_);
    if (!request.weights.empty()) point.weight = static_cast<long double>(request.weights[i]);
    points_.push_back(std::move(point));
  }
  from_reference_ = has<Clip>(pipeline_) || has<Arc>(pipeline_) || has<QuantileClip>(pipeline_) ||
                    std::holds_alternative<Cge>(pipeline_.rule) ||
                    std::holds_alternative<CenteredClipping>(pipeline_.rule) ||
                    std::holds_alternative<Balance>(pipeline_.rule) ||
                    std::holds_alternative<FlTrust>(pipeline_.rule) ||
                    std::holds_alternative<FoolsGold>(pipeline_.rule) ||
                    std::holds_alternative<MajorityCluster>(pipeline_.rule);
  const auto honest =
      std::find_if(points_.begin(), points_.end(), [](const Point& point) { return !point.bad; });
  measure_from(from_reference_ ? reference_ : Vector(honest->at));
}

void Part::measure_from(const Vector& base) {
  base_ = base;
  allowance_.assign(d_, 0);
  for (std::size_t j = 0; j < d_; ++j) {
    long double largest = from_reference_ ? std::fabs(reference_[j]) : 0;
    for (Point& point : points_) {
      if (point.infinite) continue;
      if (!point.bad) largest = std::max(largest, std::fabs(point.at[j]));
      point.at[j] -= base[j];
    }
    out_[j] -= base[j];
    allowance_[j] = largest;  // until set_allowances
  }
  Vector centre(d_, 0);
  long double honest = 0;
  for (const Point& point : points_) {
    if (!point.bad) ++honest;
    for (std::size_t j = 0; j < d_ && !point.bad; ++j) centre[j] += point.at[j];
  }
  for (long double& x : centre) x /= honest;
  for (const Point& point : points_) {
    if (!point.bad) rows_spread_ += std::pow(distance(point.at, centre), 2.0L) / honest;
  }
  rows_spread_ = std::sqrt(rows_spread_);
  for (const Point& point : points_) {
    if (point.infinite) continue;
    const long double far = length(point.at);
    longest_ = std::max(longest_, far);
    if (dtype_ == DType::f64 && from_reference_ && !point.bad)
      merged_ = std::max(merged_, of_reference * far);
  }
}

void Part::apply(const PreAggregator& stage) {
  if (const auto* const clip = std::get_if<Clip>(&stage)) clip_to(clip->c);
  std::vector<long double> lengths;
  for (const Point& point : points_)
    lengths.push_back(point.infinite ? std::numeric_limits<long double>::infinity() : length(point.at));
  std::sort(lengths.begin(), lengths.end());
  if (const auto* const arc = std::get_if<Arc>(&stage)) {
    const auto n = static_cast<int>(points_.size());
    const auto k = static_cast<std::size_t>(2LL * arc->f * (n - arc->f) / n);
    if (k > 0) clip_to(lengths[lengths.size() - 1 - k]);
  }
  if (const auto* const quantile = std::get_if<QuantileClip>(&stage)) {
    const long double rank = std::ceil(quantile->q * static_cast<long double>(lengths.size()) - 1e-9L);
    clip_to(lengths[static_cast<std::size_t>(rank) - 1]);
  }
  if (const auto* const bucketing = std::get_if<Bucketing>(&stage)) mix(*bucketing);
}

void Part::clip_to(long double most) {
  bool honest_clipped = false;
  Vector centre(d_, 0);
  long double honest = 0;
  for (const Point& point : points_) {
    if (point.bad) continue;
    ++honest;
    honest_clipped = honest_clipped || length(point.at) > most * (1 - of_factor);
    for (std::size_t j = 0; j < d_; ++j) centre[j] += point.at[j];
  }
  if (honest_clipped) {
    displaced_ += 2 * of_factor * most;
    long double squared = 0;
    for (long double& x : centre) x /= honest;
    for (const Point& point : points_) {
      if (!point.bad) squared += std::pow(distance(point.at, centre), 2.0L);
    }
    const long double spread = std::sqrt(squared / honest);
    if (spread > far_beyond_clip * most) blurred_ = std::sqrt(64 * of_product * honest) * spread;
  }
  for (Point& point : points_) {
    if (point.infinite) point.at.assign(d_, 0);
    point.infinite = false;
    const long double now = length(point.at);
    if (now <= most) continue;
    for (long double& x : point.at) x *= most / now;
  }
  clipped_to_ = clipped_to_ < 0 ? most : std::min(clipped_to_, most);
  mixed_ = true;
}

void Part::mix(const Bucketing& stage) {
  // A row among the majority stands for a bucket that is no farther from it than what cancels in it leaves.
  long double across = 0;
  for (const Point& a : points_) {
    for (const Point& b : points_) {
      if (!a.bad && !b.bad) across = std::max(across, distance(a.at, b.at));
    }
  }
  displaced_ += 2 * std::sqrt(of_product / of_clear) * across;
  std::vector<Point> buckets;
  for (std::size_t place = 0; place < points_.size(); place += static_cast<std::size_t>(stage.s)) {
    Point bucket{.at = Vector(d_, 0), .weight = 0};
    const std::size_t end = std::min(points_.size(), place + static_cast<std::size_t>(stage.s));
    for (std::size_t at = place; at < end; ++at) {
      const Point& point = points_[static_cast<std::size_t>(stage.permutation[at])];
      bucket.bad = bucket.bad || point.bad;
      // The library decides what a bad bucket holds: see docs/numerics.md.
      bucket.infinite = bucket.infinite || point.bad;
      bucket.weight += point.weight;
      for (std::size_t j = 0; j < d_ && !bucket.bad; ++j) bucket.at[j] += point.weight * point.at[j];
    }
    for (long double& x : bucket.at) x /= bucket.weight;
    if (drawn_.request.weights.empty()) bucket.weight = 1;
    buckets.push_back(std::move(bucket));
  }
  points_ = std::move(buckets);
  mixed_ = true;
}

void Part::measure_points() {
  n_ = static_cast<int>(points_.size());
  mean_.assign(d_, 0);
  for (const Point& point : points_) {
    (point.bad ? bad_weight_ : honest_weight_) += point.weight;
    if (point.bad) {
      ++bad_;
    } else {
      honest_.push_back(&point.at);
    }
  }
  for (const Vector* const point : honest_) {
    for (std::size_t j = 0; j < d_; ++j) mean_[j] += (*point)[j] / static_cast<long double>(honest_.size());
  }
  for (const Vector* const point : honest_)
    spread_ += std::pow(distance(*point, mean_), 2.0L) / static_cast<long double>(honest_.size());
  spread_ = std::sqrt(spread_) + displaced_;
}

void Part::set_allowances() {
  const DType dtype_of_mixed = dtype_ == DType::f64 ? DType::f64 : DType::f32;
  const auto rows = static_cast<long double>(drawn_.request.rows.size());
  const bool mixes = mixed_ || has<Nnm>(pipeline_);
  const long double of_sum = sum_error_of(drawn_.request, !pipeline_.pre.empty());
  for (std::size_t j = 0; j < d_; ++j) {
    const long double largest = allowance_[j];
    long double allowed = 0.5001L * spacing(out_dtype(drawn_.request), out_[j] + base_[j]);
    allowed += (rows + 16) * std::max(of_sum * largest, 0x1p-1075L);
    if (mixes && is_coordinate_wise(pipeline_.rule)) allowed += 0.5001L * spacing(dtype_of_mixed, largest);
    // Rows that are stretched bring as much more of the sum's rounding.
    if (std::holds_alternative<FlTrust>(pipeline_.rule))
      allowed += (rows + 16) * 0x1p20L * of_sum * std::fabs(reference_[j]);
    if (clipped_to_ >= 0) {
      long double farthest = 0;
      for (const Vector* const point : honest_) farthest = std::max(farthest, std::fabs((*point)[j]));
      allowed += of_factor * farthest;
    }
    allowance_[j] = allowed;
  }
}

void Part::breach(std::string what, std::size_t j, long double got, long double expected, long double bound) {
  if (verdict_.breach) return;
  verdict_.breach = Breach{.what = std::move(what),
                           .coordinate = first_ + static_cast<std::int64_t>(j),
                           .got = got,
                           .expected = expected,
                           .bound = bound};
}

void Part::check_ball(const Vector& centre, long double radius, const char* what) {
  long double squared = 0;
  std::size_t worst = 0;
  long double most = -1;
  for (std::size_t j = 0; j < d_; ++j) {
    const long double off = std::max(0.0L, std::fabs(out_[j] - centre[j]) - allowance_[j]);
    squared += off * off;
    if (off > most) {
      most = off;
      worst = j;
    }
  }
  const long double off = std::sqrt(squared);
  if (off > 0) verdict_.worst = std::max(verdict_.worst, radius > 0 ? off / radius : 1e9L);
  if (off <= radius) return;
  breach(fmt::format("{}: {:.3g} where {:.3g} is the most, the honest spread is {:.3g}", what, off, radius,
                     spread_),
         worst, out_[worst] + base_[worst], centre[worst] + base_[worst], radius);
}

void Part::check_kappa(long double kappa, const char* what) {
  check_ball(mean_, decided(std::sqrt(kappa) * spread_), what);
}

std::vector<long double> Part::honest_distances(const Vector& from) const {
  std::vector<long double> distances;
  for (const Vector* const point : honest_) distances.push_back(distance(*point, from) + displaced_);
  std::sort(distances.begin(), distances.end());
  return distances;
}

long double Part::replaced(const Vector& from, int f, Vector& centre) const {
  std::vector<std::pair<long double, std::size_t>> order;
  for (std::size_t i = 0; i < honest_.size(); ++i)
    order.emplace_back(distance(*honest_[i], from) + displaced_, i);
  std::sort(order.begin(), order.end());
  const auto kept = static_cast<std::size_t>(n_ - f);
  // Rounding may take honest rows for those at the cut that are as near as it can tell.
  const long double cut = order[kept - 1].first;
  const long double reach = std::sqrt(cut * cut * of_bound + of_spread * spread_ * spread_);
  auto others = static_cast<std::size_t>(bad_);
  for (std::size_t i = kept; i < order.size() && order[i].first <= reach; ++i) ++others;
  centre.assign(d_, 0);
  long double off = 0;
  for (std::size_t i = 0; i < kept; ++i) {
    for (std::size_t j = 0; j < d_; ++j)
      centre[j] += (*honest_[order[i].second])[j] / static_cast<long double>(kept);
    if (i + others >= kept) off += 2 * order[i].first / static_cast<long double>(kept);
  }
  return off;
}

/// Of the honest points, from honest neighbours alone: no less than their scores.
std::vector<long double> Part::krum_scores(int neighbors) const {
  std::vector<long double> scores;
  for (const Vector* const point : honest_) {
    const std::vector<long double> distances = honest_distances(*point);
    long double score = 0;
    for (int i = 1; i <= neighbors; ++i) score += std::pow(distances[static_cast<std::size_t>(i)], 2.0L);
    scores.push_back(score);
  }
  std::sort(scores.begin(), scores.end());
  return scores;
}

// Rules -----------------------------------------------------------------------------------------------------

/// Per coordinate within the honest range, or so many ranges beyond it.
/// Of points that are rows, exactly. By the values themselves: from the base on, small ones beside a large
/// one would have lost their last bits.
void Part::judge_inside() {
  for (std::size_t j = 0; j < d_; ++j) {
    long double low = std::numeric_limits<long double>::infinity();
    long double high = -low;
    for (std::size_t i = 0; i < drawn_.request.rows.size(); ++i) {
      if (drawn_.roles[i] != Role::honest) continue;
      const long double value = drawn_.request.rows[i][static_cast<std::size_t>(first_) + j];
      low = std::min(low, value);
      high = std::max(high, value);
    }
    if (given_[j] < low || given_[j] > high) {
      breach("outside the honest range", j, given_[j], given_[j] < low ? low : high, 0);
      return;
    }
  }
}

void Part::judge_ranges(long double beyond) {
  for (std::size_t j = 0; j < d_; ++j) {
    long double low = std::numeric_limits<long double>::infinity();
    long double high = -low;
    for (const Vector* const point : honest_) {
      low = std::min(low, (*point)[j]);
      high = std::max(high, (*point)[j]);
    }
    const long double range = high - low;
    const long double off = std::max(low - out_[j], out_[j] - high) - allowance_[j];
    if (off > 0 && beyond * range > 0) verdict_.worst = std::max(verdict_.worst, off / (beyond * range));
    if (off > beyond * range) {
      breach(beyond > 0 ? "more than a range beyond the honest range" : "outside the honest range", j,
             out_[j] + base_[j], (out_[j] < low ? low : high) + base_[j], beyond * range + allowance_[j]);
      return;
    }
  }
}

/// Of points that are rows: the step that honest rows vote for, where their lead is more than bad rows weigh.
void Part::judge_votes(long double step) {
  const Request& request = drawn_.request;
  for (std::size_t j = 0; j < d_; ++j) {
    long double lead = 0;
    long double bad = 0;
    for (std::size_t i = 0; i < request.rows.size(); ++i) {
      if (drawn_.roles[i] == Role::absent) continue;
      const long double weight = request.weights.empty() ? 1 : request.weights[i];
      const long double from_o = request.rows[i][static_cast<std::size_t>(first_) + j] - reference_[j];
      (drawn_.roles[i] == Role::bad ? bad : lead) += drawn_.roles[i] == Role::bad || from_o > 0 ? weight
                                                     : from_o < 0                               ? -weight
                                                                                                : 0;
    }
    const long double allowed =
        0.5001L * spacing(out_dtype(request), given_[j]) + 0x1p-53L * (std::fabs(reference_[j]) + step);
    const auto is_at = [&](long double place) { return std::fabs(given_[j] - place) <= allowed; };
    const bool decided_for = std::fabs(lead) > bad * (1 + 1e-9L);
    const long double wanted = reference_[j] + (lead > 0 ? step : -step);
    if (decided_for ? is_at(wanted)
                    : is_at(reference_[j]) || is_at(reference_[j] + step) || is_at(reference_[j] - step))
      continue;
    return breach("not the step that honest rows vote for", j, given_[j], wanted, allowed);
  }
}

/// (1/n)·Σ is the honest part and at most k/n of the length to which bad points are clipped.
void Part::judge_mean_of_clipped() {
  if (clipped_to_ < 0) return;
  Vector centre(d_, 0);
  const long double all = honest_weight_ + bad_weight_;
  for (const Point& point : points_) {
    if (point.bad) continue;
    for (std::size_t j = 0; j < d_; ++j) centre[j] += point.weight / all * point.at[j];
  }
  check_ball(centre, clipped_to_ * bad_weight_ / all * (1 + of_factor) + of_coefficients * spread_ + blurred_,
             "bad rows moved the mean by more than their share of the length");
}

void Part::judge_krum(int f, int neighbors, int m) {
  const auto r = static_cast<long double>(f) / (n_ - 2 * f);
  if (drawn_.request.weights.empty())
    return check_kappa(6 * (1 + r), "farther from the honest mean than κ allows");
  // Each point that is kept scores at most as the m-th honest one, and so many of its neighbours are honest.
  const int near = neighbors + 1 - bad_;
  if (near < 1) return;
  const auto share = static_cast<long double>(near);
  const long double score = krum_scores(neighbors)[static_cast<std::size_t>(m) - 1];
  const long double rest = std::max(0.0L, static_cast<long double>(honest_.size()) - share);
  check_ball(mean_, decided(std::sqrt(score / share) + spread_ * std::sqrt(rest / share)),
             "a row was kept that scores worse than honest ones");
}

/// `floor`: below it a term of the sum is a square; 0 for a geometric median.
void Part::judge_sum_of_distances(long double floor, bool to_convergence) {
  Vector centre(d_, 0);
  for (const Point& point : points_) {
    if (point.bad) continue;
    for (std::size_t j = 0; j < d_; ++j) centre[j] += point.weight / honest_weight_ * point.at[j];
  }
  long double sum = 0;
  for (const Point& point : points_) {
    if (!point.bad) sum += point.weight * (distance(point.at, centre) + displaced_ + blurred_);
  }
  const long double squares = honest_weight_ * floor / 2;  // a term is less than the distance by half of it
  check_ball(centre, decided((2 * sum + squares) / (honest_weight_ - bad_weight_)),
             "too far for the least sum of distances");
  const bool known =
      std::none_of(points_.begin(), points_.end(), [](const Point& point) { return point.infinite; });
  const bool bucketed = has<Bucketing>(pipeline_) && bad_ > 0;
  if (to_convergence && (known || !bucketed)) judge_objective(floor);
}

/// Σ w ‖x − v‖ of points that are not infinite: the search for a better v than the library's. Below `floor` a
/// term is a square of the same slope there.
class Objective {
 public:
  Objective(const std::vector<Point>& points, long double floor) : floor_(floor) {
    for (const Point& point : points) {
      if (!point.infinite) points_.push_back(&point);
    }
  }
  /// How much worse `a` is than `b`: added up row by row, so that far rows swallow nothing.
  long double excess(const Vector& a, const Vector& b) const {
    long double sum = 0;
    for (const Point* const point : points_) {
      long double product = 0;  // ‖x − a‖² − ‖x − b‖²
      for (std::size_t j = 0; j < a.size(); ++j)
        product += (b[j] - a[j]) * ((point->at[j] - a[j]) + (point->at[j] - b[j]));
      sum += point->weight * growth(distance(point->at, b), distance(point->at, a), product);
    }
    return sum;
  }
  /// By how much a term grows from distance `from` to `to`, with `squares` the difference of their squares.
  long double growth(long double from, long double to, long double squares) const {
    const long double lengths = std::max(from, floor_) + std::max(to, floor_);
    if (lengths == 0) return 0;
    const long double inner = std::min(from, to);
    const long double outer = std::max(from, to);
    if (!(floor_ > 0) || inner > floor_ || outer <= floor_) return squares / lengths;
    const long double all = (outer - floor_) + (floor_ - inner) * (floor_ + inner) / (2 * floor_);
    return from < to ? all : -all;
  }
  /// Σ w (x − v)/‖x − v‖ over the points that are not at v: minus a subgradient.
  Vector pull(const Vector& v) const {
    Vector pull(v.size(), 0);
    for (const Point* const point : points_) {
      const long double far = distance(point->at, v);
      for (std::size_t j = 0; j < v.size() && far > 0; ++j)
        pull[j] += point->weight * ((point->at[j] - v[j]) / std::max(far, floor_));
    }
    return pull;
  }
  /// Weiszfeld's step with Vardi and Zhang's correction at a point.
  Vector step(const Vector& from) const {
    long double weights = 0;
    long double here = 0;
    for (const Point* const point : points_) {
      const long double far = std::max(distance(point->at, from), floor_);
      (far > 0 ? weights : here) += far > 0 ? point->weight / far : point->weight;
    }
    const Vector force = pull(from);
    const long double most = length(force);
    Vector to = from;
    if (weights == 0 || most <= here) return to;
    for (std::size_t j = 0; j < to.size(); ++j) to[j] += force[j] * ((1 - here / most) / weights);
    return to;
  }
  Vector improved(Vector at) const {
    for (int turn = 0; turn < 100; ++turn) {
      Vector next = step(at);
      Vector far = at;
      for (std::size_t j = 0; j < at.size(); ++j) far[j] += 1.9L * (next[j] - at[j]);
      if (excess(far, next) < 0) next = std::move(far);
      if (!(excess(next, at) < 0)) break;
      at = std::move(next);
    }
    return at;
  }
  long double weight() const {
    long double sum = 0;
    for (const Point* const point : points_) sum += point->weight;
    return sum;
  }
  /// The least distance from `v` within which half of the weight lies.
  long double median_distance(const Vector& v) const {
    std::vector<std::pair<long double, long double>> distances;
    for (const Point* const point : points_) distances.emplace_back(distance(point->at, v), point->weight);
    std::sort(distances.begin(), distances.end());
    long double sum = 0;
    for (const auto& [far, weight] : distances) {
      sum += weight;
      if (2 * sum >= this->weight()) return far;
    }
    return 0;
  }
  const std::vector<const Point*>& points() const { return points_; }

 private:
  long double floor_;
  std::vector<const Point*> points_;
};

long double Part::unclear(const Point& point) const {
  const long double squared = spread_ * spread_;
  const long double about_centre = 32 * static_cast<long double>(honest_.size()) * squared;
  const long double near = std::pow(distance(point.at, out_), 2.0L);
  Vector place = point.at;
  for (std::size_t j = 0; j < d_; ++j) place[j] += base_[j];
  // Products were taken about the centre, or about 0, which is clear then.
  return std::max(
      of_product * (about_centre + 2 * near),
      std::min(of_product * std::pow(length(place) + length(given_), 2.0L), of_clear * (near + 4 * squared)));
}

long double Part::around(const std::vector<const Point*>& points) const {
  long double sum = 0;
  for (const Point* const point : points) {
    const long double near = distance(point->at, out_);
    if (near * near <= unclear(*point)) sum += 2 * point->weight * near;
  }
  return sum;
}

void Part::judge_objective(long double floor) {
  const Objective objective(points_, floor);
  // Beside f64 rows more than 2⁹⁰⁰ times larger, rows may count as infinite.
  if (dtype_ == DType::f64 && longest_ > 0x1p900L * rows_spread_) return;
  Vector best = objective.improved(out_);
  Vector row = objective.points()[0]->at;
  for (const Point* const point : objective.points()) {
    if (objective.excess(point->at, row) < 0) row = point->at;
  }
  row = objective.improved(std::move(row));
  if (objective.excess(row, best) < 0) best = std::move(row);
  // What the last rounding made of a place has a sum that is larger by no more than the way times the slope
  // at its end: the sum is convex. It need not have come from near `best`, where many places are about as
  // good.
  Vector nearest = best;
  long double rounded = 0;
  const Vector slope = objective.pull(out_);
  for (std::size_t j = 0; j < d_; ++j) {
    nearest[j] = std::clamp(best[j], out_[j] - allowance_[j], out_[j] + allowance_[j]);
    rounded += std::fabs(slope[j]) * allowance_[j];
  }
  // Where rows beyond the floor pull, the rounding of their pulls is a share of it.
  const long double unseen = 0x1p-20L * floor * (1 + bad_weight_ / honest_weight_);
  const long double typical = std::max({objective.median_distance(best), spread_, unseen});
  const long double scale = objective.growth(0, typical, typical * typical);
  long double allowed = gap_ * objective.weight() * scale;
  if (clipped_to_ >= 0) allowed += 2 * objective.weight() * of_factor * clipped_to_;
  allowed += 2 * objective.weight() * blurred_ + of_weights_ * distance(best, out_);
  allowed += around(objective.points());
  const long double excess =
      std::min(objective.excess(out_, best) - rounded, objective.excess(nearest, best));
  if (excess > 0) verdict_.worst = std::max(verdict_.worst, allowed > 0 ? excess / allowed : 1e9L);
  if (excess <= allowed) return;
  std::size_t worst = 0;
  for (std::size_t j = 0; j < d_; ++j) {
    if (std::fabs(out_[j] - best[j]) > std::fabs(out_[worst] - best[worst])) worst = j;
  }
  breach(fmt::format("the sum of distances is {:.3g} median distances too large", excess / scale), worst,
         out_[worst] + base_[worst], best[worst] + base_[worst], 0);
}

/// With weights that follow from its distances the result is a geometric median, and honest rows near enough
/// to each other for `lam` have most of the weight.
void Part::judge_autogm(long double lam) {
  const auto k = static_cast<long double>(bad_);
  const auto honest = static_cast<long double>(honest_.size());
  const std::vector<long double> distances = honest_distances(mean_);
  long double mean_distance = 0;
  for (const long double far : distances) mean_distance += far / honest;
  const long double first = mean_distance + decided(2 * honest / (honest - k) * mean_distance);
  const long double share = std::sqrt(k / honest + 2 * k * first / lam);
  if (2 * share < 1)
    check_ball(mean_, decided(2 * (1 - share) / (1 - 2 * share) * distances.back()),
               "farther from the honest mean than lam allows");
  if (!converged_ || (has<Bucketing>(pipeline_) && bad_ > 0)) return;
  // α_i = max(0, (η − r_i)/lam) sums to 1 between the least r_i, where it is 0, and lam beyond.
  const auto apart = [&](const Point& point) {
    return point.infinite ? std::numeric_limits<long double>::infinity() : distance(point.at, out_);
  };
  long double low = std::numeric_limits<long double>::infinity();
  for (const Point& point : points_) low = std::min(low, apart(point));
  long double high = low + lam;
  for (int halving = 0; halving < 200; ++halving) {
    const long double middle = (low + high) / 2;
    long double sum = 0;
    for (const Point& point : points_) sum += std::max(0.0L, (middle - apart(point)) / lam);
    (sum < 1 ? low : high) = middle;
  }
  const long double rounded = length(allowance_) + displaced_ + blurred_ + of_objective * spread_;
  for (Point& point : points_) {
    point.weight = std::max(0.0L, (high - apart(point)) / lam);
    if (point.infinite) continue;
    const long double off = rounded + std::min(std::sqrt(unclear(point)), unclear(point) / apart(point));
    of_weights_ += std::min(1.0L, 2 * off / lam);
  }
  judge_objective(0);
}

void Part::judge_centered_clipping(const CenteredClipping& rule) {
  const auto tau = static_cast<long double>(rule.tau);
  const auto turns = static_cast<long double>(rule.iters);
  const bool from_pivot = rule.start == CenteredClipping::Start::pivot;
  if (from_pivot && has<Nnm>(pipeline_)) return;  // what it makes of the pivot is not known here
  const Vector start = from_pivot ? points_[static_cast<std::size_t>(rule.pivot)].at : Vector(d_, 0);
  // From o lengths are clear; from a row as distances are, and shorter ones count as long as is not known.
  const long double beside = from_pivot ? turns * (decided(0) + std::sqrt(of_clear) * spread_) : 0;
  check_ball(start, tau * turns * (1 + of_factor) + beside, "farther from the start than τ an iteration");
  if (has<Nnm>(pipeline_)) return;
  const long double all = honest_weight_ + bad_weight_;
  Vector v = start;
  for (int turn = 0; turn < rule.iters; ++turn) {
    Vector next = v;
    for (const Point& point : points_) {
      if (point.bad) continue;
      const long double far = distance(point.at, v);
      const long double factor = far > tau ? tau / far : 1;
      for (std::size_t j = 0; j < d_; ++j) next[j] += point.weight / all * factor * (point.at[j] - v[j]);
    }
    v = std::move(next);
  }
  check_ball(v, turns * tau * (bad_weight_ / all + of_factor) + of_coefficients * spread_ + beside,
             "bad rows moved v by more than τ f/n an iteration");
}

/// Krum's output is one of the rows.
void Part::judge_is_a_row() {
  if (!pipeline_.pre.empty() || drawn_.request.options.out_dtype) return;
  for (const Point& point : points_) {
    if (!point.infinite && point.at == out_) return;
  }
  if (!verdict_.breach) verdict_.breach = Breach{.what = "no row, which Krum's output is"};
}

/// With the n−f rows of each row that are nearest to it.
void Part::judge_after_nnm(int f) {
  const auto r = static_cast<long double>(f) / (n_ - 2 * f);
  const Aggregator& rule = pipeline_.rule;
  if (!drawn_.request.weights.empty()) return;
  // How far from the mean the honest points are at most after nnm.
  long double farthest = 0;
  for (const Vector* const point : honest_) {
    Vector centre;
    const long double off = replaced(*point, f, centre);
    farthest = std::max(farthest, off + distance(centre, mean_));
  }
  farthest = decided(farthest);
  const auto within = [&](long double times) {
    for (std::size_t j = 0; j < d_; ++j) {
      const long double off = std::fabs(out_[j] - mean_[j]) - allowance_[j];
      if (off > times * farthest)
        breach("farther from the honest mean than neighbours allow", j, out_[j] + base_[j],
               mean_[j] + base_[j], times * farthest);
    }
  };
  if (std::holds_alternative<Median>(rule) || std::holds_alternative<TrimmedMean>(rule)) within(1);
  if (std::holds_alternative<Meamed>(rule) || std::holds_alternative<Phocas>(rule) ||
      std::holds_alternative<Bulyan>(rule))
    return within(3);
  const long double kappa = std::holds_alternative<TrimmedMean>(rule) ? 6 * r * (1 + r)
                            : std::holds_alternative<Smea>(rule)      ? 4 * r
                            : std::holds_alternative<Krum>(rule) || std::holds_alternative<MultiKrum>(rule)
                                ? 6 * (1 + r)
                                : 4 * (1 + r) * (1 + r);
  if (const auto* const clipping = std::get_if<CenteredClipping>(&rule))
    return judge_centered_clipping(*clipping);
  check_kappa(8 * static_cast<long double>(f) / (n_ - f) * (kappa + 1),
              "farther from the honest mean than κ after nnm allows");
}

void Part::judge_rule() {
  const Aggregator& rule = pipeline_.rule;
  const int f = f_of(rule, bad_);
  const auto r = static_cast<long double>(f) / (n_ - 2 * f);
  const auto k = static_cast<long double>(bad_);
  const auto kept = static_cast<long double>(n_ - f);
  const auto honest = static_cast<long double>(honest_.size());
  const bool weighted = !drawn_.request.weights.empty();
  if (std::holds_alternative<Median>(rule)) {
    mixed_ ? judge_ranges(0) : judge_inside();
    if (!weighted) check_kappa(4 * (1 + r) * (1 + r), "farther from the honest mean than κ allows");
  } else if (std::holds_alternative<TrimmedMean>(rule)) {
    mixed_ ? judge_ranges(0) : judge_inside();
    if (!weighted) check_kappa(6 * r * (1 + r), "farther from the honest mean than κ allows");
  } else if (std::holds_alternative<Meamed>(rule) || std::holds_alternative<Phocas>(rule) ||
             std::holds_alternative<Bulyan>(rule)) {
    judge_ranges(1);
  } else if (const auto* const vote = std::get_if<SignVote>(&rule)) {
    judge_votes(vote->step);
  } else if (const auto* const krum = std::get_if<Krum>(&rule)) {
    judge_krum(f, krum->neighbors.value_or(n_ - f - 2), 1);
    judge_is_a_row();
  } else if (const auto* const multi = std::get_if<MultiKrum>(&rule)) {
    judge_krum(f, multi->neighbors.value_or(n_ - f - 2), multi->m.value_or(n_ - f));
  } else if (const auto* const median = std::get_if<GeometricMedian>(&rule)) {
    judge_sum_of_distances(median->nu, median->nu <= 0 && median->max_iters >= GeometricMedian::plain_iters);
  } else if (const auto* const huber = std::get_if<Huber>(&rule)) {
    judge_sum_of_distances(huber->tau, huber->max_iters >= GeometricMedian::plain_iters);
  } else if (const auto* const autogm = std::get_if<AutoGm>(&rule)) {
    judge_autogm(autogm->lam);
  } else if (const auto* const clipping = std::get_if<CenteredClipping>(&rule)) {
    judge_centered_clipping(*clipping);
  } else if (std::holds_alternative<Mda>(rule)) {
    long double diameter = 0;
    for (const Vector* const point : honest_) diameter = std::max(diameter, honest_distances(*point).back());
    const long double farthest = honest_distances(mean_).back();
    const long double share = weighted ? 1 : k / kept;
    check_ball(mean_, decided(farthest + share * diameter),
               "farther from the honest mean than the diameter allows");
  } else if (std::holds_alternative<Faba>(rule)) {
    // When the last honest row went, a share β of those left was bad, each within D/(1−2β) of the honest
    // rows' mean: its own distance from the mean of all was no larger. D: honest diameter.
    const long double beta = k / (kept + 1);
    if (weighted || 2 * beta >= 1) return;
    long double diameter = 0;
    for (const Vector* const point : honest_) diameter = std::max(diameter, honest_distances(*point).back());
    const long double farthest = honest_distances(mean_).back();
    check_ball(mean_, decided(farthest + k / kept * diameter / (1 - 2 * beta)),
               "farther from the honest mean than rows that stay allow");
  } else if (std::holds_alternative<Smea>(rule)) {
    if (!weighted) check_kappa(4 * r, "farther from the honest mean than κ allows");
  } else if (std::holds_alternative<Caf>(rule)) {
    const long double left = n_ - 2 * f - bad_;
    if (left <= 0) return;
    const long double kappa =
        std::pow(std::sqrt(2 * honest / (honest - k) * k / left) + std::sqrt((honest - left) / left), 2.0L);
    check_kappa(kappa, "farther from the honest mean than κ allows");
  } else if (const auto* const monna = std::get_if<Monna>(&rule)) {
    const Vector& pivot = points_[static_cast<std::size_t>(monna->pivot)].at;
    Vector centre;
    const long double off = replaced(pivot, f, centre);
    if (weighted) {
      check_ball(pivot, decided(honest_distances(pivot)[static_cast<std::size_t>(n_ - f) - 1]),
                 "farther from the pivot than honest rows");
    } else {
      check_ball(centre, decided(off),
                 "bad rows moved the mean by more than those nearest to the pivot could");
    }
  } else if (std::holds_alternative<Cge>(rule)) {
    const Vector origin(d_, 0);
    Vector centre;
    const long double off = replaced(origin, f, centre);
    const long double longest = honest_distances(origin)[static_cast<std::size_t>(n_ - f) - 1];
    check_ball(origin, decided(longest), "longer than honest rows");
    if (!weighted) check_ball(centre, decided(off), "bad rows moved the mean by more than short ones could");
  } else if (const auto* const balance = std::get_if<Balance>(&rule)) {
    const Vector& pivot = points_[static_cast<std::size_t>(balance->pivot)].at;
    const auto others = 1 - static_cast<long double>(balance->alpha);
    const long double reach = balance->gamma * (length(pivot) + displaced_);
    check_ball(pivot, others * decided(reach), "farther from the pivot than rows that it accepts");
  } else if (const auto* const trust = std::get_if<FlTrust>(&rule)) {
    check_ball(Vector(d_, 0),
               length(points_[static_cast<std::size_t>(trust->pivot)].at) * (1 + of_factor) + displaced_,
               "farther from o than the trusted row");
  } else if (std::holds_alternative<Mean>(rule)) {
    judge_mean_of_clipped();
  }
}

/// No farther from o than what all points are clipped to.
void Part::judge_lengths() {
  if (clipped_to_ < 0 || std::holds_alternative<CenteredClipping>(pipeline_.rule)) return;
  if (!is_coordinate_wise(pipeline_.rule))
    return check_ball(Vector(d_, 0), clipped_to_ * (1 + of_factor), "farther from o than all are clipped to");
  const long double beyond =
      std::holds_alternative<Median>(pipeline_.rule) || std::holds_alternative<TrimmedMean>(pipeline_.rule)
          ? 1
          : 3;
  for (std::size_t j = 0; j < d_; ++j) {
    if (std::fabs(out_[j]) - allowance_[j] > beyond * clipped_to_ * (1 + of_factor))
      breach("farther from o than all are clipped to", j, out_[j] + base_[j], base_[j], beyond * clipped_to_);
  }
}

void Part::judge() {
  const Nnm* nnm = nullptr;
  for (const PreAggregator& stage : pipeline_.pre) {
    nnm = std::get_if<Nnm>(&stage);
    if (nnm == nullptr) apply(stage);
  }
  measure_points();
  set_allowances();
  judge_lengths();
  if (nnm != nullptr) return judge_after_nnm(nnm->f);
  judge_rule();
}

/// Rows that are stretched to the trusted one's length may have all of it in one coordinate.
bool may_leave_the_range(const Case& drawn) {
  const auto* const rule = std::get_if<FlTrust>(&drawn.pipeline.rule);
  if (rule == nullptr) return false;
  const Request& request = drawn.request;
  Vector longest = request.rows[static_cast<std::size_t>(rule->pivot)];
  long double farthest = 0;
  for (std::size_t j = 0; j < request.reference.size(); ++j) {
    longest[j] -= request.reference[j];
    farthest = std::max(farthest, std::fabs(request.reference[j]));
  }
  return !std::isfinite(round_to(out_dtype(request), length(longest) + farthest));
}

}  // namespace

Verdict judge_aimed(const Case& drawn, const Outcome& got) {
  Verdict verdict;
  verdict.judged = true;
  // Heuristics that find nothing to choose by have promised nothing.
  const bool may_refuse = std::holds_alternative<FoolsGold>(drawn.pipeline.rule);
  if (may_refuse && got.status == Status::no_majority) return verdict;
  if (got.status != Status::ok) {
    verdict.breach = Breach{
        .what = fmt::format("status {} with no more bad rows than are provided for", to_string(got.status))};
  }
  for (std::size_t j = 0; j < got.out.size() && !verdict.breach; ++j) {
    const long double x = got.out[j];
    if (std::isfinite(x) && !(x == 0 && std::signbit(x))) continue;
    if (std::isinf(x) && may_leave_the_range(drawn)) return verdict;
    verdict.breach = Breach{.what = std::isfinite(x) ? "negative zero" : "not finite",
                            .coordinate = static_cast<std::int64_t>(j),
                            .got = x};
  }
  if (!verdict.breach) {
    const auto d = static_cast<std::int64_t>(got.out.size());
    std::vector<std::int64_t> sizes{d};
    if (drawn.request.options.scope == Scope::per_tensor) sizes = tensor_sizes(drawn.request.layout, d);
    std::int64_t first = 0;
    std::size_t report = 0;
    for (const std::int64_t size : sizes) {
      if (size > 0) {
        Part part(drawn, got.out, first, size, verdict);
        if (report < got.reports.size()) part.heed(got.reports[report]);
        part.judge();
      }
      ++report;
      first += size;
    }
  }
  if (!got.trespass.empty() && !verdict.breach) verdict.breach = Breach{.what = got.trespass};
  return verdict;
}

}  // namespace bragg::verify
