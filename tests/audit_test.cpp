// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <bragg/audit.hpp>
#include <bragg/pipeline.hpp>
#include <bragg/plan.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "host/audit/kappa.hpp"
#include "rules/with_f.hpp"
#include "tests/support/seed.hpp"

namespace bragg {
namespace {

using Rows = std::vector<std::vector<double>>;

Updates updates(const Rows& rows) {
  std::vector<const void*> pointers;
  for (const std::vector<double>& row : rows) pointers.push_back(row.data());
  return Updates::rows(pointers, static_cast<std::int64_t>(rows[0].size()), DType::f64);
}

/// Workers of different data: each has a step of its own in each of some directions, and more or less noise.
Rows different_workers(int n, std::size_t d, test::Generator& random) {
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  std::vector<double> mean(d), step(d);
  for (double& x : mean) x = normal(random);
  for (double& x : step) x = normal(random);
  Rows rows;
  for (int i = 0; i < n; ++i) {
    const double noise = 0.5 + uniform(random), part = normal(random) / 2;
    rows.push_back(mean);
    for (std::size_t k = 0; k < d; ++k) rows.back()[k] += part * step[k] + noise * normal(random);
  }
  return rows;
}

std::vector<double> mean_of(const Rows& rows) {
  std::vector<double> mean(rows[0].size());
  for (const std::vector<double>& row : rows) {
    for (std::size_t k = 0; k < mean.size(); ++k) mean[k] += row[k] / static_cast<double>(rows.size());
  }
  return mean;
}

double squared_distance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t k = 0; k < a.size(); ++k) sum += (a[k] - b[k]) * (a[k] - b[k]);
  return sum;
}

double spread_of(const Rows& rows) {
  double sum = 0;
  for (const std::vector<double>& row : rows) sum += squared_distance(row, mean_of(rows));
  return sum / static_cast<double>(rows.size());
}

bool has(const AuditRow& row, Evidence evidence) {
  return std::any_of(row.findings.begin(), row.findings.end(),
                     [&](const AuditFinding& found) { return found.evidence == evidence; });
}

const AuditPoint& point_of(const Audit& audit, const std::string& rule, int f) {
  for (const AuditRule& found : audit.rules) {
    if (found.rule != rule) continue;
    for (const AuditPoint& point : found.points) {
      if (point.f == f) return point;
    }
  }
  throw std::out_of_range(rule + " has no such f");
}

TEST(Audit, PricesAreDistancesFromTheMean) {
  // Around (1, 1): the mean is (1, 1), the spread (2·4 + 2·4 + 0)/5.
  const Rows rows = {{3, 1}, {-1, 1}, {1, 3}, {1, -1}, {1, 1}};
  const Audit audit =
      bragg::audit(updates(rows), {.rules = {"mean", "krum(f=F)", "trimmed_mean(f=F)", "median"}});
  EXPECT_EQ(audit.n, 5);
  EXPECT_EQ(audit.honest, 5);
  EXPECT_EQ(audit.d, 2);
  EXPECT_EQ(audit.sample, 2);
  EXPECT_NEAR(audit.spread * audit.spread, 16.0 / 5, 1e-12);
  EXPECT_NEAR(audit.mean_norm, std::sqrt(2), 1e-12);
  EXPECT_NEAR(audit.least_distance, 2, 1e-12);
  EXPECT_NEAR(audit.greatest_distance, 4, 1e-12);
  ASSERT_EQ(audit.shares.size(), 1);
  EXPECT_NEAR(audit.shares[0], 1, 1e-12);
  EXPECT_NEAR(point_of(audit, "mean", 0).price, 0, 1e-24);
  EXPECT_NEAR(point_of(audit, "mean", 2).price, 0, 1e-24);
  // The middle row scores least: it is the mean.
  EXPECT_NEAR(point_of(audit, "krum(f=F)", 1).price, 0, 1e-24);
  EXPECT_EQ(point_of(audit, "median", 1).price, 0);
  EXPECT_NEAR(point_of(audit, "median", 1).bound, 1.0 / 4, 1e-15);
  EXPECT_NEAR(point_of(audit, "median", 2).bound, 2.0 / 3, 1e-15);
  // Krum takes no f = 2 of 5 rows.
  EXPECT_THROW(point_of(audit, "krum(f=F)", 2), std::out_of_range);

  // Two neighbours each: the last row scores 0.25 + 6.25, the first 0.25 + 8, the others more than 14.
  const Rows ring = {{3, 1}, {-1, 1}, {1, 3}, {1, -1}, {3, 1.5}};
  const Audit other = bragg::audit(updates(ring), {.rules = {"krum(f=F)"}});
  EXPECT_NEAR(point_of(other, "krum(f=F)", 1).price,
              squared_distance(ring[4], mean_of(ring)) / spread_of(ring), 1e-12);
}

