// SPDX-License-Identifier: Apache-2.0
// A pipeline under attack, and the search for what does most damage to it.
#pragma once

#include <algorithm>
#include <bragg/plan.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "host/attacks/honest.hpp"

namespace bragg::detail {

/// The largest γ with aγ² − 2bγ ≤ c, for a > 0 and c ≥ 0; neither branch subtracts what is nearly equal.
inline double largest_root(double a, double b, double c) {
  const double root = std::sqrt(b * b + a * std::max(c, 0.0));
  return b >= 0 ? (b + root) / a : std::max(c, 0.0) / (root - b);
}

/// The largest γ that leaves γp no farther from any of the rows than the two of them farthest apart are from
/// each other; p = 0: 0. The rows are differences from their mean.
double min_max_strength(const std::vector<Vector>& deviations, const Vector& p);

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

/// Whether the output is a combination of the rows that distances and lengths decide, so that it is the same
/// in any orthonormal basis.
bool is_combination(const Aggregator& rule);

struct Best {
  double strength = 0;
  double damage = -1;
};

/// Of the strengths up to `most`, the one with the greatest damage(strength): a grid in log scale, then a
/// golden-section search beside the best of it.
template <class DamageF>
Best strongest(double most, DamageF damage) {
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

}  // namespace bragg::detail
