// SPDX-License-Identifier: Apache-2.0
// Products of rows in f32, a block of coordinates at a time: half the work of those in f64 (gram.cpp), and
// enough where only the order of distances decides and their errors cannot change it
// (host/plan/bounded_distances.hpp).
//
// Register tiles multiply a stretch of rows where it lies, 16-bit types once they are laid out as f32. Each
// pair has sixteen running sums of a stretch: sum l takes coordinates l, l + 16, …, in that order. At its end
// four neighbours at a time are added, (l + (l + 2)) + ((l + 1) + (l + 3)), and these four one after another
// to a sum of f64. So results have the same bits on every instruction set that has a fused multiply-add, and
// equal rows have bit-equal products.
#include "host/cpu/kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/cpu/gram_f32.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "host/cpu/scratch.hpp"
#include "host/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
namespace {

#if BRAGG_FUSED

using Lanes = hn::ScalableTag<float>;
using Vector = hn::Vec<Lanes>;

constexpr int lanes = static_cast<int>(hn::MaxLanes(Lanes()));
constexpr int group = gram_f32_lanes;
constexpr int parts = group / lanes;
static_assert(parts * lanes == group);
constexpr int depth = gram_f32_depth;
static_assert(depth % group == 0);
// Floats from one row to the next: rows begin in different sets of L1.
constexpr int stride = depth + group;

// Rows of a panel: what the registers hold the products of two of.
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
constexpr int panel_rows = 3;
#else
constexpr int panel_rows = 4;
#endif

constexpr int band_rows = 2 * panel_rows;

struct F32Scratch {
  std::ptrdiff_t pitch;  // sums from one row's to the next: tiles write four at a time
  std::size_t sum_count;
  double* sums;
  float* values;     // of rows that are laid out
  const float** at;  // [row] where its stretch begins; and behind the last, as many as a panel has

  F32Scratch(int rows, ScratchCutter cut)
      : pitch((rows + 7) / 4 * 4),
        sum_count(static_cast<std::size_t>(rows * pitch)),
        sums(cut.take<double>(sum_count)),
        values(cut.take<float>(static_cast<std::size_t>(rows) * stride)),
        at(cut.take<const float*>(static_cast<std::size_t>(rows + panel_rows))),
        bytes(cut.bytes()) {}

  std::size_t bytes;
};

/// Where memory is asked for what comes next, a line at a time.
struct Stream {
  const unsigned char* at;
  std::ptrdiff_t step;
};
template <int kStreamsT>
struct Ahead {
  Stream streams[kStreamsT];
};

/// Elements [begin, begin+count) of a row as f32; the last group is filled up with zeros.
template <DType kTypeT>
void lay_out(const RowSource& row, std::int64_t begin, int count, float* HWY_RESTRICT to) {
  const Lanes d;
  constexpr int size = static_cast<int>(size_of(kTypeT));
  const unsigned char* const bytes = row.at(begin);
  int i = 0;
  for (; i + lanes <= count; i += lanes)
    hn::Store(load_f32<kTypeT>(d, bytes + static_cast<std::ptrdiff_t>(i) * size), d, to + i);
  if (i < count) {
    HWY_ALIGN unsigned char tail[lanes * size] = {};
    std::memcpy(tail, bytes + static_cast<std::ptrdiff_t>(i) * size,
                static_cast<std::size_t>(count - i) * size);
    hn::Store(load_f32<kTypeT>(d, tail), d, to + i);
    i += lanes;
  }
  for (; i % group != 0; i += lanes) hn::Store(hn::Zero(d), d, to + i);
}

/// Of each 128 bits of four vectors the sums: of a's four, of b's, of c's and of d's.
HWY_INLINE Vector sum_of_four(Vector a, Vector b, Vector c, Vector d) {
  const Lanes df;
  const hn::Repartition<double, Lanes> pairs;
  const auto ab = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(df, a, b), hn::InterleaveUpper(df, a, b)));
  const auto cd = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(df, c, d), hn::InterleaveUpper(df, c, d)));
  return hn::Add(hn::BitCast(df, hn::InterleaveLower(pairs, ab, cd)),
                 hn::BitCast(df, hn::InterleaveUpper(pairs, ab, cd)));
}

