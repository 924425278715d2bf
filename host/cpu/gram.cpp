// SPDX-License-Identifier: Apache-2.0
// Products of rows in f64 from packed panels of four rows.
//
// A 4×4 tile (4×2 where there are 16 registers) loads 8 vectors for 16 multiply-adds. Each pair has one
// accumulator that sees the coordinates in order, so equal rows get bit-equal products: ‖x_i − x_j‖² of equal
// rows is exactly 0.
#include "host/cpu/kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/cpu/gram.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstring>

#include "host/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
namespace {

template <DType kTypeT>
void statistics_of(const unsigned char* bytes, int count, std::int64_t& nonfinite, double& max_abs) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  auto largest = hn::Zero(d);
  std::int64_t found = 0;
  int i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto v = load_f64<kTypeT>(bytes + i * size);
    const auto finite = is_finite(d, v);
    found += lanes - static_cast<std::int64_t>(hn::CountTrue(d, finite));
    if constexpr (kTypeT == DType::f64) largest = hn::Max(largest, hn::IfThenElseZero(finite, hn::Abs(v)));
  }
  if (i < count) {
    HWY_ALIGN unsigned char tail[vector_bytes] = {};
    std::memcpy(tail, bytes + i * size, static_cast<std::size_t>((count - i) * size));
    const auto v = load_f64<kTypeT>(tail);
    const auto finite = is_finite(d, v);
    found += lanes - static_cast<std::int64_t>(hn::CountTrue(d, finite));
    if constexpr (kTypeT == DType::f64) largest = hn::Max(largest, hn::IfThenElseZero(finite, hn::Abs(v)));
  }
  nonfinite += found;
  if constexpr (kTypeT == DType::f64) {
    const double most = hn::GetLane(hn::MaxOfLanes(d, largest));
    if (most > max_abs) max_abs = most;
  }
}

void statistics(const RowSource& row, std::int64_t begin, int count, std::int64_t& nonfinite,
                double& max_abs) {
  const unsigned char* bytes = row.at(begin);
  switch (row.dtype) {
    case DType::f32:
      return statistics_of<DType::f32>(bytes, count, nonfinite, max_abs);
    case DType::f16:
      return statistics_of<DType::f16>(bytes, count, nonfinite, max_abs);
    case DType::bf16:
      return statistics_of<DType::bf16>(bytes, count, nonfinite, max_abs);
    case DType::f64:
      return statistics_of<DType::f64>(bytes, count, nonfinite, max_abs);
  }
}

template <DType kTypeT>
void pack_row(const unsigned char* bytes, int count, double scale, double* panel) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto factor = hn::Set(d, scale);
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  int i = 0;
  for (; i + lanes <= count; i += lanes) {
    auto v = load_f64<kTypeT>(bytes + i * size);
    if constexpr (kTypeT == DType::f64) v = hn::Mul(v, factor);
    hn::Store(v, d, panel + panel_rows * i);
  }
  if (i < count) {
    HWY_ALIGN unsigned char tail[vector_bytes] = {};
    std::memcpy(tail, bytes + i * size, static_cast<std::size_t>((count - i) * size));
    auto v = load_f64<kTypeT>(tail);
    if constexpr (kTypeT == DType::f64) v = hn::Mul(v, factor);
    hn::Store(v, d, panel + panel_rows * i);
  }
}

void pack(const RowSource* rows, int row_count, std::int64_t begin, int count, double scale, double* panel,
          const RowSource* next, int next_count) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int r = 0; r < panel_rows; ++r) {
    // The hardware starts anew in every row; asking one row ahead hides that.
    if (next != nullptr && r < next_count) {
      const unsigned char* ahead = next[r].at(begin);
      const std::int64_t bytes = count * static_cast<std::int64_t>(size_of(next[r].dtype));
      for (std::int64_t line = 0; line < bytes; line += 64) hwy::Prefetch(ahead + line);
    }
    double* to = panel + r * lanes;
    if (r >= row_count) {
      for (int i = 0; i < count; i += lanes) hn::Store(hn::Zero(d), d, to + panel_rows * i);
      continue;
    }
    const unsigned char* bytes = rows[r].at(begin);
    switch (rows[r].dtype) {
      case DType::f32:
        pack_row<DType::f32>(bytes, count, scale, to);
        break;
      case DType::f16:
        pack_row<DType::f16>(bytes, count, scale, to);
        break;
      case DType::bf16:
        pack_row<DType::bf16>(bytes, count, scale, to);
        break;
      case DType::f64:
        pack_row<DType::f64>(bytes, count, scale, to);
        break;
    }
  }
}

