// SPDX-License-Identifier: Apache-2.0
// The least work of a pass: bytes to move, operations of one unit. Its bound follows from them.
#pragma once

#include <bragg/pipeline.hpp>
#include <bragg/updates.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "host/plan/engine.hpp"

namespace bragg::bench {

struct PassWork {
  std::string name;  ///< "gram", "statistics", "combine", "select" or "mix+select"
  double bytes_read = 0;
  double bytes_written = 0;
  double fma = 0;          ///< multiply-adds and additions in f64
  double fma_f32 = 0;      ///< and in f32
  double conversions = 0;  ///< between f64 and fewer bits
  double min_max = 0;      ///< minima and maxima
  double keys = 0;         ///< values that are compared, and ranks that are used of them
  int lane_bits = 32;      ///< of the values that are compared
  std::string note = {};

  double bytes() const { return bytes_read + bytes_written; }
};

/// Above this many points, operations of a selection are not counted: nobody would use a network.
inline constexpr int most_network_points = 128;

/// Work of the inner products of all pairs of n rows, including a row with itself: n(n+1)/2·d multiply-adds
/// in f64, and n·d conversions.
PassWork gram_work(int n, std::int64_t d, DType dtype);
/// Work of finding out which rows are finite, without products.
PassWork statistics_work(int n, std::int64_t d, DType dtype);
/// Work of combining k rows with a coefficient: k·d multiply-adds in f64.
PassWork combine_work(int k, std::int64_t d, DType dtype);
/// Work of a selection among rows: the selection network, pruned to the outputs that the rule uses, and the
/// sum of those in f64.
PassWork select_work(const detail::SelectRule& rule, int points, std::int64_t d, DType dtype);
/// Work of a selection among combinations of `rows` rows, `mixing` multiply-adds or additions per coordinate.
PassWork mix_select_work(const detail::SelectRule& rule, int points, int rows, double mixing, std::int64_t d,
                         DType dtype);
/// The smaller number: one multiply-add per coefficient of `entries`; or, if each point's coefficients are
/// all equal, the sums of subsets of four rows, made once, and the additions of those per point.
double mixing_work(int points, int rows, double entries, bool equal);

/// The passes of a run, from the solution of its solve. `solution` has table rows as Engine's.
std::vector<PassWork> passes_of(const Pipeline& pipeline, int n, std::int64_t d, DType dtype,
                                const detail::Solution& solution);
/// The solve of a run over rows of d elements in host memory; where there is a previous output, it is 0.
detail::Solution solution_of(const Pipeline& pipeline, std::vector<const void*> rows, std::int64_t d,
                             DType dtype);

/// Minima and maxima of a number of bits per second; 0: not known.
struct MinMaxRates {
  double floats = 0;
  double integers = 0;
};

/// Speeds of a machine, per second.
struct Rates {
  double read = 0;  ///< bytes
  double copy = 0;  ///< bytes, read and written
  double fma_f32 = 0, fma_f64 = 0;
  double to_f64 = 0;  ///< conversions
  MinMaxRates min_max_16 = {}, min_max_32 = {}, min_max_64 = {};

  const MinMaxRates& min_max(int lane_bits) const {
    return lane_bits == 16 ? min_max_16 : lane_bits == 32 ? min_max_32 : min_max_64;
  }
};

struct Floor {
  double seconds = 0;
  const char* bound = "memory";  ///< or "arithmetic"
};

/// The larger of bytes / bandwidth and operations / peak. What is written goes along with as much that is
/// read at the speed of a copy, where that is more than the speed of reading, which the rest has. Operations
/// share the core's vector units, so their times are added. Floats are compared as they are, or as integers
/// of the same order, whichever is faster: that takes two operations more for each value and for each rank
/// that is used. A rate of 0 is not known, and bounds nothing.
Floor floor_of(const PassWork& work, const Rates& rates);

}  // namespace bragg::bench