/// Adds each 128 bits, one after another, to four sums of f64.
template <class V>
HWY_INLINE void add_blocks(V v, double* sums) {
  using D = hn::DFromV<V>;
  if constexpr (hn::MaxLanes(D()) > 4) {
    const hn::Half<D> half;
    add_blocks(hn::LowerHalf(half, v), sums);
    add_blocks(hn::UpperHalf(half, v), sums);
  } else {
#if HWY_MAX_BYTES >= 32
    const hn::Rebind<double, D> wide;
    hn::StoreU(hn::Add(hn::LoadU(wide, sums), hn::PromoteTo(wide, v)), wide, sums);
#else
    const hn::Half<D> half;
    const hn::Rebind<double, hn::Half<D>> wide;
    hn::StoreU(hn::Add(hn::LoadU(wide, sums), hn::PromoteTo(wide, hn::LowerHalf(half, v))), wide, sums);
    hn::StoreU(hn::Add(hn::LoadU(wide, sums + 2), hn::PromoteTo(wide, hn::UpperHalf(half, v))), wide,
               sums + 2);
#endif
  }
}

/// Adds the products of rows and columns, `count` floats of each, to `sums`: those of a part of each group.
template <int kRowsT, int kColumnsT, int kStreamsT>
void tile(const float* const* rows, const float* const* columns, int count, int part,
          double* HWY_RESTRICT sums, std::ptrdiff_t pitch, Ahead<kStreamsT> ahead) {
  const Lanes d;
  Vector sum[kRowsT * kColumnsT];
  each<kRowsT * kColumnsT>([&](auto k) BRAGG_INLINED { sum[k] = hn::Zero(d); });
  const float* a[kRowsT];
  const float* b[kColumnsT];
  each<kRowsT>([&](auto r) BRAGG_INLINED { a[r] = rows[r] + part * lanes; });
  each<kColumnsT>([&](auto c) BRAGG_INLINED { b[c] = columns[c] + part * lanes; });
  for (int i = 0; i < count; i += group) {
    each<kStreamsT>([&](auto k) BRAGG_INLINED {
      hwy::Prefetch(ahead.streams[k].at);
      ahead.streams[k].at += ahead.streams[k].step;
    });
    Vector kept[kColumnsT];
    each<kColumnsT>([&](auto c) BRAGG_INLINED {
      kept[c] = hn::LoadU(d, b[c] + i);
      BRAGG_KEEP_IN_REGISTER(kept[c]);
    });
    each<kRowsT>([&](auto r) BRAGG_INLINED {
      auto x = hn::LoadU(d, a[r] + i);
      BRAGG_KEEP_IN_REGISTER(x);
      each<kColumnsT>([&](auto c) BRAGG_INLINED {
        sum[r * kColumnsT + c] = hn::MulAdd(x, kept[c], sum[r * kColumnsT + c]);
      });
    });
  }
  each<kRowsT>([&](auto r) BRAGG_INLINED {
    const auto of = [&](int c) BRAGG_INLINED { return c < kColumnsT ? sum[r * kColumnsT + c] : hn::Zero(d); };
    add_blocks(sum_of_four(of(0), of(1), of(2), of(3)), sums + r * pitch);
  });
}

/// A panel of `rows` rows by one of columns, whose pointers behind the last may be any row's.
template <int kStreamsT, int kRowsT = panel_rows>
void multiply(const float* const* a, int rows, const float* const* b, int count, int part, double* sums,
              std::ptrdiff_t pitch, Ahead<kStreamsT> ahead) {
  if constexpr (kRowsT > 1) {
    if (rows < kRowsT) return multiply<kStreamsT, kRowsT - 1>(a, rows, b, count, part, sums, pitch, ahead);
  }
  tile<kRowsT, panel_rows>(a, b, count, part, sums, pitch, ahead);
}

#endif  // BRAGG_FUSED

bool has_products_f32() { return BRAGG_FUSED != 0; }

std::size_t scratch_doubles_f32([[maybe_unused]] int rows) {
#if BRAGG_FUSED
  return F32Scratch(rows, ScratchCutter(nullptr)).bytes / sizeof(double);
#else
  return 0;
#endif
}

