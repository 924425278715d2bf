// SPDX-License-Identifier: Apache-2.0
// Rounds of workers who are honest, different, broken or hostile, through the rules themselves.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <bragg/pipeline.hpp>
#include <bragg/plan.hpp>
#include <bragg/reputation.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "tests/support/failure.hpp"
#include "tests/support/files.hpp"
#include "tests/support/seed.hpp"

namespace bragg {
namespace {

using Verdict = Judgement::Verdict;
using Row = std::vector<double>;

constexpr std::size_t d = 24;
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// Rules that say something of each row.
const std::vector<std::string> telling = {
    "multi_krum(f=2)", "nnm(f=2) | trimmed_mean(f=2)",           "geometric_median",
    "faba(f=2)",       "centered_clipping(tau=2, start=origin)", "quantile_clip(q=0.5) | median",
    "mda(f=2)"};

/// Around a mean of length 5, with a noise of length 1.
Row honest(test::Generator& random) {
  std::normal_distribution<double> noise(0, 1 / std::sqrt(d));
  Row row(d, 5 / std::sqrt(d));
  for (double& x : row) x += noise(random);
  return row;
}

struct Round {
  Trust trust;
  std::vector<Judgement> judgements;
  std::vector<Report> reports;
  Row out;

  const Judgement& of(const std::string& name) const {
    return *std::find_if(judgements.begin(), judgements.end(), [&](const auto& j) { return j.name == name; });
  }
  /// As a share of the sum; 0: it did not count.
  double weight_of(const std::string& name) const {
    double sum = 0, own = 0;
    for (std::size_t i = 0; i < trust.rows.size(); ++i) {
      const double weight = trust.weights.empty() ? 1 : trust.weights[i];
      sum += weight;
      if (trust.names[static_cast<std::size_t>(trust.rows[i])] == name) own = weight;
    }
    return own / sum;
  }
  bool has_quarantined(const std::string& name) const { return of(name).verdict == Verdict::quarantined; }
};

/// A round of these workers, by name.
Round run(Reputation& reputation, const std::string& rule, const std::map<std::string, Row>& workers) {
  std::vector<std::string> names;
  for (const auto& [name, row] : workers) names.push_back(name);
  Round round;
  round.trust = reputation.trust(parse(rule), names);
  std::vector<const void*> rows;
  for (const int row : round.trust.rows)
    rows.push_back(workers.at(names[static_cast<std::size_t>(row)]).data());
  round.out.resize(d);
  round.reports = aggregate(round.trust.pipeline, Updates::rows(rows, d, DType::f64),
                            Output(round.out.data()), {.weights = round.trust.weights}, {.threads = 1});
  for (const double x : round.out) EXPECT_TRUE(std::isfinite(x));
  round.judgements = reputation.update(round.trust, round.reports);
  return round;
}

std::string name_of(int i) { return "client-" + std::string(1, static_cast<char>('a' + i)); }

std::map<std::string, Row> honest_workers(int n, test::Generator& random) {
  std::map<std::string, Row> workers;
  for (int i = 0; i < n; ++i) workers[name_of(i)] = honest(random);
  return workers;
}

Row scaled(Row row, double factor) {
  for (double& x : row) x *= factor;
  return row;
}

double mean_score(const Reputation& reputation, int first, int last) {
  double sum = 0;
  for (int i = first; i < last; ++i) sum += reputation.score(name_of(i));
  return sum / (last - first);
}

/// A report in which the rule took so much of each row.
Report report_of(const std::vector<double>& weights) {
  Report report;
  for (const double weight : weights) report.rows.push_back({.weight = weight, .selected = weight != 0});
  return report;
}

template <class F>
void expect_error(Status status, const std::string& says, F call) {
  const test::Failure failure = test::failure_of(call);
  EXPECT_EQ(failure.status, status) << failure.message;
  EXPECT_NE(failure.message.find(says), std::string::npos) << failure.message << "\nshould say " << says;
}

// Rounds ----------------------------------------------------------------------------------------------------

TEST(Reputation, NewNamesAreAlike) {
  test::Generator random = test::generator("new");
  Reputation reputation;
  const Round round = run(reputation, "multi_krum(f=2)", honest_workers(10, random));
  EXPECT_TRUE(round.trust.weights.empty());
  EXPECT_EQ(round.trust.rows.size(), 10U);
  for (const Judgement& judgement : round.judgements) EXPECT_EQ(judgement.before, 0.2);
  EXPECT_EQ(reputation.round(), 1);
}

TEST(Reputation, SleepersWhoTurnLoseTheirWeight) {
  for (const std::string& rule : telling) {
    SCOPED_TRACE(rule);
    test::Generator random = test::generator("sleepers " + rule);
    Reputation reputation({.f = 2});
    for (int round = 0; round < 40; ++round) run(reputation, rule, honest_workers(10, random));
    EXPECT_GT(mean_score(reputation, 0, 10), 0.75);
    Round last;
    for (int round = 0; round < 12; ++round) {
      std::map<std::string, Row> workers = honest_workers(10, random);
      for (int i = 0; i < 2; ++i) workers[name_of(i)] = scaled(workers[name_of(i)], -20);
      last = run(reputation, rule, workers);
    }
    for (int i = 0; i < 2; ++i) {
      // Doubt alone is no quarantine; centered clipping and quantile_clip leave a part of each row in.
      EXPECT_GE(last.of(name_of(i)).after, 0.2);
      EXPECT_LT(last.of(name_of(i)).after, 0.35);
      EXPECT_EQ(last.of(name_of(i)).verdict, Verdict::doubted);
      EXPECT_LT(last.weight_of(name_of(i)), 0.4 * last.weight_of(name_of(5)));
    }
    EXPECT_GT(mean_score(reputation, 2, 10), 0.85);
  }
}

TEST(Reputation, SleepersDoNotTakeOverARuleWithoutAnF) {
  for (const int f : {0, 2}) {  // two sleepers of five
    for (const std::string rule : {"median", "geometric_median"}) {
      SCOPED_TRACE(rule + " with f = " + std::to_string(f));
      test::Generator random = test::generator("take over " + rule);
      Reputation reputation({.f = f});
      Round last;
      for (int round = 0; round < 21; ++round) {
        std::map<std::string, Row> workers;  // the others are new in each round
        for (int i = 0; i < 3; ++i) workers["new " + std::to_string(3 * round + i)] = honest(random);
        for (int i = 0; i < 2; ++i) workers[name_of(i)] = round < 20 ? honest(random) : Row(d, 1000);
        last = run(reputation, rule, workers);
      }
      for (const double x : last.out) EXPECT_LT(std::fabs(x), 100);
      EXPECT_EQ(last.trust.only_watched.empty(), f > 0);
      EXPECT_GT(reputation.score(name_of(0)), 0.5);
    }
  }
}

TEST(Reputation, RulesThatTakeAPartOfEachRowTakeLessOfBadOnes) {
  for (const std::string rule : {"geometric_median", "centered_clipping(tau=2, start=origin, iters=5)"}) {
    SCOPED_TRACE(rule);
    test::Generator random = test::generator("gain " + rule);
    Reputation reputation({.f = 2});
    double with = 0, without = 0;
    for (int round = 0; round < 60; ++round) {
      std::map<std::string, Row> workers = honest_workers(10, random);
      if (round >= 20) {
        for (int i = 0; i < 2; ++i) workers[name_of(i)] = scaled(workers[name_of(i)], -10);
      }
      const Round done = run(reputation, rule, workers);
      if (round < 30) continue;
      Reputation none;
      with += done.reports[0].rows[0].weight / 30;
      without += run(none, rule, workers).reports[0].rows[0].weight / 30;
    }
    EXPECT_LT(with, 0.35 * without);
    EXPECT_GT(without, 0);
  }
}

TEST(Reputation, ChanceStarvesNobody) {
  // multi_krum leaves two of ten out in each round, krum nine, whoever they are.
  for (const std::string rule :
       {"multi_krum(f=2)", "krum(f=2)", "geometric_median", "bucketing(s=2) | median"}) {
    SCOPED_TRACE(rule);
    test::Generator random = test::generator("chance " + rule);
    Reputation reputation({.f = 2});
    double least = 1, sum = 0;
    for (int round = 0; round < 300; ++round) {
      run(reputation, rule, honest_workers(10, random));
      if (round < 100) continue;
      for (int i = 0; i < 10; ++i) {
        least = std::min(least, reputation.score(name_of(i)));
        sum += reputation.score(name_of(i)) / 2000;
      }
    }
    EXPECT_GE(least, 0.2);
    EXPECT_GT(sum, 0.85);
  }
}

TEST(Reputation, AnHonestButDifferentWorkerIsNotStarved) {
  for (const std::string& rule : telling) {
    SCOPED_TRACE(rule);
    test::Generator random = test::generator("different " + rule);
    Reputation reputation({.f = 2});
    double least = 1;  // of it in the output
    for (int round = 0; round < 150; ++round) {
      std::map<std::string, Row> workers = honest_workers(10, random);
      workers[name_of(9)][0] += 2;  // two spreads off, always
      const Round done = run(reputation, rule, workers);
      EXPECT_NE(done.of(name_of(9)).verdict, Verdict::failed);
      EXPECT_FALSE(done.has_quarantined(name_of(9)));
      EXPECT_GE(done.of(name_of(9)).after, 0.2);
      EXPECT_GE(done.weight_of(name_of(9)), 0.2 / (9 + 0.2));
      least = std::min(least, done.reports[0].rows[9].weight);
    }
    // Rules that choose whole rows may leave it out by themselves; what others take of it they go on taking.
    const bool chooses = rule.find("krum") != std::string::npos || rule.find("faba") != std::string::npos ||
                         rule.find("mda") != std::string::npos;
    EXPECT_TRUE(chooses || least > 0);
  }
}

TEST(Reputation, AWorkerThatFailsForTenRoundsComesBack) {
  test::Generator random = test::generator("fails");
  Reputation reputation;
  const auto round = [&](bool fails) {
    std::map<std::string, Row> workers = honest_workers(10, random);
    if (fails) workers[name_of(0)] = Row(d, nan);
    return run(reputation, "trimmed_mean(f=2)", workers);
  };
  for (int k = 0; k < 30; ++k) round(false);
  const double before = reputation.score(name_of(0));
  EXPECT_NEAR(before, 1 - 0.8 * std::pow(0.9, 30), 1e-12);
  // It halves to below 0.1 in four rounds, and serves six of the ten that it then gets.
  for (int k = 1; k <= 10; ++k) {
    const Round done = round(true);
    EXPECT_EQ(done.has_quarantined(name_of(0)), k > 4);
    EXPECT_NEAR(done.of(name_of(0)).after, k < 4 ? before * std::pow(0.5, k) : 0.1, 1e-12);
    EXPECT_EQ(done.of(name_of(0)).quarantine, k < 4 ? 0 : 14 - k);
  }
  // When it counts again, it begins below a newcomer, and rises as any does.
  for (int k = 1; k <= 4; ++k) EXPECT_TRUE(round(false).has_quarantined(name_of(0)));
  for (int k = 1; k <= 30; ++k) {
    const Round done = round(false);
    EXPECT_FALSE(done.has_quarantined(name_of(0)));
    EXPECT_NEAR(done.of(name_of(0)).after, 1 - 0.9 * std::pow(0.9, k), 1e-12);
  }
}

TEST(Reputation, OneThatNeverRecoversCountsInOneRoundOfEleven) {
  test::Generator random = test::generator("never");
  Reputation reputation;
  int counted = 0;
  for (int round = 0; round < 110; ++round) {
    std::map<std::string, Row> workers = honest_workers(10, random);
    workers[name_of(3)] = Row(d, nan);
    counted += run(reputation, "nnm(f=1) | trimmed_mean(f=1)", workers).has_quarantined(name_of(3)) ? 0 : 1;
  }
  EXPECT_EQ(counted, 11);  // two until the first quarantine, from 0.2
}

TEST(Reputation, NewNamesGainNothing) {
  test::Generator random = test::generator("whitewashing");
  const std::string rule = "nnm(f=2) | trimmed_mean(f=2)";
  Reputation reputation;
  for (int round = 0; round < 40; ++round) run(reputation, rule, honest_workers(10, random));
  double as_new = 0, as_old = 0;
  for (int round = 0; round < 20; ++round) {
    std::map<std::string, Row> workers = honest_workers(8, random);
    workers["a stays"] = workers["new " + std::to_string(round)] = Row(d, -30);
    const Round done = run(reputation, rule, workers);
    as_new += done.weight_of("new " + std::to_string(round));
    as_old += done.weight_of("a stays");
    // No name that counts without having failed has less than a newcomer.
    for (const auto& [name, standing] : reputation.standings()) EXPECT_GE(standing.score, 0.2);
  }
  EXPECT_LE(as_new, as_old * (1 + 1e-12));
  EXPECT_LT(as_new / 20, 0.2 / (8 * 0.8));
}

TEST(Reputation, FailuresInEverySecondRoundAreQuarantine) {
  const auto left_out_of_100 = [](const ReputationOptions& options, int every) {
    test::Generator random = test::generator("every second");
    Reputation reputation(options);
    for (int k = 0; k < 40; ++k) run(reputation, "trimmed_mean(f=2)", honest_workers(10, random));
    int left_out = 0;
    for (int k = 0; k < 100; ++k) {
      std::map<std::string, Row> workers = honest_workers(10, random);
      if (k % every == 0) workers[name_of(0)] = Row(d, nan);
      left_out += run(reputation, "trimmed_mean(f=2)", workers).has_quarantined(name_of(0)) ? 1 : 0;
    }
    if (every == 2 && left_out == 0) {
      EXPECT_NEAR(reputation.score(name_of(0)), 0.1 / 0.55, 1e-4);  // half of it rises to it again
    }
    return left_out;
  };
  EXPECT_GT(left_out_of_100({}, 2), 50);
  EXPECT_EQ(left_out_of_100({.floor = 0.05}, 2), 0);
  EXPECT_GT(left_out_of_100({.rise = 0.05, .floor = 0.05}, 2), 30);
  // The page says so, and what to set.
  EXPECT_EQ(left_out_of_100({}, 3), 0);
  EXPECT_GT(left_out_of_100({.floor = 0.2}, 3), 50);
}

TEST(Reputation, ChanceFailuresAreSeldomQuarantine) {
  test::Generator random = test::generator("by chance");
  Reputation reputation;
  constexpr int rounds = 3000;
  int left_out = 0;
  for (int k = 0; k < rounds; ++k) {
    std::map<std::string, Row> workers = honest_workers(10, random);
    if (std::bernoulli_distribution(0.05)(random)) workers[name_of(0)] = Row(d, nan);
    left_out += run(reputation, "trimmed_mean(f=2)", workers).has_quarantined(name_of(0)) ? 1 : 0;
  }
  EXPECT_LE(left_out, 0.02 * rounds);  // 0.1 % on average, ten rounds at a time
}

/// What the bad do about their names.
enum class Names { same, anew_after_ten, anew };

struct Churned {
  double error = 0;    ///< squared distance from the honest rows' mean, as a share of their squared spread
  double counted = 0;  ///< of the two bad rows, a round
  int honest_left_out = 0;
};

/// 60 rounds. Of 16 honest workers each is there in 60 % of them, and leaves for ever, a new one in its
/// place, with 5 %. Two more, always there, turn after 20. Means of rounds 31 to 60.
Churned churn(const std::string& rule, bool with, Names names, bool nans, test::Generator& random) {
  Reputation reputation({.f = 2});
  std::vector<std::string> here;
  int born = 0;
  const auto bear = [&] { return "honest " + std::to_string(born++); };
  for (int i = 0; i < 16; ++i) here.push_back(bear());
  Churned churned;
  for (int round = 1; round <= 60; ++round) {
    std::map<std::string, Row> workers;
    Row mean(d, 0);
    while (workers.size() < 7) {  // as many as f = 2 needs
      workers.clear();
      for (std::string& name : here) {
        if (std::bernoulli_distribution(0.05)(random)) name = bear();
        if (std::bernoulli_distribution(0.6)(random)) workers[name] = honest(random);
      }
    }
    const double count = static_cast<double>(workers.size());
    for (const auto& [name, row] : workers) {
      for (std::size_t k = 0; k < d; ++k) mean[k] += row[k] / count;
    }
    double spread = 0;
    for (const auto& [name, row] : workers) {
      for (std::size_t k = 0; k < d; ++k) spread += (row[k] - mean[k]) * (row[k] - mean[k]) / count;
    }
    std::vector<std::string> bad;
    for (int i = 0; i < 2; ++i) {
      const int life = round <= 20 || names == Names::same ? 0
                       : names == Names::anew              ? round
                                                           : (round - 21) / 10 + 1;
      bad.push_back("bad " + std::to_string(i) + "." + std::to_string(life));
      workers[bad.back()] = round <= 20 ? honest(random) : nans ? Row(d, nan) : scaled(mean, -10);
    }
    Reputation none;
    const Round done = run(with ? reputation : none, rule, workers);
    if (round <= 30) continue;
    for (std::size_t k = 0; k < d; ++k) churned.error += std::pow(done.out[k] - mean[k], 2) / spread / 30;
    for (const std::string& name : bad) churned.counted += done.has_quarantined(name) ? 0 : 1 / 30.0;
    for (const auto& [name, row] : workers) {
      if (name.starts_with("honest")) churned.honest_left_out += done.has_quarantined(name) ? 1 : 0;
    }
  }
  return churned;
}

struct ChurnCase {
  const char* rule;
  bool nans;  ///< else −10 times the honest mean
  Names names;
  double without, with;  ///< errors as docs/reputation.md has them
};

// Workers that join, leave and come back: what docs/reputation.md says of them.
TEST(Reputation, ChurnCostsAndGainsWhatThePageSays) {
  constexpr int seeds = 20;
  for (const ChurnCase& one : std::vector<ChurnCase>{
           {"geometric_median", false, Names::same, 0.052, 0.030},
           {"geometric_median", false, Names::anew, 0.052, 0.030},
           {"geometric_median", true, Names::same, 0.003, 0.028},
           {"geometric_median", true, Names::anew_after_ten, 0.003, 0.028},
           {"geometric_median", true, Names::anew, 0.003, 0.029},
           {"quantile_clip | mean", false, Names::same, 3.716, 0.608},
           {"quantile_clip | mean", false, Names::anew, 3.716, 0.606},
           {"quantile_clip | mean", true, Names::same, 0.953, 0.029},
           {"quantile_clip | mean", true, Names::anew_after_ten, 0.953, 0.045},
           {"quantile_clip | mean", true, Names::anew, 0.953, 0.180},
           {"trimmed_mean(f=2)", false, Names::same, 0.134, 0.148},
           {"trimmed_mean(f=2)", false, Names::anew, 0.134, 0.148},
           {"trimmed_mean(f=2)", true, Names::same, 0.135, 0.038},
           {"trimmed_mean(f=2)", true, Names::anew_after_ten, 0.135, 0.050},
           {"trimmed_mean(f=2)", true, Names::anew, 0.135, 0.148},
           {"multi_krum(f=2)", false, Names::same, 0.000, 0.015},
           {"multi_krum(f=2)", false, Names::anew, 0.000, 0.015},
           {"multi_krum(f=2)", true, Names::same, 0.000, 0.053},
           {"multi_krum(f=2)", true, Names::anew_after_ten, 0.000, 0.049},
           {"multi_krum(f=2)", true, Names::anew, 0.000, 0.015},
           {"nnm(f=2) | trimmed_mean(f=2)", false, Names::same, 0.000, 0.017},
           {"nnm(f=2) | trimmed_mean(f=2)", false, Names::anew, 0.000, 0.017},
           {"nnm(f=2) | trimmed_mean(f=2)", true, Names::same, 0.000, 0.031},
           {"nnm(f=2) | trimmed_mean(f=2)", true, Names::anew_after_ten, 0.000, 0.029},
           {"nnm(f=2) | trimmed_mean(f=2)", true, Names::anew, 0.000, 0.017},
       }) {
    SCOPED_TRACE(
        fmt::format("{}, {}, names {}", one.rule, one.nans ? "NaN" : "-10", static_cast<int>(one.names)));
    for (const bool with : {false, true}) {
      test::Generator random = test::generator(std::string("churn ") + one.rule);
      double mean = 0, square = 0;
      for (int seed = 0; seed < seeds; ++seed) {
        const Churned churned = churn(one.rule, with, one.names, one.nans, random);
        mean += churned.error / seeds;
        square += churned.error * churned.error / seeds;
        if (!with) continue;
        EXPECT_EQ(churned.honest_left_out, 0);
        // One round of eleven: three of 30. A new name fails twice before its quarantine.
        const double counted = !one.nans || one.names == Names::anew ? 2
                               : one.names == Names::same            ? 0.2
                                                                     : 0.4;
        EXPECT_NEAR(churned.counted, counted, 0.1);
      }
      const double deviation = std::sqrt(std::max(0.0, square - mean * mean) / (seeds - 1));
      // Seven deviations, and the rounding of what the page says.
      EXPECT_NEAR(mean, with ? one.with : one.without, 7 * deviation + 0.0006) << (with ? "with" : "without");
    }
  }
}

TEST(Reputation, NamesEarnTheirWeightRoundByRound) {
  Reputation reputation;
  for (int round = 1; round <= 30; ++round) {
    const Trust trust = reputation.trust(Median{}, std::vector<std::string>{"a", "b", "c"});
    reputation.update(trust, std::vector{report_of({1, 1, 1})});
    EXPECT_NEAR(reputation.score("a"), 1 - 0.8 * std::pow(0.9, round), 1e-12);
  }
  // Away for many rounds: no better, no worse.
  const double before = reputation.score("c");
  for (int round = 0; round < 20; ++round) {
    const Trust trust = reputation.trust(Median{}, std::vector<std::string>{"a", "b"});
    reputation.update(trust, std::vector{report_of({1, 1})});
  }
  EXPECT_EQ(reputation.score("c"), before);
  EXPECT_EQ(reputation.standings().find("c")->second.seen, 30);
  EXPECT_EQ(reputation.score("never seen"), 0.2);
}

// What a round is run with ----------------------------------------------------------------------------------

/// Of n rows as many may be in quarantine as any rule lets.
TrimmedMean widest(std::size_t n) { return {.f = static_cast<int>(n - 1) / 2}; }

/// A reputation of n names with any past.
Reputation any_past(int n, test::Generator& random, int f = 0) {
  Reputation reputation({.f = f});
  std::vector<std::string> names;
  for (int i = 0; i < n; ++i) names.push_back(name_of(i));
  std::vector<double> failing;
  for (int i = 0; i < n; ++i) failing.push_back(std::uniform_real_distribution<double>(0, 1)(random));
  const int rounds = std::uniform_int_distribution<int>(0, 40)(random);
  for (int round = 0; round < rounds; ++round) {
    const Trust trust = reputation.trust(widest(names.size()), names);
    Report report = report_of(std::vector<double>(trust.rows.size(), 1));
    for (std::size_t k = 0; k < trust.rows.size(); ++k) {
      const double own = failing[static_cast<std::size_t>(trust.rows[k])];
      report.rows[k].nonfinite = std::bernoulli_distribution(own * own)(random) ? 1 : 0;
    }
    reputation.update(trust, std::vector{report});
  }
  return reputation;
}

TEST(Reputation, NeverWeakensTheRule) {
  test::Generator random = test::generator("caps");
  int weighted = 0, quarantined = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const int n = std::uniform_int_distribution<int>(3, 20)(random);
    const Reputation reputation = any_past(n, random);
    std::vector<std::string> names;
    for (int i = 0; i < n; ++i) names.push_back(name_of(i));
    std::shuffle(names.begin(), names.end(), random);
    const int f = std::uniform_int_distribution<int>(1, (n - 1) / 2)(random);
    const auto at = [f](const char* rule, int k) {
      std::string text = rule;
      for (std::size_t i; (i = text.find('F')) != std::string::npos;)
        text.replace(i, 1, std::to_string(f + k));
      return parse(text);
    };
    for (const char* const rule : {"trimmed_mean(f=F)", "nnm(f=F) | multi_krum(f=F)", "multi_krum(f=F)",
                                   "krum(f=F)", "bulyan(f=F)", "monna(f=F, pivot=1)"}) {
      SCOPED_TRACE(std::string(rule) + " of n = " + std::to_string(n) + ", f = " + std::to_string(f));
      try {
        validate(at(rule, 0), n);
      } catch (const Error&) {
        continue;
      }
      const Trust trust = reputation.trust(at(rule, 0), names);
      const int rows = static_cast<int>(trust.rows.size());
      EXPECT_NO_THROW(validate(trust.pipeline, rows));
      EXPECT_LE(n - rows, f);
      EXPECT_TRUE(std::is_sorted(trust.rows.begin(), trust.rows.end()));
      quarantined += n - rows;
      if (trust.weights.empty()) continue;
      ++weighted;
      std::vector<double> weights = trust.weights;
      std::sort(weights.rbegin(), weights.rend());
      EXPECT_GT(weights.back(), 0);
      const double heaviest = std::accumulate(weights.begin(), weights.begin() + f, 0.0);
      const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
      // So much as f' equal rows, and the rule takes f'.
      const int equal = static_cast<int>(std::ceil(heaviest / sum * rows - 1e-9));
      EXPECT_LE(equal, 2 * f);
      if (equal > f) {
        EXPECT_NO_THROW(validate(at(rule, equal - f), n));
      }
    }
  }
  EXPECT_GT(weighted, 100);
  EXPECT_GT(quarantined, 100);
}

TEST(Reputation, NeverWeakensARuleWithoutAnF) {
  test::Generator random = test::generator("caps without f");
  int weighted = 0, quarantined = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const int n = std::uniform_int_distribution<int>(3, 20)(random);
    const int f = std::uniform_int_distribution<int>(0, n / 2)(random);
    const Reputation reputation = any_past(n, random, f);
    std::vector<std::string> names;
    for (int i = 0; i < n; ++i) names.push_back(name_of(i));
    for (const char* const rule : {"median", "geometric_median", "majority_cluster", "quantile_clip | mean",
                                   "bucketing(s=2) | median"}) {
      SCOPED_TRACE(std::string(rule) + " of n = " + std::to_string(n) + ", f = " + std::to_string(f));
      const auto points = [&](int rows) { return rule[0] == 'b' ? (rows + 1) / 2 : rows; };
      const Trust trust = reputation.trust(parse(rule), names);
      const int rows = static_cast<int>(trust.rows.size());
      EXPECT_EQ(trust.only_watched.empty(), f > 0 && 2 * f < points(n));
      if (!trust.only_watched.empty()) {
        EXPECT_EQ(rows, n);
        EXPECT_TRUE(trust.weights.empty());
        EXPECT_TRUE(trust.warnings.empty());
        continue;
      }
      EXPECT_LE(n - rows, f);
      EXPECT_LT(2 * f, points(rows));
      quarantined += n - rows;
      if (trust.weights.empty()) continue;
      ++weighted;
      std::vector<double> weights = trust.weights;
      std::sort(weights.rbegin(), weights.rend());
      const double heaviest = std::accumulate(weights.begin(), weights.begin() + f, 0.0);
      const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
      const int equal = static_cast<int>(std::ceil(heaviest / sum * rows - 1e-9));
      EXPECT_LE(equal, 2 * f);
      EXPECT_LT(2 * equal, rows);
    }
  }
  EXPECT_GT(weighted, 50);
  EXPECT_GT(quarantined, 50);
}

