// SPDX-License-Identifier: Apache-2.0
// `bragg verify` must be able to fail: the judge sees what is wrong, and the runner says how to see it again.
#include "host/verify/verify.hpp"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

constexpr DType all_dtypes[] = {DType::f32, DType::f16, DType::bf16, DType::f64};

/// A case whose oracle is clear, with the library's own result.
struct Judged {
  Pipeline pipeline;
  Request request;
  Expectation expected;
  Outcome right;

  Verdict judge(const Outcome& got) const { return verify::judge(pipeline, request, expected, got); }
  /// The verdict on the result with one value changed.
  Verdict with(std::size_t coordinate, long double value) const {
    Outcome wrong = right;
    wrong.out[coordinate] = value;
    return judge(wrong);
  }
};

Judged judged_case(std::mt19937_64& random, const std::string& text, Request request) {
  for (;;) {
    request.rows = as_stored(normal_rows(random, 11, 37, 0.5, 1), request.dtype);
    Judged made{.pipeline = parse(text), .request = request, .expected = {}, .right = {}};
    made.expected = expect(made.pipeline, request);
    made.right = run_library(made.pipeline, request);
    const Verdict verdict = made.judge(made.right);
    EXPECT_EQ(verdict.complaint(), "");
    EXPECT_LE(verdict.worst, 1);
    if (verdict.judged) return made;
  }
}

/// The neighbour of `value` on the far side of `from`.
long double one_unit_further(DType dtype, long double value, long double from) {
  return value + (value < from ? -1 : 1) * spacing(dtype, value);
}

void expect_breach(const Verdict& verdict, std::int64_t coordinate, const std::string& what) {
  EXPECT_TRUE(verdict.judged);
  ASSERT_TRUE(verdict.breach) << "passed: " << what;
  EXPECT_EQ(verdict.breach->coordinate, coordinate);
  EXPECT_NE(verdict.complaint().find(what), std::string::npos) << verdict.complaint();
}

TEST(Judge, SeesOneUnitOfAnyDtype) {
  Generator random = generator("judge unit");
  for (const char* text : {"median", "median(even=lower)", "krum(f=2)"}) {
    for (const DType dtype : all_dtypes) {
      const Judged one = judged_case(random, text, {.dtype = dtype});
      for (const long double from : {-1e30L, 1e30L}) {
        const long double off = one_unit_further(dtype, one.right.out[36], from);
        expect_breach(one.with(36, off), 36, "not bit-equal");
      }
    }
  }
  for (const char* text : {"mean", "trimmed_mean(f=2)", "monna(f=2)", "bulyan(f=2)"}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const Judged one = judged_case(random, text, {.dtype = dtype});
      const long double exact = one.expected.parts[0].result.out[5];
      expect_breach(one.with(5, one_unit_further(dtype, one.right.out[5], exact)), 5, "error");
    }
  }
}

TEST(Judge, SeesErrorsThatFloat32SumsWouldMake) {
  Generator random = generator("judge f32 sums");
  const Judged one = judged_case(random, "trimmed_mean(f=2)", {.dtype = DType::f64});
  expect_breach(one.with(0, one.right.out[0] * (1 + 0x1p-30L)), 0, "× the bound");
  const Judged mixed = judged_case(random, "nnm(f=2) | trimmed_mean(f=2)", {.dtype = DType::f32});
  expect_breach(mixed.with(0, mixed.right.out[0] + 0x1p-19L), 0, "× the bound");
  const Judged iterated = judged_case(random, "geometric_median", {.dtype = DType::f64});
  Outcome wrong = iterated.right;
  for (long double& x : wrong.out) x *= 1 + 1e-4L;  // the objective is flat: 1e-9 of it is 3e-5 of a distance
  EXPECT_TRUE(iterated.judge(wrong).breach);
}