#if BRAGG_FUSED
template <int kStreamsT>
void products_of(const GramRows& rows, std::int64_t begin, int count, double* memory, double* totals) {
  const F32Scratch scratch(rows.count, ScratchCutter(reinterpret_cast<unsigned char*>(memory)));
  const std::ptrdiff_t pitch = scratch.pitch;
  double* const sums = scratch.sums;
  const float** const at = scratch.at;
  std::fill_n(sums, scratch.sum_count, 0.0);
  const int panels = (rows.count + panel_rows - 1) / panel_rows;
  const int tiles = parts * panels * (panels + 1) / 2;
  int shares = 1;  // of a row's next stretch, each for a tile
  while (shares < 8 && 2 * shares * rows.count <= kStreamsT * tiles) shares *= 2;
  for (int done = 0; done < count; done += depth) {
    const int length = std::min(depth, count - done);
    for (int r = 0; r < rows.count; ++r) {
      const RowSource& row = rows.rows[r];
      float* const to = scratch.values + static_cast<std::ptrdiff_t>(r) * stride;
      at[r] = to;
      with_dtype(row.dtype, [&]<DType kTypeT>() HWY_ATTR {
        if (kTypeT == DType::f32 && length % group == 0) {
          at[r] = reinterpret_cast<const float*>(row.at(begin + done));
        } else if constexpr (kTypeT != DType::f64) {
          lay_out<kTypeT>(row, begin + done, length, to);
        }
      });
    }
    std::fill_n(at + rows.count, panel_rows, at[0]);
    int next = 0;
    const auto stream = [&] {
      if (next >= rows.count * shares) return Stream{rows.rows[0].data, 0};
      const RowSource& row = rows.rows[next / shares];
      const int share = next++ % shares;
      const auto size = static_cast<std::ptrdiff_t>(size_of(row.dtype));
      return Stream{row.at(begin + done + depth + share * (depth / shares)), size * group / shares};
    };
    const auto ahead = [&] {
      Ahead<kStreamsT> found;
      for (Stream& s : found.streams) s = stream();
      return found;
    };
    const int floats = (length + group - 1) / group * group;
    for (int part = 0; part < parts; ++part) {
      for (int band = 0; band < rows.count; band += band_rows) {
        const int end = std::min(band + band_rows, rows.count);
        for (int column = 0; column < end; column += panel_rows) {
          for (int first = std::max(band, column); first < end; first += panel_rows) {
            const int here = std::min(panel_rows, rows.count - first);
            multiply(at + first, here, at + column, floats, part, sums + first * pitch + column, pitch,
                     ahead());
          }
        }
      }
    }
  }
  for (int r = 0; r < rows.count; ++r) {
    totals = std::copy_n(sums + r * pitch, r + 1, totals);
    // Squares may overflow: then there is nothing to count.
    if (std::isfinite(totals[-1])) continue;
    double unused = 0;
    row_statistics(rows.rows[r], begin, count, rows.nonfinite[rows.index[r]], unused);
  }
}
#endif

void products_f32([[maybe_unused]] const GramRows& rows, [[maybe_unused]] std::int64_t begin,
                  [[maybe_unused]] int count, [[maybe_unused]] double* scratch,
                  [[maybe_unused]] double* totals) {
#if BRAGG_FUSED
  return rows.count < 24 ? products_of<2>(rows, begin, count, scratch, totals)
                         : products_of<1>(rows, begin, count, scratch, totals);
#endif
}

}  // namespace
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bragg::detail::cpu {

HWY_EXPORT(has_products_f32);
HWY_EXPORT(scratch_doubles_f32);
HWY_EXPORT(products_f32);

bool has_gram_f32() { return HWY_DYNAMIC_DISPATCH(has_products_f32)(); }

std::size_t gram_f32_scratch_doubles(int rows) { return HWY_DYNAMIC_DISPATCH(scratch_doubles_f32)(rows); }

void gram_products_f32(const GramRows& rows, std::int64_t begin, int count, double* scratch, double* totals) {
  HWY_DYNAMIC_DISPATCH(products_f32)(rows, begin, count, scratch, totals);
}

}  // namespace bragg::detail::cpu
#endif  // HWY_ONCE
