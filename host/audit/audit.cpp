// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <bragg/audit.hpp>
#include <bragg/pipeline.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <span>

#include "host/attacks/honest.hpp"
#include "host/audit/advice.hpp"
#include "host/audit/looks.hpp"
#include "host/audit/prices.hpp"
#include "host/audit/rows.hpp"
#include "rules/floating_environment.hpp"
#include "rules/needs.hpp"
#include "rules/with_f.hpp"

namespace bragg {

namespace detail {

namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

/// Rows in memory.
class MemoryRows : public AuditRows {
 public:
  MemoryRows(const Updates& updates, const Row& base, std::span<const std::string> bad)
      : updates_(updates), bad_(bad) {
    if (updates.space() != MemorySpace::host)
      refuse("updates: rows in a device's memory; an audit is made on the host");
    if (base.empty()) return;
    if (base.tensors.size() != updates.sizes().size() ||
        (base.extent && (base.extent->elements != static_cast<std::size_t>(updates.d()) ||
                         base.extent->dtype != updates.dtype()))) {
      refuse("base: its tensors are not those of the updates");
    }
    std::vector<DType> dtypes;
    for (std::size_t t = 0; t < updates.sizes().size(); ++t) dtypes.push_back(updates.dtype(t));
    base_.emplace(Updates::tensors(std::span(&base.tensors, 1), updates.sizes(), dtypes));
  }

  int n() const override { return updates_.n(); }
  std::span<const std::int64_t> sizes() const override { return updates_.sizes(); }
  std::string bad(int row) const override { return bad_.empty() ? "" : bad_[static_cast<std::size_t>(row)]; }

  void read(const Visit& visit) override {
    constexpr std::int64_t block = 256;
    const int n = updates_.n();
    std::vector<double> values(static_cast<std::size_t>(n * block)), base(block);
    for (std::size_t t = 0; t < sizes().size(); ++t) {
      for (std::int64_t begin = 0; begin < sizes()[t]; begin += block) {
        const std::int64_t count = std::min(block, sizes()[t] - begin);
        if (base_) load(*base_, 0, t, begin, count, base.data());
        check_base({base.data(), static_cast<std::size_t>(count)});
        for (int row = 0; row < n; ++row) {
          double* const to = &values[static_cast<std::size_t>(row * count)];
          load(updates_, row, t, begin, count, to);
          for (std::int64_t i = 0; base_ && i < count; ++i) to[i] -= base[static_cast<std::size_t>(i)];
        }
        visit(t, begin, static_cast<std::size_t>(count), values.data());
      }
    }
  }

 private:
  const Updates& updates_;
  std::span<const std::string> bad_;
  std::optional<Updates> base_;
};

/// Throws what is wrong with a pipeline that no f makes legal for n rows.
void check_bounds(const std::string& rule, int n) {
  std::string why;
  for (int f = 0; 2 * f < n; ++f) {
    try {
      return validate(parse(with_f(rule, f)), n);
    } catch (const Error& error) {
      if (why.empty()) why = error.what();
    }
  }
  refuse(fmt::format("rules: {}: {}", rule, why));
}

/// The pipelines, each as a text with F that can be read.
std::vector<std::string> rules_of(const AuditOptions& options, int n, std::int64_t d) {
  std::vector<std::string> rules = options.rules.empty() ? default_audit_rules() : options.rules;
  for (const std::string& rule : rules) {
    // A digit is as long as F: a column that is complained of is right in the text as it was given.
    const Pipeline pipeline = parse(with_f(rule, 1));
    if (const auto pivot = pivot_of(pipeline))
      refuse(fmt::format("rules: {}: {} trusts a row, and an audit replaces any", rule, pivot->rule));
    const Sampling sampling = needs_of(pipeline).sampling;
    if (sampling.count > 0 && sampling.of(d) < d) {
      refuse(
          fmt::format("rules: {}: judges rows by {} of {} coordinates, and an audit by all of them; take "
                      "sample={} or leave it out",
                      rule, sampling.size, d, d));
    }
    if (!options.rules.empty()) check_bounds(rule, n);
  }
  return rules;
}

void check(const AuditRows& rows, const AuditOptions& options, std::int64_t d) {
  if (rows.n() < 3)
    refuse(
        fmt::format("updates: {} worker{}; an audit needs at least 3", rows.n(), rows.n() == 1 ? "" : "s"));
  if (d < 1) refuse("updates: rows have no coordinates");
  if (options.sample < 0)
    refuse(fmt::format("sample = {}: needs a number of coordinates, or 0", options.sample));
  if (options.f && (*options.f < 1 || 2LL * *options.f >= rows.n()))
    refuse(fmt::format("f = {} of {} workers: needs 1 ≤ f and 2f < n", *options.f, rows.n()));
}

}  // namespace

void check_base(std::span<const double> values) {
  if (std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); })) return;
  throw Error(Status::nonfinite_base, "base: holds NaN or infinity");
}

Audit audit_rows(AuditRows& rows, const AuditOptions& options) {
  const FloatingEnvironment environment;
  const std::span<const std::int64_t> sizes = rows.sizes();
  Audit audit;
  audit.n = rows.n();
  audit.d = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  check(rows, options, audit.d);
  const std::vector<std::string> rules = rules_of(options, audit.n, audit.d);
  const Looks looks = look_at(rows);
  audit.rows = looks.rows;
  audit.honest = static_cast<int>(looks.honest().size());
  if (audit.honest >= 3) {
    const Prices prices(rows, looks, options, audit);
    for (const std::string& rule : rules) {
      if (!prices.differ()) break;
      audit.rules.push_back({rule, {}});
      for (int f = 0; 2 * f < audit.n; ++f) {
        const AuditPoint point = prices.point(parse(with_f(rule, f)), f);
        if (!std::isnan(point.price) || !std::isnan(point.worst) || !std::isnan(point.given))
          audit.rules.back().points.push_back(point);
      }
    }
  }
  audit.advice = advise(audit, looks, options);
  return audit;
}

Audit audit_updates(const Updates& updates, const AuditOptions& options, std::span<const std::string> bad) {
  MemoryRows rows(updates, options.base, bad);
  return audit_rows(rows, options);
}

}  // namespace detail

inline namespace v0 {

std::vector<std::string> default_audit_rules() {
  return {"mean",
          "median",
          "trimmed_mean(f=F)",
          "krum(f=F)",
          "multi_krum(f=F)",
          "geometric_median",
          "nnm(f=F) | trimmed_mean(f=F)",
          "nnm(f=F) | geometric_median",
          "bucketing(s=2) | trimmed_mean(f=F)",
          "bucketing(s=2) | geometric_median"};
}

const char* to_string(Evidence evidence) noexcept {
  static constexpr std::array names = {"bad input", "non-finite", "huge",     "norm",
                                       "distance",  "copy",       "direction"};
  return names[static_cast<std::size_t>(evidence)];
}

Audit audit(const Updates& updates, const AuditOptions& options) {
  return detail::audit_updates(updates, options, {});
}

}  // namespace v0
}  // namespace bragg
