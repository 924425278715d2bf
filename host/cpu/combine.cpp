// SPDX-License-Identifier: Apache-2.0
// One affine combination of rows: f64 accumulators of a tile stay in L1 while eight rows at a time stream
// past.
#include "host/cpu/kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/cpu/combine.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "host/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
namespace {

constexpr int sweep_rows = 8;

// tile[i] += Σ_k c_k·row_k[i], in row order.
template <DType kTypeT, int kRowsT>
void sweep(const RowSource* rows, const double* coefficients, std::int64_t begin, int count, double* tile) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  const unsigned char* bytes[kRowsT];
  for (int k = 0; k < kRowsT; ++k) bytes[k] = rows[k].at(begin);
  int i = 0;
  for (; i + lanes <= count; i += lanes) {
    auto sum = hn::Load(d, tile + i);
    for (int k = 0; k < kRowsT; ++k) {
      sum = multiply_add(hn::Set(d, coefficients[k]), load_f64<kTypeT>(bytes[k] + i * size), sum);
    }
    hn::Store(sum, d, tile + i);
  }
  if (i < count) {
    auto sum = hn::Load(d, tile + i);
    for (int k = 0; k < kRowsT; ++k) {
      HWY_ALIGN unsigned char tail[vector_bytes] = {};
      std::memcpy(tail, bytes[k] + i * size, static_cast<std::size_t>((count - i) * size));
      sum = multiply_add(hn::Set(d, coefficients[k]), load_f64<kTypeT>(tail), sum);
    }
    hn::Store(sum, d, tile + i);
  }
}

void sweep_some(const RowSource* rows, const double* coefficients, int row_count, std::int64_t begin,
                int count, double* tile) {
  with_dtype(rows[0].dtype, [&]<DType kTypeT>() HWY_ATTR {
    if (row_count == sweep_rows) return sweep<kTypeT, sweep_rows>(rows, coefficients, begin, count, tile);
    int k = 0;
    for (; k + 2 <= row_count; k += 2) sweep<kTypeT, 2>(rows + k, coefficients + k, begin, count, tile);
    if (k < row_count) sweep<kTypeT, 1>(rows + k, coefficients + k, begin, count, tile);
  });
}

bool all_finite(const double* tile, int count) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto bad = hn::Zero(d);  // becomes NaN
  for (int i = 0; i < count; i += lanes) {
    const auto v = hn::Load(d, tile + i);
    bad = hn::Add(bad, hn::Sub(v, v));
  }
  return hn::AllFalse(d, hn::IsNaN(bad));
}

void combine_rows(const RowSource* rows, const double* coefficients, const int* index, int row_count,
                  std::int64_t begin, std::int64_t count, DType out_dtype, unsigned char* out,
                  std::int64_t* nonfinite, double* tile) {
  const std::int64_t out_size = static_cast<std::int64_t>(size_of(out_dtype));
  for (std::int64_t done = 0; done < count; done += combine_tile) {
    const int length = static_cast<int>(std::min<std::int64_t>(combine_tile, count - done));
    std::fill_n(tile, combine_tile, 0.0);
    for (int k = 0; k < row_count;) {
      int together = 1;
      while (together < sweep_rows && k + together < row_count && rows[k + together].dtype == rows[k].dtype) {
        ++together;
      }
      sweep_some(rows + k, coefficients + k, together, begin + done, length, tile);
      k += together;
    }
    // Counting rereads the rows, so it comes before an output that may lie on one of them.
    if (nonfinite != nullptr && !all_finite(tile, length)) {
      double unused = 0;
      for (int k = 0; k < row_count; ++k)
        row_statistics(rows[k], begin + done, length, nonfinite[index[k]], unused);
    }
    write_tile(tile, length, out_dtype, out + (begin + done) * out_size);
  }
}

void fill_with(std::int64_t count, DType out_dtype, unsigned char* out, double value) {
  HWY_ALIGN double tile[combine_tile];
  std::fill_n(tile, combine_tile, value);
  for (std::int64_t done = 0; done < count; done += combine_tile) {
    write_tile(tile, static_cast<int>(std::min<std::int64_t>(combine_tile, count - done)), out_dtype,
               out + done * static_cast<std::int64_t>(size_of(out_dtype)));
  }
}

}  // namespace
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bragg::detail::cpu {

HWY_EXPORT(combine_rows);
HWY_EXPORT(fill_with);

void combine_chunk(const RowSource* rows, const double* coefficients, const int* index, int row_count,
                   std::int64_t begin, std::int64_t count, DType out_dtype, unsigned char* out,
                   std::int64_t* nonfinite, double* tile) {
  HWY_DYNAMIC_DISPATCH(combine_rows)
  (rows, coefficients, index, row_count, begin, count, out_dtype, out, nonfinite, tile);
}

void fill_chunk(std::int64_t count, DType out_dtype, unsigned char* out, double value) {
  HWY_DYNAMIC_DISPATCH(fill_with)(count, out_dtype, out, value);
}

}  // namespace bragg::detail::cpu
#endif  // HWY_ONCE