TEST(Reputation, WithoutAnFItIsOnlyWatched) {
  const std::vector<std::string> names = {"a", "b", "c", "d", "e"};
  const auto expect = [&](const Reputation& reputation, const Pipeline& pipeline, const std::string& why) {
    EXPECT_EQ(reputation.trust(pipeline, names).only_watched, why);
  };
  expect(Reputation(), Median{}, "median has no f, and the f of the reputation is 0");
  expect(Reputation({.f = 2}), Median{}, "");
  expect(Reputation({.f = 3}), Median{}, "5 rows are too few for median to withstand f = 3 bad ones");
  expect(Reputation({.f = 2}), TrimmedMean{.f = 0}, "trimmed_mean(f=0) is to withstand no bad row (f = 0)");
  expect(Reputation(), TrimmedMean{.f = 1}, "");
  expect(Reputation(), parse("nnm(f=1) | median"), "");

  // Quarantine neither begins nor ends, and weights are the caller's, under the caller's cap.
  Reputation reputation;
  Trust trust;
  const auto round = [&](const Pipeline& pipeline) {
    trust = reputation.trust(pipeline, names);
    Report report = report_of(std::vector<double>(trust.rows.size(), 1));
    for (std::size_t k = 0; k < trust.rows.size(); ++k) report.rows[k].nonfinite = trust.rows[k] == 1;
    return reputation.update(trust, std::vector{report})[1];
  };
  for (int k = 0; k < 3; ++k) EXPECT_EQ(round(Median{}).quarantine, 0);
  EXPECT_EQ(reputation.score("b"), 0.1);
  EXPECT_EQ(round(TrimmedMean{.f = 1}).quarantine, 10);
  EXPECT_EQ(round(Median{}).quarantine, 10);
  EXPECT_EQ(round(TrimmedMean{.f = 1}).quarantine, 9);
  EXPECT_EQ(reputation.trust(Mean{}, names, std::vector<double>{1, 2, 3, 4, 0}).weights,
            (std::vector<double>{0.25, 0.5, 0.75, 1, 0}));
  const Trust capped = reputation.trust(Mean{}, names, std::vector<double>{1, 1, 1, 1, 96}, 0.5);
  EXPECT_NEAR(capped.weights[4] / capped.weights[0], 4, 1e-12);
  EXPECT_EQ(capped.max_weight_share, 0.5);
}