TEST(Audit, PricesAreThoseOfPlans) {
  test::Generator random = test::generator("plans");
  const Rows rows = different_workers(9, 300, random);
  const std::vector<std::string> rules = {"median",
                                          "trimmed_mean(f=2)",
                                          "krum(f=2)",
                                          "geometric_median",
                                          "nnm(f=2) | trimmed_mean(f=2)",
                                          "nnm(f=2) | geometric_median",
                                          "bulyan(f=1)",
                                          "dnc(f=2, sample=300)",
                                          "nnm(f=2) | dnc(f=2, iters=2, sample=300)",
                                          "clip(c=10) | median",
                                          "arc(f=2) | mean",
                                          "bucketing(s=2) | median"};
  const Audit audit = bragg::audit(updates(rows), {.rules = rules});
  for (const std::string& rule : rules) {
    std::vector<double> out(300);
    aggregate(parse(rule), updates(rows), Output(out));
    const double price = squared_distance(out, mean_of(rows)) / spread_of(rows);
    EXPECT_NEAR(point_of(audit, rule, 2).price, price, 1e-9 * (1 + price)) << rule;
    EXPECT_EQ(point_of(audit, rule, 2).price_error, 0) << rule;
  }
}

// Of few coordinates, of which a basis of all rows and deviations has more.
TEST(Audit, ASampleOfAllCoordinatesIsOneOfAllOfTheFrame) {
  test::Generator random = test::generator("all of the frame");
  Rows rows = different_workers(9, 4, random);
  rows[0] = {0, 1e4, 0, -1e4};
  const std::string rule = "dnc(f=1, sample=4)";
  const Audit audit = bragg::audit(updates(rows), {.rules = {rule}, .sample = 0});
  const AuditPoint& point = point_of(audit, rule, 1);
  Rows honest;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (audit.rows[i].findings.empty()) honest.push_back(rows[i]);
  }
  ASSERT_FALSE(audit.rows[0].findings.empty());
  std::vector<double> out(4);
  aggregate(parse(rule), updates(rows), Output(out));
  const double given = squared_distance(out, mean_of(honest)) / spread_of(honest);
  EXPECT_NEAR(point.given, given, 1e-9 * (1 + given));
  aggregate(parse(rule), updates(honest), Output(out));
  const double price = squared_distance(out, mean_of(honest)) / spread_of(honest);
  EXPECT_GT(price, 0);
  EXPECT_NEAR(point.price, price, 1e-9 * (1 + price));
  EXPECT_EQ(point.price_error, 0);
}

// It judges by some, where three huge coordinates of a row may not be among them.
TEST(Audit, ASampleOfSomeCoordinatesIsRefused) {
  test::Generator random = test::generator("some");
  const Rows rows = different_workers(9, 300, random);
  for (const char* const rule : {"dnc(f=F, sample=299)", "nnm(f=F) | dnc(f=F, sample=20)"}) {
    try {
      bragg::audit(updates(rows), {.rules = {"median", rule}});
      ADD_FAILURE() << rule;
    } catch (const Error& error) {
      EXPECT_EQ(error.status(), Status::invalid_argument);
      EXPECT_NE(std::string(error.what()).find(std::string("rules: ") + rule + ": judges rows by "),
                std::string::npos)
          << error.what();
      EXPECT_NE(std::string(error.what()).find("take sample=300"), std::string::npos) << error.what();
    }
  }
}

TEST(Audit, NoAttackIsWorseThanWhatIsProven) {
  test::Generator random = test::generator("proven");
  for (const int n : {7, 8, 13}) {
    const Rows rows = different_workers(n, 120, random);
    const Audit audit = bragg::audit(updates(rows), {.seed = random()});
    EXPECT_EQ(audit.rules.size(), default_audit_rules().size());
    int proven = 0;
    for (const AuditRule& rule : audit.rules) {
      for (const AuditPoint& point : rule.points) {
        if (!point.kappa) continue;
        ++proven;
        EXPECT_LE(point.worst, *point.kappa * 1.001 + 1e-12) << rule.rule << " f = " << point.f;
        EXPECT_LE(point.price, *point.kappa * 1.001 + 1e-12) << rule.rule << " f = " << point.f;
        EXPECT_EQ(point.rows, n);
      }
    }
    EXPECT_GT(proven, 15);
    // Nothing is proven of the mean, and NaN defeats it.
    EXPECT_EQ(point_of(audit, "mean", 1).kappa, std::nullopt);
    EXPECT_EQ(point_of(audit, "mean", 1).worst, std::numeric_limits<double>::infinity());
    EXPECT_EQ(point_of(audit, "mean", 1).attack, "nan");
  }
}

