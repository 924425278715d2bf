// SPDX-License-Identifier: Apache-2.0
// Distances and sums that rounding would drown: constants that all rows hold, references far from the rows,
// huge rows that cancel in a bucket.
#include <gtest/gtest.h>
#include <bragg/io.hpp>
#include <bragg/plan.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "host/cpu/passes.hpp"
#include "tests/support/files.hpp"
#include "tests/support/fixture.hpp"
#include "tests/support/values.hpp"

namespace bragg::test {
namespace {

using Vector = std::vector<long double>;

/// Honest rows about a common one, and `bad` rows, the first ones, `far` honest spreads off in one direction.
/// Coordinate 0 is one constant in all.
struct Scene {
  int n = 11;
  int bad = 2;
  int d = 1500;
  double size = 0.02;
  double spread = 1e-3;
  double far = 50;
  long double constant = 0;
  Rows rows = {};
  Vector common = {};  ///< what honest rows are about, with the constant

  void make(std::mt19937_64& random, DType dtype) {
    std::normal_distribution<double> normal;
    common.assign(static_cast<std::size_t>(d), 0);
    for (auto& x : common) x = size * normal(random);
    common[0] = constant;
    rows.assign(static_cast<std::size_t>(n), common);
    Vector direction(static_cast<std::size_t>(d));
    for (auto& x : direction) x = normal(random);
    const double length = spread * far;  // a normal direction is as long as an honest difference
    for (int i = 0; i < n; ++i) {
      for (std::size_t j = 1; j < rows[0].size(); ++j) {
        rows[static_cast<std::size_t>(i)][j] += i < bad ? length * direction[j] : spread * normal(random);
      }
    }
    rows = as_stored(rows, dtype);
    common = as_stored({common}, dtype).front();
  }
  Vector mean() const {
    Vector out(static_cast<std::size_t>(d));
    for (int i = bad; i < n; ++i) {
      for (std::size_t j = 0; j < out.size(); ++j) out[j] += rows[static_cast<std::size_t>(i)][j] / (n - bad);
    }
    return out;
  }
};

long double distance(const Vector& a, const Vector& b) {
  long double total = 0;
  for (std::size_t j = 0; j < a.size(); ++j) total += (a[j] - b[j]) * (a[j] - b[j]);
  return std::sqrt(total);
}

/// But for the constant, which is rounded in units that may be larger than all else.
long double distance_beside(const Vector& a, const Vector& b) {
  return distance(Vector(a.begin() + 1, a.end()), Vector(b.begin() + 1, b.end()));
}

long double honest_spread(const Scene& scene) {
  const Vector mean = scene.mean();
  long double total = 0;
  for (int i = scene.bad; i < scene.n; ++i) {
    const long double length = distance(scene.rows[static_cast<std::size_t>(i)], mean);
    total += length * length / (scene.n - scene.bad);
  }
  return std::sqrt(total);
}

struct Bound {
  const char* rule;
  double kappa;  ///< what the table of rules says for n = 11, f = 2; where it gives no number, a generous one
};
const Bound bounds[] = {{"nnm(f=2) | trimmed_mean(f=2)", 5.7},
                        {"nnm(f=2) | geometric_median", 13.6},
                        {"krum(f=2)", 7.72},
                        {"multi_krum(f=2)", 7.72},
                        {"geometric_median", 6.62},
                        {"mda(f=2)", 9},
                        {"smea(f=2)", 9},
                        {"caf(f=2)", 9},
                        {"monna(f=2, pivot=7)", 9},
                        {"bulyan(f=2)", 9},
                        {"bucketing(s=2) | geometric_median", 16},
                        {"clip(c=1e300) | krum(f=2)", 7.72},
                        {"arc(f=2) | geometric_median", 100}};

TEST(Certify, OneConstantInAllRowsChangesNothing) {
  Generator random = generator("constant");
  struct Case {
    DType dtype;
    long double constant;
    double far;
    bool recentred;
  };
  const Case cases[] = {{DType::f32, 0, 50, false},
                        {DType::f32, -1e9L, 50, true},
                        {DType::f32, -3.4028235e38L, 50, true},
                        {DType::f32, -3.4028235e38L, 1e20, true},
                        {DType::bf16, 3e38L, 50, true},
                        {DType::f16, 65504, 50, true},
                        {DType::f64, -1e12L, 50, true},
                        {DType::f64, 1e150L, 50, true}};
  for (const Case& c : cases) {
    Scene scene{.far = c.far, .constant = c.constant};
    scene.make(random, c.dtype);
    const Vector mean = scene.mean();
    const long double spread = honest_spread(scene);
    for (const Bound& bound : bounds) {
      const Outcome outcome = run_library(parse(bound.rule), {.rows = scene.rows, .dtype = c.dtype});
      const std::string what =
          std::string(bound.rule) + " of " + to_string(c.dtype) + " with " + std::to_string(c.constant);
      ASSERT_EQ(outcome.status, Status::ok) << what;
      EXPECT_LE(distance_beside(outcome.out, mean), std::sqrt(bound.kappa) * spread) << what;
      EXPECT_LE(std::fabs(outcome.out[0] - c.constant), std::fabs(c.constant) * 0.02L) << what;
      EXPECT_EQ(outcome.reports[0].recentred, c.recentred) << what;
      EXPECT_LE(outcome.reports[0].distance_error, 0x1p-20) << what;
    }
  }
}

TEST(Certify, LengthsAboutAReferenceHoldWhateverAllRowsShare) {
  Generator random = generator("reference");
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    for (const long double constant : {0.0L, -1e9L, 3e38L}) {
      Scene scene{.constant = constant};
      scene.make(random, dtype);
      const long double spread = honest_spread(scene);
      for (const char* rule : {"clip(c=0.003) | mean", "clip(c=0.003) | geometric_median",
                               "centered_clipping(tau=0.003, start=reference)",
                               "nnm(f=2) | centered_clipping(tau=0.003, start=reference)"}) {
        const Outcome outcome =
            run_library(parse(rule), {.rows = scene.rows, .dtype = dtype, .reference = scene.common});
        ASSERT_EQ(outcome.status, Status::ok) << rule;
        // What is left is the rounding of the output.
        const long double unit = dtype == DType::bf16 ? 0x1p-8L : dtype == DType::f32 ? 0x1p-23L : 0x1p-52L;
        const long double rounding = unit * 0.03L * std::sqrt(static_cast<long double>(scene.d));
        EXPECT_LE(distance_beside(outcome.out, scene.common), 0.003L + rounding) << rule << " " << constant;
        // And it moved as far as rows on one side pull it, not less: lengths are not merely large.
        EXPECT_GE(distance_beside(outcome.out, scene.common) + rounding, 0.0002L) << rule << " " << constant;
      }
      for (const char* rule : {"cge(f=2)", "arc(f=2) | mean"}) {
        const Outcome outcome =
            run_library(parse(rule), {.rows = scene.rows, .dtype = dtype, .reference = scene.common});
        ASSERT_EQ(outcome.status, Status::ok) << rule;
        EXPECT_LE(distance_beside(outcome.out, scene.common), 2 * spread) << rule << " " << constant;
      }
    }
  }
}

TEST(Certify, CenteredClippingFromZerosKnowsHowFarARowNearZerosIs) {
  Generator random = generator("zeros");
  for (const DType dtype : {DType::f32, DType::f64}) {
    const long double unit = dtype == DType::f32 ? 0x1p-23L : 0x1p-50L;
    for (const double constant : {2e3, 1e5, -1e7}) {
      Request request{.rows = normal_rows(random, 11, 15, constant, 1), .dtype = dtype};
      request.rows[3].assign(15, 0);
      const Pipeline pipeline = parse("centered_clipping(tau=1, iters=3)");
      const Outcome outcome = run_library(pipeline, request);
      ASSERT_EQ(outcome.status, Status::ok);
      EXPECT_FALSE(outcome.reports[0].recentred);
      const std::vector<long double> expected = expect(pipeline, request).parts[0].result.out;
      for (std::size_t j = 0; j < expected.size(); ++j) {
        ASSERT_LE(std::fabs(outcome.out[j] - expected[j]), unit * std::fabs(expected[j]))
            << to_string(dtype) << " about " << constant << " at " << j;
      }
    }
  }
}

TEST(Certify, AWeightedMajorityIsOneOfWeight) {
  Generator random = generator("weights");
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const long double constant : {0.0L, -1e14L}) {
      Scene scene{.bad = 6, .constant = constant};
      scene.make(random, dtype);
      std::vector<double> weights(11, 10.0);
      std::fill_n(weights.begin(), 6, 1.0);
      const Outcome outcome =
          run_library(parse("geometric_median"), {.rows = scene.rows, .dtype = dtype, .weights = weights});
      ASSERT_EQ(outcome.status, Status::ok);
      EXPECT_EQ(outcome.reports[0].recentred, constant != 0);
      EXPECT_LE(distance_beside(outcome.out, scene.mean()), 2 * honest_spread(scene)) << constant;
    }
  }
}

