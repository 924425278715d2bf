// SPDX-License-Identifier: Apache-2.0
// Attacks that are as strong as the honest rows, or the rule, let them be.
#include <fmt/format.h>
#include <bragg/attacks.hpp>
#include <bragg/plan.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "host/attacks/honest.hpp"
#include "host/attacks/uniform.hpp"
#include "rules/all.hpp"

namespace bragg {
inline namespace v0 {
namespace attacks {

using detail::dot, detail::Frame, detail::squared_distance, detail::Vector;

namespace {

/// p in the frame's coordinates.
Vector vector_of(const Frame& frame, Direction direction) {
  Vector p = direction == Direction::unit   ? frame.mean
             : direction == Direction::sign ? frame.sign
                                            : frame.deviation;
  const double length = direction == Direction::unit ? std::sqrt(dot(p, p)) : 1;
  for (double& x : p) x = length > 0 ? -x / length : 0;
  return p;
}

/// μ + strength · p.
template <class T>
Found<T> found(const Frame& frame, Direction direction, double strength) {
  const Moments& honest = frame.moments;
  const double length = std::sqrt(dot(frame.mean, frame.mean));
  Found<T> result{std::vector<T>(honest.mean.size()), strength};
  for (std::size_t k = 0; k < result.row.size(); ++k) {
    const double mean = honest.mean[k];
    const double p = direction == Direction::std    ? -honest.deviation[k]
                     : direction == Direction::sign ? -((mean > 0) - (mean < 0))
                     : length > 0                   ? -mean / length
                                                    : 0;
    result.row[k] = static_cast<T>(mean + strength * p);
  }
  return result;
}

/// The largest γ with aγ² − 2bγ ≤ c, for a > 0 and c ≥ 0; neither branch subtracts what is nearly equal.
double largest_root(double a, double b, double c) {
  const double root = std::sqrt(b * b + a * std::max(c, 0.0));
  return b >= 0 ? (b + root) / a : std::max(c, 0.0) / (root - b);
}

/// A pipeline that f bad workers attack with one row, which all of them send behind the honest rows.
class Target {
 public:
  /// `tensors`: elements of each tensor of a row.
  Target(const Pipeline& pipeline, std::vector<Vector> honest, std::vector<std::int64_t> tensors,
         const std::vector<bool>& judged, int f)
      : pipeline_(pipeline), honest_(std::move(honest)), tensors_(std::move(tensors)), f_(f) {
    Shape shape{.n = static_cast<int>(honest_.size()) + f, .sizes = tensors_, .dtype = DType::f64};
    shape.judged = judged;
    plan_.emplace(pipeline_, std::move(shape));
    out_.resize(honest_[0].size());
  }

  /// What a new plan makes of the rows, or why it makes nothing.
  Status run(const Vector& bad) {
    std::vector<std::vector<const void*>> rows;
    for (const Vector& row : honest_) rows.push_back(parts<const void*>(row.data()));
    rows.resize(rows.size() + static_cast<std::size_t>(f_), parts<const void*>(bad.data()));
    Updates updates = Updates::tensors(rows, tensors_, DType::f64);
    if (!plan_->shape().judged.empty()) updates.judge_by(plan_->shape().judged);
    plan_->reset();
    plan_->run(updates, Output(parts<void*>(out_.data())));
    return plan_->status();
  }

  const Vector& out() const { return out_; }
  bool has_chosen_a_bad_row() const {
    const std::vector<RowReport>& rows = plan_->report().rows;
    return std::any_of(rows.end() - f_, rows.end(), [](const RowReport& row) { return row.selected; });
  }

 private:
  /// The addresses of a row's tensors.
  template <class PointerT, class ValueT>
  std::vector<PointerT> parts(ValueT* row) const {
    std::vector<PointerT> made;
    for (const std::int64_t size : tensors_) {
      made.push_back(row);
      row += size;
    }
    return made;
  }

  Pipeline pipeline_;
  std::vector<Vector> honest_;
  std::vector<std::int64_t> tensors_;
  int f_;
  std::optional<Plan> plan_;
  Vector out_;
};

void check_bad_workers(int f) {
  if (f < 1) throw Error(Status::invalid_argument, fmt::format("f = {}: needs f ≥ 1 bad workers", f));
}

/// Whether the output is a combination of the rows that distances and lengths decide, so that it is the same
/// in any orthonormal basis.
bool is_combination(const Aggregator& rule) {
  return detail::visit_rule(rule, []<class RuleT>(auto, const RuleT&) { return !detail::Selecting<RuleT>; });
}

/// The honest rows in double, as they are.
std::vector<Vector> copied(const Updates& honest) {
  std::vector<Vector> rows(static_cast<std::size_t>(honest.n()),
                           Vector(static_cast<std::size_t>(honest.d())));
  detail::for_blocks(honest, [&](std::size_t begin, std::size_t count, const double* values) {
    for (std::size_t row = 0; row < rows.size(); ++row)
      std::copy_n(values + row * count, count, rows[row].begin() + static_cast<std::ptrdiff_t>(begin));
  });
  return rows;
}

struct Best {
  double strength = 0;
  double damage = -1;
};

/// Of the strengths up to `most`, the one with the greatest damage(strength): a grid in log scale, then a
/// golden-section search beside the best of it.
template <class DamageF>
Best search(double most, DamageF damage) {
  constexpr int steps = 16;
  Best best;
  const auto at = [&](double exponent) {
    const double strength = most * std::exp2(exponent);
    const double found = damage(strength);
    if (found > best.damage) best = {strength, found};
    return found;
  };
  double left = 0, right = 0;
  for (int k = 0; k < steps; ++k) {
    const double before = best.damage;
    if (at(-k) <= before) continue;
    left = -std::min(k + 1, steps - 1);
    right = -std::max(k - 1, 0);
  }
  constexpr double golden = 0.6180339887498949;
  double low = right - golden * (right - left), high = left + golden * (right - left);
  double low_damage = at(low), high_damage = at(high);
  for (int k = 2; k < steps; ++k) {
    if (low_damage > high_damage) {
      right = high;
      high = low;
      high_damage = low_damage;
      low_damage = at(low = right - golden * (right - left));
    } else {
      left = low;
      low = high;
      low_damage = high_damage;
      high_damage = at(high = left + golden * (right - left));
    }
  }
  return best;
}

/// The attack that sends start + strength · step, in the frame's coordinates and in the rows' own.
struct Line {
  const char* name;
  Vector Moments::*start;  ///< null: 0
  Vector Moments::*step;   ///< times −1
  Vector Frame::*frame_step;
};

constexpr Line alie = {"optimal_alie", &Moments::mean, &Moments::deviation, &Frame::deviation};
constexpr Line ipm = {"optimal_ipm", nullptr, &Moments::mean, &Frame::mean};

template <class T>
Optimal<T> optimal(const Line& line, const Updates& honest, const Pipeline& pipeline, int f, double most) {
  check_bad_workers(f);
  if (!(most > 0) || !std::isfinite(most)) {
    throw Error(Status::invalid_argument, fmt::format("most = {}: needs a finite number above 0", most));
  }
  const bool in_frame = is_combination(pipeline.rule) && honest.judged().empty();
  validate(pipeline, honest.n() + f);  // before the rows are read
  const Frame frame = detail::frame_of(honest);
  const Vector& mean = in_frame ? frame.mean : frame.moments.mean;
  const Vector start = line.start != nullptr ? mean : Vector(mean.size(), 0.0);
  const Vector& step = in_frame ? frame.*line.frame_step : frame.moments.*line.step;
  Target target(pipeline, in_frame ? frame.rows() : copied(honest),
                in_frame ? std::vector<std::int64_t>{static_cast<std::int64_t>(mean.size())}
                         : std::vector<std::int64_t>{honest.sizes().begin(), honest.sizes().end()},
                honest.judged(), f);
  Status status = Status::ok;
  const Best best = search(most, [&](double strength) {
    const Status now = target.run(detail::plus(start, -strength, step));
    if (now == Status::ok) return std::sqrt(squared_distance(target.out(), mean));
    status = now;
    return -1.0;
  });
  if (best.damage < 0)
    throw Error(status, fmt::format("{}: the pipeline has no result: {}", line.name, to_string(status)));
  Optimal<T> result{std::vector<T>(frame.moments.mean.size()), best.strength, best.damage};
  for (std::size_t k = 0; k < result.row.size(); ++k) {
    const double from = line.start != nullptr ? (frame.moments.*line.start)[k] : 0;
    result.row[k] = static_cast<T>(from - best.strength * (frame.moments.*line.step)[k]);
  }
  return result;
}

}  // namespace

template <class T>
Found<T> min_max(const Updates& honest, Direction direction) {
  const Frame frame = detail::frame_of(honest);
  const std::vector<Vector>& rows = frame.deviations;
  const Vector p = vector_of(frame, direction);
  double diameter = 0;
  for (const Vector& row : rows) {
    for (const Vector& other : rows) diameter = std::max(diameter, squared_distance(row, other));
  }
  const double a = dot(p, p);
  double gamma = a > 0 ? std::numeric_limits<double>::infinity() : 0;
  if (a > 0) {
    for (const Vector& row : rows)
      gamma = std::min(gamma, largest_root(a, dot(p, row), diameter - dot(row, row)));
  }
  return found<T>(frame, direction, gamma);
}

template <class T>
Found<T> min_sum(const Updates& honest, Direction direction) {
  const Frame frame = detail::frame_of(honest);
  const std::vector<Vector>& rows = frame.deviations;
  const Vector p = vector_of(frame, direction);
  double greatest = 0, squares = 0, products = 0;
  for (const Vector& row : rows) {
    double sum = 0;
    for (const Vector& other : rows) sum += squared_distance(row, other);
    greatest = std::max(greatest, sum);
    squares += dot(row, row);
    products += dot(p, row);
  }
  const double a = static_cast<double>(rows.size()) * dot(p, p);
  return found<T>(frame, direction, a > 0 ? largest_root(a, products, greatest - squares) : 0);
}

template <class T>
std::vector<T> fang_trimmed(const Updates& honest, std::uint64_t seed, double b) {
  if (!(b > 1) || !std::isfinite(b))
    throw Error(Status::invalid_argument, fmt::format("b = {}: needs a finite number above 1", b));
  const auto n = static_cast<std::size_t>(honest.n());
  std::vector<T> made(static_cast<std::size_t>(honest.d()));
  detail::for_blocks(honest, [&](std::size_t begin, std::size_t count, const double* values) {
    for (std::size_t row = 0; row < n; ++row)
      detail::check_values(static_cast<int>(row), {values + row * count, count});
    for (std::size_t i = 0; i < count; ++i) {
      double sum = 0, least = values[i], greatest = values[i];
      for (std::size_t row = 0; row < n; ++row) {
        const double x = values[row * count + i];
        sum += x;
        least = std::min(least, x);
        greatest = std::max(greatest, x);
      }
      // Farther out is away from 0 or towards it.
      const double from = sum > 0 ? least : greatest;
      const double to = (from > 0) == (sum > 0) ? from / b : from * b;
      made[begin + i] = static_cast<T>(from + (to - from) * detail::uniform_at(seed, begin + i));
    }
  });
  return made;
}

template <class T>
Found<T> fang_krum(const Updates& honest, int f) {
  check_bad_workers(f);
  const int n = honest.n() + f;
  if (honest.n() < f + 3) {  // n ≥ 2f+3
    throw Error(
        Status::invalid_argument,
        fmt::format(
            "fang_krum: {} honest rows with f = {}: krum needs at least f+3 = {} beside the bad ones; {}",
            honest.n(), f, f + 3LL,
            honest.n() > 3 ? fmt::format("lower f to at most {} or add honest rows", honest.n() - 3)
                           : std::string("add honest rows")));
  }
  const Pipeline krum = Krum{.f = f};
  const Frame frame = detail::frame_of(honest);
  std::vector<Vector> rows = frame.rows();
  const double squares = dot(frame.sign, frame.sign);  // d, where no coordinate of μ is 0
  double lambda = 0;
  if (squares > 0) {
    double least = std::numeric_limits<double>::infinity(), farthest = 0;
    for (const Vector& row : rows) {
      // Of the n−f−1 other honest rows all but the farthest.
      double sum = 0, last = 0;
      for (const Vector& other : rows) {
        const double distance = squared_distance(row, other);
        sum += distance;
        last = std::max(last, distance);
      }
      least = std::min(least, sum - last);
      farthest = std::max(farthest, dot(row, row));
    }
    lambda = std::sqrt(std::max(least, 0.0) / ((n - 2 * f - 1) * squares)) + std::sqrt(farthest / squares);
    const auto size = static_cast<std::int64_t>(frame.mean.size());
    Target target(krum, std::move(rows), {size}, {}, f);
    const Vector origin(frame.mean.size(), 0.0);
    while (lambda >= 1e-5) {
      const Status status = target.run(detail::plus(origin, -lambda, frame.sign));
      if (status != Status::ok) throw Error(status, "fang_krum: krum has no result");
      if (target.has_chosen_a_bad_row()) break;
      lambda /= 2;
    }
  }
  Found<T> result{std::vector<T>(frame.moments.mean.size()), lambda};
  for (std::size_t k = 0; k < result.row.size(); ++k) {
    const double mean = frame.moments.mean[k];
    result.row[k] = static_cast<T>(mean > 0 ? -lambda : mean < 0 ? lambda : 0);
  }
  return result;
}

template <class T>
Optimal<T> optimal_alie(const Updates& honest, const Pipeline& pipeline, int f, double most) {
  return optimal<T>(alie, honest, pipeline, f, most);
}

template <class T>
Optimal<T> optimal_ipm(const Updates& honest, const Pipeline& pipeline, int f, double most) {
  return optimal<T>(ipm, honest, pipeline, f, most);
}

#define BRAGG_DEFINE_ATTACKS(T)                                                      \
  template Found<T> min_max<T>(const Updates&, Direction);                           \
  template Found<T> min_sum<T>(const Updates&, Direction);                           \
  template std::vector<T> fang_trimmed<T>(const Updates&, std::uint64_t, double);    \
  template Found<T> fang_krum<T>(const Updates&, int);                               \
  template Optimal<T> optimal_alie<T>(const Updates&, const Pipeline&, int, double); \
  template Optimal<T> optimal_ipm<T>(const Updates&, const Pipeline&, int, double)
BRAGG_DEFINE_ATTACKS(float);
BRAGG_DEFINE_ATTACKS(double);

}  // namespace attacks
}  // namespace v0
}  // namespace bragg
