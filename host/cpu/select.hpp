// SPDX-License-Identifier: Apache-2.0
// The coordinate-wise rules per block of coordinates, as the passes of kernels.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "host/cpu/columns.hpp"
#include "host/cpu/kernels.hpp"
#include "rules/networks/network.hpp"
#include "rules/select_rule.hpp"

namespace bragg::detail::cpu {

// what a point is ---------------------------------------------------------------------------------

/// Each point is a row.
struct Rows {
  std::span<const int> rows;  ///< table row of each point
  bool count_nonfinite = false;
};

/// Each point is a combination of few rows, which it reads for itself.
struct FewRows {
  const int* start = nullptr;  ///< entries of point p are [start[p], start[p+1])
  const int* rows = nullptr;   ///< table row of each entry
  const double* coefficients = nullptr;
};

/// Each point is a combination of rows with one coefficient: the sums of all subsets of four rows are made
/// once, for a few columns, and each point adds one of each group of rows. A block of groups is what stays in
/// L1.
struct Subsets {
  std::span<const int> used;              ///< table rows that have a coefficient
  DType dtype = DType::f32;               ///< of all used rows
  const double* coefficients = nullptr;   ///< per point
  const std::uint16_t* wanted = nullptr;  ///< per group, bit k: a point has its rows' subset k
  bool are_means = false;                 ///< no point's coefficients add up to more than 1
  /// Places of a point's sums in the block's table, 16 bits each, as if a sum took subset_place bytes: four
  /// groups to a word, words of a point together.
  const std::uint64_t* places = nullptr;
};
inline constexpr int subset_groups = 8;  ///< of a block
inline constexpr int subset_place = 64;

/// Four points' coefficients of one row.
struct MixEntry {
  int row = 0;  ///< index into Products::used
  double coefficient[4] = {0, 0, 0, 0};
};

/// Each point is a combination of rows with any coefficients.
struct Products {
  std::span<const int> used;          ///< table rows that have a coefficient
  const MixEntry* entries = nullptr;  ///< entries of points 4g … 4g+3 are [group_start[g], group_start[g+1])
  const std::size_t* group_start = nullptr;
};

// what becomes of the points ----------------------------------------------------------------------

/// Each is written to an output of its own (SelectRule::Kind::none).
struct Written {};

/// Networks sort the points as far as the rule reads them.
struct Networks {
  int first_rank = 0;  ///< of the ranks that the rule reads
  int last_rank = 0;
  bool middle_only = false;    ///< the network finds those ranks, the middle one or two, alone
  ColumnNetwork network;       ///< of a chunk of points
  ColumnNetwork last_network;  ///< of fewer points than a chunk, at the end
  int chunk = 0;               ///< points that a network takes: all, or else sorted chunks are merged
  int wires = 0;               ///< points, and constants that fill the networks up
  int low_wires = 0;           ///< of the constants, those that sort before all points
  /// None of two chunks of most_column_points.
  std::span<const Comparator> merges;

  bool two_chunks() const {
    return chunk == most_column_points && wires > chunk && wires <= 2 * most_column_points;
  }
};

/// Median or trimmed mean, whose ranks are bisected.
struct Bisection {
  bool is_median = false;
  int points = 0;            ///< at most most_bisected_points
  DType dtype = DType::f32;  ///< of the points
  int first_rank = 0;        ///< of the ranks that the rule reads
  int last_rank = 0;
};
inline constexpr int most_bisected_points = 32767;

/// Weighted median or weighted trimmed mean, one coordinate after another.
struct Weighted {
  std::span<const double> weights;  ///< per point
  double total = 0;
};

/// As more of the points are above o or below it, a step from there.
struct Votes {
  int origin = 0;  ///< table row of o
  double step = 0;
  std::span<const double> weights;  ///< per point; empty: all alike
};

// -------------------------------------------------------------------------------------------------

/// What select computes, prepared once for all its chunks.
struct SelectJob {
  SelectRule rule;
  int points = 0;
  const std::uint8_t* infinite = nullptr;  ///< null, or per point
  DType dtype = DType::f32;                ///< of the points; combinations are f64 or f32
  std::variant<Rows, FewRows, Subsets, Products> source;
  std::variant<Written, Networks, Bisection, Weighted, Votes> method;

  bool mixed() const { return !std::holds_alternative<Rows>(source); }
  /// Points' values are made before they are reduced; else they are read where they lie.
  bool by_value() const { return mixed() || std::holds_alternative<Weighted>(method); }
  bool count_nonfinite() const {
    const auto* const plain = std::get_if<Rows>(&source);
    return plain != nullptr && plain->count_nonfinite;
  }
};

/// results[i] for `count` columns of `values` (point p of column i is values[p·stride + i]). `order`:
/// scratch, an int per point.
template <class ValueT>
void select_weighted(const SelectRule& rule, const Weighted& weighted, const ValueT* values,
                     std::size_t stride, int count, double* results, int* order);

/// results[i] for `count` columns, a multiple of bisection_columns(). Of `columns`: at, infinity, seen.
/// `memory`: aligned, bisection_bytes().
void bisect(const Bisection& job, const Columns& columns, int count, unsigned char* memory, double* results);
int bisection_columns();
std::size_t bisection_bytes(const Bisection& job);

/// Bytes of scratch that a thread needs for the job.
std::size_t select_scratch_bytes(const SelectJob& job);

/// out[0][begin, begin+count) = rule(points); of Written out[p] = point p. `rows`: every table row.
/// `nonfinite`: per table row, added to.
void select_chunk(const SelectJob& job, const RowSource* rows, std::int64_t begin, std::int64_t count,
                  DType out_dtype, unsigned char* const* out, std::int64_t* nonfinite,
                  unsigned char* scratch);

}  // namespace bragg::detail::cpu
