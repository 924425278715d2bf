// SPDX-License-Identifier: Apache-2.0
// Divide and conquer, Shejwalkar & Houmansadr 2021. Coordinates are drawn by a Feistel permutation from
// Philox4x32-10, walked along its cycle (Black & Rogaway 2002).
#include <algorithm>
#include <cmath>
#include <numeric>

#include "host/reference/eigen.hpp"
#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

constexpr long double eigenspace_gap = 1e-9L;

std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

/// Of d coordinates, those of sample t.
std::vector<std::size_t> draw(const Dnc& rule, std::uint64_t round, int t, std::size_t d) {
  std::vector<std::size_t> coordinates(std::min(d, static_cast<std::size_t>(rule.sample)));
  std::iota(coordinates.begin(), coordinates.end(), std::size_t{0});
  if (coordinates.size() == d) return coordinates;
  int bits = 2;
  while (d > std::size_t{1} << bits) bits += 2;
  const std::uint64_t side = std::uint64_t{1} << (bits / 2);
  const auto permuted = [&](std::uint64_t x) {
    std::uint64_t left = x / side;
    std::uint64_t right = x % side;
    for (std::uint32_t step = 0; step < 6; ++step) {
      const std::uint32_t word =
          philox({low(right), 1 + 6 * static_cast<std::uint32_t>(t) + step, low(round), high(round)},
                 {low(rule.seed), high(rule.seed)})[0];
      left = (left ^ word) % side;
      std::swap(left, right);
    }
    return left * side + right;
  };
  for (std::size_t& coordinate : coordinates) {
    do coordinate = permuted(coordinate);
    while (coordinate >= d);
  }
  return coordinates;
}

/// s of the finite points: squared lengths, along the top eigenspace, of what they hold at these coordinates
/// less its mean.
void project(Stage& stage, const std::vector<int>& finite, const std::vector<std::size_t>& coordinates,
             Vector& s, Vector& terms) {
  std::vector<Vector> rows;
  Vector mean(coordinates.size(), 0);
  long double sizes = 0;
  for (const int i : finite) {
    const Point& point = stage.points[i];
    rows.emplace_back();
    for (const std::size_t c : coordinates) rows.back().push_back(point.value[c]);
    for (std::size_t c = 0; c < mean.size(); ++c) mean[c] += rows.back()[c];
    sizes += point.size * point.size;
  }
  for (long double& x : mean) x /= static_cast<long double>(finite.size());
  for (Vector& row : rows) row = difference(row, mean);
  std::vector<Vector> gram;
  for (const Vector& a : rows) {
    gram.emplace_back();
    for (const Vector& b : rows) gram.back().push_back(dot(a, b));
  }
  const Eigen all = eigen(gram);
  const long double top = all.values.front();
  s.assign(rows.size(), 0);
  terms.assign(rows.size(), sizes);
  // They differ elsewhere, if at all: rounding may be all that is left of them.
  if (!(top > 1e-34L * sizes)) {
    const bool sees_all = coordinates.size() == stage.points.front().coordinates();
    if (!sees_all) stage.margin = 0;
    return;
  }
  const long double border = top * (1 - eigenspace_gap);
  long double gap = top;
  for (std::size_t k = 0; k < all.values.size(); ++k) {
    if (k > 0) stage.decided(0, std::abs(all.values[k] - border), sizes);
    if (all.values[k] < border) {
      gap = top - all.values[k];
      break;
    }
    // The same for rows that are alike: rounding is not to choose among them.
    Vector direction(mean.size(), 0);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (std::size_t c = 0; c < direction.size(); ++c) direction[c] += all.vectors[k][i] * rows[i][c];
    }
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const long double along = dot(rows[i], direction);
      s[i] += along * along / dot(direction, direction);
    }
  }
  // An error e in the products turns the eigenvector by e/gap, and adds of what a row has across it so much.
  for (std::size_t i = 0; i < rows.size(); ++i)
    terms[i] += 2 * std::sqrt(s[i] * dot(rows[i], rows[i])) / gap * sizes;
}

}  // namespace

template <>
Point apply(const Dnc& rule, Stage& stage) {
  tolerate_infinite(stage, rule.f);
  std::vector<int> finite;
  for (int i = 0; i < stage.n(); ++i) {
    if (!stage.points[i].infinite) finite.push_back(i);
  }
  if (finite.empty()) throw Failed{Status::too_many_nonfinite};
  heed_cancellation(stage);
  const auto wanted = static_cast<int>(std::ceil(static_cast<long double>(rule.c) * rule.f - 1e-9L));
  const int keep = std::min(stage.n() - wanted, static_cast<int>(finite.size()));
  std::vector<int> votes(stage.points.size(), 0);
  Vector s;
  Vector terms;
  for (int t = 0; t < rule.iters; ++t) {
    project(stage, finite, draw(rule, stage.round, t, stage.points.front().value.size()), s, terms);
    for (const int i : least(stage, finite, s, terms, keep)) ++votes[i];
  }
  const int most = *std::max_element(votes.begin(), votes.end());
  std::vector<int> chosen;
  for (int i = 0; i < stage.n(); ++i) {
    if (votes[i] == most) chosen.push_back(i);
  }
  return mean_of(stage, chosen);
}

}  // namespace bragg::reference
