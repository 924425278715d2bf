// SPDX-License-Identifier: Apache-2.0
#include "tests/simt/block.hpp"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>

#include "tests/simt/memory.hpp"
#include "tests/simt/shadow.hpp"

namespace bragg::detail::simt {

constinit thread_local const Coordinates* self = nullptr;
constinit thread_local Thread* running = nullptr;
Block the_block;

void ReadyThreads::start(Order order, int threads, Random& random) {
  order_ = order;
  queue_.clear();
  head_ = 0;
  by_rank_.fill(0);
  if (order == Order::greedy) rank_warps(threads, random);
  for (int i = 0; i < threads; ++i) add(order == Order::reverse ? threads - 1 - i : i);
}

/// Warps in random order; the lanes of each from a random one on, up or down.
void ReadyThreads::rank_warps(int threads, Random& random) {
  std::array<int, max_block_threads / warp_size> order;
  const int warps = (threads + warp_size - 1) / warp_size;
  std::iota(order.begin(), order.begin() + warps, 0);
  for (int i = warps; i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  int rank = 0;
  for (int w = 0; w < warps; ++w) {
    const int first = order[w] * warp_size;
    const int lanes = std::min(warp_size, threads - first);
    const int start = random.below(lanes);
    const bool down = random.below(2) != 0;
    for (int i = 0; i < lanes; ++i, ++rank) {
      const int step = (i + start) % lanes;
      const int thread = first + (down ? lanes - 1 - step : step);
      rank_of_[thread] = rank;
      thread_of_[rank] = thread;
    }
  }
}

void ReadyThreads::add(int thread) {
  if (order_ == Order::greedy) {
    by_rank_[rank_of_[thread] / 64] |= std::uint64_t{1} << (rank_of_[thread] % 64);
  } else {
    queue_.push_back(thread);
  }
}

int ReadyThreads::next(Random& random) {
  if (order_ == Order::greedy) {
    for (std::size_t i = 0; i < by_rank_.size(); ++i) {
      if (by_rank_[i] == 0) continue;
      const int bit = __builtin_ctzll(by_rank_[i]);
      by_rank_[i] &= by_rank_[i] - 1;
      return thread_of_[i * 64 + static_cast<std::size_t>(bit)];
    }
    return -1;
  }
  if (head_ == queue_.size()) return -1;
  if (order_ == Order::random) {
    std::swap(queue_[static_cast<std::size_t>(random.below(static_cast<int>(queue_.size())))], queue_.back());
    const int thread = queue_.back();
    queue_.pop_back();
    return thread;
  }
  const int thread = queue_[head_++];
  if (head_ == queue_.size()) {
    queue_.clear();
    head_ = 0;
  }
  return thread;
}

namespace {

/// Null: the host, because nobody can run or the block has failed.
Thread* next_thread() {
  Block& b = the_block;
  if (!b.error.empty()) return nullptr;
  const int i = b.ready.next(b.random);
  return i < 0 ? nullptr : b.threads[static_cast<std::size_t>(i)].get();
}

void resume(Thread* next, bool ends = false) {
  Fiber& from = running != nullptr ? running->fiber : the_block.host;
  Fiber& to = next != nullptr ? next->fiber : the_block.host;
  running = next;
  self = next != nullptr ? &next->place : nullptr;
  Fiber::switch_to(from, to, ends);
}

std::string place_of(const Thread& t) {
  return "block (" + std::to_string(t.place.block) + ", " + std::to_string(t.place.block_y) + ") thread " +
         std::to_string(t.place.thread) + ": ";
}

void run_thread() {
  Block& b = the_block;
  Thread& me = *running;
  try {
    b.body(b.call);
    if (b.launch.dependent && !me.has_synced) fail("exits without grid_dependency_sync", Site());
  } catch (const std::exception& e) {
    if (b.error.empty()) b.error = e.what();
  }
  me.state = State::exited;
  b.warps[me.place.warp].live &= ~(1u << me.place.lane);
  ++b.exited;
  resume(next_thread(), true);
}

std::string deadlock() {
  std::map<std::string, int> count;
  for (int i = 0; i < the_block.launch.threads; ++i) {
    const Thread& t = *the_block.threads[static_cast<std::size_t>(i)];
    const char* const what =
        t.state == State::at_barrier ? "wait for the block at " : "wait for their warp at ";
    ++count[t.state == State::exited ? "exited" : what + to_string(t.site)];
  }
  const Coordinates& place = the_block.threads[0]->place;
  std::string text =
      "block (" + std::to_string(place.block) + ", " + std::to_string(place.block_y) + ") hangs:";
  const char* separator = " ";
  for (const auto& [where, threads] : count) {
    text += separator + std::to_string(threads) + " threads " + where;
    separator = "; ";
  }
  return text;
}

void prepare(Thread& t, int i, int block_x, int block_y) {
  const Launch& launch = the_block.launch;
  t.place = {i, i % warp_size, i / warp_size, block_x, block_y, launch.threads, launch.blocks_x};
  t.state = State::ready;
  t.site = Site();
  t.has_synced = false;
  t.fiber.start(&run_thread);
}

}  // namespace

void Block::run(int block_x, int block_y) {
  ++serial;
  static_shared = 0;
  taken.clear();
  reset_shared();
  shadow::begin_block();
  exited = 0;
  at_barrier = 0;
  barrier_predicate = false;
  while (static_cast<int>(threads.size()) < launch.threads) threads.push_back(std::make_unique<Thread>());
  for (int i = 0; i < launch.threads; ++i)
    prepare(*threads[static_cast<std::size_t>(i)], i, block_x, block_y);
  for (int first = 0, w = 0; first < launch.threads; first += warp_size, ++w) {
    const int lanes = std::min(warp_size, launch.threads - first);
    warps[w].live = lanes == warp_size ? ~0u : (1u << lanes) - 1;
    warps[w].meeting.arrived = 0;
  }
  ready.start(schedule.order, launch.threads, random);

  resume(next_thread());
  if (error.empty() && exited != launch.threads) error = deadlock();
  if (error.empty()) error = damaged_shared_red_zone();
}

void Block::wait() {
  Thread* const next = next_thread();
  if (next != running) resume(next);
}

void Block::make_ready(int thread) {
  threads[static_cast<std::size_t>(thread)]->state = State::ready;
  ready.add(thread);
}

void grid_dependency_sync() { running->has_synced = true; }

bool is_too_early_for(const void* p) {
  return the_block.launch.dependent && !running->has_synced && global_arena().contains(p);
}

std::string to_string(const Site& site) {
  const std::string file = site.file_name();
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line());
}

void fail(const std::string& what, const Site& site) {
  const std::string place = running != nullptr ? place_of(*running) : "";
  throw Failure(place + what + (site.line() != 0 ? " at " + to_string(site) : ""));
}

void abandon(const std::string& what) {
  if (the_block.error.empty()) the_block.error = place_of(*running) + what;
  running->state = State::exited;
  resume(nullptr, true);
  std::abort();
}

}  // namespace bragg::detail::simt
