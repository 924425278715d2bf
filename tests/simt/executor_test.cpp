// SPDX-License-Identifier: Apache-2.0
// The executor: that it computes what a GPU would, and that it catches what it says it catches.
#include "tests/simt/simt_executor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <bragg/error.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "kernels/runtime/launch.hpp"
#include "kernels/runtime/runtime.hpp"
#include "rules/solve/ranking.hpp"
#include "rules/solve/team.hpp"
#include "tests/simt/bugs.hpp"
#include "tests/simt/examples.hpp"
#include "tests/simt/memory.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {

void PrintTo(const Bug& bug, std::ostream* out) { *out << bug.name; }

namespace {

using detail::cuda::DeviceMemory;
using simt::Order;
using simt::Schedule;

#if defined(BRAGG_SIMT_UNDEFINED)
constexpr unsigned undefined = undefined_build;
#else
constexpr unsigned undefined = 0;
#endif
#if defined(__SANITIZE_ADDRESS__)
constexpr unsigned ends_program = address_build | undefined;
const unsigned fails = every_build;
#else
constexpr unsigned ends_program = undefined;
const unsigned fails = every_build | (simt::hooks ? shadow : red_zones);
#endif

constexpr Order orders[] = {Order::forward, Order::reverse, Order::random, Order::greedy};
constexpr const char* order_names[] = {"forward", "reverse", "random", "greedy"};

/// Runs f under every order, and puts the schedule back that was set before.
template <class F>
void under_every_schedule(int seeds, const F& f) {
  const Schedule before = simt::schedule();
  auto random = generator("schedules");
  for (const Order order : orders) {
    for (int i = 0; i < seeds; ++i) {
      const Schedule schedule{order, random()};
      SCOPED_TRACE(std::string(order_names[static_cast<int>(order)]) + ", seed " +
                   std::to_string(schedule.seed));
      simt::set_schedule(schedule);
      f(schedule);
    }
  }
  simt::set_schedule(before);
}

/// What a broken kernel comes to: a message, "wrong", or nothing.
std::string outcome(const Bug& bug) {
  try {
    return bug.run(true) ? "" : "wrong";
  } catch (const simt::Failure& failure) {
    return failure.what();
  }
}

class Bugs : public testing::TestWithParam<Bug> {};

TEST_P(Bugs, PassesWithoutTheMistake) {
  under_every_schedule(5, [](const Schedule&) { EXPECT_TRUE(GetParam().run(false)); });
}

TEST_P(Bugs, IsCaughtByTheBuildsThatSaySo) {
  const Bug& bug = GetParam();
  if ((bug.caught_by & fails) == 0) GTEST_SKIP() << "not by this build";
  under_every_schedule(5, [&](const Schedule&) {
    const std::string message = outcome(bug);
    EXPECT_NE(message, "");
    EXPECT_NE(message, "wrong");
    EXPECT_NE(message.find(bug.message), std::string::npos) << message;
    EXPECT_TRUE(message.find("BRAGG_SIMT_SEED=") != std::string::npos || message.rfind("launch", 0) == 0 ||
                message.rfind("copy", 0) == 0)
        << message;
  });
}

TEST_P(Bugs, EndsTheProgramWhereASanitizerSeesIt) {
  const Bug& bug = GetParam();
  if ((bug.caught_by & ends_program) == 0) GTEST_SKIP() << "not by this build";
  EXPECT_DEATH(bug.run(true), "AddressSanitizer|runtime error");
}

TEST_P(Bugs, GivesWrongResultsUnderTheOrdersThatSaySo) {
  const Bug& bug = GetParam();
  if ((bug.caught_by & (fails | ends_program)) != 0 || bug.shown_by == no_order)
    GTEST_SKIP() << "not by results";
  int shown[4] = {};
  under_every_schedule(40, [&](const Schedule& schedule) {
    if (outcome(bug) != "") ++shown[static_cast<int>(schedule.order)];
  });
  for (int i = 0; i < 4; ++i) {
    if ((bug.shown_by >> i & 1) != 0) {
      EXPECT_GT(shown[i], 0) << order_names[i];
    }
    std::cout << order_names[i] << " " << shown[i] << " of 40  ";
  }
  std::cout << std::endl;
}

INSTANTIATE_TEST_SUITE_P(All, Bugs, testing::ValuesIn(bugs().begin(), bugs().end()),
                         [](const auto& test) { return test.param.name; });

std::vector<float> to_host(const DeviceMemory& memory) {
  std::vector<float> host(memory.bytes() / sizeof(float));
  detail::cuda::copy_to_host(host.data(), memory.data(), memory.bytes(), nullptr);
  return host;
}

TEST(Executor, GivesEveryThreadItsPlace) {
  under_every_schedule(2, [](const Schedule&) {
    const int blocks_x = 5;
    const int blocks_y = 3;
    const int threads = 70;
    const DeviceMemory out(sizeof(int) * blocks_x * blocks_y * threads);
    show_places(blocks_x, blocks_y, threads, static_cast<int*>(out.data()));
    std::vector<int> host(out.bytes() / sizeof(int));
    detail::cuda::copy_to_host(host.data(), out.data(), out.bytes(), nullptr);
    for (int i = 0; i < static_cast<int>(host.size()); ++i) {
      const int t = i % threads;
      EXPECT_EQ(host[static_cast<std::size_t>(i)], i * 10000 + t / 32 * 100 + t % 32);
    }
  });
}

TEST(Executor, ExchangesValuesAsWarpsDo) {
  under_every_schedule(5, [](const Schedule&) {
    const DeviceMemory out(sizeof(float) * 64 * exchanges);
    exchange_values(static_cast<float*>(out.data()));
    const std::vector<float> got = to_host(out);
    for (int t = 0; t < 64; ++t) {
      const float expected[exchanges] = {
          static_cast<float>(t ^ 5),           // shuffle_xor
          static_cast<float>(16),              // odd lanes counted by ballot
          static_cast<float>(t < 32 ? 0 : 1),  // any: thread 33
          static_cast<float>(t < 32 ? 1 : 0),  // sync_threads_or: only thread 3 said so
      };
      for (int i = 0; i < exchanges; ++i) {
        EXPECT_EQ(got[static_cast<std::size_t>(t * exchanges + i)], expected[i])
            << "thread " << t << ", exchange " << i;
      }
    }
  });
}

TEST(Executor, MultipliesMatricesInTheFragmentsLayout) {
  auto random = generator("mma");
  std::normal_distribution<double> normal;
  std::vector<double> a(16 * 16), b(16 * 8), c(16 * 8);
  for (auto* m : {&a, &b, &c}) {
    for (double& x : *m) x = normal(random);
  }
  auto expected = c;
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      for (int k = 0; k < 16; ++k)
        expected[i * 8 + j] = std::fma(a[i * 16 + k], b[k * 8 + j], expected[i * 8 + j]);
    }
  }
  EXPECT_EQ(multiply(a, b, c), expected);
}