TEST(Judge, SeesAWrongNeighbour) {
  Generator random = generator("judge neighbour");
  const std::pair<const char*, const char*> mistaken[] = {
      {"krum(f=2)", "krum(f=3)"},
      {"multi_krum(f=2)", "multi_krum(f=2, m=8)"},
      {"nnm(f=2) | mean", "nnm(f=3) | mean"},
      {"nnm(f=2) | median", "nnm(f=3) | median"},
      {"monna(f=2)", "monna(f=3)"},
      {"cge(f=2)", "cge(f=3)"},
      {"mda(f=2)", "mda(f=3)"},
      {"arc(f=2) | trimmed_mean(f=2)", "arc(f=4) | trimmed_mean(f=2)"},
      {"median", "median(even=lower)"},
  };
  for (const auto& [text, other] : mistaken) {
    for (const DType dtype : all_dtypes) {
      // Some data has the same answer to both.
      bool seen = false;
      for (int attempt = 0; attempt < 50 && !seen; ++attempt) {
        const Judged one = judged_case(random, text, {.dtype = dtype});
        Outcome wrong = run_library(parse(other), one.request);
        if (wrong.out == one.right.out) {
          wrong.out = one.request.rows[0] == one.right.out ? one.request.rows[1] : one.request.rows[0];
        }
        seen = one.judge(wrong).breach.has_value();
        EXPECT_TRUE(seen) << text << " took " << other << " in " << to_string(dtype);
      }
    }
  }
}

TEST(Judge, SeesNaNInfinityAndNegativeZero) {
  Generator random = generator("judge special");
  constexpr long double inf = std::numeric_limits<long double>::infinity();
  for (const char* text : {"median", "trimmed_mean(f=2)", "nnm(f=2) | mean", "krum(f=2)"}) {
    const Judged one = judged_case(random, text, {});
    expect_breach(one.with(3, std::nanl("")), 3, "NaN");
    expect_breach(one.with(3, inf), 3, "infinity");
    expect_breach(one.with(3, -inf), 3, "infinity");
  }
  Request zeros{.rows = Rows(5, std::vector<long double>(4, 0))};
  const Judged one{parse("median"), zeros, expect(parse("median"), zeros),
                   run_library(parse("median"), zeros)};
  EXPECT_EQ(one.judge(one.right).complaint(), "");
  expect_breach(one.with(2, -0.0L), 2, "negative zero");

  zeros.rows[1][2] = zeros.rows[3][2] = zeros.rows[4][2] = inf;
  const Judged infinite{parse("median"), zeros, expect(parse("median"), zeros),
                        run_library(parse("median"), zeros)};
  EXPECT_EQ(infinite.judge(infinite.right).complaint(), "");
  expect_breach(infinite.with(2, std::numeric_limits<float>::max()), 2, "infinity");
}

TEST(Judge, SeesAWrongStatusAndWhatAFailedRunLeaves) {
  Generator random = generator("judge status");
  Judged one = judged_case(random, "krum(f=2)", {});
  Outcome wrong = one.right;
  wrong.status = Status::too_many_nonfinite;
  expect_breach(one.judge(wrong), -1, "status");

  for (const OnFailure policy : {OnFailure::keep, OnFailure::nan, OnFailure::zero}) {
    for (std::size_t i = 0; i < 3; ++i) one.request.rows[i][0] = std::nanl("");
    one.request.options.on_failure = policy;
    one.expected = expect(one.pipeline, one.request);
    one.right = run_library(one.pipeline, one.request);
    EXPECT_EQ(one.right.status, Status::too_many_nonfinite);
    const Verdict verdict = one.judge(one.right);
    EXPECT_TRUE(verdict.judged);
    EXPECT_EQ(verdict.complaint(), "");
    wrong = one.right;
    wrong.status = Status::ok;
    expect_breach(one.judge(wrong), -1, "status");
    wrong = one.right;
    wrong.bytes[1] ^= 1;
    wrong.out[0] = 1;
    expect_breach(one.judge(wrong), -1, "failed");
  }
}

TEST(Judge, SeesWritesOutOfPlace) {
  Generator random = generator("judge trespass");
  const Judged one = judged_case(random, "median", {});
  Outcome wrong = one.right;
  wrong.trespass = "bytes around the output were written to";
  expect_breach(one.judge(wrong), -1, "around the output");

  GuardedBuffer buffer(10, 3);
  EXPECT_TRUE(buffer.intact());
  buffer.data()[9] = 1;
  EXPECT_TRUE(buffer.intact());
  buffer.data()[10] = 1;
  EXPECT_FALSE(buffer.intact());
  GuardedRows rows(Rows(2, std::vector<long double>(3, 1)), DType::f16, Layout::strided, 1);
  EXPECT_TRUE(rows.intact());
  rows.row(1)[0] ^= 1;
  EXPECT_FALSE(rows.intact());
}

