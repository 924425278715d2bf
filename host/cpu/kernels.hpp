// SPDX-License-Identifier: Apache-2.0
// Functions that the passes call per block of coordinates. Each runs on the best instruction set of the
// machine. They neither allocate nor throw, so they may be called inside an OpenMP region.
#pragma once

#include <bragg/updates.hpp>
#include <cstddef>
#include <cstdint>

#include "host/cpu/columns.hpp"
#include "host/cpu/passes.hpp"
#include "rules/networks/network.hpp"

// A baseline, AVX2 and AVX-512 are what x86 machines need; fewer targets compile faster.
#ifndef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#endif

namespace bragg::detail::cpu {

using detail::Comparator;

/// One tensor of a row. A null pointer reads as zeros.
struct RowSource {
  const unsigned char* data = nullptr;
  DType dtype = DType::f32;
  bool zeros = false;  ///< one stretch of zeros stands for all of them

  const unsigned char* at(std::int64_t element) const noexcept {
    return zeros ? data : data + element * static_cast<std::int64_t>(size_of(dtype));
  }
};

/// Bytes that every vector of every target divides; scratch is aligned to it.
inline constexpr std::size_t vector_bytes = 256;

const char* target_name() noexcept;

// gram --------------------------------------------------------------------------------------------

/// Adds the non-finite values of elements [begin, begin+count) to `nonfinite`, and for f64 raises `max_abs`
/// to the largest finite |x|.
void row_statistics(const RowSource& row, std::int64_t begin, int count, std::int64_t& nonfinite,
                    double& max_abs);

/// Rows whose products are wanted, none null, and where what is found about rows[k] is noted: at index[k].
struct GramRows {
  const RowSource* rows = nullptr;
  const int* index = nullptr;
  int count = 0;
  std::int64_t* nonfinite = nullptr;
  double* max_abs = nullptr;
};

/// Doubles of aligned scratch that `gram_products` takes.
std::size_t gram_scratch_doubles(int rows, int columns);

/// The longest chain of additions in a total of gram_products over gram_block elements.
std::int64_t gram_additions();

/// totals = Σ over elements [begin, begin+count) of rows[i]·columns[j], f64 rows multiplied by `scale`: row
/// by row, every column. `columns` null: of rows with each other, j ≤ i only, and with their statistics as by
/// row_statistics. Every pair is summed in the same order. `center`: null, or what is taken from every row
/// before: `count` values, and zeros up to a whole vector; max_abs is then of what is left.
void gram_products(const GramRows& rows, const GramRows* columns, std::int64_t begin, int count, double scale,
                   const double* center, double* scratch, double* totals);

/// to[0, count) = elements [begin, begin+count) in f64, those that are not finite as 0; zeros follow up to a
/// whole vector.
void center_values(const RowSource& row, std::int64_t begin, int count, double* to);

// combine -----------------------------------------------------------------------------------------

/// Coordinates that combine accumulates before it writes them.
inline constexpr int combine_tile = 1024;

/// out[begin, begin+count) = Σ coefficients[k]·rows[k], no row null. `nonfinite`: null, or those of rows[k]
/// are added to nonfinite[index[k]]. `tile`: aligned, combine_tile doubles.
void combine_chunk(const RowSource* rows, const double* coefficients, const int* index, int row_count,
                   std::int64_t begin, std::int64_t count, DType out_dtype, unsigned char* out,
                   std::int64_t* nonfinite, double* tile);

/// out[0, count) = value.
void fill_chunk(std::int64_t count, DType out_dtype, unsigned char* out, double value);

// select ------------------------------------------------------------------------------------------

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