TEST(Executor, MultipliesBytesInTheFragmentsLayout) {
  auto random = generator("mma of bytes");
  std::vector<std::int8_t> a(16 * 32), b(32 * 8);
  for (auto* m : {&a, &b}) {
    for (std::int8_t& x : *m) x = static_cast<std::int8_t>(random());
  }
  a[0] = a[1] = b[0] = b[8] = -128;
  std::vector<int> c(16 * 8);
  for (int& x : c) x = static_cast<int>(random());  // sums wrap
  auto expected = c;
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      std::int64_t sum = c[static_cast<std::size_t>(i * 8 + j)];
      for (int k = 0; k < 32; ++k) {
        sum += a[static_cast<std::size_t>(i * 32 + k)] * b[static_cast<std::size_t>(k * 8 + j)];
      }
      expected[static_cast<std::size_t>(i * 8 + j)] = static_cast<int>(static_cast<std::uint32_t>(sum));
    }
  }
  EXPECT_EQ(multiply(a, b, c), expected);
}

TEST(Arithmetic, PicksBytes) {
  EXPECT_EQ(simt::pick_bytes(0x33221100u, 0x77665544u, 0x3210u), 0x33221100u);
  EXPECT_EQ(simt::pick_bytes(0x33221100u, 0x77665544u, 0x7654u), 0x77665544u);
  EXPECT_EQ(simt::pick_bytes(0x33221100u, 0x77665544u, 0x5140u), 0x55114400u);
  EXPECT_EQ(simt::pick_bytes(0x33221100u, 0x77665544u, 0x0062u), 0x00006622u);
}

