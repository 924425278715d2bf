// SPDX-License-Identifier: Apache-2.0
// Launches: what they must keep to, the order of their blocks, and how a failure is told.
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <mutex>
#include <numeric>
#include <utility>

#include "tests/simt/block.hpp"
#include "tests/simt/kernels.hpp"
#include "tests/simt/memory.hpp"
#include "tests/simt/shadow.hpp"
#include "tests/support/seed.hpp"

// A record for each kernel: where the bytes that BRAGG_KERNEL put before it begin.
extern "C" {
extern char* const __start___patchable_function_entries[] __attribute__((weak));
extern char* const __stop___patchable_function_entries[] __attribute__((weak));
}

namespace bragg::detail::simt {
namespace {

constexpr int max_blocks_y = 65535;
#if defined(__aarch64__)
constexpr std::ptrdiff_t nop_bytes = 4;
#else
constexpr std::ptrdiff_t nop_bytes = 1;
#endif

std::mutex launch_mutex;
std::uint64_t made = 0;

bool are_nops(const char* begin, const char* end) {
#if defined(__aarch64__)
  constexpr unsigned char nop[] = {0x1F, 0x20, 0x03, 0xD5};
#else
  constexpr unsigned char nop[] = {0x90};
#endif
  for (const char* p = begin; p != end; ++p) {
    if (static_cast<unsigned char>(*p) != nop[static_cast<std::size_t>(p - begin) % sizeof(nop)])
      return false;
  }
  return true;
}

/// What BRAGG_KERNEL says; 0: the function is not one.
int max_threads_of(const void* kernel) {
  const auto* const entry = static_cast<const char*>(kernel);
  for (auto* record = __start___patchable_function_entries; record != __stop___patchable_function_entries;
       ++record) {
    const std::ptrdiff_t distance = entry - *record;
    const bool near = distance > 0 && distance <= max_block_threads * nop_bytes;
    if (near && are_nops(*record, entry)) return static_cast<int>(distance / nop_bytes);
  }
  return 0;
}

template <class T>
T choice(const char* variable, std::initializer_list<std::pair<const char*, T>> choices, T otherwise) {
  const char* const text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return otherwise;
  for (const auto& [name, value] : choices) {
    if (std::string(name) == text) return value;
  }
  std::fprintf(stderr, "%s=%s is no choice\n", variable, text);
  std::exit(2);
}

std::string describe(const Schedule& s) {
  constexpr const char* orders[] = {"forward", "reverse", "random", "greedy"};
  return std::string("BRAGG_SIMT_ORDER=") + orders[static_cast<int>(s.order)] +
         " BRAGG_SIMT_DEVICE=" + device_profile().compute_capability +
         " BRAGG_SIMT_SEED=" + std::to_string(s.seed);
}

Schedule schedule_of_environment() {
  Schedule s;
  s.order = choice<Order>("BRAGG_SIMT_ORDER",
                          {{"forward", Order::forward},
                           {"reverse", Order::reverse},
                           {"random", Order::random},
                           {"greedy", Order::greedy},
                           {"drawn", greedy_is_drawn() ? Order::greedy : Order::random}},
                          Order::random);
  const char* const seed = std::getenv("BRAGG_SIMT_SEED");
  s.seed = seed != nullptr ? std::strtoull(seed, nullptr, 10) : test::session_seed();
  std::fprintf(stderr, "kernels run with %s\n", describe(s).c_str());
  return s;
}

struct Settings {
  Schedule schedule = schedule_of_environment();
  Random random{schedule.seed};  // every launch draws its own from it
};
Settings& settings() {
  static Settings s;
  return s;
}

/// The grid's blocks in the order in which they run.
void order_blocks(std::vector<std::uint64_t>& blocks, std::uint64_t count, Order order, Random& random) {
  blocks.resize(count);
  std::iota(blocks.begin(), blocks.end(), std::uint64_t{0});
  if (order == Order::reverse) {
    for (std::uint64_t& i : blocks) i = count - 1 - i;
  } else if (order != Order::forward) {
    for (std::uint64_t i = count; i > 1; --i) std::swap(blocks[i - 1], blocks[random() % i]);
  }
}

void run_grid(Block& b) {
  static std::vector<std::uint64_t> blocks;
  const auto width = static_cast<std::uint64_t>(b.launch.blocks_x);
  order_blocks(blocks, width * static_cast<std::uint64_t>(b.launch.blocks_y), b.schedule.order, b.random);
  shadow::begin_launch();
  for (const std::uint64_t i : blocks) {
    b.run(static_cast<int>(i % width), static_cast<int>(i / width));
    if (!b.error.empty()) break;
  }
  if (b.error.empty()) {
    const std::string damage = damaged_red_zone();
    if (!damage.empty()) b.error = "a thread " + damage;
  }
}

void check_as_things_stand(const void* kernel, int threads, std::size_t shared) {
  const int most = max_threads_of(kernel);
  if (most == 0) throw Failure("launch of a function that is no BRAGG_KERNEL");
  if (threads < 1 || threads > most) {
    throw Failure("launch of blocks of " + std::to_string(threads) + " threads; the kernel's bound is " +
                  std::to_string(most));
  }
  const std::size_t declared = declared_shared(kernel);
  const std::size_t allowed = allowed_shared(kernel);
  if (declared + shared > allowed) {
    throw Failure("launch of " + name_of(kernel) + " with " + std::to_string(shared) +
                  " bytes of dynamic shared memory beside the " + std::to_string(declared) +
                  " that it declares; it was allowed " + std::to_string(allowed) + " in all");
  }
}

}  // namespace

Schedule schedule() {
  const std::lock_guard lock(launch_mutex);
  return settings().schedule;
}

void set_schedule(const Schedule& schedule) {
  const std::lock_guard lock(launch_mutex);
  settings() = {schedule, Random(schedule.seed)};
}

void check_launch(const void* kernel, int threads, std::size_t shared) {
  cuda::make_ready(kernel);
  check_as_things_stand(kernel, threads, shared);
}

void run(const Launch& launch, void (*body)(void*), void* call) {
  if (running != nullptr) throw Failure("launch from a kernel");
  check_as_things_stand(launch.kernel, launch.threads, launch.shared);
  if (launch.blocks_y > max_blocks_y) throw Failure("launch of more than 65535 rows of blocks");
  const std::lock_guard lock(launch_mutex);
  ++made;
  const GlobalAccess access;
  Block& b = the_block;
  b.launch = launch;
  b.body = body;
  b.call = call;
  b.schedule = settings().schedule;
  b.random = Random(settings().random());
  b.error.clear();
  run_grid(b);
  if (!b.error.empty()) throw Failure(b.error + " [" + describe(b.schedule) + "]");
}

std::uint64_t launches() {
  const std::lock_guard lock(launch_mutex);
  return made;
}

}  // namespace bragg::detail::simt