// f64 rows whose differences are beyond the reach of squares, beneath a constant that is not.
TEST(Certify, TinyDifferencesOfWideRowsCountBesideAConstant) {
  Generator random = generator("wide");
  for (const double size : {1e-160, 1e-200, 1e-290}) {
    for (const double far : {50.0, 1e150}) {
      Scene scene{.size = 20 * size, .spread = size, .far = far, .constant = 1};
      scene.make(random, DType::f64);
      const long double spread = honest_spread(scene);
      for (const Bound& bound : bounds) {
        const Outcome outcome = run_library(parse(bound.rule), {.rows = scene.rows, .dtype = DType::f64});
        ASSERT_EQ(outcome.status, Status::ok) << bound.rule;
        EXPECT_LE(distance_beside(outcome.out, scene.mean()), std::sqrt(bound.kappa) * spread)
            << bound.rule << " at " << size << ", " << far << " off";
      }
    }
  }
}

TEST(Certify, HugeRowsThatCancelInABucketLeaveNothing) {
  Generator random = generator("buckets");
  std::normal_distribution<double> normal(1, 1);
  struct Case {
    DType dtype;
    long double huge;
  };
  for (const Case& c : {Case{DType::f32, 3e38L}, Case{DType::f32, 1e12L}, Case{DType::f64, 1e149L}}) {
    for (int trial = 0; trial < 5; ++trial) {
      Rows rows(16, Vector(6));
      for (auto& row : rows) {
        for (auto& x : row) x = normal(random);
      }
      for (std::size_t j = 0; j < 6; ++j) {
        // With the default seed rows 0 and 15 share a bucket.
        rows[0][j] = j % 2 == 0 ? c.huge : -c.huge;
        rows[15][j] = -rows[0][j];
      }
      for (const char* rule : {"geometric_median", "multi_krum(f=1)", "mda(f=1)", "smea(f=1)", "caf(f=1)",
                               "monna(f=1, pivot=3)", "krum(f=1)", "nnm(f=1) | mean"}) {
        if (std::string(rule).starts_with("monna")) continue;  // no pivot after bucketing
        const Outcome outcome =
            run_library(parse("bucketing(s=2) | " + std::string(rule)), {.rows = rows, .dtype = c.dtype});
        ASSERT_EQ(outcome.status, Status::ok) << rule;
        for (const long double x : outcome.out) EXPECT_LE(std::fabs(x - 1), 4) << rule << " " << c.huge;
      }
    }
  }
}

