// SPDX-License-Identifier: Apache-2.0
// Products of rows in f64 from packed panels of four rows.
//
// A 4×4 tile (two of 4×2 where there are 16 registers) loads 8 vectors for 16 multiply-adds. Each pair has
// one accumulator that sees the coordinates in order, so equal rows get bit-equal products: ‖x_i − x_j‖² of
// equal rows is exactly 0.
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

// The products of a stretch give its memory time to arrive: rows are asked for one stretch ahead.
constexpr std::int64_t ahead = panel_depth;

template <DType kTypeT>
HWY_INLINE void pack_vector(const unsigned char* bytes, WideVector factor, double* to) {
  auto v = load_f64<kTypeT>(bytes);
  if constexpr (kTypeT == DType::f64) v = hn::Mul(v, factor);
  hn::Store(v, Wide(), to);
}

template <DType kTypeT>
void pack_row(const unsigned char* bytes, int from, int count, double scale, double* panel) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto factor = hn::Set(d, scale);
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  int i = from;
  for (; i + lanes <= count; i += lanes) {
    hwy::Prefetch(bytes + (ahead + i) * size);
    pack_vector<kTypeT>(bytes + i * size, factor, panel + panel_rows * i);
  }
  if (i < count) {
    HWY_ALIGN unsigned char tail[vector_bytes] = {};
    std::memcpy(tail, bytes + i * size, static_cast<std::size_t>((count - i) * size));
    pack_vector<kTypeT>(tail, factor, panel + panel_rows * i);
  }
}

void pack_row_any(const RowSource& row, std::int64_t begin, int from, int count, double scale,
                  double* panel) {
  const unsigned char* bytes = row.at(begin);
  switch (row.dtype) {
    case DType::f32:
      return pack_row<DType::f32>(bytes, from, count, scale, panel);
    case DType::f16:
      return pack_row<DType::f16>(bytes, from, count, scale, panel);
    case DType::bf16:
      return pack_row<DType::bf16>(bytes, from, count, scale, panel);
    case DType::f64:
      return pack_row<DType::f64>(bytes, from, count, scale, panel);
  }
}

// Whole vectors of four rows at once: four streams keep more of the memory busy. Returns the coordinates
// done.
template <DType kTypeT>
int pack_four(const RowSource* rows, std::int64_t begin, int count, double scale, double* panel) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto factor = hn::Set(d, scale);
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  const unsigned char* r0 = rows[0].at(begin);
  const unsigned char* r1 = rows[1].at(begin);
  const unsigned char* r2 = rows[2].at(begin);
  const unsigned char* r3 = rows[3].at(begin);
  int i = 0;
  for (; i + lanes <= count; i += lanes) {
    hwy::Prefetch(r0 + (ahead + i) * size);
    hwy::Prefetch(r1 + (ahead + i) * size);
    hwy::Prefetch(r2 + (ahead + i) * size);
    hwy::Prefetch(r3 + (ahead + i) * size);
    double* to = panel + panel_rows * i;
    pack_vector<kTypeT>(r0 + i * size, factor, to);
    pack_vector<kTypeT>(r1 + i * size, factor, to + lanes);
    pack_vector<kTypeT>(r2 + i * size, factor, to + 2 * lanes);
    pack_vector<kTypeT>(r3 + i * size, factor, to + 3 * lanes);
  }
  return i;
}

int pack_four_any(const RowSource* rows, std::int64_t begin, int count, double scale, double* panel) {
  switch (rows[0].dtype) {
    case DType::f32:
      return pack_four<DType::f32>(rows, begin, count, scale, panel);
    case DType::f16:
      return pack_four<DType::f16>(rows, begin, count, scale, panel);
    case DType::bf16:
      return pack_four<DType::bf16>(rows, begin, count, scale, panel);
    case DType::f64:
      return pack_four<DType::f64>(rows, begin, count, scale, panel);
  }
  return 0;
}

