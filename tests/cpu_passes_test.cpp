// SPDX-License-Identifier: Apache-2.0
// The CPU passes against loops in long double, on every instruction set of this machine.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "host/base/dtype.hpp"
#include "host/cpu/fused.hpp"
#include "host/cpu/passes.hpp"
#include "host/verify/values.hpp"
#include "rules/means.hpp"
#include "rules/networks/order.hpp"
#include "rules/networks/schedules.hpp"
#include "rules/solve/logarithm.hpp"
#include "tests/support/fixture.hpp"
#include "tests/support/forced_target.hpp"
#include "tests/support/seed.hpp"

namespace bragg::detail {
namespace {

using Real = long double;
using verify::power_of_two;
constexpr Real infinity = std::numeric_limits<Real>::infinity();
constexpr std::array all_dtypes{DType::f32, DType::f16, DType::bf16, DType::f64};

// Reference conversions
// -----------------------------------------------------------------------------------------

/// As what passes store: −0 becomes +0.
Real rounded(Real v, DType dtype) {
  const Real result = verify::round_to(dtype, v);
  return result == 0 ? 0 : result;
}

Real decode(const unsigned char* bytes, DType dtype) {
  if (dtype == DType::f64) {
    double v;
    std::memcpy(&v, bytes, 8);
    return v;
  }
  if (dtype == DType::f32) {
    float v;
    std::memcpy(&v, bytes, 4);
    return v;
  }
  std::uint16_t bits;
  std::memcpy(&bits, bytes, 2);
  const verify::Format format = verify::format_of(dtype);
  const int fraction_bits = format.precision - 1;
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const int exponent = (bits & 0x7FFF) >> fraction_bits;
  Real magnitude;
  if (exponent == 2 * format.max_exponent + 1) {
    magnitude = fraction == 0 ? infinity : std::numeric_limits<Real>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = static_cast<Real>(fraction) * power_of_two(format.min_exponent - fraction_bits);
  } else {
    magnitude = static_cast<Real>(fraction + (1 << fraction_bits)) *
                power_of_two(exponent - format.max_exponent - fraction_bits);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

TEST(DTypes, EverySixteenBitsAreDecoded) {
  for (const DType dtype : {DType::f16, DType::bf16}) {
    for (unsigned k = 0; k < 0x10000; ++k) {
      const auto bits = static_cast<std::uint16_t>(k);
      unsigned char bytes[8] = {};
      std::memcpy(bytes, &bits, 2);
      const Real expected = decode(bytes, dtype);
      const float value = dtype == DType::f16 ? float_of<DType::f16>(bits) : float_of<DType::bf16>(bits);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(value)) << k;
      } else {
        ASSERT_EQ(static_cast<Real>(value), expected) << k;
      }
      ASSERT_EQ(std::signbit(value), k >= 0x8000) << k;
    }
  }
}

/// Writes a value that the dtype can hold, or what it rounds to. NaN of 16 bits is a signalling one.
void encode(Real v, DType dtype, unsigned char* bytes) {
  if (!std::isnan(v) || size_of(dtype) != 2) return verify::store(dtype, bytes, 0, v);
  verify::store(dtype, bytes, 0, std::copysign(infinity, v));
  bytes[0] |= 1;
}

// Arithmetic
// ----------------------------------------------------------------------------------------------------

TEST(Fused, MultiplyAddRoundsOnceAsStdFmaDoes) {
  test::Generator random = test::generator("fused multiply-add");
  const auto draw_exponent = [&](int most) { return static_cast<int>(random() % (2 * most + 1)) - most; };
  // Few bits make ties and exact sums; a sum near minus the product cancels.
  const auto draw = [&](int exponent) {
    const std::uint64_t kept = ~std::uint64_t{0} << (random() % 2 == 0 ? 0 : random() % 53);
    const double m = std::bit_cast<double>((random() & kept & 0x800FFFFFFFFFFFFF) | 0x3FF0000000000000);
    return std::ldexp(m, exponent);
  };
  const auto bits = [](double x) { return std::isnan(x) ? 0 : std::bit_cast<std::uint64_t>(x); };
  const std::array special{0.0,
                           -0.0,
                           0x1p-1074,
                           -0x1p-1022,
                           0x1p1023,
                           std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::quiet_NaN(),
                           1.0};
  for (int k = 0; k < 2'000'000; ++k) {
    const int range = k % 4 == 0 ? 1070 : 60;
    const int of_a = draw_exponent(range), of_b = draw_exponent(range);
    double a = draw(of_a);
    const double b = draw(of_b);
    double c = draw(of_a + of_b + draw_exponent(110));
    if (k % 8 == 1) c = -a * b * (1 + draw_exponent(4) * 0x1p-52);
    if (k % 64 == 3) a = special[random() % special.size()];
    if (k % 64 == 4) c = special[random() % special.size()];
    ASSERT_EQ(bits(cpu::fused_multiply_add(a, b, c)), bits(std::fma(a, b, c)))
        << std::hexfloat << a << " * " << b << " + " << c;
  }
}

TEST(Logarithm, IsRightToThreeUnits) {
  test::Generator random = test::generator("logarithm");
  for (int k = 0; k < 1'000'000; ++k) {
    const double m = 1 + static_cast<double>(random() >> 11) * 0x1p-53;
    const int range = k % 3 == 0 ? 1021 : k % 3 == 1 ? 8 : 0;
    const double x = std::ldexp(m, static_cast<int>(random() % (2 * range + 2)) - range - 1);
    const Real want = std::log(static_cast<Real>(x));
    ASSERT_LE(std::abs(logarithm(x) - want), 3 * verify::spacing(DType::f64, want)) << std::hexfloat << x;
  }
  EXPECT_EQ(logarithm(1), 0);
}

// Problems
// ------------------------------------------------------------------------------------------------------

enum class Data { normal, hostile, huge, tiny };

Real draw(std::mt19937_64& random, DType dtype, Data data) {
  const auto uniform = [&] { return std::uniform_real_distribution<double>(-1, 1)(random); };
  const Real largest = verify::largest(dtype);
  const Real smallest = verify::spacing(dtype, 0);
  switch (data) {
    case Data::normal:
      return rounded(1 + static_cast<Real>(uniform()), dtype);
    case Data::huge:
      return largest * (uniform() < 0 ? -1 : 1) * (uniform() < 0 ? 0.5L : 1);
    case Data::tiny:
      return smallest * static_cast<Real>(static_cast<int>(uniform() * 8));
    case Data::hostile:
      break;
  }
  switch (random() % 12) {
    case 0:
      return std::numeric_limits<Real>::quiet_NaN();
    case 1:
      return -std::numeric_limits<Real>::quiet_NaN();
    case 2:
      return infinity;
    case 3:
      return -infinity;
    case 4:
      return random() % 2 == 0 ? 0.0L : -0.0L;
    case 5:
      return random() % 2 == 0 ? smallest : -smallest;
    case 6:
      return random() % 2 == 0 ? largest : -largest;
    case 7:
      return rounded(1e4L * static_cast<Real>(uniform()), dtype);
    default:
      return rounded(static_cast<Real>(uniform()), dtype);
  }
}

constexpr std::size_t guard = 64;

struct Buffer {
  std::vector<unsigned char> bytes;
  unsigned char* data = nullptr;

  Buffer() = default;
  Buffer(std::size_t size, std::size_t shift)
      : bytes(size + 2 * guard + shift, 0xA5), data(bytes.data() + guard + shift) {
    size_ = size;
  }
  bool guarded() const {
    const auto untouched = [](unsigned char b) { return b == 0xA5; };
    return std::all_of(bytes.data(), static_cast<const unsigned char*>(data), untouched) &&
           std::all_of(static_cast<const unsigned char*>(data) + size_, bytes.data() + bytes.size(),
                       untouched);
  }

 private:
  std::size_t size_ = 0;
};

struct Problem {
  DType dtype;
  int n;
  std::vector<std::int64_t> sizes;
  std::vector<Buffer> buffers;  // [tensor * n + row]
  std::vector<const void*> pointers;
  RowTable table;

  Problem(DType dtype_in, int n_in, std::vector<std::int64_t> sizes_in, Data data, std::uint64_t seed,
          int reference_rows = 0, DType reference_dtype = DType::f32)
      : dtype(dtype_in), n(n_in), sizes(std::move(sizes_in)) {
    std::mt19937_64 random(seed);
    for (std::size_t t = 0; t < sizes.size(); ++t) {
      for (int r = 0; r < n; ++r) {
        const DType type = r < n - reference_rows ? dtype : reference_dtype;
        Buffer buffer(static_cast<std::size_t>(sizes[t]) * size_of(type),
                      (static_cast<std::size_t>(r) * 7 + 3 * t + 1) % 16);
        for (std::int64_t i = 0; i < sizes[t]; ++i) {
          encode(draw(random, type, data), type, buffer.data + i * static_cast<std::int64_t>(size_of(type)));
        }
        buffers.push_back(std::move(buffer));
      }
    }
    for (const Buffer& buffer : buffers) pointers.push_back(buffer.data);
    table.dtype = dtype;
    table.reference_dtype = reference_dtype;
    table.inputs = n - reference_rows;
    table.rows = n;
    table.sizes = sizes;
    table.data = pointers.data();
  }
  Problem(const Problem&) = delete;

  std::size_t slot(std::size_t tensor, int row) const {
    return tensor * static_cast<std::size_t>(n) + static_cast<std::size_t>(row);
  }
  void make_null(std::size_t tensor, int row) { pointers[slot(tensor, row)] = nullptr; }
  void set(std::size_t tensor, int row, std::int64_t i, Real v) {
    encode(v, table.dtype_of(row),
           buffers[slot(tensor, row)].data + i * static_cast<std::int64_t>(size_of(table.dtype_of(row))));
  }
  Real value(std::size_t tensor, int row, std::int64_t i) const {
    const auto* bytes = static_cast<const unsigned char*>(pointers[slot(tensor, row)]);
    const DType type = table.dtype_of(row);
    return bytes == nullptr ? 0 : decode(bytes + i * static_cast<std::int64_t>(size_of(type)), type);
  }
  std::int64_t nonfinite(int row) const {
    std::int64_t found = 0;
    for (std::size_t t = 0; t < sizes.size(); ++t) {
      for (std::int64_t i = 0; i < sizes[t]; ++i) found += !std::isfinite(value(t, row, i));
    }
    return found;
  }
};

struct Out {
  DType dtype;
  std::vector<Buffer> buffers;
  std::vector<void*> pointers;
  OutTable table;