TEST(Executor, CountsWithAtomics) {
  under_every_schedule(3, [](const Schedule&) {
    const Counts counts = count_with_atomics(3, 96);
    EXPECT_EQ(counts.added, 3u * 96u);
    EXPECT_EQ(counts.added_long, 3ull * 96 << 40);
    EXPECT_EQ(counts.largest, 95ull << 40);
  });
}

/// The lower and the upper neighbour of x among f16, by the compiler's own type.
TEST(Arithmetic, RoundsToF16AsTheCompilerDoes) {
  auto random = generator("f16");
  std::uniform_real_distribution<double> exponent(-30, 18);
  for (int i = 0; i < 200000; ++i) {
    double x = std::exp2(exponent(random)) * (random() % 2 != 0 ? 1 : -1);
    // Ties and their neighbours.
    if (i % 3 != 0) x = static_cast<double>(static_cast<_Float16>(x)) * (1 + std::ldexp(1.0, -11));
    if (i % 3 == 2) x = std::nextafter(x, random() % 2 != 0 ? 1e9 : -1e9);
    ASSERT_EQ(simt::double_to_f16(x), std::bit_cast<std::uint16_t>(static_cast<_Float16>(x)))
        << std::hexfloat << x;
  }
  for (int bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = simt::f16_to_float(half);
    const auto expected = static_cast<float>(std::bit_cast<_Float16>(half));
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value));
    } else {
      ASSERT_EQ(simt::bits_of(value), simt::bits_of(expected)) << bits;
      ASSERT_EQ(simt::double_to_f16(value), half);
    }
  }
  EXPECT_EQ(simt::double_to_f16(std::nan("")), 0x7FFF);
}

TEST(Arithmetic, RoundsToBf16Once) {
  auto random = generator("bf16");
  for (int i = 0; i < 200000; ++i) {
    const auto low = static_cast<std::uint16_t>(random() % 0x7F80);
    const double a = simt::float_of(static_cast<std::uint32_t>(low) << 16);
    const double b = low == 0x7F7F ? std::ldexp(1.0, 128) : simt::float_of((low + 1u) << 16);
    const double middle = a + (b - a) / 2;
    const std::uint16_t even = low % 2 == 0 ? low : static_cast<std::uint16_t>(low + 1);
    ASSERT_EQ(simt::double_to_bf16(a), low);
    ASSERT_EQ(simt::double_to_bf16(middle), even);
    ASSERT_EQ(simt::double_to_bf16(std::nextafter(middle, 0.0)), low);
    ASSERT_EQ(simt::double_to_bf16(-std::nextafter(middle, 1e300)), (low + 1) | 0x8000);
  }
  EXPECT_EQ(simt::double_to_bf16(-INFINITY), 0xFF80);
  EXPECT_EQ(simt::double_to_bf16(std::nan("")), 0x7FFF);
  EXPECT_EQ(simt::double_to_bf16(-0.0), 0x8000);
  EXPECT_EQ(simt::double_to_bf16(5e-324), 0);
}

