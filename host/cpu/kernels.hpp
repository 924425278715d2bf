// SPDX-License-Identifier: Apache-2.0
// Functions that the passes call per block of coordinates. Each runs on the best instruction set of the
// machine. They neither allocate nor throw, so they may be called inside an OpenMP region.
#pragma once

#include <bragg/updates.hpp>
#include <cstddef>
#include <cstdint>

#include "host/cpu/targets.hpp"

namespace bragg::detail::cpu {

/// One tensor of a row. A null pointer reads as zeros.
struct RowSource {
  const unsigned char* data = nullptr;
  DType dtype = DType::f32;
  bool zeros = false;  ///< one stretch of zeros stands for all of them

  const unsigned char* at(std::int64_t element) const noexcept {
    return zeros ? data : data + element * static_cast<std::int64_t>(size_of(dtype));
  }
};

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

/// Running sums of a pair of rows in a block: the same on every instruction set.
inline constexpr int gram_lanes = 8;

/// totals = Σ over elements [begin, begin+count) of rows[i]·columns[j], f64 rows multiplied by `scale`: row
/// by row, every column. `columns` null: of rows with each other, j ≤ i only, and with their statistics as by
/// row_statistics. Every pair is summed in the same order. `center`: null, or what is taken from every row
/// before: `count` values, and zeros up to a multiple of gram_lanes; max_abs is then of what is left.
void gram_products(const GramRows& rows, const GramRows* columns, std::int64_t begin, int count, double scale,
                   const double* center, double* scratch, double* totals);

/// Coordinates whose products are summed in f32 by gram_products_f32 before f64 takes them over, and running
/// sums that a pair of rows has of them.
inline constexpr int gram_f32_depth = 512;
inline constexpr int gram_f32_lanes = 16;

/// Whether gram_products_f32 runs here: it takes a fused multiply-add.
bool has_gram_f32();
std::size_t gram_f32_scratch_doubles(int rows);
/// As gram_products of rows with each other, none f64, but for how products are rounded (GramSums::rounding),
/// and for overflow: products that involve it are infinite or NaN.
void gram_products_f32(const GramRows& rows, std::int64_t begin, int count, double* scratch, double* totals);

/// to[0, count) = elements [begin, begin+count) in f64, those that are not finite as 0; zeros follow up to
/// a multiple of gram_lanes.
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

}  // namespace bragg::detail::cpu