  Out(DType dtype_in, const std::vector<std::int64_t>& sizes) : dtype(dtype_in) {
    for (const std::int64_t size : sizes)
      buffers.emplace_back(static_cast<std::size_t>(size) * size_of(dtype), 5);
    for (Buffer& buffer : buffers) pointers.push_back(buffer.data);
    table.dtype = dtype;
    table.data = pointers.data();
  }
  Out(const Out&) = delete;
  const unsigned char* at(std::size_t tensor, std::int64_t i) const {
    return buffers[tensor].data + i * static_cast<std::int64_t>(size_of(dtype));
  }
  Real value(std::size_t tensor, std::int64_t i) const { return decode(at(tensor, i), dtype); }
  bool same_bytes(const Out& other) const {
    for (std::size_t t = 0; t < buffers.size(); ++t) {
      if (buffers[t].bytes != other.buffers[t].bytes) return false;
    }
    return true;
  }
};

/// `got` is what some value within `tolerance` of `want` rounds to.
testing::AssertionResult near(Real got, Real want, Real tolerance, DType dtype) {
  if (std::isnan(want) && std::isnan(got)) return testing::AssertionSuccess();
  if (got == want) return testing::AssertionSuccess();
  if (got >= rounded(want - tolerance, dtype) && got <= rounded(want + tolerance, dtype)) {
    if (!(got == 0 && std::signbit(got))) return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << "got " << got << ", want " << want << " ± " << tolerance;
}

// Every test runs on every target; of a share of the cases (sanitizers), on one that the seed decides.
class CpuPassesTest : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override {
    const std::vector<std::int64_t> targets = hwy::SupportedAndGeneratedTargets();
    const std::string test = testing::UnitTest::GetInstance()->current_test_info()->name();
    const std::size_t chosen =
        std::hash<std::string>{}(test.substr(0, test.find('/'))) + test::session_seed();
    if (test::test_share() > 1 && GetParam() != targets[chosen % targets.size()]) GTEST_SKIP();
    forced_.emplace(GetParam());
    ASSERT_EQ(CpuPasses::target(), test::target_name(GetParam()));
  }

 private:
  std::optional<test::ForcedTarget> forced_;
};

INSTANTIATE_TEST_SUITE_P(Targets, CpuPassesTest, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& param) { return test::target_name(param.param); });

const std::vector<int> counts{1, 2, 3, 5, 8, 15, 16, 17, 21, 28, 33, 47, 56, 64, 65, 100, 128, 130};
const std::vector<std::int64_t> odd_sizes{5, 0, 131, 1, 300};

// Networks
// ------------------------------------------------------------------------------------------------------

// By the 0–1 principle. Each bit of a word is an input of its own.
void compare(const Comparator& c, std::vector<std::uint64_t>& wires) {
  ASSERT_LT(c.low, c.high);
  const std::uint64_t x = wires[c.low];
  const std::uint64_t y = wires[c.high];
  wires[c.low] = c.need_low ? x & y : ~x;  // what is not computed must not be read
  wires[c.high] = c.need_high ? x | y : ~y;
}

/// Of each bit of the words, what the wire of this rank holds when they are sorted.
std::uint64_t sorted_bits(const std::vector<std::uint64_t>& inputs, int rank) {
  std::uint64_t want = 0;
  for (std::size_t bit = 0; bit < 64; ++bit) {
    int ones = 0;
    for (const std::uint64_t word : inputs) ones += static_cast<int>((word >> bit) & 1);
    if (rank >= static_cast<int>(inputs.size()) - ones) want |= std::uint64_t{1} << bit;
  }
  return want;
}

void expect_selects(int points, int first, int last, const std::vector<std::uint64_t>& inputs) {
  std::vector<std::uint64_t> wires = inputs;
  for (const Comparator& c : cpu::selection_network(points, first, last)) compare(c, wires);
  for (int rank = first; rank <= last; ++rank) {
    ASSERT_EQ(wires[static_cast<std::size_t>(rank)], sorted_bits(inputs, rank))
        << points << " points, rank " << rank;
  }
}

/// 64 inputs of a network: all there are from the base-th on, or random ones of every number of ones.
std::vector<std::uint64_t> zero_one_inputs(int points, std::uint64_t base, std::mt19937_64& random) {
  std::vector<std::uint64_t> wires(static_cast<std::size_t>(points));
  for (std::size_t bit = 0; bit < 64; ++bit) {
    if (points <= 16) {
      for (std::size_t w = 0; w < wires.size(); ++w) wires[w] |= ((base + bit) >> w & 1) << bit;
      continue;
    }
    std::vector<std::size_t> order(wires.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::shuffle(order.begin(), order.end(), random);
    order.resize(random() % (wires.size() + 1));
    for (const std::size_t w : order) wires[w] |= std::uint64_t{1} << bit;
  }
  return wires;
}

/// Runs a schedule as the unrolled networks do: a wire is loaded where it says, and read where it is stored.
template <class ScheduleT>
void expect_schedule(std::size_t size, bool middle, const std::vector<std::uint64_t>& inputs) {
  namespace schedules = cpu::schedules;
  const int points = schedules::sizes[size];
  const std::string_view network = ScheduleT::networks[2 * size + (middle ? 0 : 1)];
  constexpr std::uint64_t garbage = 0x5A5A5A5A5A5A5A5A;
  std::vector<std::uint64_t> wires(inputs.size(), garbage), stored(inputs.size(), garbage);
  for (std::size_t k = 0; k < network.size() / 3; ++k) {
    const auto [low_wire, high_wire, flags] = schedules::step_of(network, k);
    const auto low = static_cast<std::uint16_t>(low_wire);
    const auto high = static_cast<std::uint16_t>(high_wire);
    if ((flags & schedules::load_low) != 0) wires[low] = inputs[low];
    if ((flags & schedules::load_high) != 0) wires[high] = inputs[high];
    ASSERT_NO_FATAL_FAILURE(
        compare({low, high, (flags & schedules::need_low) != 0, (flags & schedules::need_high) != 0}, wires));
    if ((flags & schedules::store_low) != 0) stored[low] = wires[low];
    if ((flags & schedules::store_high) != 0) stored[high] = wires[high];
  }
  for (int rank = middle ? (points - 1) / 2 : 0; rank <= (middle ? points / 2 : points - 1); ++rank) {
    ASSERT_EQ(stored[static_cast<std::size_t>(rank)], sorted_bits(inputs, rank))
        << points << " points, rank " << rank;
  }
}

TEST(Network, SchedulesLoadCompareAndStoreInAnOrderThatSorts) {
  std::mt19937_64 random(8);
  for (std::size_t size = 0; size < cpu::schedules::size_count; ++size) {
    const int points = cpu::schedules::sizes[size];
    const std::uint64_t rounds = points <= 16 ? ((std::uint64_t{1} << points) + 63) / 64 : 40;
    for (std::uint64_t round = 0; round < rounds; ++round) {
      const std::vector<std::uint64_t> inputs = zero_one_inputs(points, 64 * round, random);
      for (const bool middle : {true, false}) {
        ASSERT_NO_FATAL_FAILURE(expect_schedule<cpu::schedules::sixteen>(size, middle, inputs));
        ASSERT_NO_FATAL_FAILURE(expect_schedule<cpu::schedules::thirty_two>(size, middle, inputs));
      }
    }
  }
}

std::vector<std::pair<int, int>> kept_ranks(int points) {
  std::vector<std::pair<int, int>> ranks{
      {0, points - 1}, {(points - 1) / 2, points / 2}, {points / 2, points / 2}};
  ranks.emplace_back((points - 1) / 2, (points - 1) / 2);
  for (int f : {1, points / 5, points / 3}) {
    if (2 * f < points) ranks.emplace_back(f, points - 1 - f);
  }
  return ranks;
}

TEST(Network, SelectsEveryZeroOneInputOfUpToSixteenPoints) {
  for (int points = 1; points <= 16; ++points) {
    for (const auto& [first, last] : kept_ranks(points)) {
      const std::uint64_t inputs = std::uint64_t{1} << points;
      for (std::uint64_t base = 0; base < inputs; base += 64) {
        std::vector<std::uint64_t> wires(static_cast<std::size_t>(points));
        for (std::uint64_t bit = 0; bit < 64; ++bit) {
          for (std::size_t w = 0; w < wires.size(); ++w)
            wires[w] |= (((base + bit) % inputs) >> w & 1) << bit;
        }
        ASSERT_NO_FATAL_FAILURE(expect_selects(points, first, last, wires));
      }
    }
  }
}

TEST(Network, SelectsRandomAndStructuredZeroOneInputsOfMorePoints) {
  std::mt19937_64 random(7);
  std::vector<int> sizes(54);
  std::iota(sizes.begin(), sizes.end(), 17);
  for (int points : {100, 128, 129, 200, 257, 1000}) sizes.push_back(points);
  for (const int points : sizes) {
    for (const auto& [first, last] : kept_ranks(points)) {
      for (int round = 0; round < (points <= 130 ? 20 : 2); ++round) {
        std::vector<std::uint64_t> wires(static_cast<std::size_t>(points));
        for (std::size_t bit = 0; bit < 64; ++bit) {
          // The number of ones decides a rank: take it near the kept ranks, and the ones in runs or anywhere.
          const int near_rank = bit % 2 == 0 ? first : last;
          const int ones = std::clamp(points - near_rank + static_cast<int>(random() % 3) - 1, 0, points);
          std::vector<int> order(wires.size());
          std::iota(order.begin(), order.end(), 0);
          if (round % 4 == 0) {
            std::rotate(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(random() % order.size()),
                        order.end());
          } else {
            std::shuffle(order.begin(), order.end(), random);
          }
          for (int k = 0; k < ones; ++k) {
            wires[static_cast<std::size_t>(order[static_cast<std::size_t>(k)])] |= std::uint64_t{1} << bit;
          }
        }
        ASSERT_NO_FATAL_FAILURE(expect_selects(points, first, last, wires));
      }
    }
  }
}

TEST(Network, MergesOfSortedChunksSelect) {
  std::mt19937_64 random(9);
  for (const int chunk : {16, 64}) {
    for (const int points : {chunk + 1, 2 * chunk, 2 * chunk + 5, 3 * chunk, 4 * chunk - 1, 5 * chunk + 7}) {
      for (const auto& [first, last] : kept_ranks(points)) {
        const std::vector<Comparator> merges = cpu::merge_network(points, chunk, first, last);
        for (int round = 0; round < 5; ++round) {
          const std::vector<std::uint64_t> inputs = zero_one_inputs(points, 0, random);
          std::vector<std::uint64_t> wires;
          for (int begin = 0; begin < points; begin += chunk) {
            const std::vector<std::uint64_t> part(inputs.begin() + begin,
                                                  inputs.begin() + std::min(points, begin + chunk));
            for (int rank = 0; rank < static_cast<int>(part.size()); ++rank) {
              wires.push_back(sorted_bits(part, rank));
            }
          }
          for (const Comparator& c : merges) ASSERT_NO_FATAL_FAILURE(compare(c, wires));
          for (int rank = first; rank <= last; ++rank) {
            ASSERT_EQ(wires[static_cast<std::size_t>(rank)], sorted_bits(inputs, rank))
                << points << " points in chunks of " << chunk << ", rank " << rank;
          }
        }
      }
    }
  }
}

// Gram
// ----------------------------------------------------------------------------------------------------------

GramSums gram_of(const RowTable& table, int threads, double scale = 1, bool wanted = true) {
  GramSums sums;
  sums.reset(table.rows, wanted, scale);
  CpuPasses(table.rows, threads).gram(table, sums);
  return sums;
}

void expect_gram(const Problem& problem, const GramSums& sums) {
  const int n = problem.n;
  for (int a = 0; a < n; ++a) {
    EXPECT_EQ(sums.nonfinite[static_cast<std::size_t>(a)], problem.nonfinite(a)) << "row " << a;
  }
  std::int64_t d = 0;
  for (const std::int64_t size : problem.sizes) d += size;
  for (int a = 0; a < n; ++a) {
    for (int b = 0; b <= a; ++b) {
      if (problem.nonfinite(a) + problem.nonfinite(b) > 0) continue;
      Real want = 0, magnitude = 0;
      for (std::size_t t = 0; t < problem.sizes.size(); ++t) {
        for (std::int64_t i = 0; i < problem.sizes[t]; ++i) {
          const Real product = problem.value(t, a, i) * problem.value(t, b, i);
          want += product;
          magnitude += std::abs(product);
        }
      }
      const Real square = static_cast<Real>(sums.scale) * static_cast<Real>(sums.scale);
      const double got = sums.products[static_cast<std::size_t>(a * n + b)];
      // One rounding an addition, and one a product of f64 values.
      EXPECT_LE(std::abs(got - want * square), magnitude * square * static_cast<Real>(d + 8) * 0x1p-53L)
          << a << ',' << b << " of " << n;
      EXPECT_EQ(got, sums.products[static_cast<std::size_t>(b * n + a)]);
    }
  }
}

TEST_P(CpuPassesTest, GramMatchesLongDouble) {
  for (const DType dtype : all_dtypes) {
    for (const int n : counts) {
      Problem problem(dtype, n, odd_sizes, Data::normal, 11);
      if (n > 2) problem.make_null(2, n / 2);
      const GramSums sums = gram_of(problem.table, 2);
      expect_gram(problem, sums);
      EXPECT_TRUE(
          std::all_of(problem.buffers.begin(), problem.buffers.end(), [](auto& b) { return b.guarded(); }));
    }
  }
}

TEST_P(CpuPassesTest, GramOfRowsOfTwoTypesMatches) {
  for (int n = 2; n <= 21; ++n) {
    for (const int references : {1, 2}) {
      if (references >= n) continue;
      const Problem problem(DType::bf16, n, {5, 0, 131, 1, 700}, Data::normal, 17, references, DType::f32);
      expect_gram(problem, gram_of(problem.table, 1));
    }
  }
}

TEST_P(CpuPassesTest, GramOfHugeAndTinyRowsIsRight) {
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (const Data data : {Data::huge, Data::tiny}) {
      const Problem problem(dtype, 9, odd_sizes, data, 12);
      expect_gram(problem, gram_of(problem.table, 1));
    }
  }
  const Problem huge(DType::f64, 9, odd_sizes, Data::huge, 12);
  const GramSums sums = gram_of(huge.table, 1, 0x1p-1000);
  expect_gram(huge, sums);
  EXPECT_EQ(sums.max_abs[0], std::numeric_limits<double>::max());
}

TEST_P(CpuPassesTest, GramKeepsBadRowsToThemselvesAndCountsThem) {
  for (const DType dtype : all_dtypes) {
    for (const int n : {3, 8, 33}) {
      Problem problem(dtype, n, odd_sizes, Data::normal, 13);
      problem.set(2, 1, 130, std::numeric_limits<Real>::quiet_NaN());
      problem.set(4, 1, 7, -infinity);
      problem.set(0, n - 1, 0, infinity);
      expect_gram(problem, gram_of(problem.table, 2));
      const GramSums statistics = gram_of(problem.table, 2, 1, false);
      EXPECT_TRUE(statistics.products.empty());
      for (int r = 0; r < n; ++r)
        EXPECT_EQ(statistics.nonfinite[static_cast<std::size_t>(r)], problem.nonfinite(r));
      EXPECT_EQ(statistics.max_abs, gram_of(problem.table, 1).max_abs);
    }
  }
}

TEST_P(CpuPassesTest, EqualRowsHaveBitEqualProducts) {
  for (const DType dtype : all_dtypes) {
    for (const int n : {2, 5, 17, 64}) {
      Problem problem(dtype, n, {10001, 77}, Data::normal, 14);
      for (std::size_t t = 0; t < 2; ++t) {
        for (const int r : {1, n - 1}) {
          for (std::int64_t i = 0; i < problem.sizes[t]; ++i) problem.set(t, r, i, problem.value(t, 0, i));
        }
      }
      const GramSums sums = gram_of(problem.table, 2);
      const auto product = [&](int a, int b) { return sums.products[static_cast<std::size_t>(a * n + b)]; };
      for (const int r : {1, n - 1}) {
        EXPECT_EQ(product(r, r), product(0, 0));
        EXPECT_EQ(product(r, 0), product(0, 0));
        for (int c = 0; c < n; ++c) EXPECT_EQ(product(r, c), product(0, c));
      }
    }
  }
}

TEST_P(CpuPassesTest, GramBitsDoNotDependOnThreadsOrWindows) {
  test::Generator random = test::generator("leaves of many rows");
  const std::int64_t drawn = std::int64_t{1} << random() % 3;
  for (const int n : {3, 17, 65, 260}) {
    const std::int64_t d = n > 100 ? 2 * gram_block + 5 : 5 * gram_block + 77;
    const Problem problem(DType::f32, n, {d, 13}, Data::normal, 15);
    for (const std::int64_t leaf_blocks : {1, 2, 4}) {
      if (n > 100 && leaf_blocks != drawn) continue;  // slow
      const auto sums_of = [&](int threads) {
        GramSums sums;
        sums.leaf_blocks = leaf_blocks;
        sums.reset(n, true, 1);
        CpuPasses(n, threads).gram(problem.table, sums);
        return sums;
      };
      const GramSums one = sums_of(1);
      if (leaf_blocks == 2 && n == 17) expect_gram(problem, one);
      for (const int threads : {2, 3}) EXPECT_EQ(one.products, sums_of(threads).products) << n;

      GramSums windows;
      windows.leaf_blocks = leaf_blocks;
      windows.reset(n, true, 1);
      CpuPasses passes(n, 2);
      for (std::size_t t = 0; t < 2; ++t) {
        for (std::int64_t begin = 0; begin < problem.sizes[t]; begin += gram_block) {
          std::vector<const void*> data;
          for (int r = 0; r < n; ++r) data.push_back(problem.buffers[problem.slot(t, r)].data + 4 * begin);
          const std::int64_t size = std::min<std::int64_t>(gram_block, problem.sizes[t] - begin);
          RowTable window = problem.table;
          window.sizes = {&size, 1};
          window.data = data.data();
          window.unfinished = begin + size < problem.sizes[t];
          passes.gram(window, windows);
        }
      }
      EXPECT_EQ(one.products, windows.products) << n;
      EXPECT_EQ(one.low, windows.low) << n;
    }
  }
}

TEST_P(CpuPassesTest, GramKeepsLeavesForOthersToAdd) {
  test::Generator random = test::generator("leaves for others");
  const bool drawn_pairs = random() % 2 == 0;
  const std::int64_t drawn_blocks = random() % 2 == 0 ? 1 : 2;
  for (const int n : {3, 65, 260}) {
    for (const bool pairs : {true, false}) {
      if (n > 100 && pairs != drawn_pairs) continue;  // slow
      const Problem problem(DType::f32, n, {4 * gram_block + 5, 13, 0, 2 * gram_block}, Data::normal, 18);
      RowTable table = problem.table;
      table.inputs = n - 2;
      for (const std::int64_t leaf_blocks : {1, 2}) {
        if (n > 100 && leaf_blocks != drawn_blocks) continue;
        GramSums whole;
        whole.leaf_blocks = leaf_blocks;
        whole.reset(n, true, 1, pairs);
        CpuPasses(n, 2).gram(table, whole);
        LeafRecords records{.entries = gram_entries(n, n - 2, pairs)};
        GramSums kept;
        kept.leaf_blocks = leaf_blocks;
        kept.records = &records;
        kept.reset(n, true, 1, pairs);
        CpuPasses(n, 2).gram(table, kept);
        EXPECT_EQ(kept.products, std::vector<double>(kept.products.size(), 0.0));
        EXPECT_EQ(kept.nonfinite, whole.nonfinite);

        const std::size_t count = records.entries.size();
        const std::size_t doubles = leaf_blocks > 1 ? 2 * count : count;
        ASSERT_EQ(records.values.size(), doubles * (leaf_blocks == 1 ? 8 : 5)) << n;
        GramSums added;
        added.reset(n, true, 1, pairs);
        for (std::size_t at = 0; at < records.values.size(); at += doubles) {
          for (std::size_t e = 0; e < count; ++e) {
            added.add(records.entries[e], records.values[at + e],
                      leaf_blocks > 1 ? records.values[at + count + e] : 0);
          }
        }
        for (const std::size_t place : records.entries) {
          EXPECT_EQ(added.products[place], whole.products[place]) << n << ", " << place;
          EXPECT_EQ(added.low[place], whole.low[place]) << n << ", " << place;
        }
      }
    }
  }
}

TEST_P(CpuPassesTest, GramOfManyRowsMatches) {
  Problem problem(DType::f32, 300, {600, 3}, Data::normal, 16);
  problem.make_null(0, 4);
  problem.set(0, 299, 599, infinity);
  expect_gram(problem, gram_of(problem.table, 2));
}

TEST_P(CpuPassesTest, GramOfReferencesAloneHasTheBitsOfTheWhole) {
  test::Generator random = test::generator("references of many rows");
  const DType drawn = all_dtypes[random() % std::size(all_dtypes)];
  for (const DType dtype : all_dtypes) {
    for (const int n : {1, 2, 4, 5, 9, 33, 130}) {
      if (n > 100 && dtype != drawn) continue;  // slow
      for (const int references : {0, 1, 2}) {
        if (references >= n) continue;
        const DType reference_dtype = dtype == DType::f64 ? DType::f64 : DType::f32;
        Problem problem(dtype, n, {2 * gram_block + 77, 0, 13}, Data::normal, 18, references,
                        reference_dtype);
        if (n > 4) {
          problem.set(0, 1, gram_block + 3, infinity);
          problem.make_null(0, 3);
        }
        if (references == 2) problem.make_null(2, n - 1);
        const GramSums whole = gram_of(problem.table, 1);
        for (const int threads : {1, 3}) {
          GramSums sums;
          sums.reset(n, true, 1, false);
          CpuPasses(n, threads).gram(problem.table, sums);
          EXPECT_EQ(sums.nonfinite, whole.nonfinite);
          EXPECT_EQ(sums.max_abs, whole.max_abs);
          for (int i = 0; i < n; ++i) {
            for (int j = 0; j < n; ++j) {
              const bool is_wanted = i == j || std::max(i, j) >= n - references;
              if (whole.nonfinite[static_cast<std::size_t>(i)] +
                      whole.nonfinite[static_cast<std::size_t>(j)] >
                  0) {
                continue;
              }
              const auto at = static_cast<std::size_t>(i * n + j);
              ASSERT_EQ(sums.products[at], is_wanted ? whole.products[at] : 0) << n << ": " << i << ", " << j;
            }
          }
        }
      }
    }
  }
}

// Combine
// -------------------------------------------------------------------------------------------------------

TEST_P(CpuPassesTest, CombineMatchesLongDouble) {
  std::mt19937_64 random(21);
  for (const DType dtype : all_dtypes) {
    for (const DType out_dtype : {dtype, DType::f32}) {
      for (const int n : counts) {
        for (const Data data : {Data::normal, Data::hostile, Data::tiny}) {
          if (data != Data::normal && n != 2 && n != 17 && n != 65) continue;
          Problem problem(dtype, n, {5, 0, 131, 1, 700}, data, 22, n > 3 ? 1 : 0, DType::f64);
          if (n > 4) problem.make_null(2, n / 2);
          std::vector<double> coefficients(static_cast<std::size_t>(n));
          for (double& c : coefficients)
            c = random() % 4 == 0 ? 0 : std::uniform_real_distribution(-1.0, 1.0)(random);
          Out out(out_dtype, problem.sizes);
          std::vector<std::int64_t> nonfinite(static_cast<std::size_t>(n), 0);
          CpuPasses(n, 2).combine(problem.table, coefficients, out.table, nonfinite);
          for (std::size_t t = 0; t < problem.sizes.size(); ++t) {
            EXPECT_TRUE(out.buffers[t].guarded());
            for (std::int64_t i = 0; i < problem.sizes[t]; ++i) {
              Real want = 0, magnitude = 0;
              for (int r = 0; r < n; ++r) {
                const Real c = coefficients[static_cast<std::size_t>(r)];
                if (c == 0) continue;
                want += c * problem.value(t, r, i);
                magnitude += std::abs(c * problem.value(t, r, i));
              }
              // Sums near the end of the f64 range may overflow in an order of their own.
              if (data == Data::hostile && dtype == DType::f64 && magnitude > 1e300L) continue;
              if (n > 3 && magnitude > 1e300L) continue;  // the f64 reference row
              const Real tolerance =
                  std::isfinite(want) ? magnitude * (n + 1) * 0x1p-53L + 0x1p-1074L * n : 0;
              ASSERT_TRUE(near(out.value(t, i), want, tolerance, out_dtype))
                  << to_string(dtype) << " n " << n << " tensor " << t << " at " << i;
            }
          }
          for (int r = 0; r < n; ++r) {
            const std::size_t row = static_cast<std::size_t>(r);
            EXPECT_EQ(nonfinite[row], coefficients[row] == 0 ? 0 : problem.nonfinite(r));
          }
        }
      }
    }
  }
}

TEST_P(CpuPassesTest, OneRowIsRoundedOnceToEveryType) {
  // Around every midpoint of the 16-bit types: exactly there, and just beside it in f64.
  for (const DType dtype : {DType::f16, DType::bf16, DType::f32}) {
    std::vector<Real> values;
    std::mt19937_64 random(23);
    const verify::Format format = verify::format_of(dtype);
    for (int e = format.min_exponent - format.precision - 1; e <= format.max_exponent; ++e) {
      for (int k = 0; k < 8; ++k) {
        const Real v = rounded(std::ldexp(1 + static_cast<Real>(random() % 4096) / 4096, e), dtype);
        const Real half = v + power_of_two(std::max(e, format.min_exponent) - format.precision);
        for (const Real x : {v, half, half * (1 + 0x1p-52L), half * (1 - 0x1p-52L), half * (1 + 0x1p-30L)}) {
          values.push_back(x);
          values.push_back(-x);
        }
      }
    }
    Problem problem(DType::f64, 1, {static_cast<std::int64_t>(values.size())}, Data::normal, 1);
    for (std::size_t i = 0; i < values.size(); ++i)
      problem.set(0, 0, static_cast<std::int64_t>(i), values[i]);
    Out out(dtype, problem.sizes);
    CpuPasses(1, 1).combine(problem.table, std::array{1.0}, out.table, {});
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::int64_t at = static_cast<std::int64_t>(i);
      const Real want = rounded(problem.value(0, 0, at), dtype);
      ASSERT_EQ(out.value(0, at), want) << to_string(dtype) << ' ' << values[i];
      ASSERT_FALSE(want == 0 && std::signbit(out.value(0, at)));
    }
  }
}