/// So often that it is quarantined.
void fail(Reputation& reputation, const std::vector<std::string>& names,
          const std::vector<std::string>& failing) {
  for (int round = 0; round < 2; ++round) {
    const Trust trust = reputation.trust(widest(names.size()), names);
    Report report = report_of(std::vector<double>(trust.rows.size(), 1));
    for (std::size_t k = 0; k < trust.rows.size(); ++k) {
      const std::string& name = names[static_cast<std::size_t>(trust.rows[k])];
      if (std::find(failing.begin(), failing.end(), name) != failing.end()) report.rows[k].nonfinite = 3;
    }
    reputation.update(trust, std::vector{report});
  }
}

TEST(Reputation, QuarantineStopsNoRound) {
  const std::vector<std::string> names = {"a", "b", "c", "d", "e", "f", "g"};
  Reputation reputation({.floor = 0.05, .f = 2});
  fail(reputation, names, {"b", "d", "e"});
  // Twice it halves, from 0.2: at 0.05 it is not below the floor.
  EXPECT_TRUE(reputation.trust(Median{}, names).warnings.empty());
  EXPECT_EQ(reputation.trust(Median{}, names).rows.size(), 7U);
  fail(reputation, names, {"b", "d", "e"});
  const Trust free = reputation.trust(Median{}, names);
  EXPECT_EQ(free.rows, (std::vector{0, 2, 4, 5, 6}));  // 2f < 5
  EXPECT_EQ(free.warnings.size(), 1U);

  // No more than f, and no more than the rule can do without.
  const Trust two = reputation.trust(TrimmedMean{.f = 2}, names);
  EXPECT_EQ(two.rows, (std::vector{0, 2, 4, 5, 6}));
  ASSERT_EQ(two.warnings.size(), 1U);
  EXPECT_EQ(two.warnings[0],
            "\"e\" is due for quarantine and counts nevertheless: no more than 2 are left out of "
            "trimmed_mean(f=2) at a time");
  const Trust none = reputation.trust(Krum{.f = 2}, names);
  EXPECT_EQ(none.rows.size(), 7U);
  ASSERT_EQ(none.warnings.size(), 3U);
  EXPECT_NE(none.warnings[0].find("n = 6 rows with f = 2: needs n ≥ 2f+3 = 7"), std::string::npos);
  EXPECT_TRUE(none.weights.empty());  // krum has no weighted form
}