TEST(Audit, TheWorstAttackIsAsBadAsOneFoundByHand) {
  test::Generator random = test::generator("worst");
  const Rows rows = different_workers(9, 200, random);
  const Audit audit = bragg::audit(updates(rows), {.rules = {"trimmed_mean(f=F)", "krum(f=F)"}});
  // Whichever row was replaced, a row of the mean's own is no attack, and μ − 1.5σ is one that is tried.
  for (const char* const rule : {"trimmed_mean(f=F)", "krum(f=F)"}) {
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t replaced = 0; replaced < rows.size(); ++replaced) {
      Rows left = rows;
      left.erase(left.begin() + static_cast<std::ptrdiff_t>(replaced));
      const std::vector<double> mean = mean_of(left);
      std::vector<double> bad(mean.size()), out(mean.size());
      for (std::size_t k = 0; k < bad.size(); ++k) {
        double variance = 0;
        for (const std::vector<double>& row : left) variance += (row[k] - mean[k]) * (row[k] - mean[k]);
        bad[k] = mean[k] - 10 * std::sqrt(variance / static_cast<double>(left.size()));
      }
      Rows attacked = left;
      attacked.push_back(bad);
      const std::string text = rule[0] == 't' ? "trimmed_mean(f=1)" : "krum(f=1)";
      aggregate(parse(text), updates(attacked), Output(out));
      least = std::min(least, squared_distance(out, mean) / spread_of(left));
    }
    EXPECT_GE(point_of(audit, rule, 1).worst, least * (1 - 1e-9)) << rule;
  }
}

TEST(Audit, DifferentWorkersAreNotNamed) {
  test::Generator random = test::generator("different");
  for (int round = 0; round < 20; ++round) {
    const int n = 5 + static_cast<int>(random() % 20);
    const Audit audit =
        bragg::audit(updates(different_workers(n, 64, random)), {.rules = {"median"}, .seed = random()});
    EXPECT_EQ(audit.honest, n);
    for (const AuditRow& row : audit.rows) {
      for (const AuditFinding& found : row.findings) ADD_FAILURE() << found.text;
    }
    EXPECT_EQ(audit.advice.f, 1);
    EXPECT_EQ(audit.advice.rule, "median");
    EXPECT_TRUE(std::isnan(point_of(audit, "median", 1).given));
  }
}

/// Workers of one mean, with data of their own.
Rows like_workers(std::size_t d, test::Generator& random, std::size_t n = 12) {
  std::normal_distribution<double> normal;
  std::vector<double> mean(d);
  for (double& x : mean) x = normal(random);
  Rows rows(n, mean);
  for (std::vector<double>& row : rows) {
    for (double& x : row) x += normal(random);
  }
  return rows;
}

TEST(Audit, BadRowsAreNamedByTheirEvidence) {
  test::Generator random = test::generator("evidence");
  const Rows honest = like_workers(200, random, 14);
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  Rows rows = honest;
  for (double& x : rows[1]) x = -x;
  rows[3][7] = nan;
  rows[3][9] = -std::numeric_limits<double>::infinity();
  rows[4] = rows[6];
  for (double& x : rows[8]) x *= 40;
  rows[10][0] = 1e200;
  const Audit audit = bragg::audit(updates(rows), {.sample = 0});
  for (const std::size_t row : {0, 2, 5, 7, 9, 11, 12, 13}) {
    for (const AuditFinding& found : audit.rows[row].findings) ADD_FAILURE() << row << ": " << found.text;
  }
  EXPECT_EQ(audit.honest, 8);
  EXPECT_TRUE(has(audit.rows[1], Evidence::direction));
  ASSERT_TRUE(has(audit.rows[3], Evidence::nonfinite));
  EXPECT_EQ(audit.rows[3].nonfinite, 2);
  EXPECT_EQ(audit.rows[3].findings[0].text, "2 values are NaN or infinite");
  ASSERT_TRUE(has(audit.rows[4], Evidence::copy));
  EXPECT_EQ(audit.rows[4].findings[0].rows, std::vector<int>{6});
  EXPECT_TRUE(has(audit.rows[6], Evidence::copy));
  EXPECT_TRUE(has(audit.rows[8], Evidence::norm));
  EXPECT_TRUE(has(audit.rows[8], Evidence::distance));
  EXPECT_TRUE(has(audit.rows[10], Evidence::huge));
  // What is left is what prices are of.
  const Rows left = {honest[0], honest[2],  honest[5],  honest[7],
                     honest[9], honest[11], honest[12], honest[13]};
  EXPECT_NEAR(audit.spread * audit.spread, spread_of(left), 1e-9);
  EXPECT_NEAR(point_of(audit, "mean", 0).price, 0, 1e-20);
}