TEST_P(CpuPassesTest, EverySixteenBitValueSurvives) {
  for (const DType dtype : {DType::f16, DType::bf16}) {
    Problem problem(dtype, 1, {65536}, Data::normal, 1);
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
      const std::uint16_t value = static_cast<std::uint16_t>(bits);
      std::memcpy(problem.buffers[0].data + 2 * bits, &value, 2);
    }
    Out same(dtype, problem.sizes), wide(DType::f64, problem.sizes);
    CpuPasses passes(1, 2);
    passes.combine(problem.table, std::array{1.0}, same.table, {});
    passes.combine(problem.table, std::array{1.0}, wide.table, {});
    for (std::int64_t i = 0; i < 65536; ++i) {
      const Real want = problem.value(0, 0, i);
      for (const Real got : {same.value(0, i), wide.value(0, i)}) {
        ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want))) << i;
      }
    }
  }
}

TEST_P(CpuPassesTest, CombineMayWriteOverARowAndDoesNotDependOnThreads) {
  for (const DType dtype : all_dtypes) {
    std::vector<double> coefficients(13, 1.0 / 13);
    const std::vector<std::int64_t> sizes{20001, 3};
    Out first(dtype, sizes);
    {
      const Problem problem(dtype, 13, sizes, Data::hostile, 24);
      CpuPasses(13, 1).combine(problem.table, coefficients, first.table, {});
      for (const int threads : {2, 3}) {
        Out other(dtype, sizes);
        CpuPasses(13, threads).combine(problem.table, coefficients, other.table, {});
        EXPECT_TRUE(first.same_bytes(other));
      }
    }
    for (const int row : {0, 6, 12}) {
      Problem problem(dtype, 13, sizes, Data::hostile, 24);
      std::vector<std::int64_t> nonfinite(13, 0), expected;
      for (int r = 0; r < 13; ++r) expected.push_back(problem.nonfinite(r));
      std::array<void*, 2> target{problem.buffers[problem.slot(0, row)].data,
                                  problem.buffers[problem.slot(1, row)].data};
      CpuPasses(13, 2).combine(problem.table, coefficients, {dtype, target.data()}, nonfinite);
      EXPECT_EQ(nonfinite, expected);
      for (std::size_t t = 0; t < 2; ++t) {
        EXPECT_EQ(std::memcmp(target[t], first.buffers[t].data,
                              static_cast<std::size_t>(sizes[t]) * size_of(dtype)),
                  0);
      }
    }
  }
}

