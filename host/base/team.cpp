// SPDX-License-Identifier: Apache-2.0
#include "host/base/team.hpp"

#include <fmt/format.h>
#include <omp.h>
#include <pthread.h>
#include <sys/mman.h>
#include <bragg/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <latch>
#include <new>
#include <string>
#include <thread>
#include <vector>

namespace bragg::detail {

namespace {

// OpenMP has threads for each thread that calls it.
thread_local int kept = 1;  ///< threads of the last region that had more than one
thread_local int most = 1;  ///< threads that have run at once

struct Tried {
  int threads;      ///< that run at once, with the calling one
  std::string why;  ///< there are no more
};

Tried try_threads(int count) {
  std::vector<std::thread> tried;
  std::latch all_tried(1);
  std::string why;
  try {
    tried.reserve(static_cast<std::size_t>(count));
    for (int i = 1; i < count; ++i) tried.emplace_back([&] { all_tried.wait(); });
  } catch (const std::exception& error) {
    why = error.what();
  }
  all_tried.count_down();
  for (std::thread& thread : tried) thread.join();
  const int threads = static_cast<int>(tried.size()) + 1;
  most = std::max(most, threads);
  return {threads, why};
}

/// Whether there are addresses for the stacks of that many threads: those of threads that are just ending
/// cannot be taken over yet.
bool stacks_fit(int count) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  std::size_t bytes = 0;
  pthread_attr_getstacksize(&attributes, &bytes);
  pthread_attr_destroy(&attributes);
  bytes *= static_cast<std::size_t>(count);
  void* const stacks = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) return false;
  munmap(stacks, bytes);
  return true;
}

}  // namespace

int threads_of(int asked) { return asked > 0 ? asked : std::max(1, omp_get_max_threads()); }

int team(int wanted) {
  int threads = wanted;
  if (wanted > most) {
    threads = try_threads(wanted).threads;
  } else if (wanted > kept && !stacks_fit(wanted - kept)) {
    threads = kept;
  }
  // More than a team of any known OpenMP takes: libgomp's is of 1.4 KiB and 160 bytes per thread. volatile: a
  // compiler may leave out an allocation that nothing needs.
  void* volatile const memory = std::malloc(4096 + 256 * static_cast<std::size_t>(threads));
  if (memory == nullptr) throw std::bad_alloc();
  std::free(memory);
  if (threads > 1) kept = threads;
  return threads;
}

void start_threads(int count) {
  const Tried tried = try_threads(count);
  if (tried.threads < count) {
    throw Error(Status::out_of_memory,
                fmt::format("threads = {}: the system starts only {}: {}", count, tried.threads, tried.why));
  }
#pragma omp parallel num_threads(team(count))
  {}
}

}  // namespace bragg::detail