TEST(Arithmetic, TakesTheSmallerAndTheLargerHalf) {
  auto random = generator("halves");
  auto pick = [&] {
    constexpr std::uint16_t special[] = {0, 0x8000, 0x7C00, 0xFC00, 0x7E00, 0xFE01,
                                         1, 0x8001, 0x7F80, 0xFF80, 0x7FC0};
    return random() % 2 != 0 ? special[random() % std::size(special)] : static_cast<std::uint16_t>(random());
  };
  auto value = [](bool f16, std::uint16_t bits) {
    return f16 ? simt::f16_to_float(bits) : simt::float_of(static_cast<std::uint32_t>(bits) << 16);
  };
  for (int i = 0; i < 100000; ++i) {
    const bool f16 = i % 2 != 0;
    const std::uint16_t a[2] = {pick(), pick()};
    const std::uint16_t b[2] = {pick(), pick()};
    const std::uint32_t packed_a = a[0] | static_cast<std::uint32_t>(a[1]) << 16;
    const std::uint32_t packed_b = b[0] | static_cast<std::uint32_t>(b[1]) << 16;
    const std::uint32_t least =
        f16 ? simt::min_f16x2(packed_a, packed_b) : simt::min_bf16x2(packed_a, packed_b);
    const std::uint32_t most =
        f16 ? simt::max_f16x2(packed_a, packed_b) : simt::max_bf16x2(packed_a, packed_b);
    for (int h = 0; h < 2; ++h) {
      const float x = value(f16, a[h]);
      const float y = value(f16, b[h]);
      const float low = value(f16, static_cast<std::uint16_t>(least >> (16 * h)));
      const float high = value(f16, static_cast<std::uint16_t>(most >> (16 * h)));
      if (std::isnan(x) && std::isnan(y)) {
        EXPECT_TRUE(std::isnan(low) && std::isnan(high));
      } else {
        EXPECT_EQ(low, std::isnan(x) || y < x ? y : x);
        EXPECT_EQ(high, std::isnan(x) || y > x ? y : x);
      }
      if (x == 0 && y == 0) {
        EXPECT_EQ(std::signbit(low), std::signbit(x) || std::signbit(y));
        EXPECT_EQ(std::signbit(high), std::signbit(x) && std::signbit(y));
      }
    }
  }
}

TEST(Arithmetic, MarksHalvesThatAreNotFinite) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    for (const bool f16 : {false, true}) {
      const float x = f16 ? simt::f16_to_float(static_cast<std::uint16_t>(bits)) : simt::float_of(bits << 16);
      const auto mark = [&](std::uint32_t v) {
        return f16 ? simt::mark_nonfinite_f16x2(v, 0) : simt::mark_nonfinite_bf16x2(v, 0);
      };
      const std::uint32_t low = mark(bits);
      const std::uint32_t high = mark(bits << 16);
      const std::uint32_t nan = f16 ? 0x7C00 : 0x7F80;
      ASSERT_EQ((low & 0x7FFF) > nan, !std::isfinite(x)) << bits;
      ASSERT_EQ((high >> 16 & 0x7FFF) > nan, !std::isfinite(x)) << bits;
      ASSERT_EQ(low >> 16, 0);
      ASSERT_EQ(high & 0xFFFF, 0);
    }
  }
}

template <class T>
void check_least_and_most() {
  constexpr T inf = std::numeric_limits<T>::infinity();
  for (const T nan : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::signaling_NaN(),
                      -std::numeric_limits<T>::quiet_NaN()}) {
    for (const T x : {T{0}, T{-1}, inf, -inf}) {
      EXPECT_EQ(least_of(x, nan), x);
      EXPECT_EQ(least_of(nan, x), x);
      EXPECT_EQ(most_of(x, nan), x);
      EXPECT_EQ(most_of(nan, x), x);
    }
    EXPECT_TRUE(std::isnan(least_of(nan, nan)) && std::isnan(most_of(nan, nan)));
  }
  EXPECT_EQ(least_of(T{-1}, T{2}), T{-1});
  EXPECT_EQ(most_of(T{-1}, T{2}), T{2});
  EXPECT_TRUE(std::signbit(least_of(T{0}, -T{0})) && std::signbit(least_of(-T{0}, T{0})));
  EXPECT_FALSE(std::signbit(most_of(T{0}, -T{0})) || std::signbit(most_of(-T{0}, T{0})));
}

TEST(Arithmetic, TakesTheNumberOfANumberAndNaN) {
  check_least_and_most<float>();
  check_least_and_most<double>();
}

/// The order in which threads pass a point, as one number after the other.
std::vector<int> trace(Order order, std::uint64_t seed) {
  simt::set_schedule({order, seed});
  return order_of_threads(2, 96);
}

