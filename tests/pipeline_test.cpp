// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <bragg/pipeline.hpp>

#include <cmath>
#include <limits>
#include <set>

#include "rules/sequence.hpp"
#include "rules/table.hpp"

namespace bragg {
namespace {

/// A legal text for `parameter`, away from its default.
std::string any_value(const ParameterInfo& parameter) {
  switch (parameter.type) {
    case ParameterType::integer:
      return "3";
    case ParameterType::unsigned_int:
      return "18446744073709551615";
    case ParameterType::number:
      return "0.3";
    case ParameterType::choice:
      return std::string(parameter.choices[parameter.choices[0] == parameter.default_value ? 1 : 0]);
    case ParameterType::integer_list:
      return "[2,0,1]";
  }
  return "";
}

/// A text of every rule, every parameter away from its default.
const std::vector<std::string>& full_texts() {
  static const std::vector<std::string> texts = [] {
    std::vector<std::string> made;
    for (const RuleInfo& rule : rules()) {
      std::string text(rule.name);
      for (const ParameterInfo& parameter : rule.parameters) {
        const bool first = &parameter == &rule.parameters.front();
        text += (first ? "(" : ", ") + std::string(parameter.name) + "=" + any_value(parameter);
      }
      if (!rule.parameters.empty()) text += ")";
      if (rule.kind == RuleKind::pre_aggregator) text += " | median";
      made.push_back(text);
    }
    return made;
  }();
  return texts;
}

std::string parse_error(std::string_view text, int column) {
  try {
    const Pipeline parsed = parse(text);
    ADD_FAILURE() << "accepted: " << text << " as " << to_string(parsed);
  } catch (const ParseError& error) {
    EXPECT_EQ(error.column(), column) << text << "\n" << error.what();
    EXPECT_EQ(error.status(), Status::invalid_argument);
    return error.what();
  }
  return "";
}

#define EXPECT_PARSE_ERROR(text, column, part)                   \
  do {                                                           \
    const std::string message = parse_error(text, column);       \
    EXPECT_NE(message.find(part), std::string::npos) << message; \
  } while (false)

std::string refusal(const Pipeline& pipeline, int n, Status status = Status::invalid_argument) {
  try {
    validate(pipeline, n);
    ADD_FAILURE() << "accepted: " << to_string(pipeline) << " for n = " << n;
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), status) << error.what();
    return error.what();
  }
  return "";
}

TEST(Table, HoldsEveryRuleOnceUnderItsOwnStruct) {
  constexpr std::size_t structs = std::variant_size_v<PreAggregator> + std::variant_size_v<Aggregator>;
  ASSERT_EQ(rules().size(), structs);
  std::set<std::string_view> names;
  for (const detail::RuleEntry& entry : detail::rule_entries()) {
    EXPECT_TRUE(names.insert(entry.info.name).second) << entry.info.name;
    EXPECT_EQ(&detail::entry_of(entry.make()), &entry) << entry.info.name;
    EXPECT_EQ(std::holds_alternative<PreAggregator>(entry.make()),
              entry.info.kind == RuleKind::pre_aggregator);
    EXPECT_FALSE(entry.info.definition.empty()) << entry.info.name;
    EXPECT_FALSE(entry.info.needs.empty()) << entry.info.name;
    EXPECT_FALSE(entry.info.guarantee.empty()) << entry.info.name;
  }
}

TEST(Table, SaysTheDefaultsThatTheStructsHave) {
  const auto default_of = [](std::string_view rule, std::string_view name) {
    for (const RuleInfo& info : rules()) {
      for (const ParameterInfo& parameter : info.parameters) {
        if (info.name == rule && parameter.name == name) return std::string(parameter.default_value);
      }
    }
    return std::string("no such parameter");
  };
  EXPECT_EQ(default_of("krum", "f"), "");
  EXPECT_EQ(default_of("krum", "neighbors"), "n−f−2");
  EXPECT_EQ(default_of("multi_krum", "m"), "n−f");
  EXPECT_EQ(default_of("bucketing", "permutation"), "drawn");
  EXPECT_EQ(default_of("geometric_median", "tol"), "1e-10");
  EXPECT_EQ(default_of("geometric_median", "max_iters"), "1000");
  EXPECT_EQ(default_of("geometric_median", "start"), "medoid");
  EXPECT_EQ(default_of("centered_clipping", "start"), "previous");
}