HWY_INLINE double total(WideVector v) {
  const Wide d;
  return hn::GetLane(hn::SumOfLanes(d, v));
}

// Rows 0…3 of a against two rows of b. Named accumulators: GCC leaves arrays of them in memory.
void tile_4x2(const double* HWY_RESTRICT a, const double* HWY_RESTRICT b, int count,
              double* HWY_RESTRICT sums) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto s00 = hn::Zero(d), s10 = s00, s20 = s00, s30 = s00;
  auto s01 = s00, s11 = s00, s21 = s00, s31 = s00;
  for (int i = 0; i < count; i += lanes) {
    const double* pa = a + panel_rows * i;
    const double* pb = b + panel_rows * i;
    auto b0 = hn::Load(d, pb);
    auto b1 = hn::Load(d, pb + lanes);
    BRAGG_KEEP_IN_REGISTER(b0);
    BRAGG_KEEP_IN_REGISTER(b1);
    auto x = hn::Load(d, pa);
    BRAGG_KEEP_IN_REGISTER(x);
    s00 = hn::MulAdd(x, b0, s00);
    s01 = hn::MulAdd(x, b1, s01);
    x = hn::Load(d, pa + lanes);
    BRAGG_KEEP_IN_REGISTER(x);
    s10 = hn::MulAdd(x, b0, s10);
    s11 = hn::MulAdd(x, b1, s11);
    x = hn::Load(d, pa + 2 * lanes);
    BRAGG_KEEP_IN_REGISTER(x);
    s20 = hn::MulAdd(x, b0, s20);
    s21 = hn::MulAdd(x, b1, s21);
    x = hn::Load(d, pa + 3 * lanes);
    BRAGG_KEEP_IN_REGISTER(x);
    s30 = hn::MulAdd(x, b0, s30);
    s31 = hn::MulAdd(x, b1, s31);
  }
  sums[0] = total(s00), sums[1] = total(s01);
  sums[4] = total(s10), sums[5] = total(s11);
  sums[8] = total(s20), sums[9] = total(s21);
  sums[12] = total(s30), sums[13] = total(s31);
}

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
constexpr bool many_registers = false;
#else
constexpr bool many_registers = true;
#endif

void tile_4x4(const double* HWY_RESTRICT a, const double* HWY_RESTRICT b, int count,
              double* HWY_RESTRICT sums) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto s00 = hn::Zero(d), s01 = s00, s02 = s00, s03 = s00;
  auto s10 = s00, s11 = s00, s12 = s00, s13 = s00;
  auto s20 = s00, s21 = s00, s22 = s00, s23 = s00;
  auto s30 = s00, s31 = s00, s32 = s00, s33 = s00;
  for (int i = 0; i < count; i += lanes) {
    const double* pa = a + panel_rows * i;
    const double* pb = b + panel_rows * i;
    auto b0 = hn::Load(d, pb), b1 = hn::Load(d, pb + lanes);
    auto b2 = hn::Load(d, pb + 2 * lanes), b3 = hn::Load(d, pb + 3 * lanes);
    BRAGG_KEEP_IN_REGISTER(b0);
    BRAGG_KEEP_IN_REGISTER(b1);
    BRAGG_KEEP_IN_REGISTER(b2);
    BRAGG_KEEP_IN_REGISTER(b3);
    auto x = hn::Load(d, pa);
    BRAGG_KEEP_IN_REGISTER(x);
    s00 = hn::MulAdd(x, b0, s00), s01 = hn::MulAdd(x, b1, s01);
    s02 = hn::MulAdd(x, b2, s02), s03 = hn::MulAdd(x, b3, s03);
    x = hn::Load(d, pa + lanes);
    BRAGG_KEEP_IN_REGISTER(x);
    s10 = hn::MulAdd(x, b0, s10), s11 = hn::MulAdd(x, b1, s11);
    s12 = hn::MulAdd(x, b2, s12), s13 = hn::MulAdd(x, b3, s13);
    x = hn::Load(d, pa + 2 * lanes);
    BRAGG_KEEP_IN_REGISTER(x);
    s20 = hn::MulAdd(x, b0, s20), s21 = hn::MulAdd(x, b1, s21);
    s22 = hn::MulAdd(x, b2, s22), s23 = hn::MulAdd(x, b3, s23);
    x = hn::Load(d, pa + 3 * lanes);
    BRAGG_KEEP_IN_REGISTER(x);
    s30 = hn::MulAdd(x, b0, s30), s31 = hn::MulAdd(x, b1, s31);
    s32 = hn::MulAdd(x, b2, s32), s33 = hn::MulAdd(x, b3, s33);
  }
  sums[0] = total(s00), sums[1] = total(s01), sums[2] = total(s02), sums[3] = total(s03);
  sums[4] = total(s10), sums[5] = total(s11), sums[6] = total(s12), sums[7] = total(s13);
  sums[8] = total(s20), sums[9] = total(s21), sums[10] = total(s22), sums[11] = total(s23);
  sums[12] = total(s30), sums[13] = total(s31), sums[14] = total(s32), sums[15] = total(s33);
}

