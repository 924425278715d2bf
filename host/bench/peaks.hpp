// SPDX-License-Identifier: Apache-2.0
// Loops that do one thing as fast as a thread can: what the machine is measured with. Each runs on the best
// instruction set of the machine, neither allocates nor throws, and is called by all threads at once.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bragg::bench {

/// An operation of the core, on lanes of so many bits.
enum class Unit : std::uint8_t {
  fma_f32,
  fma_f64,
  to_f64,
  min_max_float_32,
  min_max_float_64,
  min_max_integer_16,
  min_max_integer_32,
  min_max_integer_64,
};

/// Repeats twelve independent chains of the operation; returns the operations done, each lane counting as
/// one: of a conversion from f32, those of f64. A comparator is two of them: a minimum and a maximum.
double run_unit(Unit unit, std::int64_t steps);

/// A way to read memory: `streams` streams side by side, each with a prefetch `ahead` bytes ahead (0: none).
struct ReadVariant {
  int streams = 1;  ///< 1, 2, 4 or 8
  int ahead = 0;
};

/// Reads all of [data, data + bytes), whole cache lines; what it returns depends on them.
std::uint32_t read_bytes(const unsigned char* data, std::size_t bytes, ReadVariant variant);

/// A way to copy memory: by stores that bypass the cache, or not.
struct CopyVariant {
  bool streaming = true;
  int ahead = 0;
};

/// Copies `bytes`, whole cache lines; both addresses are multiples of 64.
void copy_bytes(unsigned char* to, const unsigned char* from, std::size_t bytes, CopyVariant variant);

}  // namespace bragg::bench
