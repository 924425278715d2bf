// SPDX-License-Identifier: Apache-2.0
#include "rules/bounds.hpp"

#include <fmt/format.h>
#include <bragg/error.hpp>

#include <cmath>

namespace bragg::detail {

namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

/// What to do when n is too small for f: `largest_f` is the largest that n admits, negative when none does.
std::string remedy(int largest_f) {
  if (largest_f < 0) return "add workers";
  return fmt::format("lower f to at most {} or add workers", largest_f);
}

void need_f(std::string_view rule, int f) {
  if (f < 0) refuse(fmt::format("{}: f = {}: needs f ≥ 0, the number of bad rows to tolerate", rule, f));
}

}  // namespace

std::string rows_text(const StagePoints& points) {
  if (points.n == points.workers) return fmt::format("n = {} row{}", points.n, points.n == 1 ? "" : "s");
  return fmt::format("n = {} of the buckets that {} rows make", points.n, points.workers);
}

void need_majority(std::string_view rule, int f, const StagePoints& points) {
  need_f(rule, f);
  if (2LL * f >= points.n) {
    refuse(fmt::format("{}: {} with f = {}: needs n ≥ 2f+1 = {}; {}", rule, rows_text(points), f, 2LL * f + 1,
                       remedy((points.n - 1) / 2)));
  }
}

void need_more_than(std::string_view rule, int factor, int f, const StagePoints& points) {
  need_f(rule, f);
  const long long least = static_cast<long long>(factor) * f + 3;
  if (points.n < least) {
    refuse(fmt::format("{}: {} with f = {}: needs n ≥ {}f+3 = {}; {}", rule, rows_text(points), f, factor,
                       least, remedy(points.n < 3 ? -1 : (points.n - 3) / factor)));
  }
}

void need_between(std::string_view rule, std::string_view parameter, int value, int low, int high,
                  std::string_view bound) {
  if (high < low) {
    refuse(fmt::format("{}: {} = {}: needs {}, which no value is here; add workers", rule, parameter, value,
                       bound));
  }
  if (value < low || value > high) {
    refuse(fmt::format("{}: {} = {}: needs {}, here {} to {}", rule, parameter, value, bound, low, high));
  }
}

void need_at_least(std::string_view rule, std::string_view parameter, int value, int low) {
  if (value < low) refuse(fmt::format("{}: {} = {}: needs {} ≥ {}", rule, parameter, value, parameter, low));
}

void need_finite(std::string_view rule, std::string_view parameter, double value, bool zero_allowed) {
  if (std::isfinite(value) && (value > 0 || (zero_allowed && value == 0))) return;
  refuse(fmt::format("{}: {} = {}: needs {} {} 0 and finite", rule, parameter, value, parameter,
                     zero_allowed ? "≥" : ">"));
}

void need_share(std::string_view rule, std::string_view parameter, double value, bool zero_allowed) {
  if ((value > 0 || (zero_allowed && value == 0)) && value <= 1) return;
  refuse(fmt::format("{}: {} = {}: needs 0 {} {} ≤ 1", rule, parameter, value, zero_allowed ? "≤" : "<",
                     parameter));
}

void need_more_than_dropped(std::string_view rule, int f, double c, double dropped,
                            const StagePoints& points) {
  if (dropped < points.n) return;
  refuse(fmt::format("{}: {} with f = {} and c = {}: needs n > ⌈c·f⌉ = {}; lower f or c, or add workers",
                     rule, rows_text(points), f, c, dropped));
}

void need_points(std::string_view rule, int least, const StagePoints& points) {
  if (points.n >= least) return;
  refuse(fmt::format("{}: {}: needs n ≥ {}; add workers", rule, rows_text(points), least));
}

void need_pivot(std::string_view rule, int pivot, const StagePoints& points) {
  if (points.regrouped) {
    refuse(
        fmt::format("{}: pivot = {}: after bucketing no point is a row; leave the buckets out", rule, pivot));
  }
  need_between(rule, "pivot", pivot, 0, points.n - 1, "0 ≤ pivot < n");
}

void need_permutation(std::string_view rule, std::string_view parameter, const std::vector<int>& values,
                      const StagePoints& points) {
  if (values.empty()) return;
  const auto refuse_it = [&](const std::string& what) {
    refuse(fmt::format("{}: {} {}; list each of 0 to {} once", rule, parameter, what, points.n - 1));
  };
  if (values.size() != static_cast<std::size_t>(points.n)) {
    refuse_it(fmt::format("has {} entries for {}", values.size(), rows_text(points)));
  }
  std::vector<bool> seen(values.size());
  for (const int i : values) {
    if (i < 0 || i >= points.n) refuse_it(fmt::format("holds {}", i));
    if (seen[static_cast<std::size_t>(i)]) refuse_it(fmt::format("holds {} twice", i));
    seen[static_cast<std::size_t>(i)] = true;
  }
}

}  // namespace bragg::detail
