// SPDX-License-Identifier: Apache-2.0
// The guarantees, on cases aimed at them: constants that drown differences, rows that cancel, ladders to
// nothing. host/verify/aimed.hpp has the bounds, with their derivation and what rounding is allowed beyond
// them.
#include "host/verify/aimed.hpp"

#include <gtest/gtest.h>

#include <set>

#include "host/reference/oracle.hpp"
#include "host/verify/draw.hpp"
#include "host/verify/verify.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

constexpr DType all_dtypes[] = {DType::f32, DType::f16, DType::bf16, DType::f64};

TEST(Aimed, NoBadRowBreaksABound) {
  const std::vector<Backend> all = backends();
  std::vector<std::string> texts;
  const std::size_t share = std::min<std::size_t>(test_share(), aimed_pipelines().size());
  for (std::size_t k = session_seed() % share; k < aimed_pipelines().size(); k += share)
    texts.emplace_back(aimed_pipelines()[k]);
  // The smallest shares are taken where every access of a kernel is checked, which takes long.
  const std::uint64_t rounds = share > 20 ? 6 : 30;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    const Findings findings =
        verify::verify({.backends = all, .seed = session_seed() + round, .aimed = true, .rules = texts});
    for (const Finding& finding : findings.findings) {
      ADD_FAILURE() << all[finding.backend].name << ": " << describe(finding.drawn) << "\n"
                    << finding.complaint << "\n"
                    << finding.command;
    }
    EXPECT_EQ(findings.breaches, 0);
    EXPECT_EQ(findings.judged, findings.runs);
  }
}

/// What the oracle gives, as the library would hand it out.
Outcome by_the_oracle(const Case& drawn) {
  Outcome outcome{.status = Status::ok, .out = {}, .reports = {}, .bytes = {}, .trespass = {}};
  for (const Expectation::Part& part : expect(drawn.pipeline, drawn.request).parts) {
    if (part.result.status != Status::ok) outcome.status = part.result.status;
    for (const long double x : part.result.out)
      outcome.out.push_back(round_to(out_dtype(drawn.request), x) + 0.0L);
  }
  return outcome;
}

/// What the oracle's long double leaves the honest differences, which it does not take from a row, enough
/// digits of.
bool is_for_the_oracle(const Case& drawn) {
  if (drawn.request.options.scope != Scope::whole) return false;
  // It takes long over long rows, and its geometric median is a search like the judge's.
  if (drawn.request.rows[0].size() > 64 || std::holds_alternative<GeometricMedian>(drawn.pipeline.rule))
    return false;
  const Rows& rows = drawn.request.rows;
  long double largest = 0;
  long double spread = 0;
  const Values* first = nullptr;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const long double x : rows[i]) largest = std::isnan(x) ? largest : std::max(largest, std::fabs(x));
    if (drawn.roles[i] != Role::honest) continue;
    if (first == nullptr) first = &rows[i];
    for (std::size_t j = 0; j < rows[i].size(); ++j)
      spread = std::max(spread, std::fabs(rows[i][j] - (*first)[j]));
  }
  for (const long double x : drawn.request.reference) largest = std::max(largest, std::fabs(x));
  return largest <= 0x1p36L * spread;
}

TEST(Aimed, TheDefinitionsKeepTheBounds) {
  int judged = 0;
  for (const char* const text : aimed_pipelines()) {
    for (const DType dtype : all_dtypes) {
      for (std::uint64_t k = 0; k < 6; ++k) {
        if ((session_seed() + k) % test_share() != 0) continue;
        const Case drawn = draw_aimed_case(text, dtype, session_seed() + k);
        if (!is_for_the_oracle(drawn)) continue;
        ++judged;
        EXPECT_EQ(judge_aimed(drawn, by_the_oracle(drawn)).complaint(), "")
            << describe(drawn) << ", seed " << drawn.seed;
      }
    }
  }
  std::cout << judged << " results of the oracle judged\n";
}

// The judge must be able to fail --------------------------------------------------------------------------

Outcome of_value(const Values& out) {
  return {.status = Status::ok, .out = out, .reports = {}, .bytes = {}, .trespass = {}};
}

