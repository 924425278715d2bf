// SPDX-License-Identifier: Apache-2.0
// What is guaranteed with at most f bad rows, whatever bits they hold: every robust pipeline against hostile
// rows in every place, on honest rows of every kind.
#include <gtest/gtest.h>
#include <bragg/attacks.hpp>
#include <bragg/pipeline.hpp>

#include <functional>
#include <limits>
#include <set>

#include "tests/support/fixture.hpp"

namespace bragg::test {
namespace {

constexpr long double nan = std::numeric_limits<long double>::quiet_NaN();
constexpr long double inf = std::numeric_limits<long double>::infinity();

struct Bound {
  enum class Kind {
    inside,       ///< per coordinate within the honest [min, max]
    one_range,    ///< per coordinate at most one honest range beyond it
    kappa,        ///< (f, κ)-robust with the constant given
    diameters,    ///< no farther from the honest mean than this many honest diameters
    radius,       ///< no farther from the origin than this
    longest,      ///< no farther from the origin than the longest honest row
    oracle_only,  ///< what its definition gives
    huber,        ///< no farther from the honest mean than (1+r)·(2s + tau/2), for this tau
    votes,        ///< o ± this, or o; as more than f honest rows over the others vote, if they do
    refusing,     ///< the same, and statuses: its pivot may be bad, or no row preferred
  };
  Kind kind;
  double value = 0;
};

struct Case {
  const char* pipeline;
  Bound bound;
};

constexpr int n = 11;
constexpr int f = 2;
constexpr double r = double(f) / (n - 2 * f);
constexpr double kappa_trimmed = 6 * r * (1 + r);
constexpr double kappa_krum = 6 * (1 + r);
constexpr double kappa_median = 4 * (1 + r) * (1 + r);

constexpr double after_nnm(double kappa) { return 8.0 * f / (n - f) * (kappa + 1); }

const Case cases[] = {
    {"median", {Bound::Kind::inside}},
    {"median(even=upper)", {Bound::Kind::inside}},
    {"trimmed_mean(f=2)", {Bound::Kind::inside}},
    {"median", {Bound::Kind::kappa, kappa_median}},
    {"trimmed_mean(f=2)", {Bound::Kind::kappa, kappa_trimmed}},
    {"meamed(f=2)", {Bound::Kind::one_range}},
    {"phocas(f=2)", {Bound::Kind::one_range}},
    {"bulyan(f=2)", {Bound::Kind::one_range}},
    {"sign_vote(step=0.5)", {Bound::Kind::votes, 0.5}},
    {"nnm(f=2) | sign_vote", {Bound::Kind::oracle_only}},
    {"krum(f=2)", {Bound::Kind::kappa, kappa_krum}},
    {"krum(f=2, neighbors=8)", {Bound::Kind::diameters, 4}},
    {"multi_krum(f=2)", {Bound::Kind::diameters, 4}},
    {"geometric_median", {Bound::Kind::kappa, kappa_median}},
    {"geometric_median(start=mean)", {Bound::Kind::kappa, kappa_median}},
    {"huber(tau=1)", {Bound::Kind::huber, 1}},
    {"huber(tau=1e-3, start=mean)", {Bound::Kind::huber, 1e-3}},
    {"huber(tau=1e6)", {Bound::Kind::huber, 1e6}},
    {"nnm(f=2) | huber(tau=1)", {Bound::Kind::oracle_only}},
    {"clip(c=1) | huber(tau=2)", {Bound::Kind::radius, 1}},
    {"autogm(lam=1)", {Bound::Kind::oracle_only}},
    {"nnm(f=2) | autogm(lam=2)", {Bound::Kind::oracle_only}},
    {"quantile_clip | autogm(lam=4)", {Bound::Kind::longest}},
    {"mda(f=2)", {Bound::Kind::diameters, 2}},
    {"smea(f=2)", {Bound::Kind::diameters, 4}},
    {"caf(f=2)", {Bound::Kind::diameters, 10}},
    {"cge(f=2)", {Bound::Kind::oracle_only}},
    {"faba(f=2)", {Bound::Kind::diameters, 2}},
    {"dnc(f=2)", {Bound::Kind::oracle_only}},
    {"quantile_clip | dnc(f=2, iters=2, sample=4)", {Bound::Kind::longest}},
    {"centered_clipping(tau=1, iters=3)", {Bound::Kind::radius, 3}},
    {"nnm(f=2) | trimmed_mean(f=2)", {Bound::Kind::kappa, after_nnm(kappa_trimmed)}},
    {"nnm(f=2) | median", {Bound::Kind::kappa, after_nnm(kappa_median)}},
    {"nnm(f=2) | krum(f=2)", {Bound::Kind::kappa, after_nnm(kappa_krum)}},
    {"nnm(f=2) | geometric_median", {Bound::Kind::kappa, after_nnm(kappa_median)}},
    {"nnm(f=2) | meamed(f=2)", {Bound::Kind::diameters, 4}},
    {"nnm(f=2) | bulyan(f=2)", {Bound::Kind::diameters, 4}},
    {"nnm(f=2) | mean", {Bound::Kind::oracle_only}},  // a bad row is its own neighbour, and mean takes it
    {"nnm(f=2) | centered_clipping(tau=1, iters=3)", {Bound::Kind::radius, 3}},
    {"bucketing(s=2, seed=3) | trimmed_mean(f=2)", {Bound::Kind::oracle_only}},
    {"bucketing(s=2, seed=3) | geometric_median", {Bound::Kind::oracle_only}},
    {"clip(c=1) | trimmed_mean(f=2)", {Bound::Kind::radius, 2}},
    {"clip(c=1) | mean", {Bound::Kind::radius, 1}},
    {"mean(nonfinite=skip)", {Bound::Kind::oracle_only}},
    {"quantile_clip | mean", {Bound::Kind::longest}},
    {"quantile_clip(q=0.8) | geometric_median", {Bound::Kind::longest}},
    {"balance(gamma=1)", {Bound::Kind::refusing}},
    {"fltrust(pivot=0)", {Bound::Kind::refusing}},
    {"foolsgold", {Bound::Kind::refusing}},
    {"majority_cluster", {Bound::Kind::oracle_only}},
    {"quantile_clip | majority_cluster", {Bound::Kind::longest}},
    {"centered_clipping(tau=1, start=pivot)", {Bound::Kind::refusing}},
    {"arc(f=2) | trimmed_mean(f=2)", {Bound::Kind::oracle_only}},
    {"arc(f=2) | nnm(f=2) | trimmed_mean(f=2)", {Bound::Kind::oracle_only}},
};

/// Fills bad rows; `honest` are the good ones.
struct Attack {
  const char* name;
  std::function<void(Rows& bad, const Rows& honest, std::mt19937_64& random)> fill;
  bool slow = false;  ///< drawn for one case in three
};

Attack constant(const char* name, long double value) {
  return {name, [value](Rows& bad, const Rows&, std::mt19937_64&) {
            for (auto& row : bad) std::fill(row.begin(), row.end(), value);
          }};
}

std::vector<long double> mean_of(const Rows& rows) {
  std::vector<long double> mean(rows[0].size(), 0);
  for (const auto& row : rows) {
    for (std::size_t j = 0; j < mean.size(); ++j) mean[j] += row[j] / static_cast<long double>(rows.size());
  }
  return mean;
}

/// Bad rows that are the honest mean moved by `steps` deviations per coordinate (ALIE), or scaled
/// (inner-product).
Attack statistical(const char* name, long double deviations, long double factor) {
  return {name, [=](Rows& bad, const Rows& honest, std::mt19937_64&) {
            const std::vector<long double> mean = mean_of(honest);
            for (auto& row : bad) {
              for (std::size_t j = 0; j < row.size(); ++j) {
                long double variance = 0;
                for (const auto& h : honest) variance += (h[j] - mean[j]) * (h[j] - mean[j]);
                row[j] = factor * mean[j] +
                         deviations * std::sqrt(variance / static_cast<long double>(honest.size()));
              }
            }
          }};
}

const std::vector<Attack>& attacks() {
  static const std::vector<Attack> all = {
      constant("nan", nan),
      constant("negative nan", -nan),
      constant("+inf", inf),
      constant("-inf", -inf),
      constant("zeros", 0),
      constant("1e38", 1e38L),
      constant("-3e38", -3e38L),
      constant("1e150", 1e150L),
      constant("denormal", 1e-44L),
      {"one nan coordinate",
       [](Rows& bad, const Rows& honest, std::mt19937_64& random) {
         for (auto& row : bad) {
           row = honest[random() % honest.size()];
           row[random() % row.size()] = nan;
         }
       }},
      {"mixed bits",
       [](Rows& bad, const Rows&, std::mt19937_64& random) {
         const long double values[] = {nan, -nan, inf, -inf, 0, 1e38L, -1e38L, 1e-44L, 1};
         for (auto& row : bad) {
           for (auto& x : row) x = values[random() % std::size(values)];
         }
       }},
      {"alternating 3e38",
       [](Rows& bad, const Rows&, std::mt19937_64&) {
         for (std::size_t i = 0; i < bad.size(); ++i) {
           for (std::size_t j = 0; j < bad[i].size(); ++j) bad[i][j] = (i + j) % 2 == 0 ? 3e38L : -3e38L;
         }
       }},
      {"one nan row, one huge row",
       [](Rows& bad, const Rows&, std::mt19937_64&) {
         for (std::size_t i = 0; i < bad.size(); ++i) {
           std::fill(bad[i].begin(), bad[i].end(), i % 2 == 0 ? nan : 3e38L);
         }
       }},
      {"sizes far apart",
       [](Rows& bad, const Rows& honest, std::mt19937_64& random) {
         long double size = 0;
         for (const auto& row : honest) {
           for (const long double x : row) size = std::max(size, std::fabs(x));
         }
         std::normal_distribution<double> normal;
         const std::size_t turn = random() % 2;
         for (std::size_t i = 0; i < bad.size(); ++i) {
           for (auto& x : bad[i]) x = normal(random) * size * ((i + turn) % 2 == 0 ? 1e18L : 1e36L);
         }
       }},
      {"duplicate of an honest row",
       [](Rows& bad, const Rows& honest, std::mt19937_64& random) {
         const std::size_t pick = random() % honest.size();
         for (auto& row : bad) row = honest[pick];
       }},
      {"sign flip × 10",
       [](Rows& bad, const Rows& honest, std::mt19937_64& random) {
         for (auto& row : bad) {
           row = honest[random() % honest.size()];
           for (auto& x : row) x *= -10;
         }
       }},
      statistical("ALIE", -1.5L, 1),
      statistical("ALIE far", 4, 1),
      statistical("inner product", 0, -0.5L),
      statistical("a hundred deviations", 100, 1),
  };
  return all;
}

/// An attack of the library's, which `make`s a row of the honest ones for `f` bad workers.
template <class MakeF>
Attack found(const char* name, MakeF make) {
  return {.name = name,
          .fill =
              [make](Rows& bad, const Rows& honest, std::mt19937_64&) {
                std::vector<std::vector<double>> rows;
                std::vector<const void*> pointers;
                for (const auto& row : honest) {
                  rows.emplace_back(row.begin(), row.end());
                  pointers.push_back(rows.back().data());
                }
                const Updates updates =
                    Updates::rows(pointers, static_cast<std::int64_t>(honest[0].size()), DType::f64);
                for (std::size_t i = 0; i < bad.size(); ++i) {
                  std::vector<double> row = rows[0];
                  try {
                    row = make(updates, static_cast<int>(bad.size()), i);
                  } catch (const Error& error) {
                    if (error.status() != Status::no_majority) throw;  // identical rows
                  }
                  bad[i].assign(row.begin(), row.end());
                }
              },
          .slow = true};
}

/// The strongest that are known, some of them made for the pipeline.
std::vector<Attack> strongest(const Pipeline& pipeline) {
  using namespace bragg::attacks;
  return {
      found("min_max", [](const Updates& honest, int, std::size_t) { return min_max<double>(honest).row; }),
      found("min_max, unit", [](const Updates& honest, int,
                                std::size_t) { return min_max<double>(honest, Direction::unit).row; }),
      found("min_sum, sign", [](const Updates& honest, int,
                                std::size_t) { return min_sum<double>(honest, Direction::sign).row; }),
      found("fang_trimmed",
            [](const Updates& honest, int, std::size_t i) { return fang_trimmed<double>(honest, i); }),
      found("fang_krum", [](const Updates& honest, int count,
                            std::size_t) { return fang_krum<double>(honest, count).row; }),
      found("optimal_alie",
            [pipeline](const Updates& honest, int count, std::size_t) {
              return optimal_alie<double>(honest, pipeline, count).row;
            }),
      found("optimal_ipm",
            [pipeline](const Updates& honest, int count, std::size_t) {
              return optimal_ipm<double>(honest, pipeline, count).row;
            }),
  };
}

struct HonestRows {
  const char* name;
  DType dtype;
  double mean;
  double deviation;
  int clusters = 1;
};

const HonestRows honest_kinds[] = {
    {"f32 unit", DType::f32, 0.5, 1},
    {"f32 offset 1e3", DType::f32, 1e3, 1},
    {"f32 two clusters 100 apart", DType::f32, 0, 1, 2},
    {"f32 identical", DType::f32, 0.7, 0},
    {"f32 at 1e20", DType::f32, 1e20, 1e20},
    {"f32 at 1e-30", DType::f32, 1e-30, 1e-30},
    {"f32 denormal", DType::f32, 1e-42, 1e-42},
    {"f16 unit", DType::f16, 0.5, 1},
    {"bf16 unit", DType::bf16, 0.5, 1},
    {"f64 unit", DType::f64, 0.5, 1},
    {"f64 at 1e-200", DType::f64, 1e-200, 1e-200},
    {"f64 at 1e140", DType::f64, 1e140, 1e140},
};

/// Where `count` bad rows stand among n.
std::set<std::size_t> places(int where, int count, std::mt19937_64& random) {
  std::set<std::size_t> out;
  while (static_cast<int>(out.size()) < count) {
    const auto k = out.size();
    out.insert(where == 0 ? k : where == 1 ? static_cast<std::size_t>(n) - 1 - k : random() % n);
  }
  return out;
}

std::string check_bound(const Bound& bound, const std::vector<long double>& out, const Rows& honest,
                        DType dtype) {
  const std::size_t d = out.size();
  const std::vector<long double> mean = mean_of(honest);
  long double distance = 0;
  long double norm = 0;
  long double longest = 0;
  long double spread = 0;
  long double diameter = 0;
  long double rounding = 0;
  for (std::size_t j = 0; j < d; ++j) {
    if (!std::isfinite(out[j])) return "not finite at coordinate " + std::to_string(j);
    long double low = inf;
    long double high = -inf;
    for (const auto& row : honest) {
      low = std::min(low, row[j]);
      high = std::max(high, row[j]);
      spread += (row[j] - mean[j]) * (row[j] - mean[j]) / static_cast<long double>(honest.size());
    }
    const long double range = bound.kind == Bound::Kind::one_range ? high - low : 0;
    const long double ulp = spacing(dtype, std::max(std::fabs(low), std::fabs(high)) + range);
    const bool per_coordinate = bound.kind == Bound::Kind::inside || bound.kind == Bound::Kind::one_range;
    // `inside` is exact; a range beyond is rounded to dtype.
    const long double slack = bound.kind == Bound::Kind::inside ? 0 : ulp;
    if (per_coordinate && (out[j] < low - range - slack || out[j] > high + range + slack)) {
      return "coordinate " + std::to_string(j) + " is outside";
    }
    if (bound.kind == Bound::Kind::votes) {
      const auto step = static_cast<long double>(bound.value);
      if (std::fabs(out[j]) != step && out[j] != 0) return "no step at coordinate " + std::to_string(j);
      const auto up =
          std::count_if(honest.begin(), honest.end(), [&](const auto& row) { return row[j] > 0; });
      const auto down =
          std::count_if(honest.begin(), honest.end(), [&](const auto& row) { return row[j] < 0; });
      const auto bad = n - static_cast<std::ptrdiff_t>(honest.size());
      if ((up > down + bad && out[j] != step) || (down > up + bad && out[j] != -step))
        return "honest rows were outvoted at coordinate " + std::to_string(j);
    }
    distance += (out[j] - mean[j]) * (out[j] - mean[j]);
    norm += out[j] * out[j];
    rounding += 4 * ulp * ulp;
  }
  for (const auto& a : honest) {
    long double length = 0;
    for (const long double x : a) length += x * x;
    longest = std::max(longest, std::sqrt(length));
    for (const auto& b : honest) {
      long double squared = 0;
      for (std::size_t j = 0; j < d; ++j) squared += (a[j] - b[j]) * (a[j] - b[j]);
      diameter = std::max(diameter, std::sqrt(squared));
    }
  }
  const auto within = [&](long double root, long double limit) {
    return root <= limit + 4 * std::sqrt(rounding);
  };
  switch (bound.kind) {
    case Bound::Kind::kappa:
      return within(std::sqrt(distance), std::sqrt(static_cast<long double>(bound.value) * spread))
                 ? ""
                 : "κ broken";
    case Bound::Kind::huber:
      return within(std::sqrt(distance), (1 + r) * (2 * std::sqrt(spread) + bound.value / 2) * (1 + 1e-6L))
                 ? ""
                 : "farther from the honest mean than tau allows";
    case Bound::Kind::diameters:
      return within(std::sqrt(distance), bound.value * diameter) ? ""
                                                                 : "too many diameters from the honest mean";
    case Bound::Kind::radius:
      return within(std::sqrt(norm), bound.value * (1 + 1e-6L)) ? "" : "outside the radius";
    case Bound::Kind::longest:
      return within(std::sqrt(norm), longest * (1 + 1e-6L)) ? "" : "longer than the longest honest row";
    default:
      return "";
  }
}

class Hostile : public testing::TestWithParam<Case> {
 protected:
  static void TearDownTestSuite() {
    EXPECT_GE(all_judged * 4, all_runs)
        << all_judged << " of " << all_runs << " cases were clear enough to judge by the oracle";
  }
  static inline int all_judged = 0;
  static inline int all_runs = 0;
};

TEST_P(Hostile, NoBadRowBreaksTheGuarantee) {
  const Case& param = GetParam();
  const Pipeline pipeline = parse(param.pipeline);
  Generator random = generator(std::string("hostile ") + param.pipeline);
  std::vector<Attack> all_attacks = attacks();
  for (Attack& attack : strongest(pipeline)) all_attacks.push_back(std::move(attack));
  int judged = 0;
  int runs = 0;
  for (const HonestRows& kind : honest_kinds) {
    for (const Attack& attack : all_attacks) {
      for (int count = 1; count <= f; ++count) {
        const auto rare = attack.slow ? 3U : 1U;
        if (random() % (rare * static_cast<std::uint64_t>(test_share())) != 0) continue;
        const int d = 1 + static_cast<int>(random() % 30);
        const int where = static_cast<int>(random() % 3);
        const std::set<std::size_t> bad_places = places(where, count, random);
        Rows honest = normal_rows(random, n - count, d, kind.mean, kind.deviation);
        for (std::size_t i = 0; i < honest.size() && kind.clusters == 2; ++i) {
          for (auto& x : honest[i]) x += i % 2 == 0 ? 100 : 0;
        }
        honest = as_stored(honest, kind.dtype);
        Rows bad(static_cast<std::size_t>(count), std::vector<long double>(static_cast<std::size_t>(d)));
        attack.fill(bad, honest, random);
        Request request{.dtype = kind.dtype, .layout = static_cast<Layout>(random() % 4)};
        std::size_t next_bad = 0;
        std::size_t next_honest = 0;
        for (std::size_t i = 0; i < n; ++i) {
          request.rows.push_back(bad_places.contains(i) ? bad[next_bad++] : honest[next_honest++]);
        }
        const Outcome got = run_library(pipeline, request);
        const std::string place = std::string(param.pipeline) + " under " + std::to_string(count) + " × " +
                                  attack.name + " (place " + std::to_string(where) + ") on " + kind.name +
                                  ", d = " + std::to_string(d);
        if (param.bound.kind != Bound::Kind::refusing) {
          ASSERT_EQ(got.status, Status::ok) << place;
        }
        if (got.status == Status::ok) {
          ASSERT_EQ(check_bound(param.bound, got.out, honest, kind.dtype), "") << place;
        }
        ++runs;
        // Beyond the range of f64 squares the library calls a row infinite that is finite to the oracle.
        const bool comparable = kind.mean != 1e-200 || std::string(attack.name) != "1e150";
        if (!comparable) continue;
        const Verdict verdict = judge(pipeline, request, expect(pipeline, request), got);
        judged += verdict.judged;
        ASSERT_EQ(verdict.complaint(), "") << place;
      }
    }
  }
  all_judged += judged;
  all_runs += runs;
  // Cases are drawn, and chance may leave a pipeline below a quarter: four standard deviations are allowed,
  // and all pipelines together are held to it.
  const double chance = 4 * std::sqrt(3.0 * runs);
  EXPECT_GE(judged * 4 + chance, runs)
      << judged << " of " << runs << " cases were clear enough to judge by the oracle";
}

INSTANTIATE_TEST_SUITE_P(Pipelines, Hostile, testing::ValuesIn(cases), [](const auto& test) {
  std::string name = std::to_string(test.index) + "_" + test.param.pipeline;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
});

TEST(HostileCount, AnInfinitePivotRaisesItsStatus) {
  Generator random = generator("infinite pivot");
  for (const char* text :
       {"monna(f=2, pivot=3)", "nnm(f=2) | monna(f=2, pivot=3)", "clip(c=1) | monna(f=2, pivot=3)",
        "balance(gamma=1, pivot=3)", "fltrust(pivot=3)", "quantile_clip | fltrust(pivot=3)",
        "centered_clipping(tau=1, start=pivot, pivot=3)"}) {
    for (const int bad : {2, 3}) {
      Request request{.rows = normal_rows(random, n, 5, 0, 1)};
      request.rows[static_cast<std::size_t>(bad)][4] = nan;
      EXPECT_EQ(run_library(parse(text), request).status, bad == 3 ? Status::nonfinite_pivot : Status::ok)
          << text;
    }
  }
}

TEST(HostileCount, MoreBadRowsThanFRaiseTheStatusAndLeaveTheOutputAlone) {
  Generator random = generator("too many");
  for (const char* text :
       {"nnm(f=2) | trimmed_mean(f=2)", "krum(f=2)", "multi_krum(f=2)", "mda(f=2)", "smea(f=2)", "caf(f=2)",
        "monna(f=2)", "cge(f=2)", "bulyan(f=2)", "arc(f=2) | median"}) {
    for (int bad = 0; bad <= n; ++bad) {
      Request request{.rows = normal_rows(random, n, 5, 0, 1)};
      for (int i = 0; i < bad; ++i) request.rows[static_cast<std::size_t>(n - 1 - i)][2] = inf;
      const Outcome got = run_library(parse(text), request);
      const bool by_pivot = bad == n && std::string_view(text).starts_with("monna");
      const Status beyond = by_pivot ? Status::nonfinite_pivot : Status::too_many_nonfinite;
      EXPECT_EQ(got.status, bad <= f ? Status::ok : beyond) << text << " with " << bad;
      for (int i = 0; i < n; ++i) {
        EXPECT_EQ(got.reports[0].rows[static_cast<std::size_t>(i)].nonfinite, i >= n - bad ? 1 : 0) << text;
      }
    }
  }
  for (int bad = 0; bad <= n; ++bad) {
    Request request{.rows = normal_rows(random, n, 5, 0, 1)};
    for (int i = 0; i < bad; ++i) request.rows[static_cast<std::size_t>(i)][2] = nan;
    EXPECT_EQ(run_library(parse("geometric_median"), request).status,
              2 * bad >= n ? Status::too_many_nonfinite : Status::ok);
    EXPECT_EQ(run_library(parse("centered_clipping(tau=1)"), request).status, Status::ok);
    EXPECT_EQ(run_library(parse("clip(c=1) | mean"), request).status, Status::ok);
    EXPECT_EQ(run_library(parse("quantile_clip | krum(f=0)"), request).status, Status::ok);
    EXPECT_EQ(run_library(parse("mean(nonfinite=skip)"), request).status,
              bad == n ? Status::too_many_nonfinite : Status::ok);
    EXPECT_EQ(run_library(parse("trimmed_mean(f=2)"), request).status, Status::ok);
  }
}

}  // namespace
}  // namespace bragg::test