TEST(Table, ReflectsChoicesAsNames) {
  for (const RuleInfo& rule : rules()) {
    for (const ParameterInfo& parameter : rule.parameters) {
      EXPECT_EQ(parameter.type == ParameterType::choice, !parameter.choices.empty()) << parameter.name;
      EXPECT_FALSE(parameter.bound.empty()) << rule.name << "." << parameter.name;
      std::string names;
      for (const std::string_view choice : parameter.choices) {
        names += (names.empty() ? "" : " | ") + std::string(choice);
      }
      if (parameter.type == ParameterType::choice) {
        EXPECT_EQ(parameter.bound, names);
      }
    }
  }
}

TEST(Table, ReadsEachChoiceAsItsOwnValue) {
  const auto median = [](EvenMedian even) { return Pipeline(Median{even}); };
  EXPECT_EQ(parse("median(even=midpoint)"), median(EvenMedian::midpoint));
  EXPECT_EQ(parse("median(even=lower)"), median(EvenMedian::lower));
  EXPECT_EQ(parse("median(even=upper)"), median(EvenMedian::upper));
  using From = GeometricMedian::Start;
  EXPECT_EQ(parse("geometric_median(start=medoid)"), Pipeline(GeometricMedian{.start = From::medoid}));
  EXPECT_EQ(parse("geometric_median(start=mean)"), Pipeline(GeometricMedian{.start = From::mean}));
  EXPECT_EQ(parse("geometric_median(start=origin)"), Pipeline(GeometricMedian{.start = From::origin}));
  using Previous = CenteredClipping::Start;
  for (const auto& [name, start] : {std::pair{"previous", Previous::previous},
                                    {"reference", Previous::reference},
                                    {"origin", Previous::origin}}) {
    EXPECT_EQ(parse(std::string("centered_clipping(tau=1, start=") + name + ")"),
              Pipeline(CenteredClipping{.tau = 1, .start = start}));
  }
}

TEST(Table, GivesExamplesOfEveryRule) {
  for (const RuleInfo& rule : rules()) {
    EXPECT_FALSE(rule.examples.empty()) << rule.name;
    for (const std::string_view example : rule.examples) {
      std::string text(example);
      for (std::size_t at; (at = text.find("=F")) != std::string::npos;) text.replace(at, 2, "=2");
      for (std::size_t at; (at = text.find("N1")) != std::string::npos;) text.replace(at, 2, "8");
      const Pipeline pipeline = parse(text);
      EXPECT_NO_THROW(validate(pipeline, 11)) << example;
      EXPECT_EQ(parse(to_string(pipeline)), pipeline) << example;
      bool holds = detail::entry_of(pipeline.rule).info.name == rule.name;
      for (const PreAggregator& stage : pipeline.pre) {
        holds = holds || detail::entry_of(stage).info.name == rule.name;
      }
      EXPECT_TRUE(holds) << example << " has no " << rule.name;
    }
  }
}

TEST(Table, RefusesWeightsThatReachARuleWithoutAWeightedForm) {
  EXPECT_TRUE(detail::takes_weights(TrimmedMean{.f = 1}));
  EXPECT_TRUE(detail::takes_weights(Nnm{.f = 1} | Krum{.f = 1}));
  EXPECT_FALSE(detail::takes_weights(Krum{.f = 1}));
  EXPECT_FALSE(detail::takes_weights(Clip{.c = 1} | Krum{.f = 1}));
  EXPECT_FALSE(detail::takes_weights(Bucketing{.s = 2} | Bulyan{.f = 1}));
}

TEST(Text, OfEveryRuleRoundTrips) {
  std::set<std::string_view> seen;
  for (const std::string& text : full_texts()) {
    const Pipeline pipeline = parse(text);
    EXPECT_EQ(to_string(pipeline), text);
    EXPECT_EQ(parse(to_string(pipeline)), pipeline);
    for (const PreAggregator& stage : pipeline.pre) seen.insert(detail::entry_of(stage).info.name);
    seen.insert(detail::entry_of(pipeline.rule).info.name);
  }
  EXPECT_EQ(seen.size(), rules().size());
}