// f bad buckets hold f·s bad rows: none of them sets the scale of squares for the honest ones.
TEST(Certify, BadRowsOfEveryBadBucketAreOutOfReach) {
  Generator random = generator("spoilt");
  std::normal_distribution<double> normal;
  std::string permutation = "[0";
  for (int i = 1; i < 23; ++i) permutation += "," + std::to_string(i);
  const std::string buckets = "bucketing(s=3, permutation=" + permutation + "]) | ";
  for (const long double size : {1e-321L, 1e-310L, 1e-240L}) {
    Rows rows(23, Vector(11));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const long double scale = i < 6 ? 1e12L * size : i < 9 ? 1e140L : size;
      for (auto& x : rows[i]) x = scale * normal(random);
    }
    for (const char* rule : {"nnm(f=3) | trimmed_mean(f=3)", "mda(f=3)", "caf(f=3)", "multi_krum(f=2)"}) {
      if (std::string(rule) == "multi_krum(f=2)") std::copy_n(rows.begin() + 9, 3, rows.begin());
      const Outcome outcome = run_library(parse(buckets + rule), {.rows = rows, .dtype = DType::f64});
      ASSERT_EQ(outcome.status, Status::ok) << rule;
      for (const long double x : outcome.out) EXPECT_LE(std::fabs(x), 10 * size) << rule;
    }
  }
}

