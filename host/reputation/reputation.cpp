// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <bragg/error.hpp>
#include <bragg/reputation.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <utility>
#include <variant>

#include "host/io/file.hpp"
#include "host/plan/engine.hpp"
#include "host/reputation/state.hpp"
#include "rules/needs.hpp"
#include "rules/table.hpp"

namespace bragg {

namespace {

constexpr std::size_t most_names = 1 << 16;
/// What a row may be left out by without being noticed, where others are left out by nothing.
constexpr double least_slack = 0.1;
/// Rounding does not decide: what is above a limit is so by more than this.
constexpr double tolerance = 1e-9;

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

void check_names(std::span<const std::string> names) {
  std::set<std::string_view> seen;
  for (const std::string& name : names) {
    if (const auto fault = detail::fault_of_name(name))
      refuse(fmt::format("names: {} {}", detail::show(name), *fault));
    if (!seen.insert(name).second)
      refuse(fmt::format("names: {} is there twice; a reputation needs a name for each worker",
                         detail::show(name)));
  }
}

/// Calls use(f) with each f of the pipeline, which it may change.
template <class UseF>
void for_each_f(Pipeline& pipeline, UseF use) {
  const auto visit = [&](auto& stage) {
    detail::AnyRule rule(stage);
    const detail::RuleEntry& entry = detail::entry_of(rule);
    for (std::size_t p = 0; p < entry.slots.size(); ++p) {
      if (entry.info.parameters[p].name == "f") use(*std::get<int*>(detail::slot_of(entry, p, rule)));
    }
    stage = std::get<std::decay_t<decltype(stage)>>(rule);
  };
  for (PreAggregator& stage : pipeline.pre) visit(stage);
  visit(pipeline.rule);
}

/// Why the pipeline is illegal for n of the rows; of one that is not, nothing.
std::optional<std::string> fault_of(Pipeline pipeline, int n) {
  const std::optional<detail::Pivot> trusted = detail::pivot_of(pipeline);
  if (trusted && trusted->is_row) detail::set_pivot(pipeline, 0);
  try {
    validate(pipeline, n);
    return std::nullopt;
  } catch (const Error& error) {
    return error.what();
  }
}

/// How many bad rows a pipeline is to withstand, and of how many rows it does.
class Bounds {
 public:
  /// `f`: where no stage has one.
  Bounds(const Pipeline& pipeline, int f) : pipeline_(pipeline), stand_in_(pipeline) {
    int least = std::numeric_limits<int>::max();
    bool rule_has = false;
    for_each_f(stand_in_, [&](const int& each) { least = std::min(least, each); });
    Pipeline alone = pipeline;
    alone.pre.clear();
    for_each_f(alone, [&](int&) { rule_has = true; });
    has_f_ = least != std::numeric_limits<int>::max();
    f_ = has_f_ ? least : f;
    // Of what reaches the rule, too, fewer than half may be bad.
    if (!rule_has) stand_in_.rule = TrimmedMean{.f = f_};
  }

  int f() const { return f_; }

  /// Why it does not withstand f bad ones of n rows; if it does, nothing.
  std::optional<std::string> fault(int n) const {
    if (auto illegal = fault_of(pipeline_, n)) return illegal;
    if (f_ == 0) {
      return to_string(pipeline_) +
             (has_f_ ? " is to withstand no bad row (f = 0)" : " has no f, and the f of the reputation is 0");
    }
    if (!fault_of(stand_in_, n)) return std::nullopt;
    return fmt::format("{} rows are too few for {} to withstand f = {} bad ones", n, to_string(pipeline_),
                       f_);
  }

  /// The share of the sum of weights that one of n rows may have: f of them together no more than f' ≤ 2f
  /// equal ones, for an f' that the pipeline withstands, too.
  double share_cap(int n) const {
    int more = f_;
    for (; more > 0; --more) {
      Pipeline stricter = stand_in_;
      for_each_f(stricter, [&](int& each) { each += more; });
      if (!fault_of(stricter, n)) break;
    }
    return (f_ + more) / (static_cast<double>(f_) * n);
  }

