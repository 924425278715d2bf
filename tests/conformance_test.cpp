// SPDX-License-Identifier: Apache-2.0
// Every rule and a spread of pipelines × dtypes × memory layouts × shapes against the oracle.
#include <gtest/gtest.h>
#include <bragg/pipeline.hpp>

#include <tuple>

#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

const char* const pipelines[] = {
    "mean",
    "median",
    "median(even=lower)",
    "median(even=upper)",
    "trimmed_mean(f=F)",
    "meamed(f=F)",
    "phocas(f=F)",
    "krum(f=F)",
    "krum(f=F, neighbors=N1)",
    "multi_krum(f=F)",
    "multi_krum(f=F, m=2)",
    "geometric_median",
    "geometric_median(start=mean)",
    "geometric_median(nu=0.1, max_iters=3, tol=0, start=origin)",
    "centered_clipping(tau=1)",
    "centered_clipping(tau=2, iters=5)",
    "mda(f=F)",
    "smea(f=F)",
    "caf(f=F)",
    "monna(f=F, pivot=0)",
    "cge(f=F)",
    "bulyan(f=F)",
    "nnm(f=F) | mean",
    "nnm(f=F) | median",
    "nnm(f=F) | trimmed_mean(f=F)",
    "nnm(f=F) | meamed(f=F)",
    "nnm(f=F) | phocas(f=F)",
    "nnm(f=F) | multi_krum(f=F)",
    "nnm(f=F) | geometric_median",
    "nnm(f=F) | centered_clipping(tau=1, iters=3)",
    "nnm(f=F) | cge(f=F)",
    "nnm(f=F) | bulyan(f=F)",
    "bucketing(s=1, seed=7) | trimmed_mean(f=F)",
    "bucketing(s=2, seed=7) | median",
    "bucketing(s=2, seed=9) | geometric_median",
    "clip(c=2) | mean",
    "clip(c=2) | trimmed_mean(f=F)",
    "clip(c=1) | caf(f=F)",
    "arc(f=F) | trimmed_mean(f=F)",
    "arc(f=F) | multi_krum(f=F)",
    "arc(f=F) | nnm(f=F) | trimmed_mean(f=F)",
    "nnm(f=F) | clip(c=1) | smea(f=F)",
    "clip(c=3) | bucketing(s=2, seed=1) | nnm(f=1) | median",
};

std::string with_f(std::string text, int n, int f) {
  const auto replace = [&](const std::string& from, const std::string& to) {
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from))
      text.replace(at, from.size(), to);
  };
  replace("N1", std::to_string(n - f - 1));
  replace("=F", "=" + std::to_string(f));
  return text;
}

/// The pipeline for n and f, where it is legal.
std::optional<Pipeline> legal_pipeline(const char* text, int n, int f) {
  try {
    Pipeline pipeline = parse(with_f(text, n, f));
    validate(pipeline, n);
    return pipeline;
  } catch (const Error&) {
    return std::nullopt;
  }
}

/// Exhaustive in the oracle: subsets are listed there.
bool is_combinatorial(const Pipeline& pipeline) {
  return std::holds_alternative<Mda>(pipeline.rule) || std::holds_alternative<Smea>(pipeline.rule);
}

using Parameters = std::tuple<const char*, DType, Layout>;

class Conformance : public testing::TestWithParam<Parameters> {};

TEST_P(Conformance, AgreesWithTheOracle) {
  const auto [text, dtype, layout] = GetParam();
  std::mt19937_64 random = generator(std::string(text) + to_string(dtype) + name_of(layout));
  int judged = 0;
  int runs = 0;
  for (const int n : {1, 2, 3, 5, 7, 8, 11, 16, 23, 40}) {
    for (const int f : {0, 1, (n - 3) / 4, (n - 1) / 2}) {
      if (f < 0 || (f == 1 && (n - 3) / 4 == 1)) continue;
      const std::optional<Pipeline> found = legal_pipeline(text, n, f);
      if (!found || (is_combinatorial(*found) && n > 11)) continue;
      const Pipeline& pipeline = *found;
      for (const int d : {1, 3, 77}) {
        Request request{.rows = normal_rows(random, n, d, 0.5, 1.0), .dtype = dtype, .layout = layout};
        request.misalignment = (random() % 2) * (random() % 8);
        const bool has_reference = random() % 2 == 0;
        if (has_reference) request.reference = normal_rows(random, 1, d, 0.3, 0.5)[0];
        const Outcome got = run_library(pipeline, request);
        std::string complaint;
        ++runs;
        judged += judge(pipeline, request, got, complaint);
        ASSERT_EQ(complaint, "") << to_string(pipeline) << ", n = " << n << ", d = " << d << ", reference "
                                 << has_reference;
      }
    }
  }
  // Ties of 16-bit values, and in one dimension, are common; a rule whose every case is a tie is not being
  // tested.
  ASSERT_GT(runs, 0);
  EXPECT_GE(judged * 3, runs) << judged << " of " << runs << " cases were clear enough to judge";
}

std::string name_parameters(const testing::TestParamInfo<Parameters>& info) {
  std::string name = std::string(std::get<0>(info.param)) + "_" + to_string(std::get<1>(info.param)) + "_" +
                     name_of(std::get<2>(info.param));
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Rules, Conformance,
                         testing::Combine(testing::ValuesIn(pipelines),
                                          testing::Values(DType::f32, DType::f16, DType::bf16, DType::f64),
                                          testing::Values(Layout::matrix, Layout::strided, Layout::rows,
                                                          Layout::tensors)),
                         name_parameters);

TEST(Conformance, EveryRuleIsInTheSuite) {
  for (const RuleInfo& rule : rules()) {
    bool found = false;
    for (const std::string text : pipelines) {
      const std::string name(rule.name);
      for (std::size_t at = text.find(name); at != std::string::npos; at = text.find(name, at + 1)) {
        const bool starts = at == 0 || text[at - 1] == ' ';
        const std::size_t end = at + name.size();
        found = found || (starts && (end == text.size() || text[end] == '(' || text[end] == ' '));
      }
    }
    EXPECT_TRUE(found) << rule.name << " is in the table of rules but not in the conformance suite";
  }
}

}  // namespace
}  // namespace bragg::test