Values mean_of(const Case& drawn, const std::set<Role>& roles) {
  const Rows& rows = drawn.request.rows;
  Values mean(rows[0].size(), 0);
  int count = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const bool is_finite =
        std::all_of(rows[i].begin(), rows[i].end(), [](long double x) { return std::isfinite(x); });
    if (!roles.contains(drawn.roles[i]) || !is_finite) continue;
    ++count;
    for (std::size_t j = 0; j < mean.size(); ++j) mean[j] += rows[i][j];
  }
  for (long double& x : mean) x /= std::max(count, 1);
  return mean;
}

/// The first case from a fresh seed of which this holds.
template <class WantedF>
Case a_case(const char* text, DType dtype, WantedF wanted) {
  for (std::uint64_t seed = session_seed();; ++seed) {
    Case drawn = draw_aimed_case(text, dtype, seed);
    if (drawn.request.options.scope == Scope::whole && wanted(drawn)) return drawn;
  }
}

bool has_bad(const Case& drawn) {
  return std::find(drawn.roles.begin(), drawn.roles.end(), Role::bad) != drawn.roles.end();
}

TEST(AimedJudge, SeesTheMeanOfGoodAndBadRowsUnderEveryRule) {
  for (const char* const text : aimed_pipelines()) {
    for (const DType dtype : all_dtypes) {
      bool seen = false;
      // Of bucketing before autogm one case in fifty, the fewest: by chance none of 300 in one seed of 200.
      for (std::uint64_t k = 0; k < 1000 && !seen; ++k) {
        const Case drawn = draw_aimed_case(text, dtype, session_seed() + k);
        if (has_bad(drawn))
          seen = judge_aimed(drawn, of_value(mean_of(drawn, {Role::honest, Role::bad}))).breach.has_value();
      }
      EXPECT_TRUE(seen) << text << ", " << to_string(dtype);
    }
  }
}

TEST(AimedJudge, SeesOneUnitOutsideTheHonestRange) {
  for (const char* const text : {"median", "trimmed_mean(f=F)"}) {
    for (const DType dtype : all_dtypes) {
      const Case drawn = a_case(text, dtype, [](const Case& one) { return one.request.weights.empty(); });
      Values out = run(drawn.pipeline, drawn.request).out;
      EXPECT_EQ(judge_aimed(drawn, of_value(out)).complaint(), "") << describe(drawn);
      long double most = -std::numeric_limits<long double>::infinity();
      for (std::size_t i = 0; i < drawn.roles.size(); ++i) {
        if (drawn.roles[i] == Role::honest) most = std::max(most, drawn.request.rows[i].back());
      }
      out.back() = most + spacing(out_dtype(drawn.request), most);
      EXPECT_TRUE(judge_aimed(drawn, of_value(out)).breach) << describe(drawn);
    }
  }
}

TEST(AimedJudge, SeesAWorsePlaceThanTheGeometricMedian) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    // Three rows that are no line: the corner of least sum is not the median, or the sides are much alike.
    const Case made = [&] {
      Case drawn{.text = "geometric_median", .roles = std::vector<Role>(3, Role::honest)};
      drawn.pipeline = parse("geometric_median");
      drawn.request = {.rows = {{0, 0}, {1, 0}, {0.5, 0.875}}, .dtype = dtype};
      return drawn;
    }();
    EXPECT_EQ(judge_aimed(made, run(made.pipeline, made.request)).complaint(), "");
    EXPECT_TRUE(judge_aimed(made, of_value({0.5, 0.28})).breach);
    EXPECT_TRUE(judge_aimed(made, of_value(made.request.rows[2])).breach);
  }
}

