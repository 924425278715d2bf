// SPDX-License-Identifier: Apache-2.0
// The block that runs: its threads, who may run next, and where threads wait for each other. Blocks run one
// at a time, so there is one Block.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/simt/fiber.hpp"
#include "tests/simt/simt_executor.hpp"

namespace bragg::detail::simt {

inline constexpr int max_block_threads = 1024;
inline constexpr int warp_size = 32;

/// xorshift64*: a schedule repeats when its seed does.
class Random {
 public:
  explicit Random(std::uint64_t seed = 1) : state_(seed * 0x9E3779B97F4A7C15ull | 1) {}

  std::uint64_t operator()() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1Dull;
  }
  int below(int n) { return static_cast<int>(((*this)() >> 32) * static_cast<std::uint64_t>(n) >> 32); }

 private:
  std::uint64_t state_;
};

/// Threads that can run, and which of them does next.
class ReadyThreads {
 public:
  void start(Order order, int threads, Random& random);
  void add(int thread);
  /// -1: none.
  int next(Random& random);

 private:
  void rank_warps(int threads, Random& random);

  Order order_ = Order::forward;
  std::vector<int> queue_;  // forward, reverse: oldest first from head_ on; random: a bag
  std::size_t head_ = 0;
  std::array<std::uint64_t, max_block_threads / 64> by_rank_{};  // greedy: a bit for each that is ready
  std::array<int, max_block_threads> rank_of_{};
  std::array<int, max_block_threads> thread_of_{};
};

enum class State : std::uint8_t { ready, at_barrier, at_warp, exited };

struct Thread {
  Thread() : fiber(Fiber::WithStack{}) {}

  Coordinates place;
  Fiber fiber;
  State state = State::ready;
  Site site;                // where it last met others
  bool has_synced = false;  // with the kernels before
};

/// The lanes of a warp on their way to a meeting point.
struct Meeting {
  unsigned arrived = 0;
  Site site;
  const void* in[warp_size];
  void* out[warp_size];
};

struct Warp {
  unsigned live = 0;  // lanes that have not exited
  Meeting meeting;
};

/// A piece of dynamic shared memory that some thread has taken.
struct Taken {
  unsigned offset = 0;
  std::size_t bytes = 0;
  void* data = nullptr;
};

struct Block {
  /// Runs body(call) in every thread of the block until all have exited or one fails; then `error` says why.
  void run(int block_x, int block_y);
  /// The thread that runs waits until it is made ready again; forever, if the block fails meanwhile.
  void wait();
  void make_ready(int thread);

  Launch launch;
  void (*body)(void*) = nullptr;
  void* call = nullptr;
  Schedule schedule;
  Random random;
  std::string error;

  std::vector<std::unique_ptr<Thread>> threads;  // the first launch.threads are in use
  std::array<Warp, max_block_threads / warp_size> warps;
  ReadyThreads ready;
  int exited = 0;
  Fiber host;

  int at_barrier = 0;
  Site barrier_site;
  bool barrier_predicate = false;
  bool barrier_result = false;

  std::uint64_t serial = 0;  // counts all blocks that ever ran
  std::size_t static_shared = 0;
  std::vector<Taken> taken;
};
extern Block the_block;

/// The thread that runs; null outside of kernels.
extern constinit thread_local Thread* running;

/// Whether the thread that runs may not touch p yet, since kernels before may be running.
bool is_too_early_for(const void* p);

/// "sketch.cuh:73".
std::string to_string(const Site& site);
/// The block fails: thrown through the kernel.
[[noreturn]] void fail(const std::string& what, const Site& site);
/// The same where nothing may be thrown: the thread stops here.
[[noreturn]] void abandon(const std::string& what);

}  // namespace bragg::detail::simt