TEST(Judge, AllowsForLengthsThatAreTakenFromAbove) {
  // The second row is near o, and about the first, far row its distance from o is not clear.
  Request request{.rows = {{20.25L}, {0.15808125905634812L}}, .dtype = DType::f64};
  request.reference = {0.15732136840241917L};
  const Pipeline pipeline = parse("clip(c=30) | fltrust(pivot=0)");
  const Expectation expected = expect(pipeline, request);
  Outcome got = run_library(pipeline, request);
  const Verdict verdict = judge(pipeline, request, expected, got);
  EXPECT_TRUE(verdict.judged);
  EXPECT_EQ(verdict.complaint(), "");
  got.out[0] *= 0.9L;
  EXPECT_NE(judge(pipeline, request, expected, got).complaint(), "");
}

TEST(Judge, SaysWhereInATensorThatIsJudgedByItself) {
  Generator random = generator("judge tensors");
  Request request{.layout = Layout::tensors};
  request.options.scope = Scope::per_tensor;
  const Judged one = judged_case(random, "trimmed_mean(f=2)", request);
  EXPECT_EQ(one.expected.parts.size(), tensor_sizes(Layout::tensors, 37).size());
  expect_breach(one.with(20, one.right.out[20] + 1e-3L), 20, "error");
  // Whole rows have other neighbours than their tensors.
  const Judged apart = judged_case(random, "krum(f=2)", request);
  request = apart.request;
  request.options.scope = Scope::whole;
  Outcome whole = run_library(apart.pipeline, request);
  if (whole.out != apart.right.out) {
    EXPECT_TRUE(apart.judge(whole).breach);
  }
}

// The runner ------------------------------------------------------------------------------------------------

/// The CPU, but what it gives is changed.
template <class ChangeF>
Backend changed_cpu(ChangeF change) {
  return {.device = Device::cpu,
          .name = "cpu",
          .description = "",
          .run = [change](const Pipeline& pipeline, const Request& request) {
            Outcome outcome = run(pipeline, request);
            change(pipeline, request, outcome);
            return outcome;
          }};
}

TEST(Verify, PassesOnEveryBackend) {
  std::vector<std::string> texts;
  for (std::size_t k = 0; k < pipelines().size(); k += test_share()) texts.emplace_back(pipelines()[k]);
  const std::vector<Backend> all = backends();
  double share = 0;
  const Findings findings = verify::verify({.backends = all,
                                            .seed = session_seed(),
                                            .rules = texts,
                                            .work = 100'000,
                                            .progress = [&](const Stage& stage) { share = stage.share; }});
  for (const Finding& finding : findings.findings) {
    ADD_FAILURE() << all[finding.backend].name << ": " << describe(finding.drawn) << "\n"
                  << finding.complaint << "\n"
                  << finding.command;
  }
  EXPECT_EQ(findings.breaches, 0);
  EXPECT_EQ(findings.rounds, 1);
  EXPECT_GE(findings.cases, static_cast<int>(4 * texts.size()));  // a text may be a rule's name as well
  EXPECT_EQ(findings.runs, findings.cases * static_cast<int>(all.size()));
  EXPECT_GT(findings.judged * 2, findings.runs);
  EXPECT_EQ(share, 1);
#if defined(BRAGG_TEST_CUDA)
  EXPECT_GT(all.size(), 1u);
#endif
  if (test_share() == 1) {
    EXPECT_EQ(findings.cells.size(), all.size() * rules().size() * 4);
  }
  for (const Cell& cell : findings.cells) EXPECT_LE(cell.worst, 1) << cell.rule;
}

