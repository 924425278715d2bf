// SPDX-License-Identifier: Apache-2.0
#include "host/reference/oracle.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>

#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

bool is_judged(const Input& input, std::size_t c) { return input.judged.empty() || input.judged[c]; }

Point to_point(const Vector& row, const Input& input) {
  Point out;
  out.coefficients.assign(input.rows.size(), 0);
  for (std::size_t c = 0; c < row.size(); ++c) {
    const bool judged = is_judged(input, c);
    (judged ? out.value : out.rest).push_back(row[c]);
    const bool too_large = judged && input.f64 && std::abs(row[c]) > std::ldexp(1.0L, 500);
    if (!std::isfinite(row[c]) || too_large) out.infinite = true;
  }
  for (std::size_t k = 0; k < row.size(); ++k) out.magnitude.push_back(std::abs(out.coordinate(k)));
  out.size = std::sqrt(dot(out.value, out.value));
  return out;
}

/// Coordinates in the caller's order, of those that are judged and then the rest.
Vector in_order(const Input& input, const Vector& from) {
  Vector out;
  std::size_t judged = 0;
  auto rest = static_cast<std::size_t>(std::count(input.judged.begin(), input.judged.end(), true));
  for (std::size_t c = 0; c < from.size(); ++c) out.push_back(from[is_judged(input, c) ? judged++ : rest++]);
  return out;
}

Stage first_stage(const Input& input, const ClientWeights& clients) {
  const std::size_t d = input.rows.front().size();
  for (const Vector& row : input.rows) {
    if (row.size() != d) throw std::invalid_argument("rows differ in length");
  }
  for (const Vector* other : {&input.reference, &input.previous}) {
    if (!other->empty() && other->size() != d)
      throw std::invalid_argument("reference or previous is not of length d");
  }
  if (!input.judged.empty() && input.judged.size() != d)
    throw std::invalid_argument("judged is not of length d");
  Stage stage;
  stage.weighted = !input.weights.empty();
  stage.round = input.round;
  stage.origin = to_point(input.reference.empty() ? Vector(d, 0) : input.reference, input);
  if (!input.previous.empty()) stage.previous.push_back(to_point(input.previous, input));
  for (std::size_t k = 0; k < clients.active.size(); ++k) {
    const int row = clients.active[k];
    Point point = to_point(input.rows[row], input);
    point.coefficients[row] = 1;
    point.weight = clients.weight[k];
    point.invalid = clients.invalid[k];
    point.infinite = point.infinite || point.invalid;
    point.label = row;
    // The products of f64 rows have one power of two in common (docs/numerics.md, f64 inputs).
    if (input.f64 && !point.infinite) {
      const long double faintest = 0x1p-900L * point.size;
      stage.unseen = std::max(stage.unseen, faintest * faintest);
    }
    stage.points.push_back(std::move(point));
  }
  return stage;
}

/// The caller's row that the rule trusts, which must be finite whatever becomes of it.
std::optional<int> pivot_of(const Aggregator& aggregator) {
  return std::visit(
      [](const auto& rule) -> std::optional<int> {
        if constexpr (std::is_same_v<std::decay_t<decltype(rule)>, CenteredClipping>) {
          if (rule.start != CenteredClipping::Start::pivot) return std::nullopt;
        }
        if constexpr (requires { rule.pivot; }) return rule.pivot;
        return std::nullopt;
      },
      aggregator);
}

}  // namespace

Result aggregate(const Pipeline& pipeline, const Input& input) {
  const ClientWeights clients = client_weights(input);
  if (clients.active.empty()) throw std::invalid_argument("no row takes part");
  Stage stage = first_stage(input, clients);
  Result result;
  try {
    const bool bucketed =
        std::any_of(pipeline.pre.begin(), pipeline.pre.end(),
                    [](const PreAggregator& rule) { return std::holds_alternative<Bucketing>(rule); });
    if (const std::optional<int> pivot = pivot_of(pipeline.rule); pivot && !bucketed) {
      if (trusted(stage, *pivot).infinite) throw Failed{Status::nonfinite_pivot};
    }
    for (const PreAggregator& rule : pipeline.pre) {
      std::visit([&](const auto& r) { apply(r, stage); }, rule);
      stage.mixed = true;
    }
    for (const Point& point : stage.points) {
      if (point.infinite) continue;
      result.points.push_back(point.value);
      result.point_weights.push_back(stage.weighted ? point.weight : 1);
      result.point_sizes.push_back(point.size);
    }
    Point out = std::visit([&](const auto& r) { return apply(r, stage); }, pipeline.rule);
    out.value.insert(out.value.end(), out.rest.begin(), out.rest.end());
    for (long double& x : out.value) x += 0.0L;  // zero is written as +0
    result.out = in_order(input, out.value);
    result.magnitude = in_order(input, out.magnitude);
    result.row_weight = std::move(out.coefficients);
    result.margin = stage.margin;
    result.gap = stage.gap;
    result.reach = stage.reach;
  } catch (const Failed& failed) {
    result.status = failed.status;
    result.margin = stage.margin;
  }
  return result;
}

}  // namespace bragg::reference