// Most points at one place, and honest rows that cancel about it in a bucket.
TEST(Certify, HonestRowsThatCancelInABucketKeepIt) {
  Rows rows(12, Vector(3, 0));
  rows[4] = {1, -2, 3};
  rows[5] = {-1, 2, -3};
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    for (const long double common : {0.0L, 64.0L}) {
      Rows moved = rows;
      for (auto& row : moved) {
        for (auto& x : row) x += common;
      }
      for (const char* rule :
           {"mda(f=0)", "smea(f=0)", "caf(f=0)", "cge(f=0)", "multi_krum(f=0)", "nnm(f=0) | mean"}) {
        const std::string text =
            "bucketing(s=2, permutation=[0,1,2,3,4,5,6,7,8,9,10,11]) | " + std::string(rule);
        const Outcome outcome = run_library(parse(text), {.rows = moved, .dtype = dtype});
        ASSERT_EQ(outcome.status, Status::ok) << text;
        for (const long double x : outcome.out) EXPECT_LE(std::fabs(x - common), 1e-12L) << text;
      }
      // What f provides for is left for the bad: as many buckets as it says.
      Rows attacked = moved;
      attacked[0] = {1000, 1000, 1000};
      for (const char* rule : {"mda(f=1)", "smea(f=1)", "caf(f=1)"}) {
        const std::string text =
            "bucketing(s=2, permutation=[0,1,2,3,4,5,6,7,8,9,10,11]) | " + std::string(rule);
        const Outcome outcome = run_library(parse(text), {.rows = attacked, .dtype = dtype});
        ASSERT_EQ(outcome.status, Status::ok) << text;
        for (const long double x : outcome.out) EXPECT_LE(std::fabs(x - common), 1e-12L) << text;
      }
    }
  }
}

// Values up to 2⁵⁰⁰ count, however far from the centre that is.
TEST(Certify, WideRowsCountUpToTheLimitOfValues) {
  for (const char* rule : {"mda(f=0)", "nnm(f=0) | mean", "arc(f=0) | mean", "clip(c=1e300) | mda(f=0)"}) {
    const Rows rows = {{0x1p500L, 1}, {-0x1p500L, 1}, {-0x1p500L, 1}, {0x1p500L, 1}, {-0x1p500L, 1}};
    const Outcome outcome =
        run_library(parse(rule), {.rows = rows, .dtype = DType::f64, .reference = {0x1p499L, 0}});
    ASSERT_EQ(outcome.status, Status::ok) << rule;
    EXPECT_LE(std::fabs(outcome.out[0] + 0x1p500L / 5), 0x1p460L) << rule;
  }
}

TEST(Certify, AReferenceMayBeFarOutOfTheReachOfRows) {
  for (const long double size : {1e-320L, 1e-200L, 1.0L}) {
    for (const long double far : {1e-312L, 1e100L, 1e300L}) {
      const Rows rows = {{size, 2 * size}, {2 * size, size}, {2 * size, 2 * size}};
      for (const char* rule : {"arc(f=0) | mean", "arc(f=0) | trimmed_mean(f=0)", "cge(f=0)"}) {
        const Outcome outcome =
            run_library(parse(rule), {.rows = rows, .dtype = DType::f64, .reference = {far, -far}});
        ASSERT_EQ(outcome.status, Status::ok) << rule << " " << static_cast<double>(far);
        const long double reach = 1e-5L * size + 1e-15L * far + 0x1p-1073L;
        EXPECT_LE(std::fabs(outcome.out[0] - 5 * size / 3), reach) << rule << " " << static_cast<double>(far);
      }
      // Only a start: the minimum is where it is, the third row's.
      const Outcome outcome =
          run_library(parse("geometric_median(start=origin)"), {.rows = {{size, size},
                                                                         {3 * size, size},
                                                                         {2 * size, 3 * size},
                                                                         {2 * size, 2 * size},
                                                                         {2 * size, 2 * size}},
                                                                .dtype = DType::f64,
                                                                .reference = {far, -far}});
      ASSERT_EQ(outcome.status, Status::ok) << static_cast<double>(far);
      EXPECT_LE(std::fabs(outcome.out[0] - 2 * size), 1e-9L * size + 0x1p-1073L) << static_cast<double>(far);
    }
  }
}