TEST(Text, MeansWhatTheStructsMean) {
  EXPECT_EQ(parse("nnm(f=3) | trimmed_mean(f=3)"), (Nnm{.f = 3} | TrimmedMean{.f = 3}));
  EXPECT_EQ(parse("median"), Pipeline(Median{}));
  EXPECT_EQ(parse("median()"), Pipeline(Median{}));
  EXPECT_EQ(parse("median(even=upper)"), Pipeline(Median{EvenMedian::upper}));
  EXPECT_EQ(parse("krum(f=1)"), Pipeline(Krum{.f = 1, .neighbors = std::nullopt}));
  EXPECT_EQ(parse("multi_krum(m=2,f=1)"), Pipeline(MultiKrum{.f = 1, .m = 2}));
  EXPECT_EQ(parse("geometric_median(nu=1e-6, max_iters=3, start=mean)"),
            Pipeline(GeometricMedian{.nu = 1e-6, .max_iters = 3, .start = GeometricMedian::Start::mean}));
  EXPECT_EQ(parse("\t bucketing ( s = 2 , permutation = [ 2 , 0,1 ] )|clip(c=.5)|\narc(f=1) | mean "),
            (Bucketing{.s = 2, .permutation = {2, 0, 1}} | Clip{.c = 0.5} | Arc{.f = 1} | Mean{}));
  EXPECT_EQ(parse("centered_clipping(tau=1E+2, start=reference)"),
            Pipeline(CenteredClipping{.tau = 100, .start = CenteredClipping::Start::reference}));
}

TEST(Text, NamesTheBoundsOfANumberThatItsTypeCannotHold) {
  EXPECT_PARSE_ERROR(
      "krum(f=2147483648)", 8,
      "f = '2147483648' is out of range: needs an integer from -2147483648 to 2147483647, and ");
  EXPECT_PARSE_ERROR("dnc(f=1, iters=2147483648)", 16, "to 2147483647, and iters ≥ 1");
  EXPECT_PARSE_ERROR("dnc(f=1, seed=18446744073709551616)", 15,
                     "needs an integer from 0 to 18446744073709551615, and 0 ≤ seed < 2^64");
  EXPECT_PARSE_ERROR("clip(c=1e400) | mean", 8,
                     "c = '1e400' is out of range: needs 0 or a magnitude from 2.2");
  EXPECT_PARSE_ERROR("bucketing(s=1, permutation=[0, 2147483648]) | mean", 32,
                     "permutation = '2147483648' is out of range");
}