TEST(Reputation, ATrustedRowKeepsItsPlace) {
  const std::vector<std::string> names = {"a", "b", "c", "d", "e", "f", "g"};
  Reputation reputation;
  fail(reputation, names, {"b", "d"});
  const auto pivot_of = [&](int pivot) {
    const Trust trust = reputation.trust(Monna{.f = 2, .pivot = pivot}, names);
    return trust.names[static_cast<std::size_t>(
        trust.rows[static_cast<std::size_t>(std::get<Monna>(trust.pipeline.rule).pivot)])];
  };
  for (int pivot = 0; pivot < 7; ++pivot) EXPECT_EQ(pivot_of(pivot), names[static_cast<std::size_t>(pivot)]);
  // Neither is it compared with others: fltrust averages all rows but that one.
  for (int round = 0; round < 10; ++round) {
    const Trust trust = reputation.trust(FlTrust{.pivot = 2}, std::vector<std::string>{"p", "q", "r"});
    EXPECT_EQ(reputation.update(trust, std::vector{report_of({0.5, 0.5, 0})})[2].verdict, Verdict::kept);
  }
}

TEST(Reputation, WeightsOfTheCallerAreTakenIn) {
  const std::vector<std::string> names = {"a", "b", "c", "d", "e", "f"};
  Reputation reputation;
  // Alike, so that the product is what was given; but no more than f' = 2 of 6 equal rows have.
  const Trust trust = reputation.trust(TrimmedMean{.f = 1}, names, std::vector<double>{1, 2, 1, 1, 1, 1000});
  ASSERT_EQ(trust.weights.size(), 6U);
  EXPECT_NEAR(trust.max_weight_share, 2.0 / 6, 1e-12);
  EXPECT_NEAR(trust.weights[1] / trust.weights[0], 2, 1e-12);
  const double sum = std::accumulate(trust.weights.begin(), trust.weights.end(), 0.0);
  EXPECT_NEAR(trust.weights[5] / sum, 2.0 / 6, 1e-12);
  // The caller's cap counts if it is less, and an impossible one is the caller's mistake.
  EXPECT_EQ(reputation.trust(TrimmedMean{.f = 1}, names, std::vector<double>{1, 2, 1, 1, 1, 9}, 0.2)
                .max_weight_share,
            0.2);
  expect_error(Status::invalid_argument, "max_weight_share = 0.1",
               [&] { reputation.trust(TrimmedMean{.f = 1}, names, {}, 0.1); });
  // One that held for all is no mistake for those that are left.
  for (int round = 0; round < 2; ++round) fail(reputation, names, {"b"});
  EXPECT_NEAR(reputation.trust(TrimmedMean{.f = 1}, names, {}, 1.0 / 6).max_weight_share, 1.0 / 5, 1e-12);

  // None and bad ones stay what they are, and are judged so.
  Reputation fresh;
  const Trust bad = fresh.trust(TrimmedMean{.f = 1}, names, std::vector<double>{1, 0, -1, nan, 1, 2});
  EXPECT_EQ(bad.weights[1], 0);
  EXPECT_EQ(bad.weights[2], -1);
  EXPECT_TRUE(std::isnan(bad.weights[3]));
  const auto judged = fresh.update(bad, std::vector{report_of({0.25, 0, 0, 0, 0.25, 0.5})});
  EXPECT_EQ(judged[1].verdict, Verdict::not_judged);
  EXPECT_EQ(judged[2].verdict, Verdict::failed);
  EXPECT_EQ(judged[2].reason, "its weight is -1");
  EXPECT_EQ(judged[3].verdict, Verdict::failed);
  EXPECT_EQ(judged[5].verdict, Verdict::kept);
  EXPECT_EQ(fresh.standings().count("b"), 0U);

  // Of one that is in quarantine, and has the weight 0, the rounds that are left.
  const Trust absent = reputation.trust(TrimmedMean{.f = 1}, names, std::vector<double>{1, 0, 1, 1, 1, 1});
  const Judgement judged_b = reputation.update(absent, std::vector{report_of({1, 0, 1, 1, 1, 1})})[1];
  EXPECT_EQ(judged_b.verdict, Verdict::not_judged);
  EXPECT_GT(judged_b.quarantine, 0);
  EXPECT_EQ(judged_b.quarantine, reputation.standings().find("b")->second.quarantine);

  // Weights so small that a product with a score has no double: none is more than a better one's.
  constexpr double tiny = std::numeric_limits<double>::denorm_min();
  const Trust small = reputation.trust(TrimmedMean{.f = 1}, {{"a", "b", "c", "d", "new"}},
                                       std::vector<double>(5, 2 * tiny), 1);
  for (const double weight : small.weights) EXPECT_LE(weight, 2 * tiny);
}

