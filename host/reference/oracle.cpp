// SPDX-License-Identifier: Apache-2.0
#include "host/reference/oracle.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

Point to_point(const Vector& value, std::size_t n, bool f64) {
  Point out;
  out.value = value;
  out.coefficients.assign(n, 0);
  for (const long double x : value) {
    out.magnitude.push_back(std::abs(x));
    if (!std::isfinite(x) || (f64 && std::abs(x) > std::ldexp(1.0L, 500))) out.infinite = true;
  }
  out.size = std::sqrt(dot(value, value));
  return out;
}

Stage first_stage(const Input& input, const ClientWeights& clients) {
  const std::size_t n = input.rows.size();
  const std::size_t d = input.rows.front().size();
  for (const Vector& row : input.rows) {
    if (row.size() != d) throw std::invalid_argument("rows differ in length");
  }
  for (const Vector* other : {&input.reference, &input.previous}) {
    if (!other->empty() && other->size() != d)
      throw std::invalid_argument("reference or previous is not of length d");
  }
  Stage stage;
  stage.weighted = !input.weights.empty();
  stage.round = input.round;
  stage.origin = to_point(input.reference.empty() ? Vector(d, 0) : input.reference, n, input.f64);
  if (!input.previous.empty()) stage.previous.push_back(to_point(input.previous, n, input.f64));
  for (std::size_t k = 0; k < clients.active.size(); ++k) {
    const int row = clients.active[k];
    Point point = to_point(input.rows[row], n, input.f64);
    point.coefficients[row] = 1;
    point.weight = clients.weight[k];
    point.invalid = clients.invalid[k];
    point.infinite = point.infinite || point.invalid;
    point.label = row;
    stage.points.push_back(std::move(point));
  }
  return stage;
}

}  // namespace

Result aggregate(const Pipeline& pipeline, const Input& input) {
  const ClientWeights clients = client_weights(input);
  if (clients.active.empty()) throw std::invalid_argument("no row takes part");
  Stage stage = first_stage(input, clients);
  Result result;
  try {
    for (const PreAggregator& rule : pipeline.pre) {
      std::visit([&](const auto& r) { apply(r, stage); }, rule);
      stage.mixed = true;
    }
    for (const Point& point : stage.points) {
      if (point.infinite) continue;
      result.points.push_back(point.value);
      result.point_weights.push_back(stage.weighted ? point.weight : 1);
    }
    Point out = std::visit([&](const auto& r) { return apply(r, stage); }, pipeline.rule);
    for (long double& x : out.value) x += 0.0L;  // zero is written as +0
    result.out = std::move(out.value);
    result.magnitude = std::move(out.magnitude);
    result.row_weight = std::move(out.coefficients);
    result.margin = stage.margin;
    result.gap = stage.gap;
  } catch (const Failed& failed) {
    result.status = failed.status;
  }
  return result;
}

}  // namespace bragg::reference