// Three times as long as the mean, noise is most of a row, and a row most of its own share of a centre.
TEST(Audit, ASignFlipUnderNoiseIsNamed) {
  test::Generator random = test::generator("flipped");
  std::normal_distribution<double> normal;
  Rows rows(10, std::vector<double>(2000));
  for (std::vector<double>& row : rows) {
    for (double& x : row) x = 0.3 + normal(random);
  }
  for (const std::size_t flipped : {3, 8}) {
    for (double& x : rows[flipped]) x = -x;
  }
  const Audit audit = bragg::audit(updates(rows), {.rules = {"median"}});
  for (std::size_t row = 0; row < rows.size(); ++row) {
    EXPECT_EQ(has(audit.rows[row], Evidence::direction), row == 3 || row == 8)
        << row << ": " << audit.rows[row].cosine;
  }
  EXPECT_EQ(audit.honest, 8);
  EXPECT_EQ(audit.advice.f, 2);
}

// Angles of rows that have nothing in common are chance, and few rows tell little of how large that is.
TEST(Audit, RowsOfNoiseAloneAreSeldomNamed) {
  test::Generator random = test::generator("noise");
  std::normal_distribution<double> normal;
  constexpr int draws = 300;
  int named = 0;
  for (int draw = 0; draw < draws; ++draw) {
    Rows rows(5, std::vector<double>(400));
    for (std::vector<double>& row : rows) {
      for (double& x : row) x = normal(random);
    }
    const Audit audit = bragg::audit(updates(rows), {.rules = {"mean"}});
    named += std::any_of(audit.rows.begin(), audit.rows.end(),
                         [](const AuditRow& row) { return has(row, Evidence::direction); })
                 ? 1
                 : 0;
  }
  EXPECT_LE(named, draws / 50);
}

TEST(Audit, RowsOfNextToNothingAreNamed) {
  test::Generator random = test::generator("short");
  Rows rows = like_workers(200, random);
  rows[2].assign(200, 0.0);
  for (double& x : rows[5]) x *= 1e-5;
  for (double& x : rows[9]) x *= 0.6;
  const Audit audit = bragg::audit(updates(rows), {.rules = {"median"}});
  for (std::size_t row = 0; row < rows.size(); ++row)
    EXPECT_EQ(has(audit.rows[row], Evidence::norm), row == 2 || row == 5)
        << row << ": " << audit.rows[row].norm;
}

TEST(Audit, OfCopiesOneCountsAsHonestWhereNoMajorityIsLeft) {
  test::Generator random = test::generator("copied");
  Rows rows = like_workers(200, random, 10);
  for (const std::size_t row : {7, 8, 9}) rows[row] = rows[row - 5];
  const Audit audit = bragg::audit(updates(rows));
  for (std::size_t row = 0; row < rows.size(); ++row)
    EXPECT_EQ(audit.rows[row].findings.empty(), row < 7) << row;
  EXPECT_EQ(audit.honest, 7);
  EXPECT_EQ(audit.advice.f, 3);
  EXPECT_FALSE(audit.advice.rule.empty());
  // One who also stands out is not the one that is spared, nor is a row of its set without any that is not.
  for (const std::size_t row : {2, 7}) {
    for (double& x : rows[row]) x *= 50;
  }
  const Audit other = bragg::audit(updates(rows));
  EXPECT_FALSE(other.rows[2].findings.empty());
  EXPECT_FALSE(other.rows[7].findings.empty());
  EXPECT_EQ(other.honest, 6);
  // Where a majority is left without them, all copies are taken for bad.
  const Audit few =
      bragg::audit(updates(Rows{rows[0], rows[1], rows[3], rows[4], rows[5], rows[6], rows[8]}));
  EXPECT_EQ(few.honest, 5);
}