// What a round shows ----------------------------------------------------------------------------------------

TEST(Reputation, WhatIsTakenIsComparedForEachUnitOfWeight) {
  // A light row of which the rule takes as much as its weight is, is not left out.
  Reputation reputation;
  const std::vector<std::string> names = {"a", "b", "c", "d", "e"};
  for (int round = 0; round < 20; ++round) {
    Trust trust = reputation.trust(MultiKrum{.f = 1}, names);
    trust.weights = {1, 0.2, 1, 1, 0.5};
    const auto judged = reputation.update(trust, std::vector{report_of({1, 0.2, 1, 1, 0.25})});
    EXPECT_EQ(judged[1].verdict, Verdict::kept);
    EXPECT_NEAR(judged[1].left_out, 0, 1e-12);
    EXPECT_NEAR(judged[4].left_out, 0.5, 1e-12);
    EXPECT_EQ(judged[4].verdict, round < 6 ? Verdict::left_out : Verdict::doubted) << round;
  }
  EXPECT_NEAR(reputation.score("b"), 1 - 0.8 * std::pow(0.9, 20), 1e-12);
}

TEST(Reputation, AScoreFollowsWhatTheRuleTakes) {
  // Half of it left out, always: it falls to one half, not to a newcomer's.
  Reputation reputation;
  const std::vector<std::string> names = {"a", "b", "c", "d", "e"};
  const auto round = [&](double last) {
    const Trust trust = reputation.trust(Median{}, names);
    std::vector<double> taken = trust.weights.empty() ? std::vector<double>(5, 1) : trust.weights;
    taken[4] *= last;
    reputation.update(trust, std::vector{report_of(taken)});
  };
  for (int k = 0; k < 40; ++k) round(1);
  for (int k = 0; k < 40; ++k) round(0.5);
  EXPECT_NEAR(reputation.score("e"), 0.5, 1e-3);
}