TEST_P(CpuPassesTest, FillWritesZerosAndNaN) {
  for (const DType dtype : all_dtypes) {
    Out out(dtype, odd_sizes);
    CpuPasses::fill(odd_sizes, out.table, std::numeric_limits<double>::quiet_NaN());
    for (std::int64_t i = 0; i < 131; ++i) EXPECT_TRUE(std::isnan(out.value(2, i)));
    CpuPasses::fill(odd_sizes, out.table, 0);
    for (std::int64_t i = 0; i < 131; ++i) EXPECT_EQ(out.value(2, i), 0);
    for (const Buffer& buffer : out.buffers) EXPECT_TRUE(buffer.guarded());
  }
}

// Select
// --------------------------------------------------------------------------------------------------------

using Kind = SelectRule::Kind;

struct Answer {
  std::vector<Real> any_of;  // near-ties of distances leave more than one right answer
  Real tolerance = 0;
};

Real midpoint(Real low, Real high) { return std::isinf(low) ? low : (low + high) / 2; }

Real mean_of(const std::vector<Real>& sorted) {
  if (std::isinf(sorted.front())) return sorted.front();
  if (std::isinf(sorted.back())) return sorted.back();
  Real sum = 0;
  for (const Real v : sorted) sum += v / static_cast<Real>(sorted.size());
  return sum;
}

