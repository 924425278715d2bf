// SPDX-License-Identifier: Apache-2.0
// The guarantees, on cases aimed at them: constants that drown differences, rows that cancel, ladders to
// nothing. host/verify/aimed.hpp has the bounds, with their derivation and what rounding is allowed beyond
// them.
#include "host/verify/aimed.hpp"

#include <gtest/gtest.h>

#include "host/reference/oracle.hpp"
#include "host/verify/verify.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

constexpr DType all_dtypes[] = {DType::f32, DType::f16, DType::bf16, DType::f64};

TEST(Aimed, NoBadRowBreaksABound) {
  const std::vector<Backend> all = backends();
  std::vector<std::string> texts;
  const std::size_t first = session_seed() % test_share();
  for (std::size_t k = first; k < aimed_pipelines().size(); k += test_share())
    texts.emplace_back(aimed_pipelines()[k]);
  constexpr int rounds = 12;
  for (int round = 0; round < rounds; ++round) {
    const Findings findings = verify::verify({.backends = all,
                                              .seed = session_seed() + static_cast<std::uint64_t>(round),
                                              .aimed = true,
                                              .rules = texts});
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

TEST(Aimed, TheDefinitionsKeepTheBounds) {
  for (const char* const text : aimed_pipelines()) {
    for (const DType dtype : all_dtypes) {
      for (std::uint64_t k = 0; k < 2; ++k) {
        if ((session_seed() + k) % test_share() != 0) continue;
        const Case drawn = draw_aimed_case(text, dtype, session_seed() + k);
        EXPECT_EQ(judge_aimed(drawn, by_the_oracle(drawn)).complaint(), "")
            << describe(drawn) << ", seed " << drawn.seed;
      }
    }
  }
}

}  // namespace
}  // namespace bragg::test