TEST(Reputation, FewerThanHalfAreEverNoticed) {
  test::Generator random = test::generator("half");
  std::uniform_real_distribution<double> uniform;
  for (int trial = 0; trial < 300; ++trial) {
    const int n = std::uniform_int_distribution<int>(1, 15)(random);
    std::vector<std::string> names;
    std::vector<double> weights;
    const double share = uniform(random);
    for (int i = 0; i < n; ++i) {
      names.push_back(name_of(i));
      weights.push_back(uniform(random) < share ? 0 : std::pow(uniform(random), 3));
    }
    Reputation reputation;
    const auto judged = reputation.update(reputation.trust(Median{}, names), std::vector{report_of(weights)});
    const auto noticed = std::count_if(judged.begin(), judged.end(),
                                       [](const Judgement& j) { return j.verdict != Verdict::kept; });
    EXPECT_LT(2 * noticed, n);
  }
}

TEST(Reputation, RoundingDoesNotDecide) {
  // 1 − 8.1/9 is above 0.1, by less than 1e-15.
  Reputation reputation;
  const std::vector<std::string> names = {"a", "b", "c", "d", "e"};
  const auto judged = reputation.update(reputation.trust(TrimmedMean{.f = 1}, names),
                                        std::vector{report_of({9, 9, 9, 9, 8.1})});
  EXPECT_GT(judged[4].left_out, 0.1);
  EXPECT_EQ(judged[4].verdict, Verdict::kept);
  EXPECT_EQ(judged[4].reason, "0.1 of it left out, as others are");
}

