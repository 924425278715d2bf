// SPDX-License-Identifier: Apache-2.0
// One affine combination of rows, eight at a time in registers; between eights, f64 sums of a tile wait in
// L1.
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

// out[i] = start[i] + Σ_k c_k·row_k[i], in row order; `start` null: of zeros. `out` may lie on it, or on a
// row. kAllT: there are sweep_rows of them.
template <DType kTypeT, DType kOutT, bool kAllT>
void sweep(const RowSource* rows, const double* coefficients, int given, std::int64_t begin, int count,
           const double* start, unsigned char* out) {
  const int row_count = kAllT ? sweep_rows : given;
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  constexpr auto size = static_cast<std::int64_t>(size_of(kTypeT));
  constexpr auto out_size = static_cast<std::int64_t>(size_of(kOutT));
  const unsigned char* bytes[sweep_rows];
  for (int k = 0; k < row_count; ++k) bytes[k] = rows[k].at(begin);
  int i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    auto low = hn::Zero(d), high = hn::Zero(d);
    if (start != nullptr) low = hn::Load(d, start + i), high = hn::Load(d, start + i + lanes);
    for (int k = 0; k < row_count; ++k) {
      const auto c = hn::Set(d, coefficients[k]);
      low = multiply_add(c, load_f64<kTypeT>(bytes[k] + i * size), low);
      high = multiply_add(c, load_f64<kTypeT>(bytes[k] + (i + lanes) * size), high);
    }
    store_f64<kOutT>(low, out + i * out_size);
    store_f64<kOutT>(high, out + (i + lanes) * out_size);
  }
  for (; i < count; i += lanes) {
    const std::int64_t left = std::min(lanes, count - i);
    auto sum = start != nullptr ? hn::Load(d, start + i) : hn::Zero(d);
    HWY_ALIGN unsigned char tail[vector_bytes] = {};
    for (int k = 0; k < row_count; ++k) {
      std::memcpy(tail, bytes[k] + i * size, static_cast<std::size_t>(left * size));
      sum = multiply_add(hn::Set(d, coefficients[k]), load_f64<kTypeT>(tail), sum);
    }
    store_f64<kOutT>(sum, tail);
    std::memcpy(out + i * out_size, tail, static_cast<std::size_t>(left * out_size));
  }
}

bool all_finite(const double* tile, int count) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto bad = hn::Zero(d);  // becomes NaN
  for (int i = 0; i < count; i += lanes) {
    const auto some = hn::FirstN(d, static_cast<std::size_t>(count - i));  // all of them, but for the last
    const auto v = hn::MaskedLoad(some, d, tile + i);
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
    unsigned char* const target = out + (begin + done) * out_size;
    const double* start = nullptr;
    for (int k = 0; k < row_count;) {
      int together = 1;
      while (together < sweep_rows && k + together < row_count && rows[k + together].dtype == rows[k].dtype) {
        ++together;
      }
      // What is counted is counted before it is written.
      const bool is_last = k + together == row_count && nonfinite == nullptr;
      const DType to_dtype = is_last ? out_dtype : DType::f64;
      unsigned char* const to = is_last ? target : reinterpret_cast<unsigned char*>(tile);
      with_dtype(rows[k].dtype, [&]<DType kTypeT>() HWY_ATTR {
        with_dtype(to_dtype, [&]<DType kOutT>() HWY_ATTR {
          const auto add = together == sweep_rows ? sweep<kTypeT, kOutT, true> : sweep<kTypeT, kOutT, false>;
          add(rows + k, coefficients + k, together, begin + done, length, start, to);
        });
      });
      start = tile;
      k += together;
    }
    if (nonfinite == nullptr && row_count > 0) continue;
    if (row_count == 0) std::fill_n(tile, combine_tile, 0.0);
    // Counting rereads the rows, so it comes before an output that may lie on one of them.
    if (nonfinite != nullptr && !all_finite(tile, length)) {
      double unused = 0;
      for (int k = 0; k < row_count; ++k)
        row_statistics(rows[k], begin + done, length, nonfinite[index[k]], unused);
    }
    write_tile(tile, length, out_dtype, target);
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
