// SPDX-License-Identifier: Apache-2.0
// Products of rows in f64, a block of coordinates at a time.
//
// Stretches of a block are widened to f64 in scratch that stays in cache, and multiplied there by register
// tiles. A panel's products with itself are taken while it is widened: of 10 cycles for both, 2 are saved
// (Zen 2; a conversion of four values takes as much of an FMA unit as their multiply-add).
//
// Each pair has eight running sums, whatever tile it falls in and whatever the instruction set: sum l takes
// coordinates l, l + 8, … of a block, in that order. So results have the same bits on every CPU, and equal
// rows have bit-equal products: ‖x_i − x_j‖² of equal rows is exactly 0. Vectors of fewer than eight lanes
// take a stretch in parts, one for the sums that a vector holds: that is as many operations on as many
// registers, and rows are read once more from cache.
#include "host/cpu/kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/cpu/gram.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "host/cpu/passes.hpp"
#include "host/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
namespace {

// Of f64, `max_abs` of the values less `center`, where that is not null.
template <DType kTypeT>
void statistics_of(const unsigned char* bytes, int count, const double* center, std::int64_t& nonfinite,
                   double& max_abs) {
  const Wide d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  auto largest = hn::Zero(d);
  std::int64_t found = 0;
  int i = 0;
  const auto take = [&](WideVector v) HWY_ATTR {
    const auto finite = is_finite(d, v);
    found += lanes - static_cast<std::int64_t>(hn::CountTrue(d, finite));
    if constexpr (kTypeT == DType::f64) {
      if (center != nullptr) v = hn::Sub(v, hn::Load(d, center + i));
      largest = hn::Max(largest, hn::IfThenElseZero(finite, hn::Abs(v)));
    }
  };
  for (; i + lanes <= count; i += lanes) take(load_f64<kTypeT>(bytes + i * size));
  if (i < count) {
    HWY_ALIGN unsigned char tail[vector_bytes] = {};
    std::memcpy(tail, bytes + i * size, static_cast<std::size_t>((count - i) * size));
    take(load_f64<kTypeT>(tail));
  }
  nonfinite += found;
  if constexpr (kTypeT == DType::f64) {
    const double most = hn::GetLane(hn::MaxOfLanes(d, largest));
    if (most > max_abs) max_abs = most;
  }
}

void statistics(const RowSource& row, std::int64_t begin, int count, const double* center,
                std::int64_t& nonfinite, double& max_abs) {
  with_dtype(row.dtype, [&]<DType kTypeT>() HWY_ATTR {
    statistics_of<kTypeT>(row.at(begin), count, center, nonfinite, max_abs);
  });
}

// Rows of a panel: of one type, at most this many.
constexpr int panel_rows = 4;
constexpr int lanes = static_cast<int>(hn::MaxLanes(Wide()));
constexpr int parts = gram_lanes / lanes;
static_assert(parts * lanes == gram_lanes);
// Coordinates of a stretch at most: a panel of one part of it lies in L1 while the others stream past from
// L2.
constexpr int most_depth = parts == 1 ? 256 : 512;
// Doubles from one widened row to the next: neighbours, read in the same cycle, begin in different banks of
// L1. (On Zen 2 that made no difference.)
constexpr int stride = most_depth / parts + lanes;

constexpr int whole_groups(int count) { return (count + gram_lanes - 1) / gram_lanes; }

// Half as many where all rows then fit L1: writing what is widened to L2 costs more than tiles that begin
// twice as often (docs/cpu.md).
int depth_of(int rows) { return rows > 8 && rows <= 20 ? most_depth / 2 : most_depth; }

// Columns of a tile of four rows: what the registers hold.
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
constexpr int columns_of_four = 3;
#else
constexpr int columns_of_four = 4;
#endif

constexpr int triangle(int n) { return n * (n + 1) / 2; }

// Vectors from one row of running sums to the next: odd, so that rows do not share cache sets.
int pitch_of(int columns) { return columns | 1; }

// What rows' next stretches have for a part, that tiles and panels ask memory for while they work. All asked
// for while rows are widened, they arrive while nothing else is done: at n = 16 the pass took a third longer.
struct Ahead {
  const RowSource* rows;
  int count;
  std::int64_t begin;
  int next = 0;

