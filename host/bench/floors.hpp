// SPDX-License-Identifier: Apache-2.0
// The machine's speeds, measured with as many threads as the passes have. They are ceilings: of each the
// fastest of several loops, and of those the fastest run.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "host/bench/data.hpp"
#include "host/bench/peaks.hpp"
#include "host/bench/work.hpp"

namespace bragg::bench {

struct Floors {
  int threads = 1;
  std::size_t memory_bytes = 0;  ///< that the bandwidths are of: more than the cache holds
  double read = 0;               ///< bytes per second
  double copy = 0;               ///< read and written
  std::string read_how = {}, copy_how = {};
  double fma_f32 = 0, fma_f64 = 0;  ///< multiply-adds per second
  double to_f64 = 0;                ///< conversions from f32 per second
  MinMaxRates min_max_16 = {}, min_max_32 = {}, min_max_64 = {};
  /// For a CUDA device only. fma_f64 is the rate of its tensor cores, or of pairs of floats or bytes where
  /// they are taken, if these are faster.
  double fma_f64_single = 0;  ///< multiply-adds per second, without tensor cores
  double launch_us = 0, graph_us = 0,
         node_us = 0;  ///< of a kernel, a graph of one, and each kernel more in it

  /// With the bandwidth of data that may be in the cache; never less than that of memory.
  Rates rates(double bandwidth) const;
};

/// The better of two measurements, for each figure: a shared machine may be slow for a moment.
Floors best_of(const Floors& a, const Floors& b);

/// The bandwidth at which `threads` threads read the data again and again, the best of all ways. Data so much
/// larger than the cache that nothing of it is left when it is read once more is timed in short pieces: one
/// of them will not be disturbed. `seconds`: about how long this takes.
struct Bandwidth {
  double bytes_per_second = 0;
  ReadVariant variant;
};
Bandwidth read_bandwidth(const unsigned char* data, std::size_t bytes, int threads, std::size_t cache_bytes,
                         double seconds);

/// Memory to measure bandwidths in, more than a last level of `cache_bytes` holds. @throws Error
/// out_of_memory.
Buffer memory_beyond(std::size_t cache_bytes);

/// `memory`: from memory_beyond(cache_bytes). `seconds`: about how long this takes.
Floors measure_floors(int threads, const Buffer& memory, std::size_t cache_bytes, double seconds);

}  // namespace bragg::bench
