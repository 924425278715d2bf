// SPDX-License-Identifier: Apache-2.0
// Every rule and a spread of pipelines × dtypes × memory layouts × shapes against the oracle.
#include <gtest/gtest.h>
#include <bragg/pipeline.hpp>

#include <array>
#include <cmath>
#include <set>
#include <tuple>

#include "host/verify/cases.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

using Parameters = std::tuple<const char*, DType, Layout>;

class Conformance : public testing::TestWithParam<Parameters> {};

TEST_P(Conformance, AgreesWithTheOracle) {
  const auto [text, dtype, layout] = GetParam();
  Generator random = generator(std::string(text) + to_string(dtype) + name_of(layout));
  int judged = 0;
  int runs = 0;
  for (const int n : {1, 2, 3, 5, 7, 8, 11, 16, 23, 40}) {
    for (const int f : {0, 1, (n - 3) / 4, (n - 1) / 2}) {
      if (f < 0 || (f == 1 && (n - 3) / 4 == 1)) continue;
      const std::optional<Pipeline> found = legal_pipeline(text, n, f);
      if (!found || (is_combinatorial(*found) && n > 11)) continue;
      const Pipeline& pipeline = *found;
      constexpr std::array sizes{1, 3, 77};
      const int d = sizes[random() % sizes.size()];
      if (random() % test_share() != 0) continue;
      Request request{.rows = normal_rows(random, n, d, 0.5, 1.0), .dtype = dtype, .layout = layout};
      request.misalignment = (random() % 2) * (random() % 8);
      const bool has_reference = random() % 2 == 0;
      if (has_reference) request.reference = normal_rows(random, 1, d, 0.3, 0.5)[0];
      if (layout == Layout::tensors && random() % 2 == 0) request.judged = draw_judged(random, d);
      const Outcome got = run_library(pipeline, request);
      const Verdict verdict = judge(pipeline, request, expect(pipeline, request), got);
      ++runs;
      judged += verdict.judged;
      ASSERT_EQ(verdict.complaint(), "")
          << to_string(pipeline) << ", n = " << n << ", d = " << d << ", reference " << has_reference
          << ", judged " << testing::PrintToString(request.judged);
    }
  }
  // Ties of 16-bit values, and in one dimension, are common; a rule whose every case is a tie is not being
  // tested.
  ASSERT_TRUE(runs > 0 || test_share() > 1);
  // A third may be missed by chance.
  EXPECT_GE(judged, runs / 3.0 - 1.5 * std::sqrt(runs) - (runs < 20 ? runs : 0))
      << judged << " of " << runs << " cases were clear enough to judge";
}

std::string name_parameters(const testing::TestParamInfo<Parameters>& info) {
  std::string name = std::string(std::get<0>(info.param)) + "_" + to_string(std::get<1>(info.param)) + "_" +
                     name_of(std::get<2>(info.param));
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Rules, Conformance,
                         testing::Combine(testing::ValuesIn(pipelines()),
                                          testing::Values(DType::f32, DType::f16, DType::bf16, DType::f64),
                                          testing::Values(Layout::matrix, Layout::strided, Layout::rows,
                                                          Layout::tensors)),
                         name_parameters);

TEST(Conformance, EveryRuleIsInTheSuite) {
  std::set<std::string> covered;
  for (const char* const text : pipelines()) {
    for (const std::string& name : rules_in(text)) covered.insert(name);
  }
  for (const RuleInfo& rule : rules()) {
    EXPECT_TRUE(covered.contains(std::string(rule.name)))
        << rule.name << " is in the table of rules but not in the conformance suite";
  }
}

}  // namespace
}  // namespace bragg::test