TEST(Schedules, RepeatWithTheirSeed) {
  const Schedule before = simt::schedule();
  for (const Order order : {Order::random, Order::greedy}) {
    std::set<std::vector<int>> traces;
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      EXPECT_EQ(trace(order, seed), trace(order, seed));
      traces.insert(trace(order, seed));
    }
    EXPECT_GT(traces.size(), 15u);
  }
  simt::set_schedule(before);
}

TEST(Schedules, GoForwardAndInReverse) {
  const Schedule before = simt::schedule();
  auto forward = trace(Order::forward, 1);
  const auto reverse = trace(Order::reverse, 1);
  EXPECT_TRUE(std::is_sorted(forward.begin(), forward.end()));
  std::reverse(forward.begin(), forward.end());
  EXPECT_EQ(reverse, forward);
  simt::set_schedule(before);
}

TEST(Schedules, RunLaunchesOfSeveralHostThreads) {
  std::vector<std::thread> hosts;
  std::vector<int> right(4);
  for (int i = 0; i < 4; ++i) {
    hosts.emplace_back([&right, i] {
      for (int k = 0; k < 50; ++k) {
        const Counts counts = count_with_atomics(2, 64);
        if (counts.added == 2u * 64u) ++right[static_cast<std::size_t>(i)];
      }
    });
  }
  for (std::thread& host : hosts) host.join();
  EXPECT_EQ(right, std::vector<int>(4, 50));
}

TEST(Schedules, RunLaunchesWhileOthersAllocate) {
  std::vector<DeviceMemory> looked_at_first;
  for (int i = 0; i < 1000; ++i) looked_at_first.emplace_back(1);
  const std::jthread other([](const std::stop_token& end) {
    while (!end.stop_requested()) {
      { const DeviceMemory small(256); }
      { const DeviceMemory large(4096); }  // where the small one was
    }
  });
  for (int i = 0; i < 300; ++i) {
    const Counts counts = count_with_atomics(2, 64);
    EXPECT_EQ(counts.added, 2u * 64u);
  }
}

TEST(Schedules, GoOnAfterAFailure) {
  for (const Bug& bug : bugs()) {
    if ((bug.caught_by & every_build) == 0) continue;
    EXPECT_NE(outcome(bug), "") << bug.name;
    EXPECT_EQ(count_with_atomics(2, 1000).added, 2000u) << bug.name;
  }
}

TEST(Runtime, KeepsCopiesInTheirPlace) {
  const DeviceMemory memory(100);
  auto* const p = static_cast<unsigned char*>(memory.data());
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % 256, 0u);
  std::vector<unsigned char> host(200);
  EXPECT_THROW(detail::cuda::copy_to_device(p, host.data(), 101, nullptr), Error);
  EXPECT_THROW(detail::cuda::copy_to_host(host.data(), p + 1, 100, nullptr), Error);
  EXPECT_THROW(detail::cuda::copy_to_host(p, p, 100, nullptr), Error);
  EXPECT_THROW(detail::cuda::copy_to_device(host.data(), host.data(), 100, nullptr), Error);
  EXPECT_THROW(detail::cuda::set_bytes(p - 1, 0, 2, nullptr), Error);
  detail::cuda::set_bytes(p, 7, 100, nullptr);
  detail::cuda::copy_to_host(host.data(), p, 100, nullptr);
  EXPECT_EQ(host[99], 7);
  EXPECT_EQ(host[100], 0);
}

TEST(Runtime, KeepsTheHostFromDeviceMemory) {
  if (!simt::hooks) GTEST_SKIP() << "only the hooks build";
  EXPECT_DEATH(
      for (int i = 0; i < 100; ++i) {
        const DeviceMemory memory(64);
        *static_cast<volatile char*>(memory.data()) = 1;
      },
      "the host touches device memory");
}

TEST(Runtime, FillsNewMemoryWithNaN) {
  if (simt::hooks) GTEST_SKIP() << "which is not to be copied to the host";
  const DeviceMemory memory(64);
  for (const float x : to_host(memory)) EXPECT_TRUE(std::isnan(x));
}

