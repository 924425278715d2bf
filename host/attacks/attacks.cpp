// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <bragg/attacks.hpp>

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "host/attacks/honest.hpp"
#include "host/attacks/uniform.hpp"

namespace bragg {
inline namespace v0 {
namespace attacks {

namespace {

/// One row of f(k) for each coordinate k.
template <class T, class F>
std::vector<T> make_row(std::size_t d, F f) {
  std::vector<T> row(d);
  for (std::size_t k = 0; k < d; ++k) row[k] = static_cast<T>(f(k));
  return row;
}

void check_finite(const char* name, double value) {
  if (std::isfinite(value)) return;
  throw Error(Status::invalid_argument, fmt::format("{} = {}: needs a finite number", name, value));
}

/// −factor · x of each coordinate.
template <class T, class ValueT>
std::vector<T> reversed(std::span<const ValueT> x, double factor) {
  return make_row<T>(x.size(), [&](std::size_t k) { return -factor * static_cast<double>(x[k]); });
}

double normal_quantile(double p) {
  // Bisection ends at neighbouring doubles; Φ is erfc, right in both tails.
  double low = -40;
  double high = 40;
  for (int i = 0; i < 100; ++i) {
    const double middle = std::midpoint(low, high);
    (0.5 * std::erfc(-middle / std::numbers::sqrt2) < p ? low : high) = middle;
  }
  return std::midpoint(low, high);
}

}  // namespace

Moments moments(const Updates& honest) {
  const auto d = static_cast<std::size_t>(honest.d());
  Moments result{std::vector<double>(d, 0.0), std::vector<double>(d, 0.0)};
  detail::for_blocks(honest, [&](std::size_t begin, std::size_t count, const double* values) {
    detail::add_moments(honest.n(), begin, count, values, result);
  });
  return result;
}

template <class T>
std::vector<T> sign_flip(std::span<const T> x, double scale) {
  check_finite("scale", scale);
  return reversed<T>(x, scale);
}

template <class T>
std::vector<T> sign_flip(const Moments& honest, double scale) {
  check_finite("scale", scale);
  return reversed<T>(std::span<const double>(honest.mean), scale);
}

template <class T>
std::vector<T> inner_product_manipulation(const Moments& honest, double epsilon) {
  check_finite("epsilon", epsilon);
  return reversed<T>(std::span<const double>(honest.mean), epsilon);
}

template <class T>
std::vector<T> a_little_is_enough(const Moments& honest, double z) {
  check_finite("z", z);
  return make_row<T>(honest.mean.size(),
                     [&](std::size_t k) { return honest.mean[k] - z * honest.deviation[k]; });
}

double alie_z(int n, int f) {
  if (f < 0 || 2LL * f >= n) {
    throw Error(Status::invalid_argument,
                fmt::format("alie_z: n = {} with f = {}: needs 0 ≤ f and 2f < n", n, f));
  }
  if (n < 3)
    throw Error(Status::invalid_argument, fmt::format("alie_z: n = {}: needs n ≥ 3; z would be −∞", n));
  const int supporters = n / 2 + 1 - f;
  return normal_quantile(static_cast<double>(n - f - supporters) / (n - f));
}

template <class T>
std::vector<T> mimic(std::span<const T> x) {
  return {x.begin(), x.end()};
}

template <class T>
std::vector<T> rop(const Moments& honest, std::span<const T> reference, double angle) {
  using detail::dot, detail::plus;
  const std::vector<double>& mean = honest.mean;
  if (reference.size() != mean.size()) {
    throw Error(Status::invalid_argument, fmt::format("reference: {} values for rows of {} coordinates",
                                                      reference.size(), mean.size()));
  }
  std::vector<double> along(reference.begin(), reference.end());
  const double mean_length = std::sqrt(dot(mean, mean)), length = std::sqrt(dot(along, along));
  check_finite("angle", angle);
  if (!std::isfinite(mean_length) || !std::isfinite(length)) {
    throw Error(Status::invalid_argument,
                fmt::format("rop: mean of length {}, reference of length {}: needs finite ones", mean_length,
                            length));
  }
  if (length > 0) {
    for (double& x : along) x /= length;
  }
  // Twice is enough: what the first time leaves along r is rounding.
  std::vector<double> across = plus(mean, -dot(mean, along), along);
  across = plus(across, -dot(across, along), along);
  const double across_length = std::sqrt(dot(across, across));
  const double radians = angle * (std::numbers::pi / 180);
  // What is left of a parallel mean is rounding and no direction.
  const double across_part =
      across_length > 1e-12 * mean_length ? -std::sin(radians) * mean_length / across_length : 0;
  const double along_part = std::cos(radians) * mean_length;
  return make_row<T>(
      mean.size(), [&](std::size_t k) { return mean[k] + along_part * along[k] + across_part * across[k]; });
}

template <class T>
std::vector<T> bit_flip(std::span<const T> x, BitsOf<T> mask) {
  std::vector<T> row(x.size());
  for (std::size_t k = 0; k < x.size(); ++k) {
    row[k] = std::bit_cast<T>(static_cast<BitsOf<T>>(std::bit_cast<BitsOf<T>>(x[k]) ^ mask));
  }
  return row;
}

template <class T>
std::vector<T> gaussian(std::size_t d, double deviation, std::uint64_t seed) {
  if (!std::isfinite(deviation) || deviation < 0) {
    throw Error(Status::invalid_argument,
                fmt::format("deviation = {}: needs a finite number, at least 0", deviation));
  }
  std::vector<T> row(d);
  for (std::size_t k = 0; k < d; k += 4) {
    double uniform[4];
    detail::draw_uniform(seed, k / 4, uniform);
    for (std::size_t i = 0; i < 4 && k + i < d; ++i) {
      const std::size_t pair = i / 2 * 2;
      const double radius = std::sqrt(-2 * std::log(uniform[pair]));
      const double angle = 2 * std::numbers::pi * uniform[pair + 1];
      row[k + i] = static_cast<T>(deviation * radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle)));
    }
  }
  return row;
}

template <class T>
std::vector<T> hostile(std::size_t d, Hostile kind) {
  constexpr T nan = std::numeric_limits<T>::quiet_NaN();
  constexpr T infinity = std::numeric_limits<T>::infinity();
  constexpr T huge = static_cast<T>(3e38);
  switch (kind) {
    case Hostile::nan:
      return std::vector<T>(d, nan);
    case Hostile::negative_nan:
      return std::vector<T>(d, std::copysign(nan, T{-1}));
    case Hostile::infinity:
      return std::vector<T>(d, infinity);
    case Hostile::negative_infinity:
      return std::vector<T>(d, -infinity);
    case Hostile::huge:
      return std::vector<T>(d, huge);
    case Hostile::alternating_huge:
      return make_row<T>(d, [](std::size_t k) { return k % 2 == 0 ? huge : -huge; });
  }
  throw Error(Status::invalid_argument, fmt::format("hostile: unknown kind {}", static_cast<int>(kind)));
}

#define BRAGG_DEFINE_ATTACKS(T)                                                  \
  template std::vector<T> sign_flip<T>(std::span<const T>, double);              \
  template std::vector<T> sign_flip<T>(const Moments&, double);                  \
  template std::vector<T> inner_product_manipulation<T>(const Moments&, double); \
  template std::vector<T> a_little_is_enough<T>(const Moments&, double);         \
  template std::vector<T> mimic<T>(std::span<const T>);                          \
  template std::vector<T> rop<T>(const Moments&, std::span<const T>, double);    \
  template std::vector<T> bit_flip<T>(std::span<const T>, BitsOf<T>);            \
  template std::vector<T> gaussian<T>(std::size_t, double, std::uint64_t);       \
  template std::vector<T> hostile<T>(std::size_t, Hostile)
BRAGG_DEFINE_ATTACKS(float);
BRAGG_DEFINE_ATTACKS(double);

}  // namespace attacks
}  // namespace v0
}  // namespace bragg