TEST(Reputation, TensorsCountAlike) {
  Reputation reputation;
  const std::vector<std::string> names = {"a", "b", "c", "d"};
  std::vector<Report> reports = {report_of({1, 1, 1, 1}), report_of({1, 1, 1, 0}), report_of({2, 2, 2, 2}),
                                 report_of({1, 1, 1, 0.5})};
  reports[2].rows[0].nonfinite = 1;
  const auto judged = reputation.update(reputation.trust(Median{}, names), reports);
  EXPECT_NEAR(judged[3].left_out, 1.5 / 4, 1e-12);
  EXPECT_EQ(judged[0].reason, "1 of its values is NaN or infinite");
}

TEST(Reputation, SaysWhy) {
  Reputation reputation;
  const std::vector<std::string> names = {"a", "b", "c", "d"};
  const std::vector<std::string> bad = {"", "is truncated", "", ""};
  std::vector<Judgement> judged;
  for (int round = 0; round < 2; ++round)
    judged = reputation.update(reputation.trust(TrimmedMean{.f = 1}, names),
                               std::vector{report_of({1, 0, 1, 1})}, bad);
  EXPECT_EQ(judged[0].reason, "kept");
  EXPECT_EQ(judged[1].reason, "bad input: is truncated; in quarantine for 10 rounds");
  EXPECT_EQ(judged[1].verdict, Verdict::failed);
  EXPECT_EQ(judged[1].quarantine, 10);
  judged = reputation.update(reputation.trust(TrimmedMean{.f = 1}, names), std::vector{report_of({1, 1, 1})});
  EXPECT_EQ(judged[1].reason, "in quarantine, 9 to go");
  for (int round = 0; round < 9; ++round)
    judged =
        reputation.update(reputation.trust(TrimmedMean{.f = 1}, names), std::vector{report_of({1, 1, 1})});
  EXPECT_EQ(judged[1].reason, "in quarantine for the last round");
  EXPECT_EQ(reputation.trust(TrimmedMean{.f = 1}, names).rows.size(), 4U);
  judged =
      reputation.update(reputation.trust(TrimmedMean{.f = 1}, names), std::vector{report_of({1, 1, 1, 0})});
  EXPECT_EQ(judged[3].reason, "left out, more than others are");
  EXPECT_STREQ(to_string(judged[3].verdict), "left out");
}

// The file --------------------------------------------------------------------------------------------------

TEST(Reputation, AFileKeepsAll) {
  test::Generator random = test::generator("file");
  const test::TemporaryFolder folder;
  for (int trial = 0; trial < 10; ++trial) {
    Reputation reputation(
        {.newcomer = 0.3, .rise = 0.05, .fall = 0.7, .patience = 1.5, .floor = 0.1, .sentence = 4, .f = 1});
    for (int round = 0; round < 20; ++round) {
      const Trust trust = reputation.trust(Median{}, std::vector<std::string>{"a", "b \"ü\"\n", "c", "d"});
      Report report = report_of({0.1, 0.3, 0.5, 0.2});
      report.rows.resize(trust.rows.size());
      report.rows[0].nonfinite = std::bernoulli_distribution(0.5)(random) ? 1 : 0;
      reputation.update(trust, std::vector{report});
    }
    reputation.save(folder / "state.json");
    const Reputation read = Reputation::load(folder / "state.json");
    EXPECT_EQ(read.standings(), reputation.standings());
    EXPECT_EQ(read.round(), 20);
    EXPECT_EQ(read.options(), reputation.options());
  }
  EXPECT_EQ(folder.entries(), 1);
}