Real largest_of(const std::vector<Real>& values) {
  Real most = 0;
  for (const Real v : values) {
    if (std::isfinite(v)) most = std::max(most, std::abs(v));
  }
  return most;
}

// NaN read as +inf, ascending.
std::vector<Real> in_order(std::vector<Real> values) {
  for (Real& v : values) {
    if (std::isnan(v)) v = infinity;
  }
  std::sort(values.begin(), values.end());
  return values;
}

/// `values` in order.
Answer answer_of(const SelectRule& rule, const std::vector<Real>& values) {
  const std::size_t n = values.size();
  const Real lower = values[(n - 1) / 2], upper = values[n / 2];
  const std::size_t f = static_cast<std::size_t>(rule.f);
  if (rule.kind == Kind::median) {
    if (rule.even == EvenMedian::lower) return {{lower}, 0};
    if (rule.even == EvenMedian::upper) return {{upper}, 0};
    return {{midpoint(lower, upper)}, 0};
  }
  const std::vector<Real> kept(values.begin() + static_cast<std::ptrdiff_t>(f),
                               values.end() - static_cast<std::ptrdiff_t>(f));
  const Real error = static_cast<Real>(n + 2) * 0x1p-53L;
  if (rule.kind == Kind::trimmed_mean) return {{mean_of(kept)}, error * largest_of(kept)};
  const bool about_median = rule.kind == Kind::closest_to_median;
  const Real centre = about_median ? midpoint(lower, upper) : mean_of(kept);
  if (std::isinf(centre)) return {{centre}, 0};
  // The closest form a window: from window j the next is better while its new value is closer than the one it
  // drops. Differences that rounding of the centre or of a distance can turn leave a choice.
  const std::size_t keep = static_cast<std::size_t>(rule.keep);
  const auto gain = [&](std::size_t j) { return (centre - values[j]) - (values[j + keep] - centre); };
  const auto slack = [&](std::size_t j) {
    return error * (std::abs(centre) + largest_of(kept) + largest_of({values[j], values[j + keep]})) +
           0x1p-1073L;
  };
  Answer answer;
  for (std::size_t j = 0; j + keep <= n; ++j) {
    if (j > 0 && !(gain(j - 1) > -slack(j - 1))) continue;
    if (j + keep < n && gain(j) > slack(j)) continue;
    const std::vector<Real> window(values.begin() + static_cast<std::ptrdiff_t>(j),
                                   values.begin() + static_cast<std::ptrdiff_t>(j + keep));
    answer.any_of.push_back(mean_of(window));
    answer.tolerance = std::max(answer.tolerance, error * largest_of(window));
  }
  return answer;
}

testing::AssertionResult matches(Real got, const Answer& answer, DType dtype) {
  testing::AssertionResult result = testing::AssertionFailure() << "no answer";
  for (const Real want : answer.any_of) {
    result = near(got, want, answer.tolerance, dtype);
    if (result) break;
  }
  return result;
}

std::vector<SelectRule> rules_for(int n) {
  std::vector<SelectRule> rules;
  for (const EvenMedian even : {EvenMedian::midpoint, EvenMedian::lower, EvenMedian::upper}) {
    rules.push_back({Kind::median, even, 0, 0});
  }
  for (const int f : {0, 1, n / 5, (n - 1) / 2}) {
    if (2 * f >= n) continue;
    rules.push_back({Kind::trimmed_mean, EvenMedian::midpoint, f, 0});
    rules.push_back({Kind::closest_to_median, EvenMedian::midpoint, 0, n - f});
    rules.push_back({Kind::closest_to_trimmed_mean, EvenMedian::midpoint, f, n - f});
  }
  if (n > 4) rules.push_back({Kind::closest_to_median, EvenMedian::midpoint, 0, 2});
  return rules;
}

