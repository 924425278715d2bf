// SPDX-License-Identifier: Apache-2.0
// Attacks that are as strong as the honest rows, or the rule, let them be.
#include "host/attacks/aimed.hpp"

#include <fmt/format.h>
#include <bragg/attacks.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include "host/attacks/uniform.hpp"
#include "rules/all.hpp"

namespace bragg {

namespace detail {

bool is_combination(const Aggregator& rule) {
  return visit_rule(rule, []<class RuleT>(auto of, const RuleT& r) {
    return !Selecting<RuleT> && of.sampling(r).count == 0;
  });
}

double min_max_strength(const std::vector<Vector>& deviations, const Vector& p) {
  const double a = dot(p, p);
  if (!(a > 0)) return 0;
  double diameter = 0;
  for (const Vector& row : deviations) {
    for (const Vector& other : deviations) diameter = std::max(diameter, squared_distance(row, other));
  }
  double gamma = std::numeric_limits<double>::infinity();
  for (const Vector& row : deviations)
    gamma = std::min(gamma, largest_root(a, dot(p, row), diameter - dot(row, row)));
  return gamma;
}

}  // namespace detail

inline namespace v0 {
namespace attacks {

using detail::Best, detail::dot, detail::Frame, detail::squared_distance, detail::Target, detail::Vector;

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

void check_bad_workers(int f) {
  if (f < 1) throw Error(Status::invalid_argument, fmt::format("f = {}: needs f ≥ 1 bad workers", f));
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
  const bool in_frame = detail::is_combination(pipeline.rule) && honest.judged().empty();
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
  const Best best = detail::strongest(most, [&](double strength) {
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
  return found<T>(frame, direction, detail::min_max_strength(frame.deviations, vector_of(frame, direction)));
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
  return found<T>(frame, direction, a > 0 ? detail::largest_root(a, products, greatest - squares) : 0);
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
