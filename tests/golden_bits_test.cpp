// SPDX-License-Identifier: Apache-2.0
// The same bits on every CPU: hashes of results and reports of every rule in every type, held against those
// in tests/data/bits.txt, on every instruction set of this machine. A change of bits is one for users; where
// it is meant, BRAGG_TEST_BITS=tests/data/bits.txt golden_bits_test writes the file, from one instruction
// set.
#include <gtest/gtest.h>
#include <bragg/pipeline.hpp>

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "host/cpu/passes.hpp"
#include "host/verify/cases.hpp"
#include "host/verify/draw.hpp"
#include "host/verify/run.hpp"
#include "rules/table.hpp"
#include "tests/support/fixture.hpp"
#include "tests/support/forced_target.hpp"
#include "tests/support/seed.hpp"

namespace bragg::test {
namespace {

constexpr std::array dtypes{DType::f32, DType::f16, DType::bf16, DType::f64};

/// A pipeline over n rows, of which f are bad.
struct Case {
  std::string text;
  int n = 11;
  int f = 2;
  int d = 8192 + 517;  // a block and a part of one

  std::string name() const {
    std::string name = text;
    for (std::size_t at = name.find("=F"); at != std::string::npos; at = name.find("=F"))
      name.replace(at, 2, "=" + std::to_string(f));
    for (std::size_t at = name.find("N1"); at != std::string::npos; at = name.find("N1"))
      name.replace(at, 2, std::to_string(n - f - 1));
    return name + ", n = " + std::to_string(n) + ", d = " + std::to_string(d);
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* const text : verify::pipelines()) all.push_back({text});
  // Few coordinates, whose sums are partly of nothing.
  for (const char* const text : {"krum(f=F)", "nnm(f=F) | trimmed_mean(f=F)", "geometric_median"}) {
    all.push_back({.text = text, .d = 3});
    all.push_back({.text = text, .n = 6, .f = 1, .d = 261});
  }
  // Panels and tiles of every width; mixtures of many groups; merged chunks; bisected ranks; squares of
  // pairs.
  for (const int n : {8, 16, 21, 67})
    all.push_back({.text = "nnm(f=F) | trimmed_mean(f=F)", .n = n, .f = n / 5, .d = 1031});
  for (const char* const text : {"median", "trimmed_mean(f=F)", "meamed(f=F)", "phocas(f=F)", "krum(f=F)",
                                 "nnm(f=F) | median", "geometric_median", "caf(f=F)"}) {
    all.push_back({.text = text, .n = 101, .f = 20, .d = 530});
    all.push_back({.text = text, .n = 140, .f = 30, .d = 270});
  }
  all.push_back({.text = "multi_krum(f=F)", .n = 270, .f = 50, .d = 75});
  return all;
}

enum class Kind {
  plain,
  hostile,  ///< infinity, NaN and values far away; about a base
  common,   ///< what rows have in common is large: distances are taken about a centre; weighted
  extreme,  ///< squares leave the range of f64
};

/// Of fixed operations: the distributions of the standard library may differ by processor.
verify::Request make_request(const Case& tested, DType dtype, Kind kind) {
  std::mt19937_64 random(7);
  const auto uniform = [&] { return static_cast<double>(random() >> 11) * 0x1p-52 - 1; };
  const auto n = static_cast<std::size_t>(tested.n);
  const auto d = static_cast<std::size_t>(tested.d);
  const double offset = kind == Kind::common ? (size_of(dtype) > 2 ? 3e4 : 100) : 0.25;
  const double unit = kind == Kind::extreme ? 0x1p-530 : 1;
  verify::Request request{.dtype = dtype, .layout = verify::Layout::tensors};
  request.rows.assign(n, std::vector<long double>(d));
  std::vector<long double> base(d);
  for (std::size_t j = 0; j < d; ++j) {
    const double mean = offset * (1 + 0.5 * uniform());
    base[j] = unit * (mean + 0.5 * uniform());
    for (std::size_t i = 0; i < n; ++i) {
      const double noise = uniform() + uniform() + uniform();
      const bool is_bad = i % 5 == 1 && i / 5 < static_cast<std::size_t>(tested.f);
      request.rows[i][j] = unit * (is_bad ? mean - 3 - 0.25 * noise : mean + noise);
    }
  }
  if (kind == Kind::hostile) {
    request.rows[1][d / 2] = std::numeric_limits<double>::quiet_NaN();
    request.rows[1][d - 1] = -std::numeric_limits<double>::infinity();
    if (tested.f > 1) {
      for (long double& x : request.rows[6]) x *= 1000;
    }
    request.reference = base;
  }
  if (kind == Kind::common) {
    for (std::size_t i = 0; i < n; ++i) request.weights.push_back(0.5 + std::abs(uniform()));
    request.options.max_weight_share = 2 / static_cast<double>(n);
  }
  request.rows = verify::as_stored(request.rows, dtype);
  return request;
}

/// Most pipelines have the same data.
const verify::Request& request_of(const Case& tested, DType dtype, Kind kind) {
  static std::map<std::tuple<int, int, int, DType, Kind>, verify::Request> made;
  const auto [at, is_new] = made.try_emplace({tested.n, tested.f, tested.d, dtype, kind});
  if (is_new) at->second = make_request(tested, dtype, kind);
  return at->second;
}

/// FNV-1a.
class Hash {
 public:
  void add(std::uint64_t word) {
    for (int k = 0; k < 8; ++k, word >>= 8) add_byte(static_cast<unsigned char>(word));
  }
  void add(double value) { add(std::isnan(value) ? ~std::uint64_t{0} : std::bit_cast<std::uint64_t>(value)); }
  void add_byte(unsigned char byte) { value_ = (value_ ^ byte) * 0x100000001b3; }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325;
};

void add(Hash& hash, const verify::Outcome& outcome) {
  hash.add(static_cast<std::uint64_t>(outcome.status));
  for (const unsigned char byte : outcome.bytes) hash.add_byte(byte);
  for (const Report& report : outcome.reports) {
    hash.add(static_cast<std::uint64_t>(report.iterations));
    hash.add(static_cast<std::uint64_t>(report.converged));
    hash.add(static_cast<std::uint64_t>(report.recentred));
    hash.add(report.optimality_gap);
    hash.add(report.distance_error);
    for (const RowReport& row : report.rows) {
      hash.add(row.weight);
      hash.add(row.score);
      hash.add(static_cast<std::uint64_t>(row.nonfinite));
      hash.add(row.clip_factor);
    }
  }
}

std::uint64_t hash_of(const Case& tested, DType dtype) {
  const std::optional<Pipeline> pipeline = verify::legal_pipeline(tested.text.c_str(), tested.n, tested.f);
  EXPECT_TRUE(pipeline) << tested.name();
  Hash hash;
  if (!pipeline) return 0;
  for (const Kind kind : {Kind::plain, Kind::hostile, Kind::common, Kind::extreme}) {
    if (kind == Kind::extreme && dtype != DType::f64) continue;
    verify::Request request = request_of(tested, dtype, kind);
    if (!detail::takes_weights(*pipeline)) {
      request.weights.clear();
      request.options.max_weight_share = 0;
    }
    const verify::Outcome outcome = verify::run(*pipeline, request);
    EXPECT_EQ(outcome.trespass, "") << tested.name();
    add(hash, outcome);
  }
  return hash.value();
}

using Golden = std::map<std::string, std::array<std::uint64_t, dtypes.size()>>;

/// Lines of hashes in the order of `dtypes`, and a name.
Golden read_golden() {
  Golden golden;
  std::ifstream file(BRAGG_TEST_DATA "/bits.txt");
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line.front() == '#') continue;
    std::array<std::uint64_t, dtypes.size()> hashes{};
    std::size_t at = 0;
    for (std::uint64_t& hash : hashes) {
      hash = std::stoull(line.substr(at, 16), nullptr, 16);
      at += 17;
    }
    golden[line.substr(at)] = hashes;
  }
  return golden;
}

