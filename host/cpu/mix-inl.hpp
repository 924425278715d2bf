// SPDX-License-Identifier: Apache-2.0
// The points of a strip of columns as values: combinations of rows, or rows. Compiled once per target.
#if defined(BRAGG_HOST_CPU_MIX_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef BRAGG_HOST_CPU_MIX_INL_HPP_
#undef BRAGG_HOST_CPU_MIX_INL_HPP_
#else
#define BRAGG_HOST_CPU_MIX_INL_HPP_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "host/cpu/means-inl.hpp"
#include "host/cpu/scratch.hpp"
#include "host/cpu/select.hpp"
#include "host/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
namespace {

// Vectors of f64 that four points are mixed for at a time: as many as the registers hold.
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
constexpr int mix_vectors = 2;
#else
constexpr int mix_vectors = 4;
#endif
constexpr int product_columns = mix_vectors * wide_lanes;  // mixed at a time by products
// Of subsets: two vectors of a sum for each place that is looked up, eight chains of additions side by side.
constexpr int subset_vectors = std::max(2, 8 / wide_lanes);
constexpr int subset_columns = subset_vectors * wide_lanes;
constexpr int subset_points = 8 / subset_vectors;
constexpr int subset_bytes = subset_columns * static_cast<int>(sizeof(double));  // of one sum
constexpr int subset_group_bytes = 16 * subset_bytes;
constexpr std::size_t subset_unit = subset_bytes / subset_place;
constexpr int mixed_step = 32;  // a strip is a multiple of this
static_assert(mixed_step % product_columns == 0 && mixed_step % subset_columns == 0);
constexpr std::int64_t mix_ahead = 256;  // bytes from what is read of a row to what is asked of memory

/// Columns [begin, begin+count) of every table row.
struct Strip {
  const RowSource* rows;
  std::int64_t begin;
  int count;
};

/// The values of a strip's points.
template <class ValueT>
struct Points {
  ValueT* values = nullptr;
  std::ptrdiff_t stride = 0;  // from one point to the next
  int count = 0;

  ValueT* operator[](int point) const { return values + point * stride; }
};

/// Scratch of a strip.
struct MixScratch {
  double* line;                   // one value per column
  unsigned char* tail = nullptr;  // one row's last elements
  double* rows = nullptr;  // products: [used row][product_columns]; subsets: [used row][subset_columns]
  // Subsets.
  unsigned char* table = nullptr;          // sums of a block of groups
  double* sums = nullptr;                  // [point][subset_columns]
  const unsigned char** row_at = nullptr;  // [used row], and zeros up to a whole group
  unsigned char* zeros = nullptr;          // a strip of them, of any type

  MixScratch(const SelectJob& job, int strip, double* line_in, ScratchCutter& cut) : line(line_in) {
    if (!job.by_value()) return;
    const std::size_t bytes = static_cast<std::size_t>(strip) * sizeof(double);
    tail = cut.take<unsigned char>(bytes);
    if (const auto* const products = std::get_if<Products>(&job.source)) {
      rows = cut.take<double>(products->used.size() * product_columns);
    }
    if (const auto* const subsets = std::get_if<Subsets>(&job.source)) {
      rows = cut.take<double>(subsets->used.size() * subset_columns);
      table = cut.take<unsigned char>(std::size_t{subset_groups} * subset_group_bytes);
      sums = cut.take<double>(static_cast<std::size_t>(job.points) * subset_columns);
      row_at = cut.take<const unsigned char*>(subsets->used.size() + 3);
      zeros = cut.take<unsigned char>(bytes);
    }
  }