 private:
  Pipeline pipeline_;
  Pipeline stand_in_;  ///< with trimmed_mean in the place of a rule that has no f
  bool has_f_ = false;
  int f_ = 0;
};

/// A row that is due for quarantine, and for how many rounds.
struct Due {
  int left = 0;
  std::size_t row = 0;
};

/// Takes from `due`, of n rows that count, those that the pipeline cannot do without, and says so.
std::vector<std::string> keep_legal(const Bounds& bounds, const Pipeline& pipeline, int n,
                                    std::span<const std::string> names, std::vector<Due>& due) {
  std::stable_sort(due.begin(), due.end(), [](const Due& a, const Due& b) { return a.left > b.left; });
  const auto most = static_cast<std::size_t>(bounds.f());
  std::string why = fmt::format("no more than {} are left out of {} at a time", most, to_string(pipeline));
  std::size_t out = std::min(most, due.size());
  for (; out > 0; --out) {
    const auto fault = bounds.fault(n - static_cast<int>(out));
    if (!fault) break;
    why = *fault;
  }
  std::vector<std::string> warnings;
  for (std::size_t k = out; k < due.size(); ++k) {
    warnings.push_back(fmt::format("{} is due for quarantine and counts nevertheless: {}",
                                   detail::show(names[due[k].row]), why));
  }
  due.resize(out);
  return warnings;
}

bool is_valid(double weight) { return weight > 0 && std::isfinite(weight); }

/// A row of the worker that the caller trusts; −1: of none.
int trusted_row(const Pipeline& pipeline) {
  const std::optional<detail::Pivot> trusted = detail::pivot_of(pipeline);
  return trusted && trusted->is_row ? trusted->index : -1;
}

void check_update(const Trust& trust, std::span<const Report> reports, std::span<const std::string> bad) {
  check_names(trust.names);
  const std::size_t n = trust.rows.size();
  for (const int row : trust.rows) {
    if (row < 0 || static_cast<std::size_t>(row) >= trust.names.size())
      refuse(fmt::format("trust: row {} of {} names", row, trust.names.size()));
  }
  if (!trust.weights.empty() && trust.weights.size() != n)
    refuse(fmt::format("trust: {} weights for {} rows", trust.weights.size(), n));
  if (reports.empty()) refuse("reports: none; pass those of the run");
  for (const Report& report : reports) {
    if (report.rows.size() != n)
      refuse(fmt::format("reports: one of {} rows; needs {}, those of trust.rows", report.rows.size(), n));
    if (report.status != Status::ok)
      refuse(fmt::format("reports: the run ended with {}, which teaches nothing", to_string(report.status)));
  }
  if (!bad.empty() && bad.size() != n)
    refuse(fmt::format("bad has {} texts for {} rows; pass one per row, or none", bad.size(), n));
}

double weight_of(const Trust& trust, std::size_t row) {
  return trust.weights.empty() ? 1 : trust.weights[row];
}

/// How much of each of the rows the rule left out: 1 − its coefficient, for each unit of its weight, as a
/// share of the lower median of those that are positive; at least 0.
std::vector<double> left_out_of(const Report& report, const Trust& trust,
                                const std::vector<std::size_t>& rows) {
  std::vector<double> taken, positive;
  for (const std::size_t i : rows) {
    taken.push_back(std::max(0.0, report.rows[i].weight) / weight_of(trust, i));
    if (taken.back() > 0) positive.push_back(taken.back());
  }
  double usual = std::numeric_limits<double>::infinity();
  if (!positive.empty()) {
    const auto middle = positive.begin() + (std::ssize(positive) - 1) / 2;
    std::nth_element(positive.begin(), middle, positive.end());
    usual = *middle;
  }
  for (double& value : taken) value = 1 - std::min(1.0, value / usual);
  return taken;
}

/// What the reports say of a round, before what is known of its names.
struct Round {
  std::vector<Judgement> judgements;  ///< of trust.names
  std::vector<bool> compared;         ///< of these: with the others, by what the rule left out of them
  double slack = least_slack;         ///< of what is left out of a row: so much of it may be chance
};

/// Why a row has failed; of one that has not, nothing.
std::string failure_of(const Trust& trust, std::span<const Report> reports, std::span<const std::string> bad,
                       std::size_t row) {
  if (!bad.empty() && !bad[row].empty()) return "bad input: " + bad[row];
  if (!is_valid(weight_of(trust, row))) return fmt::format("its weight is {}", weight_of(trust, row));
  std::int64_t nonfinite = 0;
  for (const Report& report : reports) nonfinite += report.rows[row].nonfinite;
  if (nonfinite == 0) return "";
  return fmt::format("{} of its values {} NaN or infinite", nonfinite, nonfinite == 1 ? "is" : "are");
}

Round examine(const Trust& trust, std::span<const Report> reports, std::span<const std::string> bad) {
  using Verdict = Judgement::Verdict;
  Round round;
  for (const std::string& name : trust.names)
    round.judgements.push_back({.name = name, .verdict = Verdict::quarantined});
  round.compared.resize(trust.names.size());
  const int trusted = trusted_row(trust.pipeline);
  std::vector<std::size_t> compared;
  for (std::size_t i = 0; i < trust.rows.size(); ++i) {
    const auto at = static_cast<std::size_t>(trust.rows[i]);
    Judgement& judgement = round.judgements[at];
    if (weight_of(trust, i) == 0) {
      judgement.verdict = Verdict::not_judged;
      judgement.reason = "its weight is 0";
      continue;
    }
    judgement.reason = failure_of(trust, reports, bad, i);
    judgement.verdict = judgement.reason.empty() ? Verdict::kept : Verdict::failed;
    if (judgement.verdict == Verdict::failed) continue;
    if (static_cast<int>(i) == trusted) {
      judgement.reason = "the row that the rule trusts";
    } else {
      compared.push_back(i);
      round.compared[at] = true;
    }
  }
  double sum = 0;
  for (const Report& report : reports) {
    const std::vector<double> left_out = left_out_of(report, trust, compared);
    for (std::size_t k = 0; k < compared.size(); ++k) {
      const double part = left_out[k] / static_cast<double>(reports.size());
      round.judgements[static_cast<std::size_t>(trust.rows[compared[k]])].left_out += part;
      sum += part;
    }
  }
  // Twice the mean: fewer than half of the rows can be above it.
  if (!compared.empty()) round.slack = std::max(least_slack, 2 * sum / static_cast<double>(compared.size()));
  return round;
}

std::string reason_of(double left_out, bool more) {
  if (left_out < 0.005) return "kept";
  return fmt::format("{}, {} others are",
                     left_out > 0.995 ? "left out" : fmt::format("{:.2g} of it left out", left_out),
                     more ? "more than" : "as");
}

/// Suspicion is Page's cumulative sum (1954) of what is left out of a worker beyond what chance would.
void compare(double slack, const ReputationOptions& options, Judgement& judgement, Standing& standing) {
  const double beyond = judgement.left_out - slack;
  standing.suspicion = std::clamp(standing.suspicion + beyond, 0.0, options.patience + 1);
  judgement.reason = reason_of(judgement.left_out, beyond > tolerance);
  if (beyond <= tolerance) return;
  judgement.verdict = Judgement::Verdict::left_out;
  if (standing.suspicion <= options.patience + tolerance) return;
  judgement.reason += ", again and again";
  judgement.verdict = Judgement::Verdict::doubted;
}

/// `watched`: quarantine neither begins nor ends.
void learn(const ReputationOptions& options, bool watched, Judgement& judgement, Standing& standing) {
  if (judgement.verdict == Judgement::Verdict::quarantined) {
    standing.quarantine = std::max(0, standing.quarantine - 1);
    judgement.reason = standing.quarantine > 0 ? fmt::format("in quarantine, {} to go", standing.quarantine)
                                               : std::string("in quarantine for the last round");
    return;
  }
  ++standing.rounds;
  if (!watched) standing.quarantine = 0;  // of one that counted all the same
  switch (judgement.verdict) {
    case Judgement::Verdict::kept:
      standing.score += options.rise * (1 - standing.score);
      return;
    case Judgement::Verdict::doubted: {
      const double least = std::max(options.newcomer, 1 - judgement.left_out);
      standing.score -= options.fall * std::max(0.0, standing.score - least);
      return;
    }
    case Judgement::Verdict::failed:
      standing.score *= 1 - options.fall;
      if (standing.score >= options.floor) return;
      standing.score = options.floor;
      if (watched) return;
      standing.quarantine = options.sentence;
      judgement.reason += fmt::format("; in quarantine for {} rounds", standing.quarantine);
      return;
    case Judgement::Verdict::left_out:
    case Judgement::Verdict::quarantined:
    case Judgement::Verdict::not_judged:
      return;
  }
}

void forget_longest_away(std::map<std::string, Standing, std::less<>>& standings) {
  if (standings.size() <= most_names) return;
  std::vector<std::pair<std::int64_t, std::string>> away;
  for (const auto& [name, standing] : standings) away.emplace_back(standing.seen, name);
  std::sort(away.begin(), away.end());
  away.resize(away.size() - most_names);
  for (const auto& [seen, name] : away) standings.erase(name);
}

}  // namespace

inline namespace v0 {

const char* to_string(Judgement::Verdict verdict) noexcept {
  switch (verdict) {
    case Judgement::Verdict::kept:
      return "kept";
    case Judgement::Verdict::left_out:
      return "left out";
    case Judgement::Verdict::doubted:
      return "doubted";
    case Judgement::Verdict::failed:
      return "failed";
    case Judgement::Verdict::quarantined:
      return "quarantined";
    case Judgement::Verdict::not_judged:
      return "not judged";
  }
  return "unknown verdict";
}

Reputation::Reputation(const ReputationOptions& options) : options_(options) {
  detail::check_options(options);
}

double Reputation::score(std::string_view name) const {
  const auto found = standings_.find(name);
  return found == standings_.end() ? options_.newcomer : found->second.score;
}

Trust Reputation::trust(const Pipeline& pipeline, std::span<const std::string> names,
                        std::span<const double> weights, double max_weight_share) const {
  check_names(names);
  detail::check_max_weight_share(max_weight_share);
  if (!weights.empty() && weights.size() != names.size()) {
    refuse(fmt::format("weights has {} values for n = {} names; pass one per name, or none", weights.size(),
                       names.size()));
  }
  const auto given_to = [&](std::size_t i) { return weights.empty() ? 1 : weights[i]; };
  const int trusted = trusted_row(pipeline);
  int n = 0;
  std::vector<Due> due;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (given_to(i) == 0) continue;
    ++n;
    const auto found = standings_.find(names[i]);
    const int left = found == standings_.end() ? 0 : found->second.quarantine;
    if (left > 0 && static_cast<int>(i) != trusted) due.push_back({left, i});
  }

  Trust trust{.names = {names.begin(), names.end()}, .pipeline = pipeline};
  const Bounds bounds(pipeline, options_.f);
  trust.only_watched = bounds.fault(n).value_or("");
  const bool watched = !trust.only_watched.empty();
  if (watched) due.clear();
  trust.warnings = keep_legal(bounds, pipeline, n, names, due);
  std::vector<double> given, products;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (std::any_of(due.begin(), due.end(), [i](const Due& each) { return each.row == i; })) continue;
    if (static_cast<int>(i) == trusted)
      detail::set_pivot(trust.pipeline, static_cast<int>(trust.rows.size()));
    trust.rows.push_back(static_cast<int>(i));
    given.push_back(given_to(i));
    const double factor = watched ? 1 : score(names[i]);
    products.push_back(is_valid(given.back())
                           ? std::max(given.back() * factor, std::numeric_limits<double>::denorm_min())
                           : given.back());
  }
  const auto rows = static_cast<int>(given.size());
  const auto valid = std::count_if(given.begin(), given.end(), is_valid);
  trust.max_weight_share = max_weight_share;
  if (!detail::can_be_weighted(trust.pipeline, rows, rows) || valid == 0) {
    if (!weights.empty()) trust.weights = std::move(given);  // the run says what is wrong with them
    return trust;
  }
  const double own = watched ? 1 : bounds.share_cap(n - static_cast<int>(due.size()));
  if (max_weight_share == 0) {
    trust.max_weight_share = std::max(own, 1 / static_cast<double>(valid));
  } else if (max_weight_share * n >= 1 - 1e-12) {  // it held for all; it may not for those that are left
    trust.max_weight_share = std::max(std::min(own, max_weight_share), 1 / static_cast<double>(valid));
  }
  detail::ActiveRows active;
  detail::set_active_rows(products, rows, trust.max_weight_share, active);
  trust.weights = std::move(given);
  for (std::size_t k = 0; k < active.rows.size(); ++k) {
    if (active.invalid[k] == 0) trust.weights[static_cast<std::size_t>(active.rows[k])] = active.weights[k];
  }
  const auto is_as_first = [&](double weight) { return weight == trust.weights.front() && is_valid(weight); };
  if (std::all_of(trust.weights.begin(), trust.weights.end(), is_as_first)) trust.weights.clear();
  return trust;
}

std::vector<Judgement> Reputation::update(const Trust& trust, std::span<const Report> reports,
                                          std::span<const std::string> bad) {
  check_update(trust, reports, bad);
  Round round = examine(trust, reports, bad);
  ++round_;
  for (std::size_t i = 0; i < round.judgements.size(); ++i) {
    Judgement& judgement = round.judgements[i];
    judgement.before = judgement.after = score(judgement.name);
    if (judgement.verdict == Judgement::Verdict::not_judged) {
      const auto found = standings_.find(judgement.name);
      if (found != standings_.end()) judgement.quarantine = found->second.quarantine;
      continue;
    }
    Standing& standing =
        standings_.try_emplace(judgement.name, Standing{.score = options_.newcomer}).first->second;
    standing.seen = round_;
    if (round.compared[i]) compare(round.slack, options_, judgement, standing);
    learn(options_, !trust.only_watched.empty(), judgement, standing);
    judgement.after = standing.score;
    judgement.quarantine = standing.quarantine;
  }
  forget_longest_away(standings_);
  return std::move(round.judgements);
}

}  // namespace v0

}  // namespace bragg
