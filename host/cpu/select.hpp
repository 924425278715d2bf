// SPDX-License-Identifier: Apache-2.0
// The coordinate-wise rules per block of coordinates, as of kernels.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "host/cpu/columns.hpp"
#include "host/cpu/kernels.hpp"
#include "rules/networks/network.hpp"
#include "rules/select_rule.hpp"

namespace bragg::detail::cpu {

using detail::Comparator;

/// Four points' coefficients of one row.
struct MixEntry {
  int row = 0;  ///< index into SelectJob::used_rows
  double coefficient[4] = {0, 0, 0, 0};
};

/// Mixing by subsets: the sums of all subsets of four rows are made once, for a few columns, and each point
/// adds one of each group of rows. A block of groups is what stays in L1.
inline constexpr int subset_columns = 8;
inline constexpr int subset_groups = 16;                                                ///< of a block
inline constexpr int subset_bytes = subset_columns * static_cast<int>(sizeof(double));  ///< of one sum
inline constexpr int subset_group_bytes = 16 * subset_bytes;
inline constexpr std::size_t subset_table_bytes = std::size_t{subset_groups} * subset_group_bytes;

/// What select computes, prepared once for all its chunks.
struct SelectJob {
  SelectRule rule;
  int points = 0;
  const int* rows = nullptr;               ///< not mixed: table row of each point
  const std::uint8_t* infinite = nullptr;  ///< null, or per point
  const double* weights = nullptr;         ///< null, or per point
  double total_weight = 0;
  bool wide = false;  ///< mixed points and weighted values are f64; else f32
  bool count_nonfinite = false;

  // Not weighted: how the points are sorted.
  KeyKind keys = KeyKind::f32;
  DType key_dtype = DType::f32;  ///< what the keys stand for
  std::uint16_t infinity = 0;    ///< 16-bit types: the bits of +inf
  int first_rank = 0;            ///< of the ranks that the rule reads
  int last_rank = 0;
  bool middle_only = false;    ///< the network finds those ranks, the middle one or two, alone
  bool bisected = false;       ///< by bisection; else by the networks below
  ColumnNetwork network;       ///< of a chunk of points
  int wires = 0;               ///< points, and constants that fill the networks up
  int low_wires = 0;           ///< of the constants, those that sort before all points
  int chunk = 0;               ///< points that a network takes: all, or else sorted chunks are merged
  ColumnNetwork last_network;  ///< of fewer points than a chunk, at the end
  const Comparator* merges = nullptr;
  std::size_t merge_count = 0;
  std::int64_t ahead = 0;  ///< bytes from what is read of a row to what is asked of memory

  // Mixed: each point is a combination of rows.
  bool mixed = false;
  /// Null, or where points have few entries: those of point p are [few_start[p], few_start[p+1]). Else by
  /// what follows.
  const int* few_start = nullptr;
  const int* few_rows = nullptr;  ///< table row of each
  const double* few_coefficients = nullptr;
  const int* used_rows = nullptr;  ///< table rows that have an entry
  int used_row_count = 0;
  const MixEntry* entries = nullptr;  ///< entries of points 4g … 4g+3 are [group_start[g], group_start[g+1])
  const std::size_t* group_start = nullptr;
  /// Null, or where each point's coefficients are all the same: that one, and the places of its sums in the
  /// block's table of subsets, 16 bits each: four groups to a word, words of a point together.
  const double* subset_coefficients = nullptr;
  const std::uint64_t* subsets = nullptr;
  DType subset_dtype = DType::f32;  ///< of all used rows
};

/// The weighted rules, one coordinate after another: results[i] for `count` columns of `values` (point p of
/// column i is values[p·stride + i]). `order`: scratch for job.points entries.
template <class ValueT>
void select_weighted(const SelectJob& job, const ValueT* values, std::size_t stride, int count,
                     double* results, int* order);

/// Median or trimmed mean of up to most_bisected_points points, bisected: results[i] for `count` columns, a
/// multiple of bisection_columns(). Of `columns`: at, infinity, seen. `memory`: aligned,
/// bisection_bytes(job).
void bisect(const SelectJob& job, const Columns& columns, int count, unsigned char* memory, double* results);
int bisection_columns();  ///< 0: not on this instruction set
std::size_t bisection_bytes(const SelectJob& job);
inline constexpr int most_bisected_points = 32767;

/// Bytes of scratch that a thread needs for the job.
std::size_t select_scratch_bytes(const SelectJob& job);

/// out[0][begin, begin+count) = rule(points); of Kind::none out[p] = point p. `rows`: every table row.
/// `nonfinite`: per table row, added to.
void select_chunk(const SelectJob& job, const RowSource* rows, std::int64_t begin, std::int64_t count,
                  DType out_dtype, unsigned char* const* out, std::int64_t* nonfinite,
                  unsigned char* scratch);

}  // namespace bragg::detail::cpu