// Honest rows that are zeros are clear from the first; clipped about a far reference they hold most of it.
TEST(Certify, ClippedRowsThatAreOneStayOne) {
  Rows rows(13, Vector(3, 0));
  rows[2] = {1.2L, 0.3L, -1.1L};
  rows[5] = {1e-27L, 2e-27L, 1e-27L};
  rows[7] = {-14, 3, 1};
  rows[8] = {77, -2e5L, 3e4L};
  const std::string text =
      "clip(c=4e6) | bucketing(s=2, permutation=[0,1,2,3,4,5,6,7,8,9,10,11,12]) | geometric_median";
  const Vector reference = {3e7L, -1e8L, 5e7L};
  const Outcome outcome = run_library(
      parse(text), {.rows = rows, .dtype = DType::f64, .reference = as_stored({reference}, DType::f64)[0]});
  ASSERT_EQ(outcome.status, Status::ok);
  long double length = 0;
  for (const long double x : reference) length += x * x;
  const long double kept = 1 - 4e6L / std::sqrt(length);
  for (std::size_t j = 0; j < 3; ++j)
    EXPECT_NEAR(static_cast<double>(outcome.out[j] - kept * reference[j]), 0, 1e-6);
}

// Clipped to next to nothing of their length, rows still differ by what they are clipped to.
TEST(Certify, RowsClippedFromAfarKeepTheirDistances) {
  Generator random = generator("clipped");
  std::normal_distribution<double> normal;
  const char* const text =
      "clip(c=3) | bucketing(s=2, permutation=[0,1,2,3,4,5,6,7,8,9,10,11]) | nnm(f=1) | median";
  for (const long double size : {1e18L, 1e21L, 1e40L}) {
    Rows rows(12, Vector(511));
    for (auto& row : rows) {
      for (auto& x : row) x = size * normal(random);
    }
    rows = as_stored(rows, DType::f64);
    rows[4] = Vector(511, 0);
    const Outcome expected = run_library(parse(text), {.rows = rows, .dtype = DType::f64});
    for (auto& x : rows[4]) x = 1e-322L;  // so small a row asks for products about the centre
    const Outcome got = run_library(parse(text), {.rows = as_stored(rows, DType::f64), .dtype = DType::f64});
    ASSERT_EQ(got.status, Status::ok);
    for (std::size_t j = 0; j < 511; ++j)
      EXPECT_NEAR(static_cast<double>(got.out[j]), static_cast<double>(expected.out[j]), 1e-9);
  }
}

// More than half of the rows are clipped to one point, which is one of them, and rounding decides what their
// distances are. Lengths are taken about that row: its own, which is 0, says nothing of the others' rounding.
TEST(Certify, MajorityThatIsClippedToARowIsItsOwnMedian) {
  const Rows rows = {
      {1.3332589371137988L},   {0.12165345627291618L}, {2.014758819675702L},     {2.2363549475999269L},
      {0.47468428328456086L},  {2.2441933082247503L},  {-0.041455597612466533L}, {-0.57793090882969L},
      {-0.25320299484358155L}, {1.3301717652013032L},  {1.3417280012954864L},    {1.3832807957656219L},
      {0.5508337668269262L},   {2.8443969139195016L},  {-0.45282625329949944L},  {0.8322617145403528L}};
  const Outcome outcome = run_library(
      parse("quantile_clip | geometric_median"),
      {.rows = as_stored(rows, DType::f64), .dtype = DType::f64, .reference = Vector{-0.15206467294939174L}});
  ASSERT_EQ(outcome.status, Status::ok);
  EXPECT_NEAR(static_cast<double>(outcome.out[0]), 0.8322617145403528, 1e-12);
}

// Which scale suits f64 rows follows from rows that count, however small one with a bad weight is.
TEST(Certify, RowOfABadWeightSetsNoScale) {
  const Rows rows = {{1e-310L}, {2}, {-2}, {0}, {0}, {-4}, {0}};
  const Outcome outcome = run_library(
      parse("clip(c=2) | mean"),
      {.rows = as_stored(rows, DType::f64), .dtype = DType::f64, .weights = {-1, 4, 1, 1, 1, 1, 1}});
  ASSERT_EQ(outcome.status, Status::ok);
  EXPECT_EQ(static_cast<double>(outcome.out[0]), 4.0 / 9);
}

// Without a rule that trusts a majority no row is too far from the others to have a length.
TEST(Certify, LengthsOfFewAreKeptBesideManyThatAreNextToNothing) {
  const Rows rows = {{0}, {0}, {0}, {0}, {1e-310L}, {2}, {2}, {4}};
  const Outcome outcome =
      run_library(parse("clip(c=2) | mean"), {.rows = as_stored(rows, DType::f64), .dtype = DType::f64});
  ASSERT_EQ(outcome.status, Status::ok);
  EXPECT_EQ(static_cast<double>(outcome.out[0]), 0.75);
}