void tile_diagonal(const double* HWY_RESTRICT a, int count, double* HWY_RESTRICT sums) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto s00 = hn::Zero(d), s10 = s00, s11 = s00, s20 = s00, s21 = s00;
  auto s22 = s00, s30 = s00, s31 = s00, s32 = s00, s33 = s00;
  for (int i = 0; i < count; i += lanes) {
    const double* pa = a + panel_rows * i;
    auto x0 = hn::Load(d, pa), x1 = hn::Load(d, pa + lanes);
    auto x2 = hn::Load(d, pa + 2 * lanes), x3 = hn::Load(d, pa + 3 * lanes);
    BRAGG_KEEP_IN_REGISTER(x0);
    BRAGG_KEEP_IN_REGISTER(x1);
    BRAGG_KEEP_IN_REGISTER(x2);
    BRAGG_KEEP_IN_REGISTER(x3);
    s00 = hn::MulAdd(x0, x0, s00);
    s10 = hn::MulAdd(x1, x0, s10), s11 = hn::MulAdd(x1, x1, s11);
    s20 = hn::MulAdd(x2, x0, s20), s21 = hn::MulAdd(x2, x1, s21), s22 = hn::MulAdd(x2, x2, s22);
    s30 = hn::MulAdd(x3, x0, s30), s31 = hn::MulAdd(x3, x1, s31);
    s32 = hn::MulAdd(x3, x2, s32), s33 = hn::MulAdd(x3, x3, s33);
  }
  sums[0] = total(s00);
  sums[4] = total(s10), sums[5] = total(s11);
  sums[8] = total(s20), sums[9] = total(s21), sums[10] = total(s22);
  sums[12] = total(s30), sums[13] = total(s31), sums[14] = total(s32), sums[15] = total(s33);
}

void tile(const double* a, const double* b, int count, double* sums) {
  if (a == b) {
    tile_diagonal(a, count, sums);
  } else if constexpr (many_registers) {
    tile_4x4(a, b, count, sums);
  } else {
    tile_4x2(a, b, count, sums);
    tile_4x2(a, b + 2 * hn::Lanes(Wide()), count, sums + 2);
  }
}

std::int64_t panel_nonfinite(const double* panel, int row, int count) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  std::int64_t found = 0;
  for (int i = 0; i < count; i += lanes) {
    const auto v = hn::Load(d, panel + panel_rows * i + row * lanes);
    found += lanes - static_cast<std::int64_t>(hn::CountTrue(d, is_finite(d, v)));
  }
  return found;
}

}  // namespace
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bragg::detail::cpu {

HWY_EXPORT(statistics);
HWY_EXPORT(pack);
HWY_EXPORT(tile);
HWY_EXPORT(panel_nonfinite);

void row_statistics(const RowSource& row, std::int64_t begin, int count, std::int64_t& nonfinite,
                    double& max_abs) {
  HWY_DYNAMIC_DISPATCH(statistics)(row, begin, count, nonfinite, max_abs);
}

void gram_pack(const RowSource* rows, int row_count, std::int64_t begin, int count, double scale,
               double* panel, const RowSource* next, int next_count) {
  HWY_DYNAMIC_DISPATCH(pack)(rows, row_count, begin, count, scale, panel, next, next_count);
}

void gram_tile(const double* a, const double* b, int count, double* sums) {
  HWY_DYNAMIC_DISPATCH(tile)(a, b, count, sums);
}

std::int64_t count_in_panel(const double* panel, int row, int count) {
  return HWY_DYNAMIC_DISPATCH(panel_nonfinite)(panel, row, count);
}

}  // namespace bragg::detail::cpu
#endif  // HWY_ONCE
