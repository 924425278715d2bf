// SPDX-License-Identifier: Apache-2.0
// Points as combinations of rows, Z = C·X in float64 on tensor cores, 16 points × 32 coordinates a warp.
//
// mma_16x8x16 with 16 points, 16 rows, 8 coordinates: the coordinate of column g of tile q is 4g + q, so that
// a lane's four column tiles take 16 consecutive bytes of a row (f32), and its results of a point are four
// consecutive coordinates. A row that none of the 16 points has a coefficient for is not read: it may hold
// NaN.
#pragma once

#include "kernels/select/points.cuh"

namespace bragg::detail::cuda {

inline constexpr int mix_points = 16;   ///< of a warp at a time
inline constexpr int mix_columns = 32;  ///< coordinates

/// A mixed value as it is sorted: rounded to ValueT, a finite one never to infinity; NaN is +inf.
template <class ValueT>
BRAGG_DEVICE ValueT mixed_value(double x) {
  if constexpr (sizeof(ValueT) == sizeof(double)) {
    return nan_to_infinity(x);
  } else {
    if (!is_finite(x)) return nan_to_infinity(static_cast<float>(x));
    return static_cast<float>(fmax(fmin(x, 0x1.fffffep127), -0x1.fffffep127));
  }
}

/// Elements index … index + 3 of a tensor, 0 from the `left`-th on; index is a multiple of 4.
BRAGG_DEVICE void load_four(const unsigned char* tensor, std::int64_t index, int left, DType dtype,
                            Alignment alignment, double (&x)[4]) {
  if (alignment != Alignment::vector || left < 4) {
    BRAGG_UNROLL
    for (int q = 0; q < 4; ++q) x[q] = q < left ? load_f64(tensor, index + q, dtype, alignment) : 0.0;
    return;
  }
  const unsigned char* const p = tensor + index * bytes_of(dtype);
  if (dtype == DType::f32) {
    const uint4 w = simt::load16(p);
    x[0] = simt::float_of(w.x), x[1] = simt::float_of(w.y);
    x[2] = simt::float_of(w.z), x[3] = simt::float_of(w.w);
  } else if (dtype == DType::f64) {
    BRAGG_UNROLL
    for (int q = 0; q < 4; q += 2) {
      const uint4 w = simt::load16(p + 8 * q);
      x[q] = simt::double_of(static_cast<std::uint64_t>(w.y) << 32 | w.x);
      x[q + 1] = simt::double_of(static_cast<std::uint64_t>(w.w) << 32 | w.z);
    }
  } else {
    const uint2 w = simt::load8(p);
    BRAGG_UNROLL
    for (int q = 0; q < 4; ++q) {
      const auto bits = static_cast<std::uint16_t>((q < 2 ? w.x : w.y) >> (16 * (q % 2)));
      x[q] = dtype == DType::f16 ? value_of<DType::f16>(bits) : value_of<DType::bf16>(bits);
    }
  }
}

/// Points first … first + 15 (those there are) at coordinates begin … begin + 31 of a tensor, the `left`-th
/// and on as if the rows were 0 there: to[(p − first)·stride + coordinate − begin]. All lanes of a warp.
template <class ValueT>
BRAGG_DEVICE void mix(const SelectArguments& a, int tensor, int first, std::int64_t begin, int left,
                      ValueT* to, int stride) {
  const int g = simt::lane() / 4;
  const int t = simt::lane() % 4;
  const auto alignment = static_cast<Alignment>(a.rows.alignment[tensor]);
  const double* const coefficients = a.parts.of(a.mix, tensor);
  const int rows = a.rows.count;
  bool exists[2];
  const double* of_point[2];
  BRAGG_UNROLL
  for (int h = 0; h < 2; ++h) {
    exists[h] = first + g + 8 * h < a.points;
    const std::int64_t index = exists[h] ? index_of(a, tensor, first + g + 8 * h) : 0;
    of_point[h] = coefficients + index * rows;
  }
  double z[4][4] = {};
  for (int k = 0; k < rows; k += 16) {
    double c[8];
    unsigned used = 0;  // bit i: some point has a coefficient of row k + t + 4i
    bool some = false;
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int row = k + t + 4 * i;
      BRAGG_UNROLL
      for (int h = 0; h < 2; ++h) c[2 * i + h] = exists[h] && row < rows ? of_point[h][row] : 0.0;
      const unsigned lanes = simt::ballot(c[2 * i] != 0 || c[2 * i + 1] != 0);
      some = some || lanes != 0;
      if ((lanes & (0x11111111u << t)) != 0) used |= 1u << i;
    }
    if (!some) continue;
    double x[4][4];  // [i][q]
    BRAGG_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int row = k + t + 4 * i;
      const unsigned char* const data = (used >> i & 1) != 0 ? row_of(a, tensor, row) : nullptr;
      if (data != nullptr) {
        load_four(data, begin + 4 * g, left - 4 * g, a.rows.dtype_of(row), alignment, x[i]);
      } else {
        BRAGG_UNROLL
        for (int q = 0; q < 4; ++q) x[i][q] = 0;
      }
    }
    BRAGG_UNROLL
    for (int q = 0; q < 4; ++q) {
      const double column[4] = {x[0][q], x[1][q], x[2][q], x[3][q]};
      simt::mma_16x8x16(z[q], c, column);
    }
  }
  BRAGG_UNROLL
  for (int h = 0; h < 2; ++h) {
    if (!exists[h]) continue;
    const bool infinite = is_infinite(a, tensor, index_of(a, tensor, first + g + 8 * h));
    BRAGG_UNROLL
    for (int i = 0; i < 2; ++i) {
      ValueT* const at = to + (g + 8 * h) * stride + 4 * (2 * t + i);
      BRAGG_UNROLL
      for (int q = 0; q < 4; ++q) {
        at[q] = infinite ? infinity_of<ValueT>() : mixed_value<ValueT>(z[q][2 * h + i]);
      }
    }
  }
}

}  // namespace bragg::detail::cuda