// A factor below the least normal number has lost digits; with it a row may be longer than what it is clipped
// to.
TEST(Certify, RowsClippedToNextToNothingAreNoLonger) {
  for (const long double length : {1e3L, 1e40L, 1e150L}) {
    for (const long double c :
         {1e-323L, 2.3e-315L, 1.7e-308L * length, 5e-324L * length, 8.9e-323L * length}) {
      const double bound = static_cast<double>(c);
      Pipeline pipeline = parse("clip(c=1) | mean");
      std::get<Clip>(pipeline.pre[0]).c = bound;
      const Outcome outcome =
          run_library(pipeline, {.rows = as_stored({{length}}, DType::f64), .dtype = DType::f64});
      ASSERT_EQ(outcome.status, Status::ok);
      EXPECT_LE(outcome.out[0], bound * (1 + 1e-15L)) << static_cast<double>(length);
    }
  }
}

// Honest rows set the quantile, however far off as many bad ones as it leaves aside are.
TEST(Certify, HugeRowsDoNotHideTheNormsOfAQuantile) {
  Rows rows(9);
  for (int i = 0; i < 9; ++i) rows[static_cast<std::size_t>(i)] = {i < 5 ? (i + 1) * 1e-307L : 1e150L};
  const Outcome outcome = run_library(parse("quantile_clip(q=0.4) | mean"),
                                      {.rows = as_stored(rows, DType::f64), .dtype = DType::f64});
  ASSERT_EQ(outcome.status, Status::ok);
  EXPECT_NEAR(static_cast<double>(outcome.out[0] / 1e-307L), (1 + 2 + 3 + 4 + 4) / 9.0, 1e-9);
}

// Where honest rows are one, a huge bad row must not make them one with o, to which it is clipped.
TEST(Certify, HugeRowsDoNotHideTheWayToTheOrigin) {
  Rows rows(19, Vector(1, -1e-303L));
  rows[4][0] = 3e150L;
  rows = as_stored(rows, DType::f64);
  const Outcome outcome =
      run_library(parse("arc(f=1) | nnm(f=1) | trimmed_mean(f=1)"), {.rows = rows, .dtype = DType::f64});
  ASSERT_EQ(outcome.status, Status::ok);
  EXPECT_NEAR(static_cast<double>(outcome.out[0] / rows[0][0]), 1, 1e-12);
}

// A bad row that is clipped from beyond a far reference onto the honest ones lies nobody knows where among
// them.
TEST(Certify, RowsThatHaveNoPlaceEndNoGeometricMedian) {
  Generator random = generator("place");
  std::normal_distribution<double> normal;
  for (int round = 0; round < 4; ++round) {
    Rows rows(15, Vector(1));
    for (Vector& row : rows) row[0] = 1e-16 * normal(random);
    rows[4][0] = -1.2e12L;
    rows[7][0] = -2.3e12L;
    rows[12][0] = 1.7e38L;
    const Outcome outcome =
        run_library(parse("arc(f=3) | geometric_median"),
                    {.rows = as_stored(rows, DType::f32), .dtype = DType::f32, .reference = {-3.1313e26L}});
    ASSERT_EQ(outcome.status, Status::ok);
    EXPECT_LE(std::fabs(outcome.out[0]), 0x1p-40L * 3.1313e26L);  // what arc itself may move them by
  }
}

// A row that is not finite is mixed with the first that are: here with two that cancel.
TEST(Certify, HugeRowsThatCancelInAMeanOfNeighborsLeaveNothing) {
  Generator random = generator("neighbors");
  std::normal_distribution<double> normal(1, 1);
  Rows rows(13, Vector(6));
  for (auto& row : rows) {
    for (auto& x : row) x = 1e-30 * normal(random);
  }
  for (std::size_t j = 0; j < 6; ++j) {
    rows[0][j] = j % 2 == 0 ? 3e38L : -3e38L;
    rows[1][j] = -rows[0][j];
  }
  rows[2][3] = std::numeric_limits<long double>::quiet_NaN();
  for (const char* rule : {"geometric_median", "multi_krum(f=3)", "krum(f=3)", "mda(f=3)", "smea(f=3)"}) {
    const Outcome outcome =
        run_library(parse("nnm(f=3) | " + std::string(rule)), {.rows = rows, .dtype = DType::f32});
    ASSERT_EQ(outcome.status, Status::ok) << rule;
    for (const long double x : outcome.out) EXPECT_LE(std::fabs(x - 1e-30L), 4e-30L) << rule;
  }
}