TEST(Audit, ARuleIsAdvisedThatHolds) {
  test::Generator random = test::generator("advice");
  for (int round = 0; round < 5; ++round) {
    Rows rows = like_workers(200, random);
    Rows honest(rows.begin() + 2, rows.end());
    for (double& x : rows[0]) x *= -10;
    rows[1][5] = std::numeric_limits<double>::quiet_NaN();
    const Audit audit = bragg::audit(updates(rows));
    ASSERT_EQ(audit.honest, 10);
    EXPECT_EQ(audit.advice.f, 2);
    ASSERT_FALSE(audit.advice.rule.empty());
    EXPECT_GE(audit.advice.reasons.size(), 4);
    EXPECT_FALSE(audit.advice.doubts.empty());
    const Pipeline pipeline = parse(audit.advice.rule);
    const std::optional<double> kappa = detail::kappa_of(pipeline, 12, 2);
    ASSERT_TRUE(kappa) << audit.advice.rule;
    std::vector<double> out(200);
    aggregate(pipeline, updates(rows), Output(out));
    const double off = squared_distance(out, mean_of(honest)) / spread_of(honest);
    EXPECT_LE(off, *kappa);
    const auto advised = std::find_if(audit.rules.begin(), audit.rules.end(), [&](const AuditRule& rule) {
      return detail::with_f(rule.rule, 2) == audit.advice.rule;
    });
    ASSERT_NE(advised, audit.rules.end());
    for (const AuditRule& rule : audit.rules) {
      if (rule.points.size() < 3) continue;
      const AuditPoint& point = point_of(audit, rule.rule, 2);
      if (point.kappa) {
        EXPECT_GE(point.worst, point_of(audit, advised->rule, 2).worst) << rule.rule;
      }
    }
  }
}

TEST(Audit, TheRowsAsTheyAreAreTriedToo) {
  test::Generator random = test::generator("given");
  Rows rows = like_workers(100, random);
  for (double& x : rows[5]) x *= -20;
  const Rows honest = [&] {
    Rows left = rows;
    left.erase(left.begin() + 5);
    return left;
  }();
  const std::vector<std::string> rules = {"trimmed_mean(f=F)", "mean", "geometric_median"};
  const Audit audit = bragg::audit(updates(rows), {.rules = rules});
  ASSERT_EQ(audit.honest, 11);
  for (const std::string& rule : rules) {
    std::vector<double> out(100);
    aggregate(parse(rule == rules[0] ? "trimmed_mean(f=1)" : rule), updates(rows), Output(out));
    const double off = squared_distance(out, mean_of(honest)) / spread_of(honest);
    EXPECT_NEAR(point_of(audit, rule, 1).given, off, 1e-9 * (1 + off)) << rule;
  }
}

TEST(Audit, TheErrorOfASampleHolds) {
  test::Generator random = test::generator("sample");
  const Rows rows = different_workers(9, 8000, random);
  const std::vector<std::string> rules = {"median", "nnm(f=F) | trimmed_mean(f=F)", "krum(f=F)"};
  const Audit all = bragg::audit(updates(rows), {.rules = rules, .sample = 0});
  int near = 0;
  constexpr int draws = 40;
  for (int draw = 0; draw < draws; ++draw) {
    const Audit some = bragg::audit(updates(rows), {.rules = {rules[0]}, .sample = 512, .seed = random()});
    EXPECT_EQ(some.sample, 512);
    const AuditPoint& point = point_of(some, "median", 1);
    EXPECT_GT(point.price_error, 0);
    EXPECT_LT(point.price_error, 0.5 * point.price);
    near += std::abs(point.price - point_of(all, "median", 1).price) <= 2 * point.price_error ? 1 : 0;
  }
  // 19 of 20 would be, of normal errors.
  EXPECT_GE(near, draws * 3 / 4);
  // Distances decide as they are, also beside a sample, and combinations of rows are no matter of one.
  const Audit some = bragg::audit(updates(rows), {.rules = rules, .sample = 512});
  EXPECT_NEAR(point_of(some, rules[1], 2).price, point_of(all, rules[1], 2).price,
              6 * point_of(some, rules[1], 2).price_error);
  EXPECT_DOUBLE_EQ(point_of(some, rules[2], 2).price, point_of(all, rules[2], 2).price);
  EXPECT_EQ(point_of(some, rules[2], 2).worst_error, 0);
}

