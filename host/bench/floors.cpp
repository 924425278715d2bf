// SPDX-License-Identifier: Apache-2.0
#include "host/bench/floors.hpp"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <atomic>

#include "host/base/team.hpp"

namespace bragg::bench {

namespace {

/// Data is out of the cache when it is so many times as large: where a line takes the place of any other by
/// chance, e⁻⁴ = 2 % of the lines are still there.
constexpr std::size_t beyond_cache = 4;

/// Keeps the values that a loop reads in use.
std::atomic<std::uint32_t> sink;

/// A thread's part of so many bytes, whole cache lines but for the last one's.
struct Part {
  std::size_t begin, bytes;
};
Part part_of(std::size_t bytes, int thread, int threads) {
  constexpr std::size_t line = 64;
  const std::size_t lines = bytes / line;
  const auto t = static_cast<std::size_t>(thread);
  const auto count = static_cast<std::size_t>(threads);
  const std::size_t begin = lines * t / count * line;
  const std::size_t end = t + 1 == count ? bytes : lines * (t + 1) / count * line;
  return {begin, end - begin};
}

/// Length of a trial: longer than the threads' start, and so short that some trials are undisturbed.
constexpr double trial_seconds = 1e-3;

/// Seconds from the first thread's start to the last one's end of body(thread, threads) on all of them.
template <class BodyT>
double seconds_of(int threads, const BodyT& body) {
  double begin = 1e300;
  double end = 0;
#pragma omp parallel num_threads(detail::team(threads))
  {
#pragma omp barrier
    const double from = omp_get_wtime();
    body(omp_get_thread_num(), omp_get_num_threads());
    const double to = omp_get_wtime();
#pragma omp critical
    {
      begin = std::min(begin, from);
      end = std::max(end, to);
    }
  }
  return end - begin;
}

/// The least seconds that trial(k) says it took, k = 0, 1, …: some times, and as long as there is time for
/// it.
template <class TrialT>
double least_of(double seconds, const TrialT& trial) {
  const double until = omp_get_wtime() + seconds;
  double least = 1e300;
  for (std::size_t k = 0; k < 3 || omp_get_wtime() < until; ++k) least = std::min(least, trial(k));
  return least;
}

double unit_rate(Unit unit, int threads, double seconds) {
  std::int64_t steps = 1000;
  const auto trial = [&](std::size_t) {
    return seconds_of(threads, [&](int, int) {
      sink.store(static_cast<std::uint32_t>(run_unit(unit, steps)), std::memory_order_relaxed);
    });
  };
  const double once = least_of(0, trial);
  steps = static_cast<std::int64_t>(1000 * std::clamp(trial_seconds / std::max(once, 1e-9), 1.0, 1e6));
  const double least = least_of(seconds, trial);
  return run_unit(unit, steps) * threads / least;
}

constexpr std::array<ReadVariant, 9> read_variants = {
    {{1, 0}, {1, 512}, {1, 2048}, {2, 0}, {2, 1024}, {4, 0}, {4, 512}, {8, 0}, {8, 512}}};
constexpr std::array<CopyVariant, 4> copy_variants = {{{true, 0}, {true, 512}, {false, 0}, {false, 512}}};

std::string ahead_text(int ahead) { return ahead > 0 ? fmt::format(", prefetch {} bytes ahead", ahead) : ""; }

/// Pieces of data that is too much for the cache: read in turn, each is out of it.
class Pieces {
 public:
  Pieces(std::size_t bytes, double seconds_of_all) {
    constexpr std::size_t page = 4096;
    const double wanted = std::clamp(seconds_of_all / trial_seconds, 1.0, 64.0);
    count_ = static_cast<std::size_t>(wanted);
    bytes_ = bytes / count_ / page * page;
    if (bytes_ == 0) {
      count_ = 1;
      bytes_ = bytes;
    }
  }
  std::size_t begin(std::size_t k) const { return k % count_ * bytes_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t count_ = 1, bytes_ = 0;
};

double read_seconds(const unsigned char* data, std::size_t bytes, int threads, ReadVariant variant,
                    int rounds) {
  return seconds_of(threads, [&](int thread, int count) {
    const Part part = part_of(bytes, thread, count);
    for (int r = 0; r < rounds; ++r) {
      sink.fetch_xor(read_bytes(data + part.begin, part.bytes, variant), std::memory_order_relaxed);
    }
  });
}

/// From one half of the memory to the other.
void measure_copy(Floors& floors, const Buffer& memory, double seconds) {
  const std::size_t half = memory.bytes() / 2;
  const auto copy = [&](std::size_t begin, std::size_t bytes, CopyVariant variant) {
    return seconds_of(floors.threads, [&](int thread, int count) {
      const Part part = part_of(bytes, thread, count);
      const unsigned char* const from = memory.data() + begin + part.begin;
      copy_bytes(memory.data() + half + begin + part.begin, from, part.bytes, variant);
    });
  };
  const Pieces pieces(half, copy(0, half, copy_variants.front()));
  for (const CopyVariant variant : copy_variants) {
    const double least = least_of(seconds / copy_variants.size(), [&](std::size_t k) {
      return copy(pieces.begin(k), pieces.bytes(), variant);
    });
    const double rate = 2 * static_cast<double>(pieces.bytes()) / least;
    if (rate <= floors.copy) continue;
    floors.copy = rate;
    floors.copy_how =
        fmt::format("{} stores{}", variant.streaming ? "streaming" : "plain", ahead_text(variant.ahead));
  }
}

}  // namespace

Rates Floors::rates(double bandwidth) const {
  return {.read = std::max(bandwidth, read),
          .copy = copy,
          .fma_f32 = fma_f32,
          .fma_f64 = fma_f64,
          .to_f64 = launch_us > 0 ? 0 : to_f64,  // a device need not convert
          .min_max_16 = min_max_16,
          .min_max_32 = min_max_32,
          .min_max_64 = min_max_64};
}

Floors best_of(const Floors& a, const Floors& b) {
  Floors best = a;
  if (b.read > a.read) {
    best.read = b.read;
    best.read_how = b.read_how;
  }
  if (b.copy > a.copy) {
    best.copy = b.copy;
    best.copy_how = b.copy_how;
  }
  best.fma_f32 = std::max(a.fma_f32, b.fma_f32);
  best.fma_f64 = std::max(a.fma_f64, b.fma_f64);
  for (const auto rates : {&Floors::min_max_16, &Floors::min_max_32, &Floors::min_max_64}) {
    (best.*rates).floats = std::max((a.*rates).floats, (b.*rates).floats);
    (best.*rates).integers = std::max((a.*rates).integers, (b.*rates).integers);
  }
  best.fma_f64_single = std::max(a.fma_f64_single, b.fma_f64_single);
  best.to_f64 = std::max(a.to_f64, b.to_f64);
  best.launch_us = std::min(a.launch_us, b.launch_us);
  best.graph_us = std::min(a.graph_us, b.graph_us);
  best.node_us = std::min(a.node_us, b.node_us);
  return best;
}

Bandwidth read_bandwidth(const unsigned char* data, std::size_t bytes, int threads, std::size_t cache_bytes,
                         double seconds) {
  Bandwidth best;
  read_seconds(data, bytes, threads, read_variants.front(), 1);
  const double once = read_seconds(data, bytes, threads, read_variants.front(), 1);
  const Pieces pieces(bytes, bytes >= beyond_cache * cache_bytes ? once : 0);
  const int rounds = static_cast<int>(std::clamp(trial_seconds / std::max(once, 1e-9), 1.0, 1e6));
  for (const ReadVariant variant : read_variants) {
    const double least = least_of(seconds / read_variants.size(), [&](std::size_t k) {
      return read_seconds(data + pieces.begin(k), pieces.bytes(), threads, variant, rounds);
    });
    const double rate = static_cast<double>(pieces.bytes()) * rounds / least;
    if (rate > best.bytes_per_second) best = {rate, variant};
  }
  return best;
}

Buffer memory_beyond(std::size_t cache_bytes) {
  constexpr std::size_t least = std::size_t{256} << 20;
  constexpr std::size_t most = std::size_t{4} << 30;
  return Buffer(std::clamp(beyond_cache * cache_bytes, least, most));
}

Floors measure_floors(int threads, const Buffer& memory, std::size_t cache_bytes, double seconds) {
  const double share = seconds / 10;
  Floors floors{.threads = threads, .memory_bytes = memory.bytes()};
  const auto rate = [&](Unit unit) { return unit_rate(unit, threads, share / 2); };
  floors.fma_f32 = rate(Unit::fma_f32);
  floors.fma_f64 = rate(Unit::fma_f64);
  floors.to_f64 = rate(Unit::to_f64);
  floors.min_max_16 = {.integers = rate(Unit::min_max_integer_16)};
  floors.min_max_32 = {.floats = rate(Unit::min_max_float_32), .integers = rate(Unit::min_max_integer_32)};
  floors.min_max_64 = {.floats = rate(Unit::min_max_float_64), .integers = rate(Unit::min_max_integer_64)};
  const Bandwidth read = read_bandwidth(memory.data(), memory.bytes(), threads, cache_bytes, 4 * share);
  floors.read = read.bytes_per_second;
  floors.read_how = fmt::format("{} stream{} a thread{}", read.variant.streams,
                                read.variant.streams == 1 ? "" : "s", ahead_text(read.variant.ahead));
  measure_copy(floors, memory, 2 * share);
  return floors;
}

}  // namespace bragg::bench