#if !defined(BRAGG_TEST_CUDA)

/// Each tensor by itself: only the one with the constant is read once more.
TEST(Certify, PerTensorOnlyTheTensorWithTheConstantIsReadOnceMore) {
  Generator random = generator("per tensor");
  const int tensors = 161;
  const int n = 11;
  std::vector<std::int64_t> sizes;
  std::vector<Scene> scenes;
  std::vector<std::vector<float>> data(static_cast<std::size_t>(n));
  for (int t = 0; t < tensors; ++t) {
    Scene scene{.d = 20 + t, .constant = t == 77 ? -1e9L : 0};
    scene.make(random, DType::f32);
    sizes.push_back(scene.d);
    for (std::size_t i = 0; i < data.size(); ++i) {
      for (const long double x : scene.rows[i]) data[i].push_back(static_cast<float>(x));
    }
    scenes.push_back(std::move(scene));
  }
  std::vector<std::vector<const void*>> pointers(data.size());
  std::vector<float> out(data[0].size());
  std::vector<void*> targets;
  std::size_t at = 0;
  for (const std::int64_t size : sizes) {
    for (std::size_t i = 0; i < data.size(); ++i) pointers[i].push_back(data[i].data() + at);
    targets.push_back(out.data() + at);
    at += static_cast<std::size_t>(size);
  }
  const Updates updates = Updates::tensors(pointers, sizes, DType::f32);
  const auto reports =
      aggregate(parse("krum(f=2)"), updates, Output(targets), {}, {.scope = Scope::per_tensor});
  at = 0;
  for (std::size_t t = 0; t < scenes.size(); ++t) {
    EXPECT_EQ(reports[t].recentred, t == 77) << t;
    Vector part(out.begin() + static_cast<std::ptrdiff_t>(at),
                out.begin() + static_cast<std::ptrdiff_t>(at + static_cast<std::size_t>(sizes[t])));
    EXPECT_LE(distance_beside(part, scenes[t].mean()), std::sqrt(7.72L) * honest_spread(scenes[t])) << t;
    at += static_cast<std::size_t>(sizes[t]);
  }
}

/// Files in windows: the same bits as in memory, one more read where it is needed and none where it is not.
TEST(Certify, StreamedFilesAreReadOnceMoreWhereOffsetsDemandIt) {
  Generator random = generator("files");
  for (const long double constant : {0.0L, -1e9L}) {
    Scene scene{.d = 200000, .constant = constant};
    scene.make(random, DType::f32);
    const TemporaryFolder folder;
    std::vector<std::filesystem::path> paths;
    std::vector<float> matrix;
    for (std::size_t i = 0; i < scene.rows.size(); ++i) {
      std::string bytes(4 * scene.rows[i].size(), '\0');
      for (std::size_t j = 0; j < scene.rows[i].size(); ++j) {
        store(DType::f32, bytes.data(), j, scene.rows[i][j]);
        matrix.push_back(static_cast<float>(scene.rows[i][j]));
      }
      paths.push_back(folder / ("w" + std::to_string(i) + ".safetensors"));
      write_text(
          paths.back(),
          safetensors_bytes(R"({"t":{"dtype":"F32","shape":[200000],"data_offsets":[0,800000]}})", bytes));
    }
    for (const char* rule : {"nnm(f=2) | trimmed_mean(f=2)", "krum(f=2)"}) {
      std::vector<float> expected(200000);
      aggregate(parse(rule), Updates::matrix(matrix.data(), 11, 200000, DType::f32), Output(expected.data()));
      FileOptions options;
      options.memory = 4 << 20;
      const FileResult result = aggregate_files(parse(rule), paths, folder / "out.safetensors", options);
      const std::string written = read_text(folder / "out.safetensors");
      EXPECT_EQ(written.substr(written.size() - 800000),
                std::string(reinterpret_cast<const char*>(expected.data()), 800000))
          << rule << " " << constant;
      EXPECT_EQ(result.reports[0].recentred, constant != 0);
      const std::uint64_t all = 11 * 800000;
      const std::uint64_t first_passes = constant != 0 ? 2 * all : all;
      EXPECT_GT(result.bytes_read, first_passes) << rule;
      EXPECT_LE(result.bytes_read, first_passes + all) << rule;
    }
  }
}