  void prepare(int strip) const {
    if (table == nullptr) return;
    std::memset(zeros, 0, static_cast<std::size_t>(strip) * sizeof(double));
    for (int g = 0; g < subset_groups; ++g) {
      std::memset(table + g * subset_group_bytes, 0, subset_bytes);  // the empty subset
    }
  }
};

// reading -----------------------------------------------------------------------------------------

/// The bytes of `count` elements from `begin`, followed by zeros up to `width`.
const unsigned char* whole(const RowSource& row, std::int64_t begin, int count, int width,
                           unsigned char* tail) {
  if (count == width) return row.at(begin);
  const std::size_t size = size_of(row.dtype);
  std::memset(tail, 0, static_cast<std::size_t>(width) * size);
  std::memcpy(tail, row.at(begin), static_cast<std::size_t>(count) * size);
  return tail;
}

/// `width` elements as f64; true: one of them is not finite.
template <DType kTypeT>
bool read_wide(const unsigned char* bytes, int width, double* HWY_RESTRICT to) {
  const Wide d;
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  auto bad = hn::Zero(d);  // becomes NaN
  for (int i = 0; i < width; i += wide_lanes) {
    const auto v = load_f64<kTypeT>(bytes + i * size);
    bad = hn::Add(bad, hn::Sub(v, v));
    hn::Store(v, d, to + i);
  }
  return !hn::AllFalse(d, hn::IsNaN(bad));
}

bool read_wide_any(DType dtype, const unsigned char* bytes, int width, double* to) {
  return with_dtype(dtype, [&]<DType kTypeT>() HWY_ATTR { return read_wide<kTypeT>(bytes, width, to); });
}

/// Points that are rows, NaN as +inf.
template <class ValueT>
void make_points(const Rows& source, const Strip& strip, const MixScratch& scratch,
                 const Points<ValueT>& points) {
  for (int p = 0; p < points.count; ++p) {
    ValueT* const to = points[p];
    const RowSource& row = strip.rows[source.rows[static_cast<std::size_t>(p)]];
    if (row.data == nullptr) {
      std::fill_n(to, points.stride, ValueT{0});
      continue;
    }
    const int width = (strip.count + wide_lanes - 1) / wide_lanes * wide_lanes;
    read_wide_any(row.dtype, whole(row, strip.begin, strip.count, width, scratch.tail), width, scratch.line);
    for (int i = 0; i < strip.count; ++i) {
      const double v = scratch.line[i];
      to[i] = std::isnan(v) ? std::numeric_limits<ValueT>::infinity() : static_cast<ValueT>(v);
    }
  }
}

// combining ---------------------------------------------------------------------------------------

// A finite combination is never rounded to infinity; NaN reads +inf.
HWY_INLINE void store_mixed(WideVector v, float* to) {
  const Wide d;
  const auto largest = hn::Set(d, static_cast<double>(std::numeric_limits<float>::max()));
  const auto clamped = hn::Max(hn::Min(v, largest), hn::Neg(largest));
  const auto kept = hn::IfThenElse(is_finite(d, v), clamped, v);
  hn::Store(nan_to_infinity(Narrow(), round_to_f32(kept)), Narrow(), to);
}
HWY_INLINE void store_mixed(WideVector v, double* to) { hn::Store(nan_to_infinity(Wide(), v), Wide(), to); }

// Four points' combinations of all rows of their group, mix_vectors vectors of each.
template <class ValueT>
void mix_group(const MixEntry* entries, std::size_t entry_count, const double* HWY_RESTRICT rows,
               ValueT* HWY_RESTRICT to, std::ptrdiff_t stride, int points) {
  const Wide d;
  WideVector sums[4 * mix_vectors];
  each<4 * mix_vectors>([&](auto k) BRAGG_INLINED { sums[k] = hn::Zero(d); });
  for (std::size_t e = 0; e < entry_count; ++e) {
    const double* const x = rows + static_cast<std::ptrdiff_t>(entries[e].row) * product_columns;
    WideVector c[4];
    each<4>([&](auto p) BRAGG_INLINED {
      c[p] = hn::Set(d, entries[e].coefficient[p]);
      BRAGG_KEEP_IN_REGISTER(c[p]);
    });
    each<mix_vectors>([&](auto v) BRAGG_INLINED {
      auto values = hn::Load(d, x + v * wide_lanes);
      BRAGG_KEEP_IN_REGISTER(values);
      each<4>([&](auto p) BRAGG_INLINED { sums[4 * v + p] = multiply_add(c[p], values, sums[4 * v + p]); });
    });
  }
  each<4>([&](auto p) BRAGG_INLINED {
    if (p >= points) return;
    each<mix_vectors>([&](auto v)
                          BRAGG_INLINED { store_mixed(sums[4 * v + p], to + p * stride + v * wide_lanes); });
  });
}

// As mix_group for one of its points, without touching rows that it has no coefficient for: they may not be
// finite.
template <class ValueT>
void mix_point(const MixEntry* entries, std::size_t entry_count, int point, const double* HWY_RESTRICT rows,
               ValueT* HWY_RESTRICT to) {
  const Wide d;
  for (int i = 0; i < product_columns; i += wide_lanes) {
    auto sum = hn::Zero(d);
    for (std::size_t e = 0; e < entry_count; ++e) {
      const double coefficient = entries[e].coefficient[point];
      if (coefficient == 0) continue;
      const double* x = rows + static_cast<std::ptrdiff_t>(entries[e].row) * product_columns;
      sum = multiply_add(hn::Set(d, coefficient), hn::Load(d, x + i), sum);
    }
    store_mixed(sum, to + i);
  }
}

/// A strip of points, product_columns columns at a time.
template <class ValueT>
void make_points(const Products& source, const Strip& strip, const MixScratch& scratch,
                 const Points<ValueT>& points) {
  for (int done = 0; done < strip.count; done += product_columns) {
    const int length = std::min(product_columns, strip.count - done);
    bool nonfinite = false;
    double* to = scratch.rows;
    for (const int used : source.used) {
      const RowSource& row = strip.rows[used];
      if (row.data == nullptr) {
        std::fill_n(to, product_columns, 0.0);
      } else {
        const unsigned char* const bytes =
            whole(row, strip.begin + done, length, product_columns, scratch.tail);
        hwy::Prefetch(bytes + mix_ahead);
        nonfinite |= read_wide_any(row.dtype, bytes, product_columns, to);
      }
      to += product_columns;
    }
    for (int first = 0; first < points.count; first += 4) {
      const int count = std::min(4, points.count - first);
      const std::size_t* const group = source.group_start + first / 4;
      const MixEntry* const entries = source.entries + group[0];
      const std::size_t entry_count = group[1] - group[0];
      if (!nonfinite) {
        mix_group(entries, entry_count, scratch.rows, points[first] + done, points.stride, count);
        continue;
      }
      for (int p = 0; p < count; ++p) {
        mix_point(entries, entry_count, p, scratch.rows, points[first + p] + done);
      }
    }
  }
}

/// Of four rows, from `offset` on, the sums of those subsets k that have a bit in `wanted`: entry k holds the
/// sum of rows whose bits are set in k. Entry 0 is zero already. `bad` becomes NaN where a row is not finite.
template <DType kTypeT>
void add_subsets(const unsigned char* const* rows, std::int64_t offset, unsigned wanted,
                 double* HWY_RESTRICT table, WideVector& bad) {
  const Wide d;
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  for (std::int64_t line = 0; line < subset_columns * size; line += 64) {
    for (int k = 0; k < 4; ++k) hwy::Prefetch(rows[k] + offset + line + mix_ahead);
  }
  WideVector sums[16][subset_vectors];  // of none of the upper two rows, or of none of the lower two
  each<subset_vectors>([&](auto v) BRAGG_INLINED {
    const std::int64_t at = offset + v * wide_lanes * size;
    sums[1][v] = load_f64<kTypeT>(rows[0] + at), sums[2][v] = load_f64<kTypeT>(rows[1] + at);
    sums[4][v] = load_f64<kTypeT>(rows[2] + at), sums[8][v] = load_f64<kTypeT>(rows[3] + at);
    sums[3][v] = hn::Add(sums[1][v], sums[2][v]), sums[12][v] = hn::Add(sums[4][v], sums[8][v]);
    bad = hn::MulAdd(hn::Add(sums[3][v], sums[12][v]), hn::Zero(d), bad);
  });
  each<15>([&](auto entry) BRAGG_INLINED {
    constexpr int k = entry + 1;
    if ((wanted >> k & 1) == 0) return;
    each<subset_vectors>([&](auto v) BRAGG_INLINED {
      const auto sum = k % 4 == 0 || k < 4 ? sums[k][v] : hn::Add(sums[k % 4][v], sums[k / 4 * 4][v]);
      hn::Store(sum, d, table + k * subset_columns + v * wide_lanes);
    });
  });
}

/// A block of the table's groups, added to every point's sum; the last one: shared out and stored, with care
/// for what is not finite, or too large for f32, where kCarefulT.
template <bool kCarefulT, class ValueT>
HWY_NOINLINE void add_points(const Subsets& source, int first, int groups, const MixScratch& scratch,
                             const Points<ValueT>& points, int column) {
  const Wide d;
  const std::ptrdiff_t words_of_point = (groups + 3) / 4;
  const int here = std::min(subset_groups, groups - first);  // of the block
  const bool is_last = first + subset_groups >= groups;
  const unsigned char* const table = scratch.table;
  // Of the next points.
  const std::uint64_t* at = source.places + first / 4;
  double* sums = scratch.sums;
  const double* coefficients = source.coefficients;
  ValueT* to = points.values + column;
  // Of kPoints points at once, so that no chain of additions is waited for.
  const auto add = [&](auto kPoints) BRAGG_INLINED {
    WideVector sum[kPoints * subset_vectors];
    each<kPoints * subset_vectors>([&](auto k) BRAGG_INLINED {
      sum[k] = first == 0 ? hn::Zero(d) : hn::Load(d, sums + k * wide_lanes);
    });
    for (int g = 0; g < here;) {
      std::uint64_t places[kPoints];  // of four groups each
      each<kPoints>([&](auto p) BRAGG_INLINED { places[p] = at[p * words_of_point + g / 4]; });
      for (const int end = std::min(g + 4, here); g < end; ++g) {
        each<kPoints>([&](auto p) BRAGG_INLINED {
          const auto* const entry = lanes_at<double>(table + (places[p] & 0xFFFF) * subset_unit);
          places[p] >>= 16;
          each<subset_vectors>([&](auto v) BRAGG_INLINED {
            constexpr int k = p * subset_vectors + v;
            sum[k] = hn::Add(sum[k], hn::Load(d, entry + v * wide_lanes));
          });
        });
      }
    }
    each<kPoints>([&](auto p) BRAGG_INLINED {
      const auto share = hn::Set(d, coefficients[p]);
      each<subset_vectors>([&](auto v) BRAGG_INLINED {
        constexpr int k = p * subset_vectors + v;
        if (!is_last) {
          hn::Store(sum[k], d, sums + k * wide_lanes);
        } else if constexpr (kCarefulT) {
          store_mixed(hn::Mul(sum[k], share), to + p * points.stride + v * wide_lanes);
        } else {
          hn::Store(round_to_f32(hn::Mul(sum[k], share)), Narrow(), to + p * points.stride + v * wide_lanes);
        }
      });
    });
    at += kPoints * words_of_point;
    sums += kPoints * subset_columns;
    coefficients += kPoints;
    to += kPoints * points.stride;
  };
  int p = 0;
  for (; p + subset_points <= points.count; p += subset_points)
    add(std::integral_constant<int, subset_points>());
  for (; p < points.count; ++p) add(std::integral_constant<int, 1>());
}

/// The points' columns from `column` on, of rows from `offset` bytes on. Sums of subsets of four rows are
/// made once and serve all points, a quarter of the additions. Nothing is subtracted, and a row that a point
/// has no part in is not in its sum.
template <class ValueT>
void mix_by_subsets(const Subsets& source, std::int64_t offset, const MixScratch& scratch,
                    const Points<ValueT>& points, int column) {
  const int groups = (static_cast<int>(source.used.size()) + 3) / 4;
  auto bad = hn::Zero(Wide());
  for (int first = 0; first < groups; first += subset_groups) {
    with_dtype(source.dtype, [&]<DType kTypeT>() HWY_ATTR {
      for (int g = first; g < std::min(groups, first + subset_groups); ++g) {
        add_subsets<kTypeT>(scratch.row_at + 4 * g, offset, source.wanted[g],
                            lanes_at<double>(scratch.table + (g - first) * subset_group_bytes), bad);
      }
    });
    if constexpr (std::is_same_v<ValueT, float>) {
      // f64 holds any sum of finite values of narrower types, and f32 their mean.
      if (source.are_means && hn::AllFalse(Wide(), hn::IsNaN(bad))) {
        add_points<false>(source, first, groups, scratch, points, column);
        continue;
      }
    }
    add_points<true>(source, first, groups, scratch, points, column);
  }
}

template <class ValueT>
void make_points(const Subsets& source, const Strip& strip, const MixScratch& scratch,
                 const Points<ValueT>& points) {
  const auto size = static_cast<std::int64_t>(size_of(source.dtype));
  const int whole_columns = strip.count / subset_columns * subset_columns;
  for (std::size_t u = 0; u < (source.used.size() + 3) / 4 * 4; ++u) {
    const RowSource row = u < source.used.size() ? strip.rows[source.used[u]] : RowSource{};
    scratch.row_at[u] = row.data == nullptr ? scratch.zeros : row.at(strip.begin);
  }
  for (int done = 0; done < whole_columns; done += subset_columns) {
    mix_by_subsets(source, done * size, scratch, points, done);
  }
  if (whole_columns == strip.count) return;
  // The columns after the last whole group: copies, followed by zeros.
  for (std::size_t u = 0; u < source.used.size(); ++u) {
    auto* const copy = reinterpret_cast<unsigned char*>(scratch.rows + u * subset_columns);
    std::memset(copy, 0, subset_bytes);
    std::memcpy(copy, scratch.row_at[u] + whole_columns * size,
                static_cast<std::size_t>((strip.count - whole_columns) * size));
    scratch.row_at[u] = copy;
  }
  mix_by_subsets(source, 0, scratch, points, whole_columns);
}

/// to[i] += coefficient · element i, of `width` elements; `is_first`: to[i] = …
template <DType kTypeT>
HWY_NOINLINE void add_scaled(const unsigned char* bytes, int width, double coefficient, bool is_first,
                             double* HWY_RESTRICT to) {
  const Wide d;
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  const auto c = hn::Set(d, coefficient);
  for (int i = 0; i < width; i += wide_lanes) {
    const unsigned char* const at = bytes + i * size;
    hwy::Prefetch(at + mix_ahead);
    const auto sum = is_first ? hn::Zero(d) : hn::Load(d, to + i);
    hn::Store(multiply_add(c, load_f64<kTypeT>(at), sum), d, to + i);
  }
}

/// A point after another.
template <class ValueT>
void make_points(const FewRows& source, const Strip& strip, const MixScratch& scratch,
                 const Points<ValueT>& points) {
  const int width = (strip.count + mixed_step - 1) / mixed_step * mixed_step;
  double* const line = scratch.line;
  for (int p = 0; p < points.count; ++p) {
    ValueT* const to = points[p];
    bool is_first = true;
    for (int e = source.start[p]; e < source.start[p + 1]; ++e) {
      const RowSource& row = strip.rows[source.rows[e]];
      if (row.data == nullptr) continue;
      const unsigned char* const bytes = whole(row, strip.begin, strip.count, width, scratch.tail);
      with_dtype(row.dtype, [&]<DType kTypeT>() HWY_ATTR {
        add_scaled<kTypeT>(bytes, width, source.coefficients[e], is_first, line);
      });
      is_first = false;
    }
    if (is_first) std::fill_n(line, width, 0.0);
    for (int i = 0; i < width; i += wide_lanes) store_mixed(hn::Load(Wide(), line + i), to + i);
  }
}

}  // namespace
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