// The last row pulls as hard as the first one holds: along a way of 1e14 the sum hardly changes, but steeply
// beside it, where the output is rounded to.
TEST(AimedJudge, AllowsWhatRoundingAddsToAGeometricMedianFarFromTheBest) {
  constexpr long double huge = std::numeric_limits<float>::max();
  Case drawn{.text = "geometric_median(start=origin)", .roles = std::vector<Role>(4, Role::honest)};
  drawn.roles[3] = Role::bad;
  drawn.pipeline = parse("geometric_median(start=origin)");
  drawn.request = {.rows = {{-368.894287L, 3.34146995e+21L, 7.4610593e+11L},
                            {-194.114746L, 3.70740825e+21L, -1.45802514e+12L},
                            {-753.138977L, 2.201933e+21L, -1.74412884e+12L},
                            {huge, -huge, -huge}},
                   .dtype = DType::f32};
  for (Values& row : drawn.request.rows) {
    for (long double& x : row) x = round_to(DType::f32, x);
  }
  EXPECT_EQ(judge_aimed(drawn, run(drawn.pipeline, drawn.request)).complaint(), "");
}

TEST(AimedJudge, SeesWhatIsNoRowOfKrum) {
  const Case drawn = a_case("krum(f=F)", DType::f32, [](const Case& one) {
    // Rows that are alike have a mean that is one of them.
    return one.data.starts_with("normal") && one.data.find("common") == std::string::npos &&
           one.data.find("constant") == std::string::npos && one.request.rows.size() > 3;
  });
  Values out = mean_of(drawn, {Role::honest});
  for (long double& x : out) x = round_to(DType::f32, x);
  EXPECT_TRUE(judge_aimed(drawn, of_value(out)).breach) << describe(drawn);
}

TEST(AimedJudge, SeesALengthThatIsExceededByAHundredth) {
  Case drawn{.text = "clip(c=C) | mean", .roles = std::vector<Role>(3, Role::honest)};
  drawn.request = {.rows = {{-1e9L, 3, 4}, {-1e9L, 30, 40}, {-1e9L, 300, 400}},
                   .dtype = DType::f64,
                   .reference = {-1e9L, 0, 0}};
  drawn.pipeline = parse("clip(c=5) | mean");
  EXPECT_EQ(judge_aimed(drawn, of_value({-1e9L, 3, 4})).complaint(), "");
  EXPECT_TRUE(judge_aimed(drawn, of_value({-1e9L, 3.03L, 4.04L})).breach);
  drawn.pipeline = parse("centered_clipping(tau=5)");
  EXPECT_EQ(judge_aimed(drawn, of_value({-1e9L, 3, 4})).complaint(), "");
  EXPECT_TRUE(judge_aimed(drawn, of_value({-1e9L, 3.03L, 4.04L})).breach);
  EXPECT_TRUE(judge_aimed(drawn, of_value({-1e9L, 2.97L, 3.96L})).breach)
      << "a step of honest rows is cut short";
}

TEST(AimedJudge, SeesAStatusNaNAndNegativeZero) {
  const Case drawn = a_case("median", DType::f32, [](const Case&) { return true; });
  Outcome wrong = run(drawn.pipeline, drawn.request);
  wrong.out[0] = -0.0L;
  EXPECT_EQ(judge_aimed(drawn, wrong).breach->what, "negative zero");
  wrong.out[0] = std::numeric_limits<long double>::quiet_NaN();
  EXPECT_EQ(judge_aimed(drawn, wrong).breach->what, "not finite");
  wrong.status = Status::too_many_nonfinite;
  EXPECT_NE(judge_aimed(drawn, wrong).complaint().find("too_many_nonfinite"), std::string::npos);
}

TEST(AimedCases, ASeedDecidesEverything) {
  for (const char* const text : aimed_pipelines()) {
    const Case first = draw_aimed_case(text, DType::f32, session_seed());
    const Case again = draw_aimed_case(text, DType::f32, session_seed());
    EXPECT_EQ(describe(first), describe(again));
    EXPECT_EQ(first.request.weights, again.request.weights);
    EXPECT_EQ(first.roles, again.roles);
    EXPECT_NE(describe(first), describe(draw_aimed_case(text, DType::f32, session_seed() + 1)));
  }
}

TEST(AimedCases, EveryRuleIsAmongThem) {
  std::set<std::string> names;
  for (const char* const text : aimed_pipelines())
    names.merge([&] {
      const std::vector<std::string> found = rules_in(text);
      return std::set<std::string>(found.begin(), found.end());
    }());
  for (const RuleInfo& rule : rules()) EXPECT_TRUE(names.contains(std::string(rule.name))) << rule.name;
}

}  // namespace
}  // namespace bragg::test