TEST(Runtime, RunsOutOfMemoryAndRecovers) {
  EXPECT_THROW(detail::cuda::allocate(std::size_t{1} << 40), Error);
  auto random = generator("arena");
  std::vector<DeviceMemory> live(64);
  for (int i = 0; i < 4000; ++i)
    live[random() % live.size()] = DeviceMemory(random() % (std::size_t{1} << (i % 21)));
  live.clear();
  EXPECT_NO_THROW(DeviceMemory(simt::global_capacity - 2 * simt::red_zone));
  EXPECT_THROW(DeviceMemory(simt::global_capacity - 2 * simt::red_zone + 1), Error);
  EXPECT_EQ(detail::cuda::allocate(0), nullptr);
  detail::cuda::release(nullptr);
}

TEST(Runtime, KnowsItsStreams) {
  const auto a = detail::cuda::create_stream();
  const auto b = detail::cuda::create_stream();
  EXPECT_NE(a, nullptr);
  EXPECT_NE(a, b);
  detail::cuda::synchronize(a);
  EXPECT_FALSE(detail::cuda::is_capturing(b));
  detail::cuda::destroy_stream(a);
  EXPECT_THROW(detail::cuda::synchronize(a), Error);
  detail::cuda::synchronize(b);
  detail::cuda::destroy_stream(b);
}

// Kernels before they run ------------------------------------------------------------------------------

/// Puts the device back that was there before.
struct ProfileGuard {
  const simt::DeviceProfile& before = simt::device_profile();
  ~ProfileGuard() { simt::set_device_profile(before); }
};

