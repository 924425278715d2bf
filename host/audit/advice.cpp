// SPDX-License-Identifier: Apache-2.0
#include "host/audit/advice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "rules/with_f.hpp"

namespace bragg::detail {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// A rule and its figures at the f that is advised on.
struct Candidate {
  const AuditRule* rule;
  const AuditPoint* point;
};

std::string figure_text(double value, double error) {
  if (value < 1e-12) return "0";
  return error > 0 ? fmt::format("{:.3g} ± {:.1g}", value, error) : fmt::format("{:.3g}", value);
}

/// The worst of the attacks, and of the rows as they are, where some look bad.
double worst_of(const AuditPoint& point) {
  return std::isnan(point.given) ? point.worst : std::max(point.worst, point.given);
}

/// Those that are known to be bounded, the least worst case first.
std::vector<Candidate> bounded(const Audit& audit, int f) {
  std::vector<Candidate> found;
  for (const AuditRule& rule : audit.rules) {
    const auto point = std::find_if(rule.points.begin(), rule.points.end(),
                                    [f](const AuditPoint& other) { return other.f == f; });
    // What is tried tells nothing of what was not: there must be a proof for all attacks.
    if (point == rule.points.end() || !point->kappa || !std::isfinite(worst_of(*point))) continue;
    found.push_back({&rule, &*point});
  }
  // Figures that rounding alone tells apart are a tie: then the lower cost is better, then the lower bound.
  const auto rounded = [](double x) {
    return std::isfinite(x) ? static_cast<double>(static_cast<float>(x)) : x;
  };
  std::stable_sort(found.begin(), found.end(), [&](const Candidate& a, const Candidate& b) {
    const auto key = [&](const AuditPoint& point) {
      const double price = std::isnan(point.price) ? infinity : point.price;
      return std::array{rounded(worst_of(point)), rounded(price), *point.kappa};
    };
    return key(*a.point) < key(*b.point);
  });
  return found;
}

/// By no more than a tenth, or two standard errors of both, worse.
bool is_as_good(const AuditPoint& other, const AuditPoint& best) {
  const double error = std::hypot(other.worst_error, best.worst_error);
  return worst_of(other) - worst_of(best) <= std::max(0.1 * worst_of(best), 2 * error);
}

void explain(const std::vector<Candidate>& candidates, AuditAdvice& advice) {
  const AuditPoint& best = *candidates.front().point;
  advice.reasons.push_back(
      fmt::format("of the rules with a proven bound, {} {} of the spread ({}, {} of "
                  "{} rows); proven for any attack: {:.3g}",
                  std::isnan(best.given)
                      ? "the worst of the attacks moves it least:"
                      : "the worst of the attacks and the rows as they are move it least; the attack by",
                  figure_text(best.worst, best.worst_error), best.attack, best.f, best.rows, *best.kappa));
  if (!std::isnan(best.price)) {
    advice.reasons.push_back(fmt::format(
        "without an attacker it costs {} of the spread; no rule for f = {} can promise less than {:.3g}",
        figure_text(best.price, best.price_error), best.f, best.bound));
  }
  if (!std::isnan(best.given)) {
    advice.reasons.push_back(
        fmt::format("on the rows as they are it ends {} of the spread from the honest mean",
                    figure_text(best.given, best.given_error)));
  }
  for (std::size_t k = 1; k < candidates.size(); ++k) {
    const Candidate& other = candidates[k];
    if (!is_as_good(*other.point, best)) break;
    advice.doubts.push_back(fmt::format(
        "{} is as good within the errors, or a tenth: worst case {}{}", with_f(other.rule->rule, best.f),
        figure_text(worst_of(*other.point), other.point->worst_error),
        std::isnan(other.point->price)
            ? ""
            : ", cost " + figure_text(other.point->price, other.point->price_error)));
  }
}

void doubt_rows(const Audit& audit, const Looks& looks, AuditAdvice& advice) {
  const auto judged = std::count_if(audit.rows.begin(), audit.rows.end(), [](const AuditRow& row) {
    return !row.findings.empty() &&
           std::all_of(row.findings.begin(), row.findings.end(), [](const auto& found) {
             return found.evidence == Evidence::norm || found.evidence == Evidence::distance ||
                    found.evidence == Evidence::direction;
           });
  });
  if (judged > 0) {
    advice.doubts.push_back(
        fmt::format("{} of the rows that look bad only stand{} out: a worker with rare data may, too; all "
                    "figures but those of the rows as they are leave such a worker's data out",
                    judged, judged == 1 ? "s" : ""));
  }
  const bool copies = std::any_of(audit.rows.begin(), audit.rows.end(), [](const AuditRow& row) {
    return std::any_of(row.findings.begin(), row.findings.end(),
                       [](const AuditFinding& found) { return found.evidence == Evidence::copy; });
  });
  if (looks.spares_copies) {
    advice.doubts.emplace_back(
        "of rows that are copies of each other the first is taken for honest, as no majority would look "
        "honest without: it may be one of the bad ones");
  } else if (copies) {
    advice.doubts.emplace_back("of rows that are copies one may be the honest worker that was copied");
  }
  if (looks.most_are_copies)
    advice.doubts.emplace_back("most rows are copies of each other, which was held against none of them");
  if (2 * audit.honest <= audit.n)
    advice.doubts.emplace_back("no majority of the rows looks honest: no rule can help there");
  advice.doubts.emplace_back(
      "bad rows that look like honest ones are not seen here, and this is one round: f is a guess");
}

}  // namespace

AuditAdvice advise(const Audit& audit, const Looks& looks, const AuditOptions& options) {
  AuditAdvice advice;
  const int bad = audit.n - audit.honest;
  advice.f = options.f.value_or(std::max(1, bad));
  if (options.f) {
    advice.reasons.push_back(fmt::format("f = {}, as asked; {} of {} rows look{} bad", advice.f, bad, audit.n,
                                         bad == 1 ? "s" : ""));
  } else if (bad > 0) {
    advice.reasons.push_back(fmt::format("{} of {} rows look{} bad, so f is {} at the least", bad, audit.n,
                                         bad == 1 ? "s" : "", bad));
  } else {
    advice.reasons.emplace_back("no row looks bad; f = 1 is the least that is a defence");
  }
  const std::vector<Candidate> candidates = bounded(audit, advice.f);
  if (candidates.empty()) {
    advice.reasons.push_back(
        audit.rules.empty() ? std::string("fewer than 3 rows look honest, or they do not differ: nothing "
                                          "was tried")
                            : fmt::format("no rule that was tried has a proven bound for f = {} of {} rows, "
                                          "and a result on them as they are",
                                          advice.f, audit.n));
  } else {
    advice.rule = with_f(candidates.front().rule->rule, advice.f);
    explain(candidates, advice);
  }
  if (options.f && *options.f < bad) {
    advice.doubts.push_back(
        fmt::format("f = {} is less than the {} rows that look bad: nothing is proven for "
                    "the rows as they are",
                    *options.f, bad));
  }
  doubt_rows(audit, looks, advice);
  return advice;
}

}  // namespace bragg::detail