std::vector<int> all_rows(int n) {
  std::vector<int> rows(static_cast<std::size_t>(n));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

PointTable plain_points(const std::vector<int>& rows) {
  PointTable points;
  points.count = static_cast<int>(rows.size());
  points.rows = rows;
  return points;
}

void expect_select(DType dtype, int n, Data data, const std::vector<std::int64_t>& sizes = {5, 0, 137, 1}) {
  Problem problem(dtype, n, sizes, data, 31);
  if (n > 4 && sizes.size() > 2) problem.make_null(2, n / 2);
  std::vector<std::vector<std::vector<Real>>> values(problem.sizes.size());
  std::vector<std::int64_t> expected_nonfinite;
  for (std::size_t t = 0; t < problem.sizes.size(); ++t) {
    for (std::int64_t i = 0; i < problem.sizes[t]; ++i) {
      std::vector<Real> column;
      for (int r = 0; r < n; ++r) column.push_back(problem.value(t, r, i));
      values[t].push_back(in_order(column));
    }
  }
  for (int r = 0; r < n; ++r) expected_nonfinite.push_back(problem.nonfinite(r));
  const std::vector<int> rows = all_rows(n);
  CpuPasses passes(n, 2);
  for (const SelectRule& rule : rules_for(n)) {
    const DType out_dtype = dtype == DType::f16 && n % 2 == 1 ? DType::f32 : dtype;
    Out out(out_dtype, problem.sizes);
    std::vector<std::int64_t> nonfinite(static_cast<std::size_t>(n), 0);
    passes.select(problem.table, rule, plain_points(rows), out.table, nonfinite);
    SCOPED_TRACE(testing::Message() << to_string(dtype) << " n " << n << " data " << static_cast<int>(data)
                                    << " kind " << static_cast<int>(rule.kind) << " f " << rule.f << " keep "
                                    << rule.keep);
    EXPECT_EQ(nonfinite, expected_nonfinite);
    for (std::size_t t = 0; t < problem.sizes.size(); ++t) {
      EXPECT_TRUE(out.buffers[t].guarded());
      for (std::int64_t i = 0; i < problem.sizes[t]; ++i) {
        const Answer answer = answer_of(rule, values[t][static_cast<std::size_t>(i)]);
        ASSERT_TRUE(matches(out.value(t, i), answer, out_dtype)) << "tensor " << t << " at " << i;
      }
    }
  }
}

TEST_P(CpuPassesTest, SelectMatchesLongDouble) {
  for (const DType dtype : all_dtypes) {
    for (const int n : counts) ASSERT_NO_FATAL_FAILURE(expect_select(dtype, n, Data::normal));
    for (const int n : {1, 4, 17, 65}) {
      for (const Data data : {Data::hostile, Data::huge, Data::tiny}) {
        ASSERT_NO_FATAL_FAILURE(expect_select(dtype, n, data));
      }
    }
  }
}

TEST_P(CpuPassesTest, EveryNumberOfPointsThatTwoChunksHoldIsSelectedFrom) {
  for (const DType dtype : all_dtypes) {
    for (int n = 65; n <= 128; ++n) {
      for (const Data data : {Data::normal, Data::hostile}) {
        ASSERT_NO_FATAL_FAILURE(expect_select(dtype, n, data, {33}));
      }
    }
  }
}

/// o, and a step up or down from it as more weight lies above or below: one sum of f64, rounded once.
Real vote_of(const std::vector<Real>& values, const std::vector<std::uint8_t>& infinite,
             const std::vector<double>& weights, Real o, double step) {
  double up = 0;
  double down = 0;
  for (std::size_t p = 0; p < values.size(); ++p) {
    if (!infinite.empty() && infinite[p] != 0) continue;
    const double weight = weights.empty() ? 1 : weights[p];
    const Real x = std::isnan(values[p]) ? infinity : values[p];
    if (x > o) up += weight;
    if (x < o) down += weight;
  }
  const auto from = static_cast<double>(o);
  if (std::abs(up - down) <= 1e-12 * (up + down)) return from;
  return up > down ? from + step : from - step;
}

void expect_votes(DType dtype, DType reference, int n, Data data) {
  constexpr double step = 0.375;
  Problem problem(dtype, n + 1, {5, 0, 300, 1}, data, 37, 1, reference);
  problem.make_null(2, n);  // the origin
  std::mt19937_64 random(38);
  std::vector<double> shares;
  std::vector<std::uint8_t> marks;
  for (int p = 0; p < n; ++p) {
    shares.push_back(static_cast<double>(random() % 4) / 8);
    marks.push_back(random() % 5 == 0);
    // Draws, and values at o.
    for (std::int64_t i = 0; i < 5; ++i) problem.set(0, p, i, problem.value(0, n, i));
  }
  const std::vector<int> rows = all_rows(n);
  for (const bool weighted : {false, true}) {
    for (const bool marked : {false, true}) {
      const std::vector<double> weights = weighted ? shares : std::vector<double>();
      const std::vector<std::uint8_t> infinite = marked ? marks : std::vector<std::uint8_t>();
      PointTable points = plain_points(rows);
      points.origin = n;
      points.weights = weights;
      points.infinite = infinite;
      Out out(dtype, problem.sizes);
      std::vector<std::int64_t> nonfinite(static_cast<std::size_t>(n + 1), 0);
      CpuPasses(n + 1, 2).select(problem.table, {.kind = Kind::sign_vote, .step = step}, points, out.table,
                                 nonfinite);
      SCOPED_TRACE(testing::Message()
                   << to_string(dtype) << " about " << to_string(reference) << " n " << n << " data "
                   << static_cast<int>(data) << (weighted ? " weighted" : "") << (marked ? " marked" : ""));
      for (int r = 0; r < n; ++r) EXPECT_EQ(nonfinite[static_cast<std::size_t>(r)], problem.nonfinite(r));
      for (std::size_t t = 0; t < problem.sizes.size(); ++t) {
        EXPECT_TRUE(out.buffers[t].guarded());
        for (std::int64_t i = 0; i < problem.sizes[t]; ++i) {
          std::vector<Real> values;
          for (int r = 0; r < n; ++r) values.push_back(problem.value(t, r, i));
          const Real want = vote_of(values, infinite, weights, problem.value(t, n, i), step);
          const Real got = out.value(t, i);
          if (std::isnan(want)) {
            ASSERT_TRUE(std::isnan(got)) << "tensor " << t << " at " << i;
          } else {
            ASSERT_TRUE(near(got, want, 0, dtype)) << "tensor " << t << " at " << i;
          }
        }
      }
    }
  }
}

TEST_P(CpuPassesTest, VotesAreThoseOfTheRowsAboutO) {
  for (const DType dtype : all_dtypes) {
    for (const DType reference : {dtype, DType::f64}) {
      for (const int n : {1, 2, 5, 16, 65}) {
        for (const Data data : {Data::normal, Data::hostile, Data::tiny})
          ASSERT_NO_FATAL_FAILURE(expect_votes(dtype, reference, n, data));
      }
    }
  }
}

TEST_P(CpuPassesTest, EqualDistancesKeepTheSmallerValue) {
  for (const DType dtype : all_dtypes) {
    Problem problem(dtype, 5, {40}, Data::normal, 1);
    const std::array<Real, 5> values{4, -1, 0, 1, -4};
    for (std::int64_t i = 0; i < 40; ++i) {
      for (int r = 0; r < 5; ++r) problem.set(0, r, i, values[static_cast<std::size_t>((r + i) % 5)]);
    }
    const std::vector<int> rows = all_rows(5);
    for (const auto& [kind, f] :
         {std::pair{Kind::closest_to_median, 0}, std::pair{Kind::closest_to_trimmed_mean, 1}}) {
      for (const auto& [keep, want] : {std::pair{2, -0.5}, std::pair{4, -1.0}, std::pair{3, 0.0}}) {
        Out out(dtype, problem.sizes);
        CpuPasses(5, 1).select(problem.table, {kind, EvenMedian::midpoint, f, keep}, plain_points(rows),
                               out.table, {});
        for (std::int64_t i = 0; i < 40; ++i) ASSERT_EQ(out.value(0, i), want) << keep;
      }
    }
  }
}

TEST_P(CpuPassesTest, MedianEqualsStdMidpoint) {
  std::mt19937_64 random(32);
  Problem narrow(DType::f32, 2, {4096}, Data::normal, 1), wide(DType::f64, 2, {4096}, Data::normal, 1);
  for (std::int64_t i = 0; i < 4096; ++i) {
    for (int r = 0; r < 2; ++r) {
      // Any finite bits: exponents from the largest to denormal.
      float x = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
      double y = std::bit_cast<double>(random());
      if (i % 3 == 0) y = std::ldexp(y, -2100), x = std::ldexp(x, -250);
      narrow.set(0, r, i, std::isfinite(x) ? x : 1);
      wide.set(0, r, i, std::isfinite(y) ? y : 1);
    }
  }
  const std::vector<int> rows = all_rows(2);
  Out narrow_out(DType::f32, narrow.sizes), wide_out(DType::f64, wide.sizes);
  CpuPasses passes(2, 1);
  passes.select(narrow.table, {}, plain_points(rows), narrow_out.table, {});
  passes.select(wide.table, {}, plain_points(rows), wide_out.table, {});
  for (std::int64_t i = 0; i < 4096; ++i) {
    ASSERT_EQ(narrow_out.value(0, i), std::midpoint(static_cast<float>(narrow.value(0, 0, i)),
                                                    static_cast<float>(narrow.value(0, 1, i))));
    ASSERT_EQ(wide_out.value(0, i), std::midpoint(static_cast<double>(wide.value(0, 0, i)),
                                                  static_cast<double>(wide.value(0, 1, i))));
  }
}

TEST_P(CpuPassesTest, MidpointsAndMeansHaveTheBitsOfTheScalarOnes) {
  std::mt19937_64 random(40);
  constexpr int n = 8;
  constexpr std::int64_t columns = 2048;
  Problem problem(DType::f64, n, {columns}, Data::normal, 1);
  for (std::int64_t i = 0; i < columns; ++i) {
    for (int r = 0; r < n; ++r) {
      // A third of the columns is of values whose sums overflow, a third has infinities and NaN.
      double y =
          std::ldexp(std::uniform_real_distribution(-1.0, 1.0)(random),
                     i % 3 == 1 ? 1024 - static_cast<int>(random() % 30) : static_cast<int>(random() % 20));
      if (i % 3 == 2 && random() % 8 == 0) y *= std::numeric_limits<double>::infinity();
      problem.set(0, r, i, i % 3 == 2 && random() % 8 == 0 ? std::numeric_limits<double>::quiet_NaN() : y);
    }
  }
  const std::vector<int> rows = all_rows(n);
  for (const int f : {0, 2, 3}) {
    Out median(DType::f64, problem.sizes), mean(DType::f64, problem.sizes);
    CpuPasses(n, 1).select(problem.table, {}, plain_points(rows), median.table, {});
    CpuPasses(n, 1).select(problem.table, {Kind::trimmed_mean, EvenMedian::midpoint, f, 0},
                           plain_points(rows), mean.table, {});
    for (std::int64_t i = 0; i < columns; ++i) {
      std::vector<double> y;
      for (int r = 0; r < n; ++r) {
        const auto v = static_cast<double>(problem.value(0, r, i));
        y.push_back(std::isnan(v) ? std::numeric_limits<double>::infinity() : v);
      }
      std::sort(y.begin(), y.end());
      const double low = y[static_cast<std::size_t>(f)], high = y[static_cast<std::size_t>(n - 1 - f)];
      double sum = 0, shrunk = 0;
      for (int k = f; k < n - f; ++k) {
        sum += y[static_cast<std::size_t>(k)];
        shrunk = std::fma(y[static_cast<std::size_t>(k)], shrink, shrunk);
      }
      ASSERT_EQ(mean.value(0, i), is_large<double>(low, high)
                                      ? finish_shrunk_mean(shrunk, n - 2 * f, low, high)
                                      : finish_mean(sum, n - 2 * f, low, high))
          << "f " << f << " column " << i;
      ASSERT_EQ(median.value(0, i), detail::midpoint(y[n / 2 - 1], y[n / 2])) << "column " << i;
    }
  }
}

TEST_P(CpuPassesTest, SelectMayWriteOverARowAndDoesNotDependOnThreads) {
  for (const DType dtype : all_dtypes) {
    for (const bool mixed : {false, true}) {
      const std::vector<int> rows = all_rows(9);
      std::vector<double> mix(9 * 9);
      for (std::size_t p = 0; p < 9; ++p) {
        for (std::size_t k = 0; k < 6; ++k) mix[9 * p + (p + k) % 9] = 1.0 / 6;
      }
      PointTable points = plain_points(rows);
      if (mixed) points.mix = mix;
      const SelectRule rule{Kind::trimmed_mean, EvenMedian::midpoint, 2, 0};
      const std::vector<std::int64_t> sizes{20001, 3};
      Out first(dtype, sizes);
      {
        const Problem problem(dtype, 9, sizes, Data::hostile, 33);
        CpuPasses(9, 1).select(problem.table, rule, points, first.table, {});
        for (const int threads : {2, 3}) {
          Out other(dtype, sizes);
          CpuPasses(9, threads).select(problem.table, rule, points, other.table, {});
          EXPECT_TRUE(first.same_bytes(other));
        }
      }
      for (const int row : {0, 8}) {
        Problem problem(dtype, 9, sizes, Data::hostile, 33);
        std::vector<std::int64_t> nonfinite(9, 0), expected;
        for (int r = 0; r < 9; ++r) expected.push_back(mixed ? 0 : problem.nonfinite(r));
        std::array<void*, 2> target{problem.buffers[problem.slot(0, row)].data,
                                    problem.buffers[problem.slot(1, row)].data};
        CpuPasses(9, 2).select(problem.table, rule, points, {dtype, target.data()}, nonfinite);
        EXPECT_EQ(nonfinite, expected);
        for (std::size_t t = 0; t < 2; ++t) {
          EXPECT_EQ(std::memcmp(target[t], first.buffers[t].data,
                                static_cast<std::size_t>(sizes[t]) * size_of(dtype)),
                    0);
        }
      }
    }
  }
}

enum class Mixing {
  any,
  equal,  ///< a point's coefficients are all the same, which are mixed by sums of subsets
  few,    ///< a point is made of its own row, and now and then of the reference
};

void expect_mixed(Mixing mixing) {
  std::mt19937_64 random(34);
  const bool equal = mixing == Mixing::equal;
  for (const DType dtype : all_dtypes) {
    for (const int n : {1, 2, 5, 8, 12, 17, 33, 70, 130, 300}) {
      Problem problem(dtype, n + 1, odd_sizes, Data::normal, 35, 1,
                      dtype == DType::f64 || equal ? dtype : DType::f32);
      if (n > 4) problem.make_null(2, n);
      const int bad = n > 4 ? n / 2 : -1;  // a row without a coefficient, which must not be seen
      if (bad >= 0) {
        problem.set(2, bad, 130, std::numeric_limits<Real>::quiet_NaN());
        problem.set(4, bad, 0, infinity);
      }
      const auto rows = static_cast<std::size_t>(n) + 1;
      std::vector<double> mix(static_cast<std::size_t>(n) * rows);
      std::vector<std::uint8_t> infinite;
      const auto draw_coefficient = [&] { return std::uniform_real_distribution(0.0, 1.0)(random); };
      for (int p = 0; p < n; ++p) {
        const bool is_infinite = n > 4 && p == 1;
        infinite.push_back(is_infinite);
        const double same = draw_coefficient();
        double* const coefficients = mix.data() + static_cast<std::size_t>(p) * rows;
        for (int r = n; r >= 0 && !is_infinite; --r) {
          if (r == bad || (r != p && random() % 3 == 0)) continue;
          if (r == p && p == bad) continue;
          if (mixing == Mixing::few && r != p && (r != n || p % 2 == 0)) continue;
          coefficients[r] = equal ? same : draw_coefficient();
        }
      }
      PointTable points;
      points.count = n;
      points.mix = mix;
      points.infinite = infinite;
      const int f = n / 4;
      Out out(dtype, problem.sizes);
      CpuPasses(n + 1, 2).select(problem.table, {Kind::trimmed_mean, EvenMedian::midpoint, f, 0}, points,
                                 out.table, {});
      for (std::size_t t = 0; t < problem.sizes.size(); ++t) {
        EXPECT_TRUE(out.buffers[t].guarded());
        for (std::int64_t i = 0; i < problem.sizes[t]; ++i) {
          std::vector<Real> values;
          Real most = 0;
          for (int p = 0; p < n; ++p) {
            Real v = 0;
            for (int r = 0; r <= n; ++r) {
              const double c = mix[static_cast<std::size_t>(p) * rows + static_cast<std::size_t>(r)];
              if (c != 0) v += static_cast<Real>(c) * problem.value(t, r, i);
            }
            values.push_back(infinite[static_cast<std::size_t>(p)] != 0 ? infinity : v);
            most = std::max(most, std::abs(v));
          }
          std::sort(values.begin(), values.end());
          const std::vector<Real> kept(values.begin() + f, values.end() - f);
          // A point is rounded to f32 (f64 inputs: f64) before it is sorted.
          const Real error = (dtype == DType::f64 ? 0x1p-50L * n : 0x1p-24L) * most;
          ASSERT_TRUE(near(out.value(t, i), mean_of(kept), error, dtype)) << to_string(dtype) << " n " << n;
        }
      }
    }
  }
}

TEST_P(CpuPassesTest, MixedPointsMatchLongDouble) { expect_mixed(Mixing::any); }
TEST_P(CpuPassesTest, MixedPointsOfEqualCoefficientsMatchLongDouble) { expect_mixed(Mixing::equal); }
TEST_P(CpuPassesTest, MixedPointsOfFewRowsMatchLongDouble) { expect_mixed(Mixing::few); }

TEST_P(CpuPassesTest, AFiniteCombinationNeverBecomesInfinite) {
  Problem problem(DType::f32, 2, {40}, Data::normal, 36);
  for (std::int64_t i = 0; i < 40; ++i) {
    for (int r = 0; r < 2; ++r)
      problem.set(0, r, i,
                  i % 2 == 0 ? std::numeric_limits<float>::max() : -std::numeric_limits<float>::max());
  }
  const std::vector<double> mix{0.6, 0.6};
  PointTable points;
  points.count = 1;
  points.mix = mix;
  Out out(DType::f32, problem.sizes);
  CpuPasses(2, 1).select(problem.table, {}, points, out.table, {});
  for (std::int64_t i = 0; i < 40; ++i) {
    EXPECT_EQ(out.value(0, i), (i % 2 == 0 ? 1 : -1) * static_cast<Real>(std::numeric_limits<float>::max()));
  }
}

// Points of equal shares, bit for bit: sums of four rows, added in order. More groups than one block has.
TEST_P(CpuPassesTest, EqualSharesAreSumsOfSumsOfFourRows) {
  constexpr int n = 37;
  constexpr std::int64_t length = 131;
  for (const int points_count : {4, 7, 21}) {
    for (const Data data : {Data::normal, Data::huge}) {
      // A share of 1/rows is a mean. A share of 1 is not, and of huge rows neither f32 nor a test of rows
      // tells whether it fits; nor are they finite where the third row is not.
      for (const int kind : {0, 1, 2}) {
        Problem problem(DType::f32, n, {length}, data, 43);
        if (kind == 2) {
          for (std::int64_t i = 5; i < length; i += 40)
            problem.set(0, 2, i, i % 2 == 0 ? infinity : -infinity);
        }
        std::mt19937_64 random(44);
        std::vector<double> mix(static_cast<std::size_t>(points_count * n), 0.0);
        for (int p = 0; p < points_count; ++p) {
          std::vector<int> kept;
          for (int r = 0; r < n; ++r) {
            if (r == p || random() % 4 != 0) kept.push_back(r);
          }
          for (const int r : kept) {
            mix[static_cast<std::size_t>(p * n + r)] = kind == 1 ? 1 : 1 / static_cast<double>(kept.size());
          }
        }
        PointTable points;
        points.count = points_count;
        points.mix = mix;
        std::vector<Buffer> buffers;
        std::vector<void*> targets;
        for (int p = 0; p < points_count; ++p) buffers.emplace_back(length * sizeof(float), 3);
        for (Buffer& buffer : buffers) targets.push_back(buffer.data);
        CpuPasses(n, 1).select(problem.table, {Kind::none}, points, {DType::f32, targets.data(), 1}, {});
        for (int p = 0; p < points_count; ++p) {
          const double* const c = mix.data() + p * n;
          for (std::int64_t i = 0; i < length; ++i) {
            const auto x = [&](int r) {
              return r < n && c[r] != 0 ? static_cast<double>(problem.value(0, r, i)) : 0.0;
            };
            double sum = 0;
            for (int r = 0; r < n; r += 4) sum += (x(r) + x(r + 1)) + (x(r + 2) + x(r + 3));
            sum *= *std::max_element(c, c + n);
            constexpr double most = std::numeric_limits<float>::max();
            if (std::isfinite(sum)) sum = std::clamp(sum, -most, most);
            const Real got = decode(buffers[static_cast<std::size_t>(p)].data + i * 4, DType::f32);
            ASSERT_EQ(got, static_cast<float>(sum)) << points_count << " kind " << kind << " at " << i;
          }
          EXPECT_TRUE(buffers[static_cast<std::size_t>(p)].guarded());
        }
      }
    }
  }
}

// The mean is the quotient of two f64, rounded once: which f64 shows.
TEST_P(CpuPassesTest, TrimmedMeansAreQuotientsRoundedOnce) {
  constexpr std::int64_t length = 500;
  for (const int n : {3, 7, 11, 16, 31, 49, 100}) {
    for (const Data data : {Data::normal, Data::hostile, Data::huge, Data::tiny}) {
      const Problem problem(DType::f32, n, {length}, data, 45);
      const int f = n / 7;
      const std::vector<int> rows = all_rows(n);
      Out out(DType::f64, problem.sizes);
      CpuPasses(n, 1).select(problem.table, {Kind::trimmed_mean, EvenMedian::midpoint, f, 0},
                             plain_points(rows), out.table, {});
      for (std::int64_t i = 0; i < length; ++i) {
        std::vector<double> values;
        for (int r = 0; r < n; ++r) {
          const auto v = static_cast<double>(problem.value(0, r, i));
          values.push_back(std::isnan(v) ? static_cast<double>(infinity) : v);
        }
        std::sort(values.begin(), values.end());
        const double sum = std::accumulate(values.begin() + f, values.end() - f, 0.0);
        const auto last = static_cast<std::size_t>(n - 1 - f);
        const double mean = finish_mean(sum, n - 2 * f, values[static_cast<std::size_t>(f)], values[last]);
        ASSERT_EQ(out.value(0, i), mean) << n << " at " << i;
      }
    }
  }
}

TEST_P(CpuPassesTest, InfinitePointsReadAsInfinityAndAreStillCounted) {
  Problem problem(DType::f32, 3, {50}, Data::normal, 37);
  problem.set(0, 0, 7, std::numeric_limits<Real>::quiet_NaN());
  const std::vector<int> rows = all_rows(3);
  const std::vector<std::uint8_t> infinite{1, 0, 0};
  PointTable points = plain_points(rows);
  points.infinite = infinite;
  Out out(DType::f32, problem.sizes);
  std::vector<std::int64_t> nonfinite(3, 0);
  CpuPasses(3, 1).select(problem.table, {}, points, out.table, nonfinite);
  for (std::int64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(out.value(0, i), std::max(problem.value(0, 1, i), problem.value(0, 2, i)));
  }
  EXPECT_EQ(nonfinite, (std::vector<std::int64_t>{1, 0, 0}));
}

TEST_P(CpuPassesTest, WeightedRulesMatchTheirDefinition) {
  std::mt19937_64 random(38);
  for (const DType dtype : {DType::f32, DType::f64, DType::f16}) {
    for (const int n : {1, 2, 5, 8, 17, 33}) {
      for (const Data data : {Data::normal, Data::hostile}) {
        const Problem problem(dtype, n, odd_sizes, data, 39);
        const std::vector<int> rows = all_rows(n);
        std::vector<double> weights;
        // Small integers: halves of the total are met exactly.
        for (int r = 0; r < n; ++r) weights.push_back(static_cast<double>(random() % 4));
        weights[0] = 1;
        const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
        PointTable points = plain_points(rows);
        points.weights = weights;
        const int f = (n - 1) / 3;
        for (const SelectRule& rule : {SelectRule{Kind::median, EvenMedian::midpoint, 0, 0},
                                       SelectRule{Kind::median, EvenMedian::lower, 0, 0},
                                       SelectRule{Kind::median, EvenMedian::upper, 0, 0},
                                       SelectRule{Kind::trimmed_mean, EvenMedian::midpoint, f, 0}}) {
          Out out(dtype, problem.sizes);
          CpuPasses(n, 2).select(problem.table, rule, points, out.table, {});
          for (std::size_t t = 0; t < problem.sizes.size(); ++t) {
            for (std::int64_t i = 0; i < problem.sizes[t]; ++i) {
              std::vector<std::pair<Real, int>> sorted;
              for (int r = 0; r < n; ++r) {
                const Real v = problem.value(t, r, i);
                sorted.emplace_back(std::isnan(v) ? infinity : v, r);
              }
              std::sort(sorted.begin(), sorted.end());
              Real want = 0, tolerance = 0;
              if (rule.kind == Kind::median) {
                // Each row as often as it weighs.
                std::vector<Real> repeated;
                for (const auto& [v, r] : sorted)
                  repeated.insert(repeated.end(),
                                  static_cast<std::size_t>(weights[static_cast<std::size_t>(r)]), v);
                want = answer_of(rule, repeated).any_of[0];
                ASSERT_EQ(repeated.size(), static_cast<std::size_t>(total));
              } else {
                std::vector<Real> kept;
                Real sum = 0, share = 0;
                for (int k = f; k < n - f; ++k)
                  share += weights[static_cast<std::size_t>(sorted[static_cast<std::size_t>(k)].second)];
                for (int k = f; k < n - f; ++k) {
                  const auto& [v, r] = sorted[static_cast<std::size_t>(k)];
                  const Real w =
                      share > 0 ? weights[static_cast<std::size_t>(r)] / share : Real{1} / (n - 2 * f);
                  if (w == 0) continue;
                  kept.push_back(v);
                  sum += w * v;
                }
                want = std::isinf(kept.front()) ? kept.front() : sum;
                tolerance = (n + 4) * 0x1p-52L * largest_of(kept);
                if (!std::isfinite(want)) tolerance = 0;
              }
              ASSERT_TRUE(near(out.value(t, i), want, tolerance, dtype))
                  << to_string(dtype) << " n " << n << " at " << i;
            }
          }
        }
      }
    }
  }
}

TEST_P(CpuPassesTest, ThousandsOfPointsAreSorted) {
  const Problem problem(DType::f32, 1500, {21}, Data::hostile, 40);
  const std::vector<int> rows = all_rows(1500);
  for (const SelectRule& rule :
       {SelectRule{}, SelectRule{Kind::trimmed_mean, EvenMedian::midpoint, 600, 0}}) {
    Out out(DType::f32, problem.sizes);
    CpuPasses(1500, 2).select(problem.table, rule, plain_points(rows), out.table, {});
    for (std::int64_t i = 0; i < 21; ++i) {
      std::vector<Real> values;
      for (int r = 0; r < 1500; ++r) values.push_back(problem.value(0, r, i));
      ASSERT_TRUE(matches(out.value(0, i), answer_of(rule, in_order(values)), DType::f32)) << i;
    }
  }
}

/// Rules that read one or two ranks, first and last ones too.
std::vector<SelectRule> rank_rules_for(int n) {
  std::vector<SelectRule> rules;
  for (const EvenMedian even : {EvenMedian::midpoint, EvenMedian::lower, EvenMedian::upper}) {
    rules.push_back({Kind::median, even, 0, 0});
  }
  for (const int f : {0, 1, n / 5, (n - 1) / 2})
    rules.push_back({Kind::trimmed_mean, EvenMedian::midpoint, f, 0});
  return rules;
}

/// Columns that are hard for a search by digits, one kind after another.
void make_hard(Problem& problem, std::mt19937_64& random) {
  const verify::Format format = verify::format_of(problem.dtype);
  const Real largest = verify::largest(problem.dtype);
  const Real smallest = verify::spacing(problem.dtype, 0);
  const int n = problem.n;
  for (std::int64_t i = 0; i < problem.sizes[0]; ++i) {
    const Real base =
        rounded(static_cast<Real>(std::uniform_real_distribution(-2.0, 2.0)(random)), problem.dtype);
    const Real step = power_of_two(std::ilogb(base) - format.precision + 1);
    for (int r = 0; r < n; ++r) {
      const auto below = [&](int bound) { return static_cast<int>(random() % static_cast<unsigned>(bound)); };
      Real v = base;  // kind 0: all equal
      switch (i % 12) {
        case 1:  // two values, neighbours
          v += step * below(2);
          break;
        case 2:  // last digits that carry into those before
          v = power_of_two(below(3) - 1) + (below(3) - 1) * power_of_two(-format.precision);
          break;
        case 3:  // within a few digits of each other
          v += step * below(600);
          break;
        case 4:  // denormals on both sides of zero
          v = smallest * (below(600) - 300);
          break;
        case 5:
          v = below(2) == 0 ? 0.0L : -0.0L;
          break;
        case 6:  // zeros among denormals
          v = below(3) == 0 ? smallest * (below(3) - 1) : below(2) == 0 ? 0.0L : -0.0L;
          break;
        case 7:  // as large as can be, so that sums of f64 overflow
          v = largest * (below(5) == 0 ? 0.5L : 1) * (below(3) == 0 ? -1 : 1);
          break;
        case 8:  // a minority that is not finite
          v = below(5) == 0 ? infinity : below(5) == 0 ? -infinity : v + step * below(9);
          break;
        case 9:  // a majority that is not
          v = below(3) == 0 ? std::numeric_limits<Real>::quiet_NaN() : below(2) == 0 ? infinity : v;
          break;
        case 10:
          v = below(2) == 0 ? -infinity : infinity;
          break;
        case 11:  // any size
          v = std::ldexp(base, below(format.max_exponent - format.min_exponent) + format.min_exponent);
          break;
        default:
          break;
      }
      problem.set(0, r, i, rounded(v, problem.dtype));
      if (v == 0 && std::signbit(v)) {
        unsigned char* const bytes = problem.buffers[problem.slot(0, r)].data;
        const auto size = static_cast<std::int64_t>(size_of(problem.dtype));
        bytes[(i + 1) * size - 1] = 0x80;  // −0
      }
    }
  }
}

TEST_P(CpuPassesTest, RanksOfManyPointsMatchSorting) {
  test::Generator random = test::generator("ranks of many points");
  const DType drawn = all_dtypes[random() % std::size(all_dtypes)];
  for (const DType dtype : all_dtypes) {
    for (const int n : {129, 200, 256, 500, 1024, 4096}) {
      if (n > 1000 && dtype != drawn) continue;  // slow
      Problem problem(dtype, n, {n > 1000 ? 77 : 331, 3}, Data::hostile, random());
      make_hard(problem, random);
      if (n > 200) problem.make_null(1, n / 3);
      const std::vector<int> rows = all_rows(n);
      std::vector<std::vector<std::vector<Real>>> sorted(2);
      for (std::size_t t = 0; t < 2; ++t) {
        for (std::int64_t i = 0; i < problem.sizes[t]; ++i) {
          std::vector<Real> values;
          for (int r = 0; r < n; ++r) values.push_back(problem.value(t, r, i));
          sorted[t].push_back(in_order(values));
        }
      }
      std::vector<std::int64_t> expected_nonfinite;
      for (int r = 0; r < n; ++r) expected_nonfinite.push_back(problem.nonfinite(r));
      CpuPasses passes(n, 2);
      for (const SelectRule& rule : rank_rules_for(n)) {
        SCOPED_TRACE(testing::Message()
                     << to_string(dtype) << " n " << n << " kind " << static_cast<int>(rule.kind) << " even "
                     << static_cast<int>(rule.even) << " f " << rule.f);
        Out out(dtype, problem.sizes);
        std::vector<std::int64_t> nonfinite(static_cast<std::size_t>(n), 0);
        passes.select(problem.table, rule, plain_points(rows), out.table, nonfinite);
        EXPECT_EQ(nonfinite, expected_nonfinite);
        for (std::size_t t = 0; t < 2; ++t) {
          EXPECT_TRUE(out.buffers[t].guarded());
          for (std::int64_t i = 0; i < problem.sizes[t]; ++i) {
            const Answer answer = answer_of(rule, sorted[t][static_cast<std::size_t>(i)]);
            ASSERT_TRUE(matches(out.value(t, i), answer, dtype)) << "tensor " << t << " at " << i;
          }
        }
      }
    }
  }
}

TEST_P(CpuPassesTest, ManyPointsGiveTheSameBitsForAnyThreadsAndWindowsAndOverARow) {
  constexpr int n = 150;
  constexpr std::int64_t length = 17001;  // more than threads take at a time
  constexpr std::int64_t border = 401;    // windows whose blocks of columns lie elsewhere
  const std::vector<std::int64_t> sizes{length};
  const std::vector<int> rows = all_rows(n);
  const auto points = plain_points(rows);
  for (const DType dtype : {DType::f32, DType::f16, DType::f64}) {
    const auto size = static_cast<std::int64_t>(size_of(dtype));
    Problem problem(dtype, n, sizes, Data::hostile, 42);
    std::vector<std::int64_t> expected;
    for (int r = 0; r < n; ++r) expected.push_back(problem.nonfinite(r));
    const std::vector<unsigned char> row = problem.buffers[7].bytes;
    for (const SelectRule& rule :
         {SelectRule{}, SelectRule{Kind::trimmed_mean, EvenMedian::midpoint, 40, 0}}) {
      Out first(dtype, sizes);
      CpuPasses(n, 1).select(problem.table, rule, points, first.table, {});
      Out threaded(dtype, sizes);
      CpuPasses(n, 2).select(problem.table, rule, points, threaded.table, {});
      EXPECT_TRUE(first.same_bytes(threaded));
      for (const std::int64_t begin : {std::int64_t{0}, border}) {
        const std::vector<std::int64_t> window{begin == 0 ? border : length - border};
        std::vector<const void*> data;
        for (const void* at : problem.pointers) {
          data.push_back(static_cast<const unsigned char*>(at) + begin * size);
        }
        RowTable table = problem.table;
        table.sizes = window;
        table.data = data.data();
        Out part(dtype, window);
        CpuPasses(n, 1).select(table, rule, points, part.table, {});
        EXPECT_EQ(std::memcmp(part.at(0, 0), first.at(0, begin), static_cast<std::size_t>(window[0] * size)),
                  0);
      }
      std::vector<std::int64_t> nonfinite(n, 0);
      void* target = problem.buffers[7].data;
      CpuPasses(n, 2).select(problem.table, rule, points, {dtype, &target}, nonfinite);
      EXPECT_EQ(nonfinite, expected);
      EXPECT_EQ(std::memcmp(target, first.at(0, 0), static_cast<std::size_t>(length * size)), 0);
      std::copy(row.begin(), row.end(), problem.buffers[7].bytes.begin());
    }
  }
}

TEST_P(CpuPassesTest, NothingToDoIsFine) {
  const Problem problem(DType::f32, 3, {0, 0}, Data::normal, 41);
  const std::vector<int> rows = all_rows(3);
  Out out(DType::f32, problem.sizes);
  CpuPasses passes(3, 2);
  std::vector<std::int64_t> nonfinite(3, 0);
  passes.select(problem.table, {}, plain_points(rows), out.table, nonfinite);
  passes.combine(problem.table, std::array{0.5, 0.5, 0.0}, out.table, nonfinite);
  const GramSums sums = gram_of(problem.table, 2);
  EXPECT_EQ(sums.products, std::vector<double>(9, 0.0));
  EXPECT_EQ(nonfinite, (std::vector<std::int64_t>{0, 0, 0}));
}

}  // namespace
}  // namespace bragg::detail