TEST(Kernels, AreMadeReadyOnceByWhateverThreadsLaunchThem) {
  const ProfileGuard guard;
  simt::set_device_profile(simt::device_profiles().front());
  const std::uint64_t before = simt::opt_ins();
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([] {
      for (int k = 0; k < 20; ++k) order_of_threads(2, 32);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(simt::opt_ins() - before, 1);
}

TEST(Kernels, AreNotLaunchedInARehearsal) {
  const ProfileGuard guard;
  simt::set_device_profile(simt::device_profile());
  const std::uint64_t before = simt::opt_ins();
  const std::uint64_t launched = simt::launches();
  const DeviceMemory out(sizeof(int) * 64);
  const auto launch = [&] { show_places(2, 1, 32, static_cast<int*>(out.data())); };
  {
    const detail::cuda::Rehearsal rehearsal;
    launch();
    EXPECT_EQ(simt::launches() - launched, 0);
    EXPECT_EQ(simt::opt_ins() - before, 1);
    std::thread(launch).join();  // other threads' are made
  }
  EXPECT_EQ(simt::launches() - launched, 1);
  launch();
  EXPECT_EQ(simt::launches() - launched, 2);
  EXPECT_EQ(simt::opt_ins() - before, 1);
}

TEST(Kernels, HaveAllSharedMemoryOfTheDevice) {
  const ProfileGuard guard;
  for (const simt::DeviceProfile& profile : simt::device_profiles()) {
    simt::set_device_profile(profile);
    const auto [kernel, declared] = kernel_of_three_variables();
    EXPECT_EQ(detail::cuda::static_shared_of(kernel), declared);
    const std::size_t most = detail::cuda::most_dynamic_shared(kernel);
    EXPECT_EQ(most, profile.shared_of_block - declared);
    EXPECT_EQ(detail::cuda::resident_blocks(kernel, 32, most), 1);
    EXPECT_EQ(detail::cuda::resident_blocks(kernel, 32, 0), 3);
    EXPECT_EQ(detail::cuda::resident_blocks(kernel, 1024, 0), 2);
    EXPECT_THROW(detail::cuda::resident_blocks(kernel, 32, most + 1), Error);
    EXPECT_THROW(detail::cuda::resident_blocks(kernel, 32, most + 1), Error);  // and is not remembered
  }
}

// Teams of threads ------------------------------------------------------------------------------------------

TEST(Teams, FindTheSameLeastWhateverIsNaN) {
  auto random = generator("argmin");
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (int turn = 0; turn < 60; ++turn) {
    const int n = 1 + static_cast<int>(random() % 300);
    const std::uint64_t numbers = random() % 4;  // how likely a number is
    std::vector<double> values;
    for (int i = 0; i < n; ++i) {
      const double bad[] = {nan, -nan, infinity};
      values.push_back(random() % 4 < numbers ? static_cast<double>(random() % 9) - 4 : bad[random() % 3]);
    }
    values.front() = turn % 2 == 0 ? nan : values.front();
    const auto value = [&](int i) { return values[static_cast<std::size_t>(i)]; };
    std::vector<double> read = values;
    for (double& x : read) x = std::isnan(x) ? infinity : x;
    const auto expected = static_cast<int>(std::min_element(read.begin(), read.end()) - read.begin());
    EXPECT_EQ(detail::SerialTeam{}.argmin(n, value), expected);
    for (const int threads : {32, 128, 256}) {
      const std::vector<int> found = argmin_of_block(values, threads);
      EXPECT_EQ(found, std::vector<int>(static_cast<std::size_t>(threads), expected))
          << threads << " threads";
    }
  }
}

/// n values, in one of several orders, many of them alike.
std::vector<double> keys_to_sort(test::Generator& random, int n, int kind) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  std::vector<double> values;
  for (int i = 0; i < n; ++i) {
    const double bad[] = {std::numeric_limits<double>::quiet_NaN(), infinity, -0.0, 0.0};
    const double numbers[] = {static_cast<double>(random() % 7),
                              static_cast<double>(random()),
                              static_cast<double>(i),
                              static_cast<double>(-i / 3),
                              1.0,
                              random() % 3 == 0 ? bad[random() % 4] : static_cast<double>(random() % 50)};
    values.push_back(numbers[kind]);
  }
  return values;
}

TEST(Teams, SortAsOneThreadDoes) {
  auto random = generator("sort");
  for (int turn = 0; turn < 48; ++turn) {
    const int sizes[] = {1, 2, 63, 64, 65, 128, 129, 1 + static_cast<int>(random() % 1500)};
    const int n = sizes[turn % 8];
    const std::vector<double> values = keys_to_sort(random, n, turn / 8);
    const auto key = [&](int i) {
      const double value = values[static_cast<std::size_t>(i)];
      return std::isnan(value) ? std::numeric_limits<double>::infinity() : value;
    };
    std::vector<int> expected(static_cast<std::size_t>(n));
    std::iota(expected.begin(), expected.end(), 0);
    std::stable_sort(expected.begin(), expected.end(), [&](int a, int b) { return key(a) < key(b); });
    std::vector<int> heap(static_cast<std::size_t>(n));
    detail::smallest(n, n, heap.data(), key);
    EXPECT_EQ(heap, expected);
    for (const int threads : {32, 128, 256}) {
      EXPECT_EQ(sort_by_block(values, threads), expected) << n << " keys of kind " << turn / 8;
    }
  }
}

TEST(Teams, CollectAsOneThreadDoes) {
  auto random = generator("collect");
  for (int turn = 0; turn < 30; ++turn) {
    const int n = turn % 3 == 0 ? 32 * (1 + turn) : 1 + static_cast<int>(random() % 700);
    std::vector<double> values;
    std::vector<int> expected;
    const std::uint64_t odds = random() % 5;
    for (int i = 0; i < n; ++i) {
      values.push_back(random() % 4 < odds ? 1 : 0);
      if (values.back() != 0) expected.push_back(i);
    }
    for (const int threads : {32, 128, 256}) {
      const std::vector<int> found = collect_by_block(values, threads);
      const auto end = found.begin() + static_cast<std::ptrdiff_t>(expected.size());
      EXPECT_EQ(std::vector<int>(found.begin(), end), expected);
      EXPECT_EQ(std::vector<int>(found.begin() + n, found.end()),
                std::vector<int>(static_cast<std::size_t>(threads), static_cast<int>(expected.size())));
    }
  }
}

TEST(Runtime, HasOneDevice) {
  EXPECT_EQ(detail::cuda::device_count(), 1);
  const detail::cuda::OnDevice on(0);
  EXPECT_EQ(detail::cuda::current_device(), 0);
  EXPECT_THROW(detail::cuda::OnDevice(1), Error);
}

}  // namespace
}  // namespace bragg::test