  // One row's, and the bytes from one vector to the next.
  struct Stream {
    const unsigned char* at;
    std::ptrdiff_t step;
  };
  // One place over and over.
  Stream idle() const { return {rows[0].data, 0}; }
  Stream take() {
    if (next >= count) return idle();
    const RowSource& row = rows[next++];
    return {row.at(begin), static_cast<std::ptrdiff_t>(size_of(row.dtype) * lanes)};
  }
};

// Where the product of two widened values is exact. Such values are f32 at most.
template <DType kTypeT, bool kCenteredT>
constexpr bool has_exact_products = kTypeT != DType::f64 && !kCenteredT;

// A part of the elements [begin, begin+count) of the rows, less `center` where kCenteredT, to `to`, `stride`
// apart, f64 ones multiplied by `scale`; a last group of eight is filled up with zeros. Adds the rows'
// products with each other to the lower triangle of `sums`.
template <DType kTypeT, int kRowsT, bool kCenteredT>
void widen(const RowSource* rows, std::int64_t begin, int count, int part, double scale,
           const double* HWY_RESTRICT center, double* HWY_RESTRICT to, double* HWY_RESTRICT sums,
           std::ptrdiff_t pitch, const Ahead::Stream* ahead) {
  const Wide d;
  constexpr int size = static_cast<int>(size_of(kTypeT));
  constexpr int line = 64 / size;
  const int first = parts == 1 ? 0 : part * lanes;  // of a group
  const auto factor = hn::Set(d, scale);
  const unsigned char* bytes[kRowsT];
  WideVector sum[triangle(kRowsT)];
  each<kRowsT>([&](auto r) BRAGG_INLINED {
    bytes[r] = rows[r].at(begin) + first * size;
    each<r + 1>([&](auto c)
                    BRAGG_INLINED { sum[triangle(r) + c] = hn::Load(d, sums + r * pitch + c * lanes); });
  });
  const auto step = [&](const auto& from, int i) BRAGG_INLINED {
    WideVector x[kRowsT];
    each<kRowsT>([&](auto r) BRAGG_INLINED {
      x[r] = load_f64<kTypeT>(from[r]);
      if constexpr (kCenteredT) x[r] = hn::Sub(x[r], hn::Load(d, center + first + i * parts));
      if constexpr (kTypeT == DType::f64) x[r] = hn::Mul(x[r], factor);
      hn::Store(x[r], d, to + r * stride + i);
    });
    each<kRowsT>([&](auto r) BRAGG_INLINED {
      each<r + 1>([&](auto c) BRAGG_INLINED {
        sum[triangle(r) + c] =
            multiply_add(x[r], x[c], sum[triangle(r) + c], has_exact_products<kTypeT, kCenteredT>);
      });
    });
  };
  const auto step_at = [&](int i) BRAGG_INLINED {
    const unsigned char* from[kRowsT];
    each<kRowsT>([&](auto r)
                     BRAGG_INLINED { from[r] = bytes[r] + static_cast<std::ptrdiff_t>(i) * (parts * size); });
    step(from, i);
  };
  const int whole = count / gram_lanes * lanes;
  int i = 0;
  for (; i + line <= whole; i += line) {
    each<panel_rows>([&](auto r) BRAGG_INLINED { hwy::Prefetch(ahead[r].at + i / lanes * ahead[r].step); });
    for (int k = 0; k < line; k += lanes) step_at(i + k);
  }
  for (; i < whole; i += lanes) step_at(i);
  if (const int rest = count % gram_lanes; rest > 0) {
    HWY_ALIGN unsigned char tail[kRowsT][vector_bytes] = {};
    const unsigned char* from[kRowsT];
    each<kRowsT>([&](auto r) BRAGG_INLINED {
      std::memcpy(tail[r], bytes[r] + (static_cast<std::ptrdiff_t>(whole) * parts - first) * size,
                  static_cast<std::size_t>(rest * size));
      from[r] = tail[r] + first * size;
    });
    step(from, whole);
  }
  each<kRowsT>([&](auto r) BRAGG_INLINED {
    each<r + 1>([&](auto c)
                    BRAGG_INLINED { hn::Store(sum[triangle(r) + c], d, sums + r * pitch + c * lanes); });
  });
}

template <int kRowsT>
void widen_rows(const RowSource* rows, std::int64_t begin, int count, int part, double scale,
                const double* center, double* to, double* sums, std::ptrdiff_t pitch,
                const Ahead::Stream* ahead) {
  with_dtype(rows[0].dtype, [&]<DType kTypeT>() HWY_ATTR {
    if (center == nullptr) {
      widen<kTypeT, kRowsT, false>(rows, begin, count, part, scale, center, to, sums, pitch, ahead);
    } else {
      widen<kTypeT, kRowsT, true>(rows, begin, count, part, scale, center, to, sums, pitch, ahead);
    }
  });
}

// Adds the products of `count` widened values of the rows at a and at b to `sums`; `exact`: each is. The
// fewer rows stay in registers while the others pass.
template <int kRowsT, int kColumnsT>
HWY_INLINE void tile(const double* HWY_RESTRICT a, const double* HWY_RESTRICT b, int count, bool exact,
                     double* HWY_RESTRICT sums, std::ptrdiff_t pitch, Ahead::Stream ahead) {
  const Wide d;
  WideVector sum[kRowsT * kColumnsT];
  each<kRowsT>([&](auto r) BRAGG_INLINED {
    each<kColumnsT>(
        [&](auto c) BRAGG_INLINED { sum[r * kColumnsT + c] = hn::Load(d, sums + r * pitch + c * lanes); });
  });
  for (int i = 0; i < count; i += lanes, ahead.at += ahead.step) {
    hwy::Prefetch(ahead.at);
    if constexpr (kRowsT >= kColumnsT) {
      WideVector kept[kColumnsT];
      each<kColumnsT>([&](auto c) BRAGG_INLINED {
        kept[c] = hn::Load(d, b + c * stride + i);
        BRAGG_KEEP_IN_REGISTER(kept[c]);
      });
      each<kRowsT>([&](auto r) BRAGG_INLINED {
        auto x = hn::Load(d, a + r * stride + i);
        BRAGG_KEEP_IN_REGISTER(x);
        each<kColumnsT>([&](auto c) BRAGG_INLINED {
          sum[r * kColumnsT + c] = multiply_add(x, kept[c], sum[r * kColumnsT + c], exact);
        });
      });
    } else {
      WideVector kept[kRowsT];
      each<kRowsT>([&](auto r) BRAGG_INLINED {
        kept[r] = hn::Load(d, a + r * stride + i);
        BRAGG_KEEP_IN_REGISTER(kept[r]);
      });
      each<kColumnsT>([&](auto c) BRAGG_INLINED {
        auto x = hn::Load(d, b + c * stride + i);
        BRAGG_KEEP_IN_REGISTER(x);
        each<kRowsT>([&](auto r) BRAGG_INLINED {
          sum[r * kColumnsT + c] = multiply_add(x, kept[r], sum[r * kColumnsT + c], exact);
        });
      });
    }
  }
  each<kRowsT>([&](auto r) BRAGG_INLINED {
    each<kColumnsT>(
        [&](auto c) BRAGG_INLINED { hn::Store(sum[r * kColumnsT + c], d, sums + r * pitch + c * lanes); });
  });
}

// A panel's rows by `columns` rows at b, in tiles of kColumnsT columns and what is left in narrower ones.
// Four are better two and two than three and one: a single column waits for its multiply-adds.
template <int kRowsT, int kColumnsT>
void strip(const double* a, const double* b, int columns, int count, bool exact, double* sums,
           std::ptrdiff_t pitch, Ahead& ahead) {
  while (columns >= kColumnsT && !(kColumnsT == 3 && columns == 4)) {
    tile<kRowsT, kColumnsT>(a, b, count, exact, sums, pitch, ahead.take());
    b += kColumnsT * stride;
    sums += kColumnsT * lanes;
    columns -= kColumnsT;
  }
  if constexpr (kColumnsT > 1) {
    if (columns > 0) strip<kRowsT, (kColumnsT + 1) / 2>(a, b, columns, count, exact, sums, pitch, ahead);
  }
}

// Twelve accumulators hide the latency of two multiply-adds a cycle and leave registers for the operands.
void multiply_panel(const double* a, int rows, const double* b, int columns, int count, bool exact,
                    double* sums, std::ptrdiff_t pitch, Ahead& ahead) {
  switch (rows) {
    case 1:
      return strip<1, 8>(a, b, columns, count, exact, sums, pitch, ahead);
    case 2:
      return strip<2, 6>(a, b, columns, count, exact, sums, pitch, ahead);
    case 3:
      return strip<3, 4>(a, b, columns, count, exact, sums, pitch, ahead);
    default:
      return strip<4, columns_of_four>(a, b, columns, count, exact, sums, pitch, ahead);
  }
}

// Rows from `first` that make a panel.
int panel_from(const RowSource* rows, int first, int row_count) {
  int here = 1;
  while (here < panel_rows && first + here < row_count && rows[first + here].dtype == rows[first].dtype)
    ++here;
  return here;
}

void widen_panel(const RowSource* rows, int here, std::int64_t begin, int count, int part, double scale,
                 const double* center, double* to, double* sums, std::ptrdiff_t pitch,
                 const Ahead::Stream* ahead) {
  switch (here) {
    case 1:
      return widen_rows<1>(rows, begin, count, part, scale, center, to, sums, pitch, ahead);
    case 2:
      return widen_rows<2>(rows, begin, count, part, scale, center, to, sums, pitch, ahead);
    case 3:
      return widen_rows<3>(rows, begin, count, part, scale, center, to, sums, pitch, ahead);
    default:
      return widen_rows<4>(rows, begin, count, part, scale, center, to, sums, pitch, ahead);
  }
}

bool all_narrow(const GramRows& rows) {
  return std::none_of(rows.rows, rows.rows + rows.count,
                      [](const RowSource& row) { return row.dtype == DType::f64; });
}

// Rows of running sums that take a panel's products with itself where nobody wants them.
constexpr int spare_sums = panel_rows * panel_rows;

std::size_t scratch_doubles(int rows, int columns) {
  const std::size_t pairs = static_cast<std::size_t>(rows) * pitch_of(std::max(rows, columns));
  return pairs * gram_lanes + spare_sums * lanes + static_cast<std::size_t>(rows + columns) * stride;
}

// Rows whose next stretches a panel asks for while it is widened: those that there are not enough tiles for.
// `columns` < 0: each row's are the rows before it.
int asked_by_panel(int rows, int columns) {
  int tiles = 0;
  int panels = 0;
  for (int first = 0; first < rows; first += panel_rows, ++panels)
    tiles += ((columns < 0 ? first : columns) + 2) / 3;
  return panels == 0 ? 0 : std::clamp((rows - tiles + panels - 1) / panels, 0, panel_rows);
}

// The upper half is added to the lower one until one is left.
#if HWY_TARGET == HWY_SCALAR
HWY_INLINE double fold(Wide, WideVector sums) { return hn::GetLane(sums); }
#else
template <class D>
HWY_INLINE double fold([[maybe_unused]] D d, hn::Vec<D> sums) {
  if constexpr (hn::MaxLanes(D()) == 1) {
    return hn::GetLane(sums);
  } else {
    const hn::Half<D> half;
    return fold(half, hn::Add(hn::LowerHalf(half, sums), hn::UpperHalf(half, sums)));
  }
}
#endif

// The sum of a pair's eight sums, those of a part `plane` doubles after those of the part before.
HWY_INLINE double total_of(const double* sums, std::ptrdiff_t plane) {
  const Wide d;
  WideVector sum[parts];
  for (int part = 0; part < parts; ++part) sum[part] = hn::Load(d, sums + part * plane);
  for (int half = parts / 2; half > 0; half /= 2) {
    for (int part = 0; part < half; ++part) sum[part] = hn::Add(sum[part], sum[part + half]);
  }
  return fold(d, sum[0]);
}

void products(const GramRows& rows, const GramRows* columns, std::int64_t begin, int count, double scale,
              const double* center, double* scratch, double* totals) {
  const bool square = columns == nullptr;
  const int column_count = square ? rows.count : columns->count;
  const std::ptrdiff_t pitch = static_cast<std::ptrdiff_t>(pitch_of(column_count)) * lanes;
  const std::ptrdiff_t plane = rows.count * pitch;  // of one part's sums
  double* const sums = scratch;
  double* const spare = sums + parts * plane;
  double* const a = spare + spare_sums * lanes;
  double* const b = square ? a : a + rows.count * stride;
  std::fill(sums, a, 0.0);
  const bool exact = center == nullptr && all_narrow(rows) && (square || all_narrow(*columns));
  const int depth = depth_of(rows.count + (square ? 0 : column_count));
  const int asked = asked_by_panel(rows.count, square ? -1 : column_count);
  const auto take_part = [&](std::int64_t at, int length, const double* center_here, int part) {
    Ahead ahead{rows.rows, rows.count, at + depth + part * (depth / parts)};
    double* const part_sums = sums + part * plane;
    const auto widen_next = [&](const GramRows& from, int first, int here, double* to, double* to_sums,
                                std::ptrdiff_t to_pitch) {
      Ahead::Stream streams[panel_rows];
      for (int k = 0; k < panel_rows; ++k) streams[k] = k < asked ? ahead.take() : ahead.idle();
      widen_panel(from.rows + first, here, at, length, part, scale, center_here, to + first * stride, to_sums,
                  to_pitch, streams);
    };
    for (int first = 0, here = 0; !square && first < column_count; first += here) {
      here = panel_from(columns->rows, first, column_count);
      widen_next(*columns, first, here, b, spare, panel_rows * lanes);
    }
    for (int first = 0, here = 0; first < rows.count; first += here) {
      here = panel_from(rows.rows, first, rows.count);
      double* const panel_sums = part_sums + first * pitch;
      widen_next(rows, first, here, a, square ? panel_sums + first * lanes : spare,
                 square ? pitch : panel_rows * lanes);
      multiply_panel(a + first * stride, here, b, square ? first : column_count, whole_groups(length) * lanes,
                     exact, panel_sums, pitch, ahead);
    }
  };
  for (int done = 0; done < count; done += depth) {
    const std::int64_t at = begin + done;
    const int length = std::min(depth, count - done);
    const double* const center_here = center == nullptr ? nullptr : center + done;
    for (int part = 0; part < parts; ++part) take_part(at, length, center_here, part);
    for (int r = 0; square && r < rows.count; ++r) {
      if (rows.rows[r].dtype != DType::f64) continue;
      statistics(rows.rows[r], at, length, center_here, rows.nonfinite[rows.index[r]],
                 rows.max_abs[rows.index[r]]);
    }
  }
  for (int r = 0; r < rows.count; ++r) {
    for (int c = 0; c < (square ? r + 1 : column_count); ++c) {
      *totals++ = total_of(sums + r * pitch + c * lanes, plane);
    }
    // A row narrower than f64 has non-finite values exactly where its own product is not finite: squares
    // cannot overflow.
    if (!square || rows.rows[r].dtype == DType::f64 || std::isfinite(totals[-1])) continue;
    double unused = 0;
    statistics(rows.rows[r], begin, count, nullptr, rows.nonfinite[rows.index[r]], unused);
  }
}

template <DType kTypeT>
void center_values_of(const unsigned char* bytes, int count, double* to) {
  const Wide d;
  constexpr auto size = static_cast<std::int64_t>(size_of(kTypeT));
  std::fill(to + count, to + whole_groups(count) * gram_lanes, 0.0);
  const auto store = [&](WideVector v, int i)
                         HWY_ATTR { hn::Store(hn::IfThenElseZero(is_finite(d, v), v), d, to + i); };
  int i = 0;
  for (; i + lanes <= count; i += lanes) store(load_f64<kTypeT>(bytes + i * size), i);
  if (i < count) {
    HWY_ALIGN unsigned char tail[vector_bytes] = {};
    std::memcpy(tail, bytes + i * size, static_cast<std::size_t>((count - i) * size));
    store(load_f64<kTypeT>(tail), i);
  }
}

void center_values_any(const RowSource& row, std::int64_t begin, int count, double* to) {
  with_dtype(row.dtype, [&]<DType kTypeT>() HWY_ATTR { center_values_of<kTypeT>(row.at(begin), count, to); });
}

}  // namespace
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bragg::detail::cpu {

HWY_EXPORT(statistics);
HWY_EXPORT(products);
HWY_EXPORT(scratch_doubles);
HWY_EXPORT(center_values_any);

void row_statistics(const RowSource& row, std::int64_t begin, int count, std::int64_t& nonfinite,
                    double& max_abs) {
  HWY_DYNAMIC_DISPATCH(statistics)(row, begin, count, nullptr, nonfinite, max_abs);
}

void gram_products(const GramRows& rows, const GramRows* columns, std::int64_t begin, int count, double scale,
                   const double* center, double* scratch, double* totals) {
  HWY_DYNAMIC_DISPATCH(products)(rows, columns, begin, count, scale, center, scratch, totals);
}

void center_values(const RowSource& row, std::int64_t begin, int count, double* to) {
  HWY_DYNAMIC_DISPATCH(center_values_any)(row, begin, count, to);
}

std::size_t gram_scratch_doubles(int rows, int columns) {
  return HWY_DYNAMIC_DISPATCH(scratch_doubles)(rows, columns);
}

}  // namespace bragg::detail::cpu
#endif  // HWY_ONCE