TEST(Text, MayBeOfPreAggregatorsAlone) {
  EXPECT_EQ(parse_pre_aggregators(" nnm(f=3) "), PreSequence(Nnm{.f = 3}));
  EXPECT_EQ(parse_pre_aggregators("bucketing(s=2)|clip(c=.5) | arc(f=1)"),
            (Bucketing{.s = 2} | Clip{.c = 0.5} | Arc{.f = 1}));
  const auto refused = [](std::string_view text, int column) {
    try {
      parse_pre_aggregators(text);
    } catch (const ParseError& error) {
      EXPECT_EQ(error.column(), column) << error.what();
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(refused("", 1).find("there is no pre-aggregator"), std::string::npos);
  EXPECT_NE(refused("nnm(f=1) | median", 12).find("median is a rule"), std::string::npos);
  EXPECT_NE(refused("nnm(f=1) nnm(f=1)", 10).find("'|'"), std::string::npos);
  EXPECT_NE(refused("nnm(f=1) |", 11).find("expected the name"), std::string::npos);
}

TEST(Pipelines, KnowHowManyPointsReachARule) {
  EXPECT_EQ(points_after(Bucketing{.s = 3} | Nnm{.f = 1}, 10), 4);
  EXPECT_EQ(points_after(PreSequence(), 10), 10);
  EXPECT_EQ(points_at_rule(Bucketing{.s = 3} | Bucketing{.s = 2} | Median{}, 10), 2);
}

TEST(Pipelines, TakePairsOnlyWhereDistancesBetweenRowsCount) {
  const auto takes = [](std::string_view text) { return detail::takes_pairs(parse(text)); };
  for (const char* text :
       {"mean", "median", "bucketing(s=2) | median", "clip(c=1) | mean", "cge(f=1)",
        "arc(f=1) | clip(c=1) | median", "arc(f=1) | cge(f=1)", "clip(c=1) | bucketing(s=2) | mean"}) {
    EXPECT_FALSE(takes(text)) << text;
  }
  // Of a mean of rows, a length is made of all their products.
  for (const char* text : {"krum(f=1)", "geometric_median", "clip(c=1) | krum(f=1)", "nnm(f=1) | median",
                           "bulyan(f=0)", "bucketing(s=2) | clip(c=1) | mean", "bucketing(s=2) | cge(f=1)"}) {
    EXPECT_TRUE(takes(text)) << text;
  }
}

TEST(Text, LeavesDefaultsOutAndKeepsRequiredParameters) {
  EXPECT_EQ(to_string(GeometricMedian{}), "geometric_median");
  EXPECT_EQ(to_string(TrimmedMean{}), "trimmed_mean(f=0)");
  EXPECT_EQ(to_string(Bucketing{} | Median{}), "bucketing(s=1) | median");
}

TEST(Text, KeepsEveryBitOfAFloat) {
  for (const double c : {0.1, 1.0 / 3, 1e-300, 5e-324, 123456789.0, 1.7976931348623157e308, 0.0}) {
    const Pipeline pipeline = Clip{.c = c} | Mean{};
    EXPECT_EQ(parse(to_string(pipeline)), pipeline) << c;
  }
  EXPECT_EQ(to_string(Clip{.c = 0.1} | Mean{}), "clip(c=0.1) | mean");
}

TEST(TextError, OfAnUnknownRuleNamesTheNearest) {
  EXPECT_PARSE_ERROR("trimed_mean(f=1)", 1, "did you mean trimmed_mean?");
  EXPECT_PARSE_ERROR("Median", 1, "did you mean median?");
  EXPECT_PARSE_ERROR("nmm(f=1) | median", 1, "did you mean nnm?");
  EXPECT_PARSE_ERROR("nnm(f=1) | crum(f=1)", 12, "did you mean krum?");
  EXPECT_PARSE_ERROR("quantum", 1, "the rules are mean, median, trimmed_mean");
}

TEST(TextError, OfAParameterPointsAtIt) {
  EXPECT_PARSE_ERROR("multi_krum(g=1)", 12,
                     "multi_krum has f (required), m (default n−f), neighbors (default n−f−2)");
  EXPECT_PARSE_ERROR("mean(f=1)", 6, "mean has nonfinite (default propagate)");
  EXPECT_PARSE_ERROR("krum(f=1, f=2)", 11, "f is given twice");
  EXPECT_PARSE_ERROR("krum", 5, "krum needs f");
  EXPECT_PARSE_ERROR("krum(neighbors=2)", 17, "krum needs f");
  EXPECT_PARSE_ERROR("clip | mean", 6, "clip needs c");
  EXPECT_PARSE_ERROR("bucketing(seed=1) | mean", 17, "bucketing needs s");
  EXPECT_PARSE_ERROR("centered_clipping()", 19, "centered_clipping needs tau");
  EXPECT_PARSE_ERROR("krum(f)", 7, "expected '=' after f");
  EXPECT_PARSE_ERROR("krum(f=)", 8, "expected a value for f (an integer)");
  EXPECT_PARSE_ERROR("krum(=1)", 6, "expected a parameter");
  EXPECT_PARSE_ERROR("krum(f=1,)", 10, "expected a parameter");
}

TEST(TextError, OfAValuePointsAtIt) {
  EXPECT_PARSE_ERROR("krum(f=1.5)", 8, "needs an integer");
  EXPECT_PARSE_ERROR("krum(f=two)", 8, "needs an integer");
  EXPECT_PARSE_ERROR("krum(f=0x2)", 8, "needs an integer");
  EXPECT_PARSE_ERROR("krum(f=2147483648)", 8, "out of range");
  EXPECT_PARSE_ERROR("bucketing(s=1, seed=18446744073709551616) | mean", 21, "out of range");
  EXPECT_PARSE_ERROR("bucketing(s=1, seed=-1) | mean", 21, "needs an integer ≥ 0");
  EXPECT_PARSE_ERROR("clip(c=1e999) | mean", 8, "out of range");
  EXPECT_PARSE_ERROR("clip(c=nan) | mean", 8, "needs a number");
  EXPECT_PARSE_ERROR("clip(c=inf) | mean", 8, "needs a number");
  EXPECT_PARSE_ERROR("clip(c=1.2.3) | mean", 8, "needs a number");
  EXPECT_PARSE_ERROR("median(even=middle)", 13, "midpoint | lower | upper");
  EXPECT_PARSE_ERROR("median(even=1)", 13, "midpoint | lower | upper");
  EXPECT_PARSE_ERROR("geometric_median(start=previous)", 24, "medoid | mean | origin");
  EXPECT_PARSE_ERROR("centered_clipping(tau=1, start=mean)", 32, "previous | reference | origin");
  EXPECT_PARSE_ERROR("krum(f=1, neighbors=few)", 21, "needs an integer");
  EXPECT_PARSE_ERROR("bucketing(s=1, permutation=2) | mean", 28, "a list such as");
  EXPECT_PARSE_ERROR("bucketing(s=1, permutation=[]) | mean", 29, "expected an integer");
  EXPECT_PARSE_ERROR("bucketing(s=1, permutation=[0,1.0]) | mean", 31, "expected an integer");
  EXPECT_PARSE_ERROR("bucketing(s=1, permutation=[0 1]) | mean", 31, "expected ',' or ']'");
  EXPECT_PARSE_ERROR("bucketing(s=1, permutation=[0", 30, "found the end");
}

TEST(TextError, OfTheSequencePointsBehindIt) {
  EXPECT_PARSE_ERROR("", 1, "empty");
  EXPECT_PARSE_ERROR("   ", 4, "empty");
  EXPECT_PARSE_ERROR("|", 1, "expected the name of a rule");
  EXPECT_PARSE_ERROR("nnm(f=1) | ", 12, "expected the name of a rule, found the end");
  EXPECT_PARSE_ERROR("nnm(f=1)", 9, "needs a rule after it");
  EXPECT_PARSE_ERROR("nnm(f=1) median", 10, "expected '|'");
  EXPECT_PARSE_ERROR("krum(f=1) | median", 11, "krum ends a pipeline");
  EXPECT_PARSE_ERROR("median extra", 8, "unexpected 'extra'");
  EXPECT_PARSE_ERROR("median)", 7, "unexpected ')'");
  EXPECT_PARSE_ERROR("krum(f=1", 9, "expected ',' or ')'");
  EXPECT_PARSE_ERROR("krum(f=1 | median", 10, "expected ',' or ')'");
  EXPECT_PARSE_ERROR("3", 1, "expected the name of a rule");
  EXPECT_PARSE_ERROR("median\xc3\xa9", 7, "\\xc3\\xa9");
  EXPECT_PARSE_ERROR(std::string_view("median\0", 7), 7, "\\x00");
}

TEST(Text, OfAnyPrefixIsReadOrRefusedWithAColumnInside) {
  for (const std::string& text : full_texts()) {
    for (std::size_t length = 0; length < text.size(); ++length) {
      try {
        const Pipeline pipeline = parse(std::string_view(text).substr(0, length));
        EXPECT_EQ(parse(to_string(pipeline)), pipeline);
      } catch (const ParseError& error) {
        EXPECT_GE(error.column(), 1);
        EXPECT_LE(error.column(), static_cast<int>(length) + 1);
      }
    }
  }
}

/// validate accepts exactly n ≥ least.
void expect_least_n(const Pipeline& pipeline, int least) {
  for (int n = 1; n < least; ++n) EXPECT_NE(refusal(pipeline, n), "") << to_string(pipeline);
  for (int n = least; n < least + 3; ++n)
    EXPECT_NO_THROW(validate(pipeline, n)) << to_string(pipeline) << " n = " << n;
}

TEST(Bounds, OnNAreTheRulesOwn) {
  expect_least_n(Mean{}, 1);
  expect_least_n(Median{}, 1);
  for (const int f : {0, 1, 3}) {
    expect_least_n(TrimmedMean{f}, 2 * f + 1);
    expect_least_n(Meamed{f}, 2 * f + 1);
    expect_least_n(Phocas{f}, 2 * f + 1);
    expect_least_n(Krum{.f = f}, 2 * f + 3);
    expect_least_n(MultiKrum{.f = f}, 2 * f + 3);
    expect_least_n(Mda{f}, 2 * f + 1);
    expect_least_n(Smea{f}, 2 * f + 1);
    expect_least_n(Caf{f}, 2 * f + 1);
    expect_least_n(Monna{.f = f}, 2 * f + 1);
    expect_least_n(Cge{f}, 2 * f + 1);
    expect_least_n(Faba{f}, 2 * f + 1);
    expect_least_n(Dnc{.f = f}, f + 1);
    expect_least_n(Dnc{.f = f, .c = 1.5}, (3 * f + 1) / 2 + 1);
    expect_least_n(Bulyan{f}, 4 * f + 3);
    expect_least_n(Nnm{f} | Median{}, 2 * f + 1);
    expect_least_n(Arc{f} | Median{}, 2 * f + 1);
  }
  expect_least_n(GeometricMedian{}, 1);
  expect_least_n(Huber{.tau = 1}, 1);
  expect_least_n(AutoGm{.lam = 1}, 1);
  expect_least_n(SignVote{}, 1);
  expect_least_n(CenteredClipping{.tau = 1}, 1);
  expect_least_n(Clip{.c = 0} | Mean{}, 1);
  expect_least_n(QuantileClip{} | Mean{}, 1);
  expect_least_n(Balance{.gamma = 1}, 1);
  expect_least_n(FlTrust{}, 2);
  expect_least_n(FoolsGold{}, 2);
  expect_least_n(MajorityCluster{}, 2);
  expect_least_n(Bucketing{.s = 3} | Mean{}, 3);
  EXPECT_NE(refusal(Mean{}, 0), "");
  EXPECT_NE(refusal(Mean{}, -4), "");
}

TEST(Bounds, OnNeighborsAndM) {
  // With other neighbors than n−f−2, n ≥ 2f+1 is enough.
  EXPECT_NO_THROW(validate(Krum{.f = 2, .neighbors = 2}, 5));
  EXPECT_NO_THROW(validate(Krum{.f = 2, .neighbors = 1}, 7));
  EXPECT_NE(refusal(Krum{.f = 2, .neighbors = 1}, 5), "");  // n−f−2, which asks for 2f+3
  EXPECT_NE(refusal(Krum{.f = 2, .neighbors = 2}, 4), "");
  EXPECT_NE(refusal(Krum{.f = 1, .neighbors = 5}, 6), "");
  EXPECT_NE(refusal(Krum{.f = 1, .neighbors = 0}, 6), "");
  EXPECT_NE(refusal(Krum{.f = 1, .neighbors = -1}, 6), "");
  EXPECT_NE(refusal(parse("krum(f=1, neighbors=-1)"), 6), "");
  EXPECT_NE(refusal(MultiKrum{.f = 1, .m = -1}, 6), "");
  EXPECT_NE(refusal(Krum{.f = 0, .neighbors = 1}, 1), "");
  EXPECT_NO_THROW(validate(MultiKrum{.f = 1, .m = 6}, 6));
  EXPECT_NE(refusal(MultiKrum{.f = 1, .m = 7}, 6), "");
  EXPECT_NE(refusal(MultiKrum{.f = 1, .m = 0}, 6), "");
}

TEST(Bounds, OnNumbersAreChecked) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  constexpr double inf = std::numeric_limits<double>::infinity();
  constexpr int least = std::numeric_limits<int>::min();
  constexpr int most = std::numeric_limits<int>::max();
  for (const double bad : {-1.0, -1e-300, nan, inf, -inf}) {
    EXPECT_NE(refusal(Clip{.c = bad} | Mean{}, 5), "");
    EXPECT_NE(refusal(QuantileClip{.q = bad} | Mean{}, 5), "");
    EXPECT_NE(refusal(CenteredClipping{.tau = bad}, 5), "");
    EXPECT_NE(refusal(Balance{.gamma = bad}, 5), "");
    EXPECT_NE(refusal(Balance{.gamma = 1, .alpha = bad}, 5), "");
    EXPECT_NE(refusal(FoolsGold{.kappa = bad}, 5), "");
    EXPECT_NE(refusal(GeometricMedian{.nu = bad}, 5), "");
    EXPECT_NE(refusal(GeometricMedian{.tol = bad}, 5), "");
    EXPECT_NE(refusal(Huber{.tau = bad}, 5), "");
    EXPECT_NE(refusal(SignVote{.step = bad}, 5), "");
    EXPECT_NE(refusal(Dnc{.f = 1, .c = bad}, 5), "");
    EXPECT_NE(refusal(Huber{.tau = 1, .tol = bad}, 5), "");
    EXPECT_NE(refusal(AutoGm{.lam = bad}, 5), "");
    EXPECT_NE(refusal(AutoGm{.lam = 1, .tol = bad}, 5), "");
  }
  EXPECT_NE(refusal(CenteredClipping{.tau = 0}, 5), "");
  EXPECT_NE(refusal(Huber{.tau = 0}, 5), "");
  EXPECT_NE(refusal(AutoGm{.lam = 0}, 5), "");
  EXPECT_NE(refusal(SignVote{.step = 0}, 5), "");
  EXPECT_NE(refusal(Dnc{.f = -1}, 5), "");
  EXPECT_NE(refusal(Dnc{.f = 1, .c = 0}, 5), "");
  EXPECT_NE(refusal(Dnc{.f = 1, .c = 1e300}, 5), "");
  EXPECT_NE(refusal(Dnc{.f = 1, .iters = 0}, 5), "");
  EXPECT_NE(refusal(Dnc{.f = 1, .sample = 0}, 5), "");
  EXPECT_NE(refusal(QuantileClip{.q = 0} | Mean{}, 5), "");
  EXPECT_NE(refusal(Balance{.gamma = 0}, 5), "");
  EXPECT_NE(refusal(Balance{.gamma = 1, .alpha = 1.0000001}, 5), "");
  EXPECT_NO_THROW(validate(Balance{.gamma = 1, .alpha = 0}, 5));
  EXPECT_NE(refusal(FoolsGold{.kappa = 0}, 5), "");
  EXPECT_NE(refusal(QuantileClip{.q = 1.0000001} | Mean{}, 5), "");
  EXPECT_NO_THROW(validate(QuantileClip{.q = 1} | Mean{}, 5));
  EXPECT_NO_THROW(validate(Clip{.c = 0} | GeometricMedian{.nu = 0, .max_iters = 1, .tol = 0}, 5));
  for (const int bad : {0, -1, least}) {
    EXPECT_NE(refusal(CenteredClipping{.tau = 1, .iters = bad}, 5), "");
    EXPECT_NE(refusal(GeometricMedian{.max_iters = bad}, 5), "");
    EXPECT_NE(refusal(Huber{.tau = 1, .max_iters = bad}, 5), "");
    EXPECT_NE(refusal(AutoGm{.lam = 1, .max_iters = bad}, 5), "");
    EXPECT_NE(refusal(Bucketing{.s = bad} | Mean{}, 5), "");
  }
  for (const int bad : {-1, least, most}) {
    EXPECT_NE(refusal(TrimmedMean{bad}, 5), "");
    EXPECT_NE(refusal(Krum{.f = bad}, 5), "");
    EXPECT_NE(refusal(Krum{.f = bad, .neighbors = 1}, 5), "");
    EXPECT_NE(refusal(Bulyan{bad}, 5), "");
    EXPECT_NE(refusal(Nnm{bad} | Mean{}, 5), "");
    EXPECT_NE(refusal(Monna{.f = 1, .pivot = bad}, 5), "");
  }
  EXPECT_NE(refusal(Monna{.f = 1, .pivot = 5}, 5), "");
  EXPECT_NO_THROW(validate(Monna{.f = 1, .pivot = 4}, 5));
  for (const int bad : {-1, 5, least}) {
    EXPECT_NE(refusal(FlTrust{.pivot = bad}, 5), "");
    EXPECT_NE(refusal(Balance{.gamma = 1, .pivot = bad}, 5), "");
    EXPECT_NE(refusal(CenteredClipping{.tau = 1, .start = CenteredClipping::Start::pivot, .pivot = bad}, 5),
              "");
  }
  EXPECT_NE(refusal(CenteredClipping{.tau = 1, .pivot = 2}, 5), "");  // without effect
}

TEST(Bounds, OnChoicesAreTheRulesOwn) {
  EXPECT_NE(refusal(GeometricMedian{.start = static_cast<GeometricMedian::Start>(3)}, 5), "");
  EXPECT_NE(refusal(CenteredClipping{.tau = 1, .start = static_cast<CenteredClipping::Start>(4)}, 5), "");
  EXPECT_NE(refusal(Median{static_cast<EvenMedian>(7)}, 5), "");
}

TEST(Bounds, OnAPermutation) {
  const auto bucketing = [](std::vector<int> permutation) {
    return Bucketing{.s = 2, .permutation = std::move(permutation)} | Mean{};
  };
  EXPECT_NO_THROW(validate(bucketing({2, 0, 1}), 3));
  EXPECT_NE(refusal(bucketing({2, 0, 1}), 4), "");
  EXPECT_NE(refusal(bucketing({2, 0, 0}), 3), "");
  EXPECT_NE(refusal(bucketing({3, 0, 1}), 3), "");
  EXPECT_NE(refusal(bucketing({-1, 0, 1}), 3), "");
}

TEST(Bounds, AreCheckedAgainstThePointsThatReachAStage) {
  const Pipeline buckets = Bucketing{.s = 2} | Krum{.f = 1};
  expect_least_n(buckets, 9);  // ⌈9/2⌉ = 5 = 2f+3
  EXPECT_EQ(points_at_rule(buckets, 9), 5);
  EXPECT_EQ(points_at_rule(Krum{.f = 1}, 9), 9);
  EXPECT_EQ(points_at_rule(Bucketing{.s = 2} | Bucketing{.s = 3} | Mean{}, 11), 2);
  EXPECT_NO_THROW(validate(Nnm{.f = 2} | Bucketing{.s = 3} | Mean{}, 5));
  EXPECT_NE(refusal(Bucketing{.s = 3} | Nnm{.f = 1} | Mean{}, 5), "");
  EXPECT_NE(refusal(Bucketing{.s = 1} | FlTrust{.pivot = 1}, 6), "");
  EXPECT_NE(
      refusal(Bucketing{.s = 1} | CenteredClipping{.tau = 1, .start = CenteredClipping::Start::pivot}, 6),
      "");
  EXPECT_NO_THROW(validate(Bucketing{.s = 1} | CenteredClipping{.tau = 1}, 6));
  EXPECT_NE(refusal(Bucketing{.s = 2} | Monna{.f = 0, .pivot = 3}, 6), "");
  EXPECT_NO_THROW(validate(Nnm{.f = 1} | Monna{.f = 1, .pivot = 3}, 6));
}

TEST(Bounds, OnSmeaCountSubsets) {
  EXPECT_NO_THROW(validate(Smea{11}, 23));                   // C(23, 11) = 1 352 078
  EXPECT_NE(refusal(Smea{11}, 24, Status::too_large), "");   // C(24, 11) = 2 496 144
  EXPECT_NO_THROW(validate(Smea{4}, 64));                    // C(64, 4)·60³ = 1.4e11
  EXPECT_NE(refusal(Smea{2}, 2000, Status::too_large), "");  // C(2000, 2)·1998³ = 1.6e16
  EXPECT_NO_THROW(validate(Smea{0}, 1 << 20));
}

TEST(Refusal, SaysWhatToDo) {
  EXPECT_EQ(refusal(Krum{.f = 2}, 5),
            "krum: n = 5 rows with f = 2: needs n ≥ 2f+3 = 7; lower f to at most 1 or add workers");
  EXPECT_EQ(refusal(Krum{.f = 0}, 2), "krum: n = 2 rows with f = 0: needs n ≥ 2f+3 = 3; add workers");
  EXPECT_EQ(refusal(Nnm{.f = 1} | TrimmedMean{.f = 4}, 8),
            "trimmed_mean: n = 8 rows with f = 4: needs n ≥ 2f+1 = 9; lower f to at most 3 or add workers");
}

}  // namespace
}  // namespace bragg