using detail::CpuPasses;
using detail::GramCenter;
using detail::GramSums;
using detail::RowTable;

struct Table {
  std::vector<std::vector<unsigned char>> bytes;
  std::vector<const void*> pointers;
  std::vector<std::int64_t> sizes;
  RowTable table;

  Table(const Rows& rows, DType dtype) : sizes{static_cast<std::int64_t>(rows[0].size())} {
    for (const auto& row : rows) {
      bytes.emplace_back(row.size() * size_of(dtype));
      for (std::size_t j = 0; j < row.size(); ++j) store(dtype, bytes.back().data(), j, row[j]);
      pointers.push_back(bytes.back().data());
    }
    pointers.push_back(nullptr);  // the origin
    table = {.dtype = dtype,
             .reference_dtype = dtype,
             .inputs = static_cast<int>(rows.size()),
             .rows = static_cast<int>(rows.size()) + 1,
             .sizes = sizes,
             .data = pointers.data()};
  }
};

/// Products about a centre against long double; and every squared distance is within its stated error.
TEST(Certify, ProductsAboutACenterAreWithinTheirBound) {
  Generator random = generator("products");
  struct Case {
    DType dtype;
    int n;
    int d;
  };
  for (const Case& c : {Case{DType::f32, 7, 20001}, Case{DType::bf16, 20, 3001}, Case{DType::f16, 5, 9},
                        Case{DType::f64, 12, 8193}, Case{DType::f32, 300, 700}}) {
    std::normal_distribution<double> normal;
    Rows rows(static_cast<std::size_t>(c.n), Vector(static_cast<std::size_t>(c.d)));
    for (auto& row : rows) {
      for (std::size_t j = 0; j < row.size(); ++j)
        row[j] = 100 * std::sin(static_cast<double>(j)) + normal(random);
    }
    rows = as_stored(rows, c.dtype);
    const auto n = static_cast<std::size_t>(c.n);
    std::vector<double> weights(n, 1);
    weights[n - 1] = static_cast<double>(n);
    for (const GramCenter::Kind kind :
         {GramCenter::Kind::none, GramCenter::Kind::row, GramCenter::Kind::median}) {
      for (const bool weighted : {false, true}) {
        if (weighted && kind != GramCenter::Kind::median) continue;
        const Table table(rows, c.dtype);
        GramSums sums;
        sums.reset(c.n + 1, true, c.dtype == DType::f64 ? 0x1p-3 : 1);
        sums.center.kind = kind;
        sums.center.row = 3;
        sums.center.left_out.assign(n, 0);
        sums.center.left_out[1] = 1;
        if (weighted) sums.center.weights = weights;
        CpuPasses(c.n + 1, 2).gram(table.table, sums);

        Vector center(static_cast<std::size_t>(c.d));
        for (std::size_t j = 0; j < center.size() && kind != GramCenter::Kind::none; ++j) {
          if (kind == GramCenter::Kind::row) {
            center[j] = rows[3][j];
            continue;
          }
          Vector column;
          for (std::size_t i = 0; i < n; ++i) {
            if (i != 1) column.push_back(rows[i][j]);
          }
          std::sort(column.begin(), column.end());
          center[j] = weighted ? rows[n - 1][j] : column[(column.size() - 1) / 2];
        }
        Rows moved = rows;
        moved.emplace_back(center.size(), 0);  // the origin
        for (auto& row : moved) {
          for (std::size_t j = 0; j < row.size(); ++j) {
            row[j] = static_cast<double>(row[j] - center[j]) * static_cast<long double>(sums.scale);
          }
        }
        const std::size_t step = c.n > 100 ? 37 : 1;
        for (std::size_t i = 0; i < moved.size(); i += step) {
          for (std::size_t k = 0; k < moved.size(); ++k) {
            long double product = 0, a = 0, b = 0;
            for (std::size_t j = 0; j < center.size(); ++j) {
              product += moved[i][j] * moved[k][j];
              a += moved[i][j] * moved[i][j];
              b += moved[k][j] * moved[k][j];
            }
            const std::size_t at = i * moved.size() + k;
            const long double found = static_cast<long double>(sums.products[at]) + sums.low[at];
            ASSERT_LE(std::fabs(found - product), sums.rounding * std::sqrt(a * b))
                << to_string(c.dtype) << " " << i << " " << k << " center " << static_cast<int>(kind);
          }
        }
      }
    }
  }
}

#endif

}  // namespace
}  // namespace bragg::test