/// As statistics of batch normalisation are: a few values that rows differ in more than in all others.
TEST(Audit, SmallTensorsAreInTheSampleWhole) {
  test::Generator random = test::generator("small tensor");
  std::normal_distribution<double> normal;
  Rows large(8, std::vector<double>(20'000)), small(8, std::vector<double>(16));
  std::vector<std::vector<const void*>> rows;
  for (std::size_t i = 0; i < large.size(); ++i) {
    for (double& x : large[i]) x = normal(random);
    for (double& x : small[i]) x = 1e4 * normal(random);
    rows.push_back({large[i].data(), small[i].data()});
  }
  const Updates all = Updates::tensors(rows, std::vector<std::int64_t>{20'000, 16}, DType::f64);
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    const AuditPoint exact =
        point_of(bragg::audit(all, {.rules = {"median"}, .sample = 0, .seed = seed}), "median", 1);
    const Audit some = bragg::audit(all, {.rules = {"median"}, .sample = 1000, .seed = seed});
    EXPECT_LT(some.sample, 2000);
    EXPECT_NEAR(point_of(some, "median", 1).price, exact.price, 1e-3 * exact.price);
    EXPECT_NEAR(point_of(some, "median", 1).worst, exact.worst, 0.01 * exact.worst);
  }
}

/// A few coordinates of a large tensor that hold most of the spread are in one sample and not in another.
TEST(Audit, ASampleThatMissesTheSpreadIsInDoubt) {
  test::Generator random = test::generator("missed");
  std::normal_distribution<double> normal;
  Rows rows(8, std::vector<double>(20'000));
  for (std::vector<double>& row : rows) {
    for (double& x : row) x = normal(random);
    for (std::size_t k = 0; k < 16; ++k) row[1250 * k] *= 1e4;
  }
  const double exact =
      point_of(bragg::audit(updates(rows), {.rules = {"median"}, .sample = 0}), "median", 1).price;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const Audit some = bragg::audit(updates(rows), {.rules = {"median"}, .sample = 500, .seed = seed});
    const AuditPoint& point = point_of(some, "median", 1);
    EXPECT_NEAR(point.price, exact, 2 * point.price_error) << seed;
  }
}

/// Over-representing one honest row is an attack, too.
TEST(Audit, CopiesOfAnHonestRowAreTried) {
  test::Generator random = test::generator("mimic");
  const Rows rows = different_workers(9, 300, random);
  const Audit audit = bragg::audit(updates(rows), {.rules = {"geometric_median"}, .sample = 0, .seed = 5});
  const AuditPoint& point = point_of(audit, "geometric_median", 1);
  // One of the nine is replaced: whichever it is, copying the worst of the others does at most what is said.
  double least = std::numeric_limits<double>::infinity();
  for (std::size_t gone = 0; gone < rows.size(); ++gone) {
    Rows left = rows;
    left.erase(left.begin() + static_cast<std::ptrdiff_t>(gone));
    double worst = 0;
    for (const std::vector<double>& copied : Rows(left)) {
      Rows attacked = left;
      attacked.push_back(copied);
      std::vector<double> out(300);
      aggregate(GeometricMedian{}, updates(attacked), Output(out));
      worst = std::max(worst, squared_distance(out, mean_of(left)) / spread_of(left));
    }
    least = std::min(least, worst);
  }
  EXPECT_GE(point.worst, least * (1 - 1e-9));
}

/// Where rows differ in few ways, half of the honest ones point away from the median by chance.
TEST(Audit, DirectionsOfFewDimensionsNameNobody) {
  test::Generator random = test::generator("directions");
  std::normal_distribution<double> normal;
  for (int draw = 0; draw < 20; ++draw) {
    for (const std::size_t d : {std::size_t{1}, std::size_t{2}, std::size_t{500}}) {
      Rows rows(12, std::vector<double>(d));
      for (std::vector<double>& row : rows) {
        for (double& x : row) x = 0.5 + normal(random);
        if (d > 2) row[7] *= 1000;  // all of the row, nearly
      }
      for (const AuditRow& row : bragg::audit(updates(rows), {.rules = {"mean"}}).rows)
        EXPECT_FALSE(has(row, Evidence::direction));
    }
  }
}

TEST(Audit, AnFBelowWhatLooksBadIsDoubted) {
  test::Generator random = test::generator("f below");
  Rows rows = like_workers(64, random);
  rows[1].assign(64, std::numeric_limits<double>::quiet_NaN());
  rows[2].assign(64, std::numeric_limits<double>::infinity());
  AuditOptions options;
  options.f = 1;
  const Audit audit = bragg::audit(updates(rows), options);
  const auto& doubts = audit.advice.doubts;
  EXPECT_TRUE(std::any_of(doubts.begin(), doubts.end(), [](const std::string& doubt) {
    return doubt.find("f = 1 is less than the 2 rows that look bad") != std::string::npos;
  }));
}

/// Of three rows the middle is what many rules find: that one is advised which costs least without an
/// attacker.
// With an f below the number of rows that look bad, what holds on them is advised.
TEST(Audit, ARuleThatTheRowsThemselvesDefeatIsNotAdvised) {
  test::Generator random = test::generator("defeated");
  Rows rows = like_workers(200, random, 10);
  for (const std::size_t row : {7, 8, 9}) rows[row].assign(200, std::numeric_limits<double>::quiet_NaN());
  AuditOptions options;
  options.rules = {"nnm(f=F) | trimmed_mean(f=F)", "geometric_median", "trimmed_mean(f=F)"};
  options.f = 1;
  EXPECT_EQ(bragg::audit(updates(rows), options).advice.rule, "geometric_median");
  options.rules = {"trimmed_mean(f=F)"};
  EXPECT_EQ(bragg::audit(updates(rows), options).advice.rule, "");
}

TEST(Audit, OfEqualWorstCasesTheCheaperRuleIsAdvised) {
  const Rows rows = {{1, 0}, {-1, 0.5}, {0, -1}};
  const Audit audit =
      bragg::audit(updates(rows), {.rules = {"median", "trimmed_mean(f=F)", "geometric_median"}});
  double least = std::numeric_limits<double>::infinity();
  double worst = least;
  for (const AuditRule& rule : audit.rules) {
    const AuditPoint& point = point_of(audit, rule.rule, 1);
    if (point.worst < worst * (1 - 1e-6)) least = std::numeric_limits<double>::infinity();
    worst = std::min(worst, point.worst);
    if (point.worst <= worst * (1 + 1e-6)) least = std::min(least, point.price);
  }
  const std::string& advised = audit.advice.rule;
  const std::string asked = advised == "trimmed_mean(f=1)" ? "trimmed_mean(f=F)" : advised;
  EXPECT_LE(point_of(audit, asked, 1).price, least * (1 + 1e-6)) << advised;
}

TEST(Audit, RowsAreLookedAtFromTheBase) {
  test::Generator random = test::generator("base");
  Rows rows = like_workers(256, random);
  for (double& x : rows[2]) x = -x;
  std::vector<double> base(256);
  for (double& x : base) x = 100 * static_cast<double>(random() % 1000);
  Rows models = rows;
  for (std::vector<double>& model : models) {
    for (std::size_t k = 0; k < base.size(); ++k) model[k] += base[k];
  }
  const Audit of_updates = bragg::audit(updates(rows));
  AuditOptions options;
  options.base = Row(base);
  const Audit of_models = bragg::audit(updates(models), options);
  EXPECT_TRUE(has(of_models.rows[2], Evidence::direction)) << of_models.rows[2].cosine;
  EXPECT_NEAR(of_models.spread, of_updates.spread, 1e-9 * of_updates.spread);
  EXPECT_NEAR(of_models.mean_norm, of_updates.mean_norm, 1e-9 * of_updates.mean_norm);
  // Far from the origin no direction tells.
  EXPECT_FALSE(has(bragg::audit(updates(models)).rows[2], Evidence::direction));
}

TEST(Audit, TensorsHaveSharesOfTheDistances) {
  const std::vector<std::int64_t> sizes = {2, 0, 3};
  const Rows first = {{1, 0}, {-1, 0}, {0, 0}}, last = {{0, 0, 3}, {0, 0, -3}, {0, 0, 0}};
  std::vector<std::vector<const void*>> pointers;
  for (std::size_t i = 0; i < 3; ++i) pointers.push_back({first[i].data(), nullptr, last[i].data()});
  const Audit audit = bragg::audit(Updates::tensors(pointers, sizes, DType::f64), {.rules = {"median"}});
  ASSERT_EQ(audit.shares.size(), 3);
  EXPECT_NEAR(audit.shares[0], 0.1, 1e-12);
  EXPECT_EQ(audit.shares[1], 0);
  EXPECT_NEAR(audit.shares[2], 0.9, 1e-12);
}

TEST(Audit, SkewnessTellsLongTails) {
  test::Generator random = test::generator("skewness");
  std::normal_distribution<double> normal;
  Rows even(20, std::vector<double>(4000)), skew = even;
  for (std::vector<double>& row : even) {
    for (double& x : row) x = normal(random);
  }
  // One worker in five has what the others lack.
  for (std::size_t i = 0; i < skew.size(); ++i) {
    for (std::size_t k = 0; k < skew[i].size(); ++k)
      skew[i][k] = ((i + k) % 5 == 0 ? 10 : 0) + normal(random);
  }
  const Audit symmetric = bragg::audit(updates(even), {.rules = {"median"}});
  EXPECT_NEAR(symmetric.skewness, symmetric.normal_skewness, 0.1 * symmetric.normal_skewness);
  EXPECT_GT(bragg::audit(updates(skew), {.rules = {"median"}}).skewness, 1.2);
}

TEST(Audit, RowsThatDoNotDifferHaveNoPrice) {
  const Rows rows(5, std::vector<double>(16, 2.5));
  const Audit audit = bragg::audit(updates(rows));
  EXPECT_EQ(audit.honest, 5);
  EXPECT_EQ(audit.spread, 0);
  EXPECT_TRUE(audit.rules.empty());
  EXPECT_EQ(audit.advice.rule, "");
}

TEST(Audit, TooFewHonestRowsHaveNoPrice) {
  Rows rows(5, std::vector<double>(16, std::numeric_limits<double>::quiet_NaN()));
  rows[0].assign(16, 1);
  const Audit audit = bragg::audit(updates(rows));
  EXPECT_EQ(audit.honest, 1);
  EXPECT_TRUE(audit.rules.empty());
  EXPECT_EQ(audit.advice.rule, "");
  EXPECT_EQ(audit.advice.f, 4);
}

TEST(Audit, BadArgumentsAreRefused) {
  const Rows rows = {{1, 2}, {2, 3}, {3, 5}, {4, 7}};
  const auto message = [](const Rows& given, const AuditOptions& options) -> std::string {
    try {
      audit(updates(given), options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message({{1}, {2}}, {}).find("at least 3"), std::string::npos);
  EXPECT_NE(message(rows, {.sample = -1}).find("sample = -1"), std::string::npos);
  EXPECT_NE(message(rows, {.f = 2}).find("f = 2 of 4 workers"), std::string::npos);
  EXPECT_NE(message(rows, {.f = 0}).find("f = 0"), std::string::npos);
  EXPECT_NE(message(rows, {.rules = {"monna(f=F)"}}).find("trusts a row"), std::string::npos);
  EXPECT_NE(message(rows, {.rules = {"medium"}}).find("medium"), std::string::npos);
  const std::string bound = message(rows, {.rules = {"median", "krum(f=9)"}});
  EXPECT_TRUE(bound.starts_with("rules: krum(f=9): ")) << bound;
  EXPECT_NE(bound.find("2f+3"), std::string::npos) << bound;
  EXPECT_EQ(message(rows, {.rules = {"krum(f=F)"}}), "");  // with f = 0
  const std::vector<double> base(3);
  AuditOptions options;
  options.base = Row(base);
  EXPECT_NE(message(rows, options).find("base: its tensors"), std::string::npos);
  const std::vector<double> infinite = {0, std::numeric_limits<double>::infinity()};
  options.base = Row(infinite);
  EXPECT_NE(message(rows, options).find("base: holds NaN"), std::string::npos);
  EXPECT_NE(message(Rows(3), {}).find("no coordinates"), std::string::npos);
}

TEST(Audit, KappaIsThatOfTheTable) {
  const auto kappa = [](const char* text, int n, int f) { return detail::kappa_of(parse(text), n, f); };
  const double r = 2.0 / 6;  // f = 2 of 10
  EXPECT_NEAR(*kappa("trimmed_mean(f=2)", 10, 2), 6 * r * (1 + r), 1e-12);
  EXPECT_NEAR(*kappa("median", 10, 2), 4 * (1 + r) * (1 + r), 1e-12);
  EXPECT_NEAR(*kappa("geometric_median", 10, 2), 4 * (1 + r) * (1 + r), 1e-12);
  EXPECT_NEAR(*kappa("krum(f=2)", 10, 2), 6 * (1 + r), 1e-12);
  EXPECT_NEAR(*kappa("nnm(f=2) | krum(f=2)", 10, 2), 8.0 * 2 / 8 * (6 * (1 + r) + 1), 1e-12);
  EXPECT_NEAR(*kappa("nnm(f=2) | median", 10, 1), 2 * (4 * (1 + r) * (1 + r) + 1), 1e-12);
  EXPECT_NEAR(*kappa("smea(f=2)", 10, 2), 4 * r, 1e-12);
  EXPECT_EQ(kappa("trimmed_mean(f=1)", 10, 2), std::nullopt);
  EXPECT_EQ(kappa("nnm(f=1) | krum(f=2)", 10, 1), std::nullopt);
  EXPECT_EQ(kappa("krum(f=2, neighbors=5)", 10, 2), std::nullopt);
  EXPECT_EQ(kappa("geometric_median(max_iters=3)", 10, 2), std::nullopt);
  EXPECT_EQ(kappa("bucketing(s=2) | median", 10, 2), std::nullopt);
  EXPECT_EQ(kappa("mean", 10, 2), std::nullopt);
  EXPECT_EQ(kappa("median", 4, 2), std::nullopt);
}

}  // namespace
}  // namespace bragg