TEST(Reputation, OtherFilesAreRefused) {
  const test::TemporaryFolder folder;
  const auto path = folder / "state.json";
  Reputation reputation;
  reputation.update(reputation.trust(Median{}, std::vector<std::string>{"a", "b"}),
                    std::vector{report_of({1, 1})});
  reputation.save(path);
  const std::string good = test::read_text(path);
  const auto refused = [&](const std::string& text, const std::string& says) {
    test::write_text(path, text);
    expect_error(Status::bad_file, says, [&] { Reputation::load(path); });
  };
  for (std::size_t length = 0; length + 2 < good.size(); ++length)
    refused(good.substr(0, length), path.string());
  refused("{}", "is not the file of a reputation");
  refused("[1, 2]", "is not the file of a reputation");
  refused(R"({"format": 3})", "is not the file of a reputation");
  refused(std::string(100000, '['), "is not JSON");
  refused(good + std::string("\0garbage", 8), "is not JSON, from byte " + std::to_string(good.size() + 1));
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  refused(changed("\"version\": 1", "\"version\": 2"), "is of version 2");
  refused(changed("\"version\": 1", "\"version\": \"1\""), "version is \"1\"");
  refused(changed("\"score\": 0.28", "\"score\": 1.5"), "name \"a\": score is 1.5");
  refused(changed("\"score\": 0.28", "\"score\": null"), "name \"a\": score is null");
  refused(changed("\"seen\": 1", "\"seen\": 2"), "seen is 2");
  refused(changed("\"seen\": 1", "\"sean\": 1"), "seen");
  refused(changed("\"quarantine\": 0", "\"quarantine\": 0.5"),
          "quarantine is 0.5; needs a whole number from 0");
  refused(changed("\"rise\": 0.1", "\"rise\": 0.9"), "0 < rise < fall");
  refused(changed("\"a\":", "\"\":"), "its name is empty");
  refused(changed("\"round\": 1", "\"round\": -1"), "round is -1");
  refused(changed("\"version\": 1", "\"version\": 4294967297"), "version is 4294967297");
  refused(changed("\"sentence\": 10", "\"other\": 10"), "sentence is missing");
  refused(changed("\"b\":", "\"a\":"), "\"a\" is there twice");
  refused(changed("\"f\": 0", "\"f\": 0, \"celling\": 1"), "\"celling\" is no key of version 1");
  refused(changed("\"score\": 0.28", "\"score\": 0.28, \"wight\": 1"), "name \"a\": \"wight\" is no key");
  refused(changed("\"round\": 1", "\"round\": 1, \"turn\": 1"), "\"turn\" is no key");
  refused(changed("\"round\": 1", "\"round\": 1e999"), "beyond the range of double");
  refused(changed("\"f\": 0", "\"f\": -1"), "f is -1");
  // Options that were edited take the standings along.
  const auto edited = [&](const std::string& from, const std::string& to) {
    test::write_text(path, changed(from, to));
    return Reputation::load(path).standings().find("a")->second;
  };
  EXPECT_EQ(edited("\"score\": 0.28", "\"score\": 0").score, 0.1);
  EXPECT_EQ(edited("\"suspicion\": 0.0", "\"suspicion\": 7.5").suspicion, 3);
  EXPECT_EQ(edited("\"quarantine\": 0", "\"quarantine\": 25").quarantine, 10);
  test::write_text(path, good);
  EXPECT_EQ(Reputation::load(path).round(), 1);
  expect_error(Status::io_error, "none.json", [&] { Reputation::load(folder / "none.json"); });
  expect_error(Status::bad_file, "not a regular file", [&] { Reputation::load(folder.path()); });
  expect_error(Status::io_error, "none/state.json", [&] { reputation.save(folder / "none/state.json"); });
}

TEST(Reputation, NamesAreBounded) {
  Reputation reputation;
  const auto refused = [&](const std::vector<std::string>& names, const char* says) {
    expect_error(Status::invalid_argument, says, [&] { reputation.trust(Median{}, names); });
  };
  refused({"a", ""}, "is empty");
  refused({"a", "b", "a"}, "names: \"a\" is there twice");
  refused({"a", std::string(257, 'x')}, "has 257 bytes; at most 256 are kept");
  refused({"a", "\xff"}, "is not UTF-8");

  // 65536 of them: those that have been away for longest are forgotten, with what is held against them.
  const auto round = [&](int first, int count) {
    std::vector<std::string> names;
    for (int i = 0; i < count; ++i) names.push_back("name-" + std::to_string(first + i));
    reputation.update(reputation.trust(Krum{}, names),
                      std::vector{report_of(std::vector<double>(static_cast<std::size_t>(count), 1))});
  };
  round(0, 40000);
  round(0, 10);
  round(40000, 40000);
  EXPECT_EQ(reputation.standings().size(), 65536U);
  EXPECT_EQ(reputation.standings().count("name-3"), 1U);
  EXPECT_EQ(reputation.standings().count("name-79999"), 1U);
  EXPECT_EQ(reputation.standings().count("name-10"), 0U);
}

TEST(Reputation, ArgumentsAreChecked) {
  const auto refused = [](const ReputationOptions& options, const char* says) {
    expect_error(Status::invalid_argument, says, [&] { Reputation{options}; });
  };
  refused({.newcomer = 1.5}, "newcomer = 1.5");
  refused({.newcomer = nan}, "newcomer = nan");
  refused({.rise = 0.5}, "rise = 0.5; needs 0 < rise < fall");
  refused({.fall = 2}, "fall = 2");
  refused({.patience = 0}, "patience = 0");
  refused({.floor = 0.3}, "floor = 0.3; needs 0 < floor ≤ newcomer");
  refused({.sentence = 0}, "sentence = 0");
  refused({.f = -1}, "f = -1; needs 0 ≤ f");

  Reputation reputation;
  const std::vector<std::string> names = {"a", "b"};
  expect_error(Status::invalid_argument, "weights has 3 values", [&] {
    reputation.trust(Median{}, names, std::vector<double>{1, 1, 1});
  });
  for (const double share : {nan, -1.0, 2.0, std::numeric_limits<double>::infinity()}) {
    expect_error(Status::invalid_argument, "needs 0 (no cap) or a share in [1/n, 1]",
                 [&] { reputation.trust(Median{}, names, {}, share); });
  }
  const Trust trust = reputation.trust(Median{}, names);
  Report failed = report_of({0, 0});
  failed.status = Status::too_many_nonfinite;
  const auto unlearnt = [&](const std::vector<Report>& reports, const std::vector<std::string>& bad,
                            const char* says) {
    expect_error(Status::invalid_argument, says, [&] { reputation.update(trust, reports, bad); });
    EXPECT_EQ(reputation.round(), 0);
    EXPECT_TRUE(reputation.standings().empty());
  };
  unlearnt({}, {}, "reports: none");
  unlearnt({report_of({1})}, {}, "one of 1 rows; needs 2");
  unlearnt({failed}, {}, "too_many_nonfinite, which teaches nothing");
  unlearnt({report_of({1, 1})}, {""}, "bad has 1 texts for 2 rows");
}

}  // namespace
}  // namespace bragg