TEST(Verify, FindsWhatIsWrongAndTheCommandRepeatsIt) {
  // One value of every fifth trimmed mean is a unit off.
  const auto spoil = [](const Pipeline& pipeline, const Request& request, Outcome& outcome) {
    const std::size_t d = outcome.out.size();
    if (!std::holds_alternative<TrimmedMean>(pipeline.rule) || d == 0 || request.rows.size() % 5 != 0) return;
    long double& value = outcome.out[d / 2];
    if (std::isfinite(value)) value += 4 * spacing(out_dtype(request), value);
  };
  Settings settings{.backends = {changed_cpu(spoil)}, .rules = {"trimmed_mean"}, .work = 20'000};
  Findings findings;
  for (settings.seed = session_seed(); findings.findings.empty(); ++settings.seed)
    findings = verify::verify(settings);

  const Finding& first = findings.findings.front();
  EXPECT_GE(first.breach.coordinate, 0);
  const std::string expected = "bragg verify --device cpu --seed " + std::to_string(first.drawn.seed) +
                               " --rule '" + first.drawn.text + "' --quick";
  EXPECT_EQ(first.command, expected);
  settings.seed = first.drawn.seed;
  settings.rules = {first.drawn.text};
  const Findings again = verify::verify(settings);
  EXPECT_EQ(again.cases, 4);
  bool repeated = false;
  for (const Finding& finding : again.findings) {
    repeated = repeated ||
               (describe(finding.drawn) == describe(first.drawn) && finding.complaint == first.complaint);
  }
  EXPECT_TRUE(repeated) << first.complaint;

  int wrong = 0;
  for (const Cell& cell : findings.cells) wrong += cell.rule == "trimmed_mean" ? cell.breaches : 0;
  EXPECT_EQ(wrong, findings.breaches);
}

TEST(Verify, FindsResultsThatChangeErrorsAndOtherBits) {
  int runs = 0;
  Settings settings{.backends = {changed_cpu([&](const Pipeline&, const Request&, Outcome& outcome) {
                      if (++runs % 2 == 0 && !outcome.bytes.empty()) outcome.bytes.back() ^= 1;
                    })},
                    .seed = session_seed(),
                    .rules = {"mean"},
                    .work = 5000};
  Findings findings = verify::verify(settings);
  ASSERT_FALSE(findings.findings.empty());
  for (const Finding& finding : findings.findings)
    EXPECT_EQ(finding.complaint, "a second run gave other bits");

  // The same bits each time, but not the CPU's.
  settings.backends = {changed_cpu([](const Pipeline&, const Request&, Outcome& outcome) {
    if (outcome.status == Status::ok && !outcome.bytes.empty()) outcome.bytes.back() ^= 1;
  })};
  settings.rules = {"median"};
  findings = verify::verify(settings);
  ASSERT_FALSE(findings.findings.empty());
  for (const Finding& finding : findings.findings) EXPECT_EQ(finding.complaint, "other bits than the CPU's");

  settings.backends = {changed_cpu([](const Pipeline&, const Request&, Outcome&) {
    throw Error(Status::internal, "cudaLaunchKernel: no such luck");
  })};
  findings = verify::verify(settings);
  EXPECT_EQ(findings.breaches, findings.runs);
  EXPECT_EQ(findings.findings.size(), 20u);
  EXPECT_EQ(findings.findings[0].complaint, "cudaLaunchKernel: no such luck");
}

TEST(Verify, TheSeedDecidesEverything) {
  for (const char* text : {"median", "nnm(f=F) | trimmed_mean(f=F)", "caf(f=F)"}) {
    for (const DType dtype : all_dtypes) {
      const std::uint64_t seed = session_seed();
      const Case a = draw_case(text, dtype, seed, 10'000);
      const Case b = draw_case(text, dtype, seed, 10'000);
      EXPECT_EQ(describe(a), describe(b));
      GuardedRows rows_a(a.request.rows, dtype, a.request.layout, 0);
      GuardedRows rows_b(b.request.rows, dtype, b.request.layout, 0);
      for (std::size_t i = 0; i < rows_a.buffers().size(); ++i)
        EXPECT_EQ(rows_a.buffers()[i].copy(), rows_b.buffers()[i].copy());
      EXPECT_NE(describe(a), describe(draw_case(text, dtype, seed + 1, 10'000)));
    }
  }
}

TEST(Verify, CasesAreSpread) {
  std::set<std::string> seen;
  std::set<std::size_t> sizes;
  for (std::uint64_t k = 0; k < 300; ++k) {
    const Case drawn = draw_case("trimmed_mean(f=F)", all_dtypes[k % 4], session_seed() + k, 100'000);
    const std::string text = describe(drawn);
    for (const char* part :
         {"matrix", "strided", "rows", "tensors each by itself", "to f32", "bytes off", "reference",
          "weights", "bad: ", "NaN", "huge", "denormals", "offset", "two clusters", "identical"}) {
      if (text.find(part) != std::string::npos) seen.insert(part);
    }
    sizes.insert(drawn.request.rows.size());
    EXPECT_LE(drawn.request.rows.size() * drawn.request.rows.size() * drawn.request.rows[0].size(), 100'000u);
  }
  EXPECT_EQ(seen.size(), 15u);
  EXPECT_GT(sizes.size(), 30u);
}

TEST(Verify, RefusesRulesThatThereAreNot) {
  try {
    verify::verify({.backends = backends(), .rules = {"krum", "crum"}});
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), Status::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("'crum'"), std::string::npos);
  }
}

}  // namespace
}  // namespace bragg::test