class GoldenBits : public testing::TestWithParam<std::int64_t> {};

TEST_P(GoldenBits, AreThoseOfEveryInstructionSet) {
  const char* const written = std::getenv("BRAGG_TEST_BITS");
  const ForcedTarget forced(GetParam());
  ASSERT_EQ(detail::CpuPasses::target(), target_name(GetParam()));
  const std::vector<Case> all = cases();
  if (written != nullptr) {
    std::ofstream file(written);
    file << "# What golden_bits_test.cpp writes: hashes of results in f32, f16, bf16 and f64.\n";
    for (const Case& tested : all) {
      for (const DType dtype : dtypes) file << fmt::format("{:016x} ", hash_of(tested, dtype));
      file << tested.name() << '\n';
    }
    return;
  }
  const Golden golden = read_golden();
  EXPECT_EQ(golden.size(), all.size());
  for (std::size_t k = test_share() > 1 ? session_seed() % test_share() : 0; k < all.size();
       k += test_share()) {
    const auto expected = golden.find(all[k].name());
    ASSERT_NE(expected, golden.end()) << all[k].name() << ": not in bits.txt; write it anew";
    for (std::size_t t = 0; t < dtypes.size(); ++t)
      EXPECT_EQ(hash_of(all[k], dtypes[t]), expected->second[t]) << all[k].name() << ", type " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, GoldenBits, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& param) { return target_name(param.param); });

}  // namespace
}  // namespace bragg::test