void pack(const RowSource* rows, int row_count, std::int64_t begin, int count, double scale, double* panel) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int done = 0;
  if (row_count == panel_rows && rows[0].dtype == rows[1].dtype && rows[0].dtype == rows[2].dtype &&
      rows[0].dtype == rows[3].dtype) {
    done = pack_four_any(rows, begin, count, scale, panel);
    if (done == count) return;
  }
  for (int r = 0; r < panel_rows; ++r) {
    double* to = panel + r * lanes;
    if (r < row_count) {
      pack_row_any(rows[r], begin, done, count, scale, to);
    } else {
      for (int i = 0; i < count; i += lanes) hn::Store(hn::Zero(d), d, to + panel_rows * i);
    }
  }
}

#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
constexpr bool many_registers = false;
#else
constexpr bool many_registers = true;
#endif

// Pair (i, j) of a tile has the vector at sums + (4·i + j)·lanes; columns `first` and `first + 1` of b. Named
// accumulators: GCC leaves arrays of them in memory.
void tile_4x2(const double* HWY_RESTRICT a, const double* HWY_RESTRICT b, int first, int count,
              double* HWY_RESTRICT sums) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  double* to = sums + first * lanes;
  auto s00 = hn::Load(d, to), s01 = hn::Load(d, to + lanes);
  auto s10 = hn::Load(d, to + 4 * lanes), s11 = hn::Load(d, to + 5 * lanes);
  auto s20 = hn::Load(d, to + 8 * lanes), s21 = hn::Load(d, to + 9 * lanes);
  auto s30 = hn::Load(d, to + 12 * lanes), s31 = hn::Load(d, to + 13 * lanes);
  for (int i = 0; i < count; i += lanes) {
    const double* pa = a + panel_rows * i;
    const double* pb = b + panel_rows * i + first * lanes;
    auto b0 = hn::Load(d, pb), b1 = hn::Load(d, pb + lanes);
    BRAGG_KEEP_IN_REGISTER(b0);
    BRAGG_KEEP_IN_REGISTER(b1);
    auto x = hn::Load(d, pa);
    BRAGG_KEEP_IN_REGISTER(x);
    s00 = hn::MulAdd(x, b0, s00), s01 = hn::MulAdd(x, b1, s01);
    x = hn::Load(d, pa + lanes);
    BRAGG_KEEP_IN_REGISTER(x);
    s10 = hn::MulAdd(x, b0, s10), s11 = hn::MulAdd(x, b1, s11);
    x = hn::Load(d, pa + 2 * lanes);
    BRAGG_KEEP_IN_REGISTER(x);
    s20 = hn::MulAdd(x, b0, s20), s21 = hn::MulAdd(x, b1, s21);
    x = hn::Load(d, pa + 3 * lanes);
    BRAGG_KEEP_IN_REGISTER(x);
    s30 = hn::MulAdd(x, b0, s30), s31 = hn::MulAdd(x, b1, s31);
  }
  hn::Store(s00, d, to), hn::Store(s01, d, to + lanes);
  hn::Store(s10, d, to + 4 * lanes), hn::Store(s11, d, to + 5 * lanes);
  hn::Store(s20, d, to + 8 * lanes), hn::Store(s21, d, to + 9 * lanes);
  hn::Store(s30, d, to + 12 * lanes), hn::Store(s31, d, to + 13 * lanes);
}

void tile_4x4(const double* HWY_RESTRICT a, const double* HWY_RESTRICT b, int count,
              double* HWY_RESTRICT sums) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto s00 = hn::Load(d, sums + 0 * lanes), s01 = hn::Load(d, sums + 1 * lanes),
       s02 = hn::Load(d, sums + 2 * lanes), s03 = hn::Load(d, sums + 3 * lanes);
  auto s10 = hn::Load(d, sums + 4 * lanes), s11 = hn::Load(d, sums + 5 * lanes),
       s12 = hn::Load(d, sums + 6 * lanes), s13 = hn::Load(d, sums + 7 * lanes);
  auto s20 = hn::Load(d, sums + 8 * lanes), s21 = hn::Load(d, sums + 9 * lanes),
       s22 = hn::Load(d, sums + 10 * lanes), s23 = hn::Load(d, sums + 11 * lanes);
  auto s30 = hn::Load(d, sums + 12 * lanes), s31 = hn::Load(d, sums + 13 * lanes),
       s32 = hn::Load(d, sums + 14 * lanes), s33 = hn::Load(d, sums + 15 * lanes);
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
  hn::Store(s00, d, sums + 0 * lanes), hn::Store(s01, d, sums + 1 * lanes),
      hn::Store(s02, d, sums + 2 * lanes), hn::Store(s03, d, sums + 3 * lanes);
  hn::Store(s10, d, sums + 4 * lanes), hn::Store(s11, d, sums + 5 * lanes),
      hn::Store(s12, d, sums + 6 * lanes), hn::Store(s13, d, sums + 7 * lanes);
  hn::Store(s20, d, sums + 8 * lanes), hn::Store(s21, d, sums + 9 * lanes),
      hn::Store(s22, d, sums + 10 * lanes), hn::Store(s23, d, sums + 11 * lanes);
  hn::Store(s30, d, sums + 12 * lanes), hn::Store(s31, d, sums + 13 * lanes),
      hn::Store(s32, d, sums + 14 * lanes), hn::Store(s33, d, sums + 15 * lanes);
}

void tile_diagonal(const double* HWY_RESTRICT a, int count, double* HWY_RESTRICT sums) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto s00 = hn::Load(d, sums + 0 * lanes);
  auto s10 = hn::Load(d, sums + 4 * lanes), s11 = hn::Load(d, sums + 5 * lanes);
  auto s20 = hn::Load(d, sums + 8 * lanes), s21 = hn::Load(d, sums + 9 * lanes),
       s22 = hn::Load(d, sums + 10 * lanes);
  auto s30 = hn::Load(d, sums + 12 * lanes), s31 = hn::Load(d, sums + 13 * lanes),
       s32 = hn::Load(d, sums + 14 * lanes), s33 = hn::Load(d, sums + 15 * lanes);
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
  hn::Store(s00, d, sums + 0 * lanes);
  hn::Store(s10, d, sums + 4 * lanes), hn::Store(s11, d, sums + 5 * lanes);
  hn::Store(s20, d, sums + 8 * lanes), hn::Store(s21, d, sums + 9 * lanes),
      hn::Store(s22, d, sums + 10 * lanes);
  hn::Store(s30, d, sums + 12 * lanes), hn::Store(s31, d, sums + 13 * lanes),
      hn::Store(s32, d, sums + 14 * lanes), hn::Store(s33, d, sums + 15 * lanes);
}

void tile(const double* a, const double* b, int count, double* sums) {
  if (a == b) {
    tile_diagonal(a, count, sums);
  } else if constexpr (many_registers) {
    tile_4x4(a, b, count, sums);
  } else {
    tile_4x2(a, b, 0, count, sums);
    tile_4x2(a, b, 2, count, sums);
  }
}

void reduce(const double* sums, double* totals) {
  const Wide d;
  for (int pair = 0; pair < tile_size; ++pair) {
    const auto v = hn::Load(d, sums + static_cast<std::size_t>(pair) * hn::Lanes(d));
    totals[pair] = hn::GetLane(hn::SumOfLanes(d, v));
  }
}

std::size_t wide_lanes() { return hn::Lanes(Wide()); }

}  // namespace
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bragg::detail::cpu {

HWY_EXPORT(statistics);
HWY_EXPORT(pack);
HWY_EXPORT(tile);
HWY_EXPORT(reduce);
HWY_EXPORT(wide_lanes);

void row_statistics(const RowSource& row, std::int64_t begin, int count, std::int64_t& nonfinite,
                    double& max_abs) {
  HWY_DYNAMIC_DISPATCH(statistics)(row, begin, count, nonfinite, max_abs);
}

void gram_pack(const RowSource* rows, int row_count, std::int64_t begin, int count, double scale,
               double* panel) {
  HWY_DYNAMIC_DISPATCH(pack)(rows, row_count, begin, count, scale, panel);
}

void gram_tile(const double* a, const double* b, int count, double* sums) {
  HWY_DYNAMIC_DISPATCH(tile)(a, b, count, sums);
}

void gram_reduce(const double* sums, double* totals) { HWY_DYNAMIC_DISPATCH(reduce)(sums, totals); }

std::size_t gram_tile_doubles() { return HWY_DYNAMIC_DISPATCH(wide_lanes)() * tile_size; }

}  // namespace bragg::detail::cpu
#endif  // HWY_ONCE
