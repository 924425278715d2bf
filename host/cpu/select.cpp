// SPDX-License-Identifier: Apache-2.0
// Coordinate-wise rules. A strip of columns at a time: each vector of columns is sorted by a network as far
// as the rule needs (columns.hpp: straight from the rows to 64 points; above, sorted chunks in a tile and
// merges of them), and reduced in f64. Medians and trimmed means of many points are bisected (bisection.cpp).
// Mixed points are made in a tile first. A strip is read whole before any of it is written, so the output may
// lie on a row.
#include "host/cpu/select.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/cpu/select.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "host/cpu/means-inl.hpp"
#include "host/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
namespace {

// Vectors of f64 that four points are mixed for at a time: as many as the registers hold.
#undef BRAGG_MIX_FOUR
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
#define BRAGG_MIX_FOUR 0
constexpr int mix_vectors = 2;
#else
#define BRAGG_MIX_FOUR 1
constexpr int mix_vectors = 4;
#endif
constexpr int product_columns = mix_vectors * wide_lanes;  // mixed at a time by products
constexpr int subset_vectors = subset_columns / wide_lanes;
constexpr int strip_columns = 256;  // of plain points
constexpr int mixed_step = 32;      // of mixed points: a multiple of this, as many as leave L1 room
constexpr int mixed_bytes = 8192;   // for the table of subsets and the keys
// Where points are written, or each is made of few rows: in L2, for long runs of a row cost fewer misses of
// the TLB (64 points written: 29 % off).
constexpr int written_columns = 512;
constexpr int long_bytes = 1 << 17;
constexpr int most_group_columns = product_columns > subset_columns ? product_columns : subset_columns;
static_assert(mixed_step % product_columns == 0 && mixed_step % subset_columns == 0);
static_assert(subset_columns % wide_lanes == 0);
constexpr std::int64_t mix_ahead = 256;  // bytes from what is read of a row to what is asked of memory

/// Columns of a vector of keys.
int key_lanes(KeyKind kind) {
  switch (kind) {
    case KeyKind::f32:
      return static_cast<int>(hn::MaxLanes(hn::ScalableTag<float>()));
    case KeyKind::sixteen:
      return static_cast<int>(hn::MaxLanes(hn::ScalableTag<std::int16_t>()));
    case KeyKind::f64:
      break;
  }
  return wide_lanes;
}

std::int64_t key_vector_bytes(KeyKind kind) { return std::int64_t{key_lanes(kind)} * key_bytes(kind); }

/// Columns that are sorted or bisected at a time, of which a strip is a multiple.
int step_columns(const SelectJob& job) { return job.bisected ? bisection_columns() : key_lanes(job.keys); }

int strip_of(const SelectJob& job) {
  if (!job.mixed) return strip_columns;
  const bool are_written = job.rule.kind == SelectRule::Kind::none;
  const int bytes = are_written || job.few_start != nullptr ? long_bytes : mixed_bytes;
  const int fitting = bytes / (job.points * (job.wide ? 8 : 4)) / mixed_step * mixed_step;
  const int most = are_written ? written_columns : strip_columns;
  return std::clamp(fitting, std::max(mixed_step, step_columns(job)), most);
}

int tile_width(const SelectJob& job) {
  return job.middle_only ? strip_of(job) : sorted_vectors * key_lanes(job.keys);
}

std::size_t padded(std::size_t bytes) { return (bytes + vector_bytes - 1) / vector_bytes * vector_bytes; }

/// A thread's scratch, cut from one aligned block.
template <class ValueT>
struct Scratch {
  std::ptrdiff_t stride;         // columns of a strip
  ValueT* values;                // mixed or weighted: [point][strip]
  double* results;               // [strip]
  unsigned char* tail;           // plain: [point][step_columns]; else one row's last elements
  double* rows;                  // mixed: [used row][columns of a group]
  unsigned char* subsets;        // mixed by subsets: their sums
  double* sums;                  // mixed by subsets: [point][subset_columns]
  const unsigned char** row_at;  // mixed by subsets: [used row], and zeros up to a whole group
  int* order;                    // weighted: [point]
  unsigned char* keys;           // [rank or wire][tile_width]; bisected: what bisection takes
  ValueT* decoded;               // 16-bit types: the same, as values
  unsigned char* seen;           // a vector
  unsigned char* zeros;          // a strip of the type's bits
  unsigned char* positive;       // +inf
  unsigned char* negative;       // −inf
  const unsigned char** at;      // per wire
  std::int64_t* real;            // per wire
  std::size_t bytes;

  Scratch(const SelectJob& job, unsigned char* memory) {
    const auto points = static_cast<std::size_t>(job.points);
    stride = strip_of(job);
    const auto strip = static_cast<std::size_t>(stride);
    const auto wires = static_cast<std::size_t>(job.wires);
    const auto vector = static_cast<std::size_t>(key_vector_bytes(job.keys));
    const auto size = static_cast<std::size_t>(key_bytes(job.keys));
    const bool by_value = job.mixed || job.weights != nullptr;
    bytes = 0;
    const auto take = [&](auto& place, std::size_t count) {
      using T = std::remove_reference_t<decltype(*place)>;
      place = memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + bytes);
      bytes += padded(count * sizeof(T));
    };
    take(values, by_value ? points * strip : 0);
    take(results, strip);
    take(tail,
         by_value ? strip * sizeof(double) : points * static_cast<std::size_t>(step_columns(job)) * size);
    take(rows, static_cast<std::size_t>(job.used_row_count) * most_group_columns);
    take(subsets, job.subsets != nullptr ? subset_table_bytes : 0);
    take(row_at, job.subsets != nullptr ? static_cast<std::size_t>(job.used_row_count + 3) : 0);
    take(sums, job.subsets != nullptr ? points * subset_columns : 0);
    take(order, job.weights != nullptr ? points : 0);
    const std::size_t ranks = job.middle_only ? 2 : wires;
    const auto width = static_cast<std::size_t>(tile_width(job));
    take(keys, job.bisected ? bisection_bytes(job) : ranks * width * size);
    take(decoded, job.bisected || job.keys != KeyKind::sixteen ? 0 : ranks * width);
    take(seen, vector);
    take(zeros, strip * sizeof(double));
    take(positive, strip * sizeof(double));
    take(negative, strip * sizeof(double));
    take(at, wires);
    take(real, wires);
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

/// Plain points for the weighted rules, NaN as +inf.
template <class ValueT>
void read_values(const SelectJob& job, const RowSource* rows, std::int64_t begin, int count,
                 const Scratch<ValueT>& scratch) {
  for (int p = 0; p < job.points; ++p) {
    ValueT* const to = scratch.values + static_cast<std::ptrdiff_t>(p) * strip_columns;
    const RowSource& row = rows[job.rows[p]];
    if (job.infinite != nullptr && job.infinite[p] != 0) {
      std::fill_n(to, strip_columns, std::numeric_limits<ValueT>::infinity());
    } else if (row.data == nullptr) {
      std::fill_n(to, strip_columns, ValueT{0});
    } else {
      const int width = (count + wide_lanes - 1) / wide_lanes * wide_lanes;
      read_wide_any(row.dtype, whole(row, begin, count, width, scratch.tail), width, scratch.results);
      for (int i = 0; i < count; ++i) {
        const double v = scratch.results[i];
        to[i] = std::isnan(v) ? std::numeric_limits<ValueT>::infinity() : static_cast<ValueT>(v);
      }
    }
  }
}

// mixing ------------------------------------------------------------------------------------------

// A finite combination is never rounded to infinity; NaN reads +inf.
HWY_INLINE void store_mixed(WideVector v, float* to) {
  const Wide d;
  const auto largest = hn::Set(d, static_cast<double>(std::numeric_limits<float>::max()));
  const auto clamped = hn::Max(hn::Min(v, largest), hn::Neg(largest));
  const auto kept = hn::IfThenElse(is_finite(d, v), clamped, v);
  hn::Store(nan_to_infinity(Narrow(), round_to_f32(kept)), Narrow(), to);
}
HWY_INLINE void store_mixed(WideVector v, double* to) { hn::Store(nan_to_infinity(Wide(), v), Wide(), to); }

// Four points' combinations of all rows of their group, mix_vectors vectors of each. Named accumulators: GCC
// leaves arrays of them in memory.
template <class ValueT>
void mix_group(const MixEntry* entries, std::size_t entry_count, const double* HWY_RESTRICT rows,
               ValueT* HWY_RESTRICT to, std::ptrdiff_t stride, int points) {
  const Wide d;
  const int lanes = wide_lanes;
  auto s00 = hn::Zero(d), s10 = s00, s20 = s00, s30 = s00;
  auto s01 = s00, s11 = s00, s21 = s00, s31 = s00;
#if BRAGG_MIX_FOUR
  auto s02 = s00, s12 = s00, s22 = s00, s32 = s00;
  auto s03 = s00, s13 = s00, s23 = s00, s33 = s00;
#endif
  for (std::size_t e = 0; e < entry_count; ++e) {
    const double* x = rows + static_cast<std::ptrdiff_t>(entries[e].row) * product_columns;
    auto c0 = hn::Set(d, entries[e].coefficient[0]);
    auto c1 = hn::Set(d, entries[e].coefficient[1]);
    auto c2 = hn::Set(d, entries[e].coefficient[2]);
    auto c3 = hn::Set(d, entries[e].coefficient[3]);
    BRAGG_KEEP_IN_REGISTER(c0);
    BRAGG_KEEP_IN_REGISTER(c1);
    BRAGG_KEEP_IN_REGISTER(c2);
    BRAGG_KEEP_IN_REGISTER(c3);
    auto v = hn::Load(d, x);
    BRAGG_KEEP_IN_REGISTER(v);
    s00 = hn::MulAdd(c0, v, s00), s10 = hn::MulAdd(c1, v, s10);
    s20 = hn::MulAdd(c2, v, s20), s30 = hn::MulAdd(c3, v, s30);
    v = hn::Load(d, x + lanes);
    BRAGG_KEEP_IN_REGISTER(v);
    s01 = hn::MulAdd(c0, v, s01), s11 = hn::MulAdd(c1, v, s11);
    s21 = hn::MulAdd(c2, v, s21), s31 = hn::MulAdd(c3, v, s31);
#if BRAGG_MIX_FOUR
    v = hn::Load(d, x + 2 * lanes);
    BRAGG_KEEP_IN_REGISTER(v);
    s02 = hn::MulAdd(c0, v, s02), s12 = hn::MulAdd(c1, v, s12);
    s22 = hn::MulAdd(c2, v, s22), s32 = hn::MulAdd(c3, v, s32);
    v = hn::Load(d, x + 3 * lanes);
    BRAGG_KEEP_IN_REGISTER(v);
    s03 = hn::MulAdd(c0, v, s03), s13 = hn::MulAdd(c1, v, s13);
    s23 = hn::MulAdd(c2, v, s23), s33 = hn::MulAdd(c3, v, s33);
#endif
  }
  HWY_ALIGN double sums[4 * mix_vectors * vector_bytes / sizeof(double)];
  constexpr int row = product_columns;
  hn::Store(s00, d, sums), hn::Store(s01, d, sums + lanes);
  hn::Store(s10, d, sums + row), hn::Store(s11, d, sums + row + lanes);
  hn::Store(s20, d, sums + 2 * row), hn::Store(s21, d, sums + 2 * row + lanes);
  hn::Store(s30, d, sums + 3 * row), hn::Store(s31, d, sums + 3 * row + lanes);
#if BRAGG_MIX_FOUR
  hn::Store(s02, d, sums + 2 * lanes), hn::Store(s03, d, sums + 3 * lanes);
  hn::Store(s12, d, sums + row + 2 * lanes), hn::Store(s13, d, sums + row + 3 * lanes);
  hn::Store(s22, d, sums + 2 * row + 2 * lanes), hn::Store(s23, d, sums + 2 * row + 3 * lanes);
  hn::Store(s32, d, sums + 3 * row + 2 * lanes), hn::Store(s33, d, sums + 3 * row + 3 * lanes);
#endif
  for (int p = 0; p < points; ++p) {
    for (int i = 0; i < row; i += lanes) {
      store_mixed(hn::Load(d, sums + p * row + i), to + p * stride + i);
    }
  }
}

// As mix_group for one of its points, without touching rows that it has no coefficient for: they may not be
// finite.
template <class ValueT>
void mix_point(const MixEntry* entries, std::size_t entry_count, int point, const double* HWY_RESTRICT rows,
               ValueT* HWY_RESTRICT to) {
  const Wide d;
  const int lanes = wide_lanes;
  for (int i = 0; i < product_columns; i += lanes) {
    auto sum = hn::Zero(d);
    for (std::size_t e = 0; e < entry_count; ++e) {
      const double coefficient = entries[e].coefficient[point];
      if (coefficient == 0) continue;
      const double* x = rows + static_cast<std::ptrdiff_t>(entries[e].row) * product_columns;
      sum = hn::MulAdd(hn::Set(d, coefficient), hn::Load(d, x + i), sum);
    }
    store_mixed(sum, to + i);
  }
}

/// Of four rows, from `offset` on, the sums of all sixteen subsets: entry k holds those whose bits are set in
/// k. Entry 0 is zero already.
template <DType kTypeT>
void add_subsets(const unsigned char* const* rows, std::int64_t offset, double* HWY_RESTRICT table) {
  const Wide d;
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  for (int k = 0; k < 4; ++k) hwy::Prefetch(rows[k] + offset + mix_ahead);
  for (int v = 0; v < subset_columns; v += wide_lanes) {
    const std::int64_t at = offset + v * size;
    const auto a = load_f64<kTypeT>(rows[0] + at), b = load_f64<kTypeT>(rows[1] + at);
    const auto x = load_f64<kTypeT>(rows[2] + at), y = load_f64<kTypeT>(rows[3] + at);
    const auto ab = hn::Add(a, b), xy = hn::Add(x, y);
    double* const to = table + v;
    hn::Store(a, d, to + 1 * subset_columns), hn::Store(b, d, to + 2 * subset_columns);
    hn::Store(ab, d, to + 3 * subset_columns), hn::Store(x, d, to + 4 * subset_columns);
    hn::Store(hn::Add(a, x), d, to + 5 * subset_columns),
        hn::Store(hn::Add(b, x), d, to + 6 * subset_columns);
    hn::Store(hn::Add(ab, x), d, to + 7 * subset_columns), hn::Store(y, d, to + 8 * subset_columns);
    hn::Store(hn::Add(a, y), d, to + 9 * subset_columns),
        hn::Store(hn::Add(b, y), d, to + 10 * subset_columns);
    hn::Store(hn::Add(ab, y), d, to + 11 * subset_columns), hn::Store(xy, d, to + 12 * subset_columns);
    hn::Store(hn::Add(a, xy), d, to + 13 * subset_columns);
    hn::Store(hn::Add(b, xy), d, to + 14 * subset_columns);
    hn::Store(hn::Add(ab, xy), d, to + 15 * subset_columns);
  }
}

void add_subsets_any(DType dtype, const unsigned char* const* rows, std::int64_t offset, double* table) {
  with_dtype(dtype, [&]<DType kTypeT>() HWY_ATTR { add_subsets<kTypeT>(rows, offset, table); });
}

/// Stores values, and remembers whether all of them were finite as what is stored.
template <class ValueT>
struct FiniteTest;

template <>
struct FiniteTest<float> {
  using Magnitudes = hn::RebindToSigned<Narrow>;
  hn::Vec<Magnitudes> largest;

  FiniteTest() : largest(hn::Zero(Magnitudes())) {}
  HWY_INLINE void store(WideVector v, float* to) {
    const auto narrow = round_to_f32(v);
    hn::Store(narrow, Narrow(), to);
    largest = hn::Max(largest, hn::BitCast(Magnitudes(), hn::Abs(narrow)));
  }
  HWY_INLINE bool all() const {
    return hn::AllFalse(Magnitudes(), hn::Gt(largest, hn::Set(Magnitudes(), 0x7F7FFFFF)));
  }
};

template <>
struct FiniteTest<double> {
  WideVector bad;  // becomes NaN

  FiniteTest() : bad(hn::Zero(Wide())) {}
  HWY_INLINE void store(WideVector v, double* to) {
    hn::Store(v, Wide(), to);
    bad = hn::Add(bad, hn::Sub(v, v));
  }
  HWY_INLINE bool all() const { return hn::AllFalse(Wide(), hn::IsNaN(bad)); }
};

/// What a block of the table's groups is added to.
template <class ValueT>
struct SubsetSums {
  const unsigned char* table;
  const std::uint64_t* places;  // of the next point, from the block's first word on
  std::ptrdiff_t words_of_point;
  int words;  // of the block
  bool first, last;
  double* sums;               // of the next point, between blocks
  const double* coefficient;  // likewise
  ValueT* to;                 // likewise
  std::ptrdiff_t stride;
  FiniteTest<ValueT> finite;
};

/// kPointsT points at once, so that no chain of additions is waited for. Four table entries' places are in 64
/// bits.
template <int kPointsT, bool kCarefulT, class ValueT>
HWY_INLINE void add_some_points(SubsetSums<ValueT>& s) {
  const Wide d;
  WideVector sum[kPointsT][subset_vectors];
  for (int p = 0; p < kPointsT; ++p) {
    for (int v = 0; v < subset_vectors; ++v) {
      sum[p][v] = s.first ? hn::Zero(d) : hn::Load(d, s.sums + p * subset_columns + v * wide_lanes);
    }
  }
  for (int w = 0; w < s.words; ++w) {
    std::uint64_t places[kPointsT];
    for (int p = 0; p < kPointsT; ++p) places[p] = s.places[p * s.words_of_point + w];
    for (int k = 0; k < 4; ++k) {
      for (int p = 0; p < kPointsT; ++p) {
        const auto* const entry = lanes_at<double>(s.table + (places[p] >> (16 * k) & 0xFFFF));
        for (int v = 0; v < subset_vectors; ++v) {
          sum[p][v] = hn::Add(sum[p][v], hn::Load(d, entry + v * wide_lanes));
        }
      }
    }
  }
  for (int p = 0; p < kPointsT; ++p) {
    const auto share = hn::Set(d, s.coefficient[p]);
    for (int v = 0; v < subset_vectors; ++v) {
      if (!s.last) {
        hn::Store(sum[p][v], d, s.sums + p * subset_columns + v * wide_lanes);
      } else if constexpr (kCarefulT) {
        store_mixed(hn::Mul(sum[p][v], share), s.to + p * s.stride + v * wide_lanes);
      } else {
        s.finite.store(hn::Mul(sum[p][v], share), s.to + p * s.stride + v * wide_lanes);
      }
    }
  }
  s.places += kPointsT * s.words_of_point;
  s.sums += kPointsT * subset_columns;
  s.coefficient += kPointsT;
  s.to += kPointsT * s.stride;
}

/// A block of the table's groups, added to every point's sum; the last one: shared out and stored. False:
/// something is not finite, or too large for f32, and has to be stored with care.
template <bool kCarefulT, class ValueT>
bool add_points(const SelectJob& job, int first, int groups, const Scratch<ValueT>& scratch,
                ValueT* HWY_RESTRICT to) {
  SubsetSums<ValueT> s{.table = scratch.subsets,
                       .places = job.subsets + first / 4,
                       .words_of_point = (groups + 3) / 4,
                       .words = (std::min(subset_groups, groups - first) + 3) / 4,
                       .first = first == 0,
                       .last = first + subset_groups >= groups,
                       .sums = scratch.sums,
                       .coefficient = job.subset_coefficients,
                       .to = to,
                       .stride = scratch.stride,
                       .finite = {}};
  int p = 0;
  for (; p + 2 <= job.points; p += 2) add_some_points<2, kCarefulT>(s);
  if (p < job.points) add_some_points<1, kCarefulT>(s);
  return s.finite.all();
}

/// Points whose coefficients are all the same: sums of subsets of four rows are made once and serve all
/// points, a quarter of the additions. Nothing is subtracted, and a row that a point has no part in is not in
/// its sum. `offset`: of the columns, in bytes.
template <class ValueT>
void mix_by_subsets(const SelectJob& job, std::int64_t offset, const Scratch<ValueT>& scratch,
                    ValueT* HWY_RESTRICT to) {
  const int groups = (job.used_row_count + 3) / 4;
  for (int first = 0; first < groups; first += subset_groups) {
    for (int g = first; g < std::min(groups, first + subset_groups); ++g) {
      add_subsets_any(job.subset_dtype, scratch.row_at + 4 * g, offset,
                      lanes_at<double>(scratch.subsets + (g - first) * subset_group_bytes));
    }
    if (!add_points<false>(job, first, groups, scratch, to)) {
      add_points<true>(job, first, groups, scratch, to);
    }
  }
}

/// All points, of whatever coefficients.
template <class ValueT>
void mix_by_products(const SelectJob& job, const Scratch<ValueT>& scratch, bool nonfinite,
                     ValueT* HWY_RESTRICT to) {
  for (int first = 0; first < job.points; first += 4) {
    const int points = std::min(4, job.points - first);
    const std::size_t group = static_cast<std::size_t>(first / 4);
    const MixEntry* entries = job.entries + job.group_start[group];
    const std::size_t entry_count = job.group_start[group + 1] - job.group_start[group];
    ValueT* const point = to + first * scratch.stride;
    if (!nonfinite) {
      mix_group(entries, entry_count, scratch.rows, point, scratch.stride, points);
    } else {
      for (int p = 0; p < points; ++p) {
        mix_point(entries, entry_count, p, scratch.rows, point + p * scratch.stride);
      }
    }
  }
}

/// A strip of points whose coefficients are all the same.
template <class ValueT>
void mix_equal_points(const SelectJob& job, const RowSource* rows, std::int64_t begin, int count,
                      const Scratch<ValueT>& scratch) {
  const auto size = static_cast<std::int64_t>(size_of(job.subset_dtype));
  const int whole_columns = count / subset_columns * subset_columns;
  for (int u = 0; u < (job.used_row_count + 3) / 4 * 4; ++u) {
    const unsigned char* const data = u < job.used_row_count && rows[job.used_rows[u]].data != nullptr
                                          ? rows[job.used_rows[u]].at(begin)
                                          : nullptr;
    scratch.row_at[u] = data == nullptr ? scratch.zeros : data;
  }
  for (int done = 0; done < whole_columns; done += subset_columns) {
    mix_by_subsets(job, done * size, scratch, scratch.values + done);
  }
  if (whole_columns == count) return;
  // The columns after the last whole group: copies, followed by zeros.
  for (int u = 0; u < job.used_row_count; ++u) {
    auto* const copy = reinterpret_cast<unsigned char*>(scratch.rows + std::ptrdiff_t{u} * subset_columns);
    std::memset(copy, 0, subset_bytes);
    std::memcpy(copy, scratch.row_at[u] + whole_columns * size,
                static_cast<std::size_t>((count - whole_columns) * size));
    scratch.row_at[u] = copy;
  }
  mix_by_subsets(job, 0, scratch, scratch.values + whole_columns);
}

/// A strip of points of any coefficients.
template <class ValueT>
void mix_any_points(const SelectJob& job, const RowSource* rows, std::int64_t begin, int count,
                    const Scratch<ValueT>& scratch) {
  for (int done = 0; done < count; done += product_columns) {
    const int length = std::min(product_columns, count - done);
    bool nonfinite = false;
    for (int u = 0; u < job.used_row_count; ++u) {
      const RowSource& row = rows[job.used_rows[u]];
      double* const to = scratch.rows + std::ptrdiff_t{u} * product_columns;
      if (row.data == nullptr) {
        std::fill_n(to, product_columns, 0.0);
      } else {
        const unsigned char* const bytes = whole(row, begin + done, length, product_columns, scratch.tail);
        hwy::Prefetch(bytes + mix_ahead);
        nonfinite |= read_wide_any(row.dtype, bytes, product_columns, to);
      }
    }
    mix_by_products(job, scratch, nonfinite, scratch.values + done);
  }
}

/// to[i] += coefficient · element i, of `width` elements; `is_first`: to[i] = …
template <DType kTypeT>
void add_scaled(const unsigned char* bytes, int width, double coefficient, bool is_first,
                double* HWY_RESTRICT to) {
  const Wide d;
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  const auto c = hn::Set(d, coefficient);
  for (int i = 0; i < width; i += wide_lanes) {
    const unsigned char* const at = bytes + i * size;
    hwy::Prefetch(at + mix_ahead);
    const auto sum = is_first ? hn::Zero(d) : hn::Load(d, to + i);
    hn::Store(hn::MulAdd(c, load_f64<kTypeT>(at), sum), d, to + i);
  }
}

void add_scaled_any(DType dtype, const unsigned char* bytes, int width, double coefficient, bool is_first,
                    double* to) {
  with_dtype(dtype,
             [&]<DType kTypeT>() HWY_ATTR { add_scaled<kTypeT>(bytes, width, coefficient, is_first, to); });
}

/// A strip of points of few rows each: a point after another.
template <class ValueT>
void mix_few_rows(const SelectJob& job, const RowSource* rows, std::int64_t begin, int count,
                  const Scratch<ValueT>& scratch) {
  const int width = (count + mixed_step - 1) / mixed_step * mixed_step;
  for (int p = 0; p < job.points; ++p) {
    ValueT* const to = scratch.values + p * scratch.stride;
    bool is_first = true;
    for (int e = job.few_start[p]; e < job.few_start[p + 1]; ++e) {
      const RowSource& row = rows[job.few_rows[e]];
      if (row.data == nullptr) continue;
      add_scaled_any(row.dtype, whole(row, begin, count, width, scratch.tail), width, job.few_coefficients[e],
                     is_first, scratch.results);
      is_first = false;
    }
    if (is_first) std::fill_n(scratch.results, width, 0.0);
    for (int i = 0; i < width; i += wide_lanes) store_mixed(hn::Load(Wide(), scratch.results + i), to + i);
  }
}

template <class ValueT>
void mix_points(const SelectJob& job, const RowSource* rows, std::int64_t begin, int count,
                const Scratch<ValueT>& scratch) {
  if (job.few_start != nullptr) {
    mix_few_rows(job, rows, begin, count, scratch);
  } else if (job.subsets != nullptr) {
    mix_equal_points(job, rows, begin, count, scratch);
  } else {
    mix_any_points(job, rows, begin, count, scratch);
  }
  for (int p = 0; p < job.points && job.infinite != nullptr; ++p) {
    if (job.infinite[p] == 0) continue;
    std::fill_n(scratch.values + p * scratch.stride, scratch.stride, std::numeric_limits<ValueT>::infinity());
  }
}

// rules, on the sorted values of Lanes(Wide) coordinates ------------------------------------------

/// The sorted values of Lanes(Wide) columns.
template <class ValueT>
struct Sorted {
  const ValueT* values;
  std::ptrdiff_t stride;
  int first_rank;  // of those that there are

  HWY_INLINE WideVector operator[](int rank) const {
    return load_wide(values + (rank - first_rank) * stride);
  }
};

template <class ValueT>
WideVector median_of(const Sorted<ValueT>& y, int points) {
  if (points % 2 == 1) return y[points / 2];
  return midpoint<ValueT>(y[points / 2 - 1], y[points / 2]);
}

/// `sum` is that of the values kept.
template <class ValueT>
WideVector trimmed_mean_of(const Sorted<ValueT>& y, int points, int f, WideVector sum) {
  const Wide d;
  const auto low = y[f];
  const auto high = y[points - 1 - f];
  const int count = points - 2 * f;
  const auto mean = finish_mean(sum, count, low, high);
  if constexpr (std::is_same_v<ValueT, double>) {
    const auto large = is_large(low, high);
    if (!hn::AllFalse(d, large)) {
      const auto scale = hn::Set(d, shrink);
      auto scaled_sum = hn::Zero(d);
      for (int i = f; i < points - f; ++i) scaled_sum = hn::MulAdd(y[i], scale, scaled_sum);
      return hn::IfThenElse(large, finish_large_mean(scaled_sum, count, low, high), mean);
    }
  }
  return mean;
}

/// The next vector of columns.
template <class ValueT>
HWY_INLINE Sorted<ValueT> after(const Sorted<ValueT>& y, int vectors) {
  return {y.values + vectors * wide_lanes, y.stride, y.first_rank};
}

/// Of kVectorsT vectors of columns at once: one chain of additions would wait for itself.
template <int kVectorsT, class ValueT>
HWY_INLINE void trimmed_means(const Sorted<ValueT>& y, int points, int f, double* results) {
  const Wide d;
  WideVector sums[kVectorsT];
  for (int v = 0; v < kVectorsT; ++v) sums[v] = hn::Zero(d);
  for (int i = f; i < points - f; ++i) {
    for (int v = 0; v < kVectorsT; ++v) sums[v] = hn::Add(sums[v], after(y, v)[i]);
  }
  for (int v = 0; v < kVectorsT; ++v) {
    hn::Store(trimmed_mean_of(after(y, v), points, f, sums[v]), d, results + v * wide_lanes);
  }
}

template <class ValueT>
WideVector trimmed_mean_of(const Sorted<ValueT>& y, int points, int f) {
  auto sum = hn::Zero(Wide());
  for (int i = f; i < points - f; ++i) sum = hn::Add(sum, y[i]);
  return trimmed_mean_of(y, points, f, sum);
}

// The element of the closest `keep` whose rank is `first` modulo `keep`: the closest window contains one of
// each.
template <class ValueT>
HWY_INLINE WideVector closest_pick(const Sorted<ValueT>& y, int points, int keep, int first,
                                   WideVector centre) {
  const Wide d;
  auto left = y[first];
  auto pick = left;
  for (int t = first + keep; t < points; t += keep) {
    const auto right = y[t];
    auto above = hn::Sub(right, centre);
    auto below = hn::Sub(centre, left);
    auto closer = hn::Lt(above, below);
    if constexpr (std::is_same_v<ValueT, double>) {
      // Distances of huge values may overflow; half of them cannot.
      const auto half = hn::Set(d, 0.5);
      const auto half_centre = hn::Mul(centre, half);
      above = hn::Sub(hn::Mul(right, half), half_centre);
      below = hn::Sub(half_centre, hn::Mul(left, half));
      const auto huge = hn::Ge(hn::Max(hn::Abs(right), hn::Abs(left)), hn::Set(d, large_value));
      closer = hn::Or(hn::AndNot(huge, closer), hn::And(huge, hn::Lt(above, below)));
    }
    pick = hn::IfThenElse(closer, right, pick);
    left = right;
  }
  return pick;
}

template <class ValueT>
WideVector closest_mean_of(const Sorted<ValueT>& y, int points, int keep, WideVector centre) {
  const Wide d;
  auto low = hn::Inf(d);
  auto high = hn::Neg(low);
  auto sum = hn::Zero(d);
  for (int j = 0; j < keep; ++j) {
    const auto pick = closest_pick(y, points, keep, j, centre);
    low = hn::Min(low, pick);
    high = hn::Max(high, pick);
    sum = hn::Add(sum, pick);
  }
  auto mean = finish_mean(sum, keep, low, high);
  if constexpr (std::is_same_v<ValueT, double>) {
    const auto large = is_large(low, high);
    if (!hn::AllFalse(d, large)) {
      const auto scale = hn::Set(d, shrink);
      sum = hn::Zero(d);
      for (int j = 0; j < keep; ++j) {
        sum = hn::MulAdd(closest_pick(y, points, keep, j, centre), scale, sum);
      }
      mean = hn::IfThenElse(large, finish_large_mean(sum, keep, low, high), mean);
    }
  }
  return hn::IfThenElse(is_finite(d, centre), mean, centre);
}

/// The rule on `columns` sorted columns, a vector at a time.
template <class ValueT>
void apply_rule(const SelectJob& job, const Sorted<ValueT>& sorted, int columns, double* results) {
  const int points = job.points;
  const auto each = [&](const auto& rule) HWY_ATTR {
    for (int i = 0; i < columns; i += wide_lanes) {
      hn::Store(rule(after(sorted, i / wide_lanes)), Wide(), results + i);
    }
  };
  const auto at_rank = [&](int rank) { each([&](const auto& y) HWY_ATTR { return y[rank]; }); };
  switch (job.rule.kind) {
    case SelectRule::Kind::median:
      if (points % 2 == 1 || job.rule.even == EvenMedian::lower) return at_rank((points - 1) / 2);
      if (job.rule.even == EvenMedian::upper) return at_rank(points / 2);
      return each([&](const auto& y) HWY_ATTR { return median_of(y, points); });
    case SelectRule::Kind::trimmed_mean: {
      int i = 0;
      for (; i + 4 * wide_lanes <= columns; i += 4 * wide_lanes) {
        trimmed_means<4>(after(sorted, i / wide_lanes), points, job.rule.f, results + i);
      }
      for (; i < columns; i += wide_lanes) {
        trimmed_means<1>(after(sorted, i / wide_lanes), points, job.rule.f, results + i);
      }
      return;
    }
    case SelectRule::Kind::closest_to_median:
      return each([&](const auto& y)
                      HWY_ATTR { return closest_mean_of(y, points, job.rule.keep, median_of(y, points)); });
    case SelectRule::Kind::closest_to_trimmed_mean:
      return each([&](const auto& y) HWY_ATTR {
        return closest_mean_of(y, points, job.rule.keep, trimmed_mean_of(y, points, job.rule.f));
      });
    case SelectRule::Kind::none:
      return;
  }
}

// sorting and reducing ----------------------------------------------------------------------------

/// What merges sorted chunks in a tile of keys.
template <class LaneT>
void merge_chunks(const SelectJob& job, unsigned char* HWY_RESTRICT keys) {
  const hn::ScalableTag<LaneT> d;
  constexpr std::size_t lanes = hn::MaxLanes(d);
  constexpr std::size_t width = sorted_vectors * lanes;
  LaneT* HWY_RESTRICT const tile = lanes_at<LaneT>(keys);
  for (std::size_t k = 0; k < job.merge_count; ++k) {
    const Comparator c = job.merges[k];
    LaneT* const low = tile + c.low * width;
    LaneT* const high = tile + c.high * width;
    for (std::size_t i = 0; i < width; i += lanes) {
      const auto x = hn::Load(d, low + i);
      const auto y = hn::Load(d, high + i);
      if (c.need_low) hn::Store(hn::Min(x, y), d, low + i);
      if (c.need_high) hn::Store(hn::Max(x, y), d, high + i);
    }
  }
}

void merge_any(const SelectJob& job, unsigned char* keys) {
  switch (job.keys) {
    case KeyKind::f32:
      return merge_chunks<float>(job, keys);
    case KeyKind::sixteen:
      return merge_chunks<std::int16_t>(job, keys);
    case KeyKind::f64:
      return merge_chunks<double>(job, keys);
  }
}

/// Adds each point's non-finite values to its row's.
void count_nonfinite(const SelectJob& job, const RowSource* rows, std::int64_t begin, int count,
                     std::int64_t* nonfinite) {
  for (int p = 0; p < job.points; ++p) {
    const RowSource& row = rows[job.rows[p]];
    double unused = 0;
    if (row.data != nullptr) row_statistics(row, begin, count, nonfinite[job.rows[p]], unused);
  }
}

/// Whether a vector that ColumnSorts left in `seen` tells of a value that is not finite.
bool find_nonfinite(const SelectJob& job, const unsigned char* seen) {
  switch (job.keys) {
    case KeyKind::f32: {
      const hn::ScalableTag<std::int32_t> d;
      const auto finite = hn::Set(d, 0x7F7FFFFF);
      return !hn::AllFalse(d, hn::Gt(hn::Load(d, lanes_at<std::int32_t>(seen)), finite));
    }
    case KeyKind::sixteen: {
      const hn::ScalableTag<std::int16_t> d;
      const auto finite = hn::Set(d, static_cast<std::int16_t>(job.infinity - 1));
      return !hn::AllFalse(d, hn::Gt(hn::Load(d, lanes_at<std::int16_t>(seen)), finite));
    }
    case KeyKind::f64:
      break;
  }
  const Wide d;
  return !hn::AllFalse(d, hn::IsNaN(hn::Load(d, lanes_at<double>(seen))));
}

/// ±infinity, as bits of the type.
void fill_infinity(DType dtype, double sign, unsigned char* to, std::size_t count) {
  if (dtype == DType::f64) {
    std::fill_n(lanes_at<double>(to), count, sign * std::numeric_limits<double>::infinity());
  } else if (dtype == DType::f32) {
    std::fill_n(lanes_at<float>(to), count,
                static_cast<float>(sign) * std::numeric_limits<float>::infinity());
  } else {
    const std::uint16_t bits = (dtype == DType::f16 ? 0x7C00 : 0x7F80) | (sign < 0 ? 0x8000 : 0);
    std::fill_n(lanes_at<std::uint16_t>(to), count, bits);
  }
}

template <class ValueT>
void prepare_constants(const SelectJob& job, const Scratch<ValueT>& scratch) {
  const auto count = static_cast<std::size_t>(strip_of(job));
  std::memset(scratch.seen, 0, static_cast<std::size_t>(key_vector_bytes(job.keys)));
  fill_infinity(job.key_dtype, 1, scratch.positive, count);
  fill_infinity(job.key_dtype, -1, scratch.negative, count);
  for (int wire = 0; wire < job.wires; ++wire) {
    scratch.real[wire] = wire < job.points ? -1 : 0;
    // What sorts before and after all points, so that the middle stays in the middle.
    if (wire >= job.points)
      scratch.at[wire] = wire < job.points + job.low_wires ? scratch.negative : scratch.positive;
  }
}

/// 16-bit keys of one rank back to the values that they stand for.
template <DType kTypeT>
void decode(const unsigned char* HWY_RESTRICT keys, int columns, float* HWY_RESTRICT values) {
  const hn::ScalableTag<float> df;
  const hn::Rebind<std::int16_t, decltype(df)> di;
  const hn::Rebind<std::uint16_t, decltype(df)> du;
  for (int i = 0; i < columns; i += static_cast<int>(hn::MaxLanes(df))) {
    const auto bits = flip_magnitude(di, hn::Load(di, lanes_at<std::int16_t>(keys) + i));
    hn::Store(f32_of_bits<kTypeT>(df, hn::BitCast(du, bits)), df, values + i);
  }
}

/// The values of the keys of ranks [first, last]: the keys themselves but for 16-bit types.
template <class ValueT>
const ValueT* decode_ranks(const SelectJob& job, const Scratch<ValueT>& scratch, int width, int first,
                           int last, int columns) {
  if constexpr (std::is_same_v<ValueT, float>) {
    if (job.keys == KeyKind::sixteen) {
      for (int rank = first; rank <= last; ++rank) {
        const unsigned char* const from = scratch.keys + std::int64_t{rank} * width * 2;
        float* const to = scratch.decoded + std::int64_t{rank} * width;
        if (job.key_dtype == DType::f16) {
          decode<DType::f16>(from, columns, to);
        } else {
          decode<DType::bf16>(from, columns, to);
        }
      }
      return scratch.decoded;
    }
  }
  return lanes_at<ValueT>(scratch.keys);
}

/// Notes in `seen` what the least and the largest keys of sorted columns tell, as the networks for the middle
/// do.
template <class LaneT>
void note_extremes(const unsigned char* least, const unsigned char* largest, int columns,
                   unsigned char* seen) {
  const hn::ScalableTag<LaneT> d;
  const hn::RebindToSigned<decltype(d)> di;
  for (int i = 0; i < columns; i += static_cast<int>(hn::MaxLanes(d))) {
    const auto low = hn::Load(d, lanes_at<LaneT>(least) + i);
    const auto high = hn::Load(d, lanes_at<LaneT>(largest) + i);
    if constexpr (std::is_same_v<LaneT, double>) {
      auto* const check = lanes_at<double>(seen);
      hn::Store(hn::Add(hn::Load(d, check), hn::Add(hn::Sub(low, low), hn::Sub(high, high))), d, check);
    } else {
      auto* const check = lanes_at<hn::TFromD<decltype(di)>>(seen);
      auto most = hn::BitCast(di, high);
      if constexpr (std::is_same_v<LaneT, float>) {
        most = hn::BitCast(di, hn::Max(hn::Abs(low), hn::Abs(high)));
      } else {
        most = hn::Max(hn::Not(low), high);  // -inf is the complement of +inf
      }
      hn::Store(hn::Max(hn::Load(di, check), most), di, check);
    }
  }
}

void note_extremes_any(KeyKind kind, const unsigned char* least, const unsigned char* largest, int columns,
                       unsigned char* seen) {
  switch (kind) {
    case KeyKind::f32:
      return note_extremes<float>(least, largest, columns, seen);
    case KeyKind::sixteen:
      return note_extremes<std::int16_t>(least, largest, columns, seen);
    case KeyKind::f64:
      return note_extremes<double>(least, largest, columns, seen);
  }
}

/// The strip's columns [0, count), whole steps of them; `at` and `real` are set.
template <class ValueT>
void sort_strip(const SelectJob& job, int count, const Scratch<ValueT>& scratch, double* results) {
  if (job.bisected) {
    const Columns points{.at = scratch.at, .infinity = job.infinity, .seen = scratch.seen};
    return bisect(job, points, count, scratch.keys, results);
  }
  const int width = tile_width(job);
  const int first_rank = job.middle_only ? job.first_rank : 0;  // of those in the tile
  Columns columns{.ahead = job.mixed ? 0 : job.ahead,
                  .infinity = job.infinity,
                  .stride = std::int64_t{width} * key_bytes(job.keys),
                  .seen = scratch.seen};
  for (int done = 0; done < count; done += width) {
    const int length = std::min(width, count - done);
    columns.offset = std::int64_t{done} * key_bytes(job.keys);
    columns.vectors = length / key_lanes(job.keys);
    for (int first = 0; first < job.points; first += job.chunk) {
      columns.at = scratch.at + first;
      columns.real = scratch.real + first;
      columns.keys = scratch.keys + first * columns.stride;
      const int points = std::min(job.chunk, job.points - first);
      (points == job.chunk ? job.network : job.last_network).sort(columns);
      if (job.count_nonfinite && !job.middle_only) {
        note_extremes_any(job.keys, columns.keys, columns.keys + (points - 1) * columns.stride, length,
                          scratch.seen);
      }
    }
    if (job.merge_count > 0) merge_any(job, scratch.keys);
    const ValueT* const values =
        decode_ranks(job, scratch, width, job.first_rank - first_rank, job.last_rank - first_rank, length);
    apply_rule(job, Sorted<ValueT>{values, width, first_rank}, length, results + done);
  }
}

// the pass ----------------------------------------------------------------------------------------

/// Points `at` which the strip from `begin` on lies.
template <class ValueT>
void find_points(const SelectJob& job, const RowSource* rows, std::int64_t begin,
                 const Scratch<ValueT>& scratch) {
  for (int p = 0; p < job.points; ++p) {
    const RowSource& row = rows[job.rows[p]];
    if (job.infinite != nullptr && job.infinite[p] != 0) {
      scratch.at[p] = scratch.positive;
    } else {
      scratch.at[p] = row.data == nullptr ? scratch.zeros : row.at(begin);
    }
  }
}

/// The columns after the last whole step: a copy of them, followed by zeros.
template <class ValueT>
void copy_tails(const SelectJob& job, std::int64_t offset, std::size_t bytes,
                const Scratch<ValueT>& scratch) {
  const auto step = static_cast<std::size_t>(step_columns(job) * key_bytes(job.keys));
  for (int p = 0; p < job.points; ++p) {
    unsigned char* const to = scratch.tail + static_cast<std::size_t>(p) * step;
    std::memset(to, 0, step);
    std::memcpy(to, scratch.at[p] + offset, bytes);
    scratch.at[p] = to;
  }
}

template <class ValueT>
void select_plain(const SelectJob& job, const RowSource* rows, std::int64_t begin, int count,
                  std::int64_t* nonfinite, const Scratch<ValueT>& scratch) {
  std::memset(scratch.seen, 0, static_cast<std::size_t>(key_vector_bytes(job.keys)));
  find_points(job, rows, begin, scratch);
  const int step = step_columns(job);
  const int whole_columns = count / step * step;
  sort_strip(job, whole_columns, scratch, scratch.results);
  if (whole_columns < count) {
    const int size = key_bytes(job.keys);
    copy_tails(job, std::int64_t{whole_columns} * size,
               static_cast<std::size_t>((count - whole_columns) * size), scratch);
    sort_strip(job, step, scratch, scratch.results + whole_columns);
  }
  if (!job.count_nonfinite || !find_nonfinite(job, scratch.seen)) return;
  count_nonfinite(job, rows, begin, count, nonfinite);
}

/// Writes the mixed points themselves.
template <class ValueT>
void write_points(const SelectJob& job, const Scratch<ValueT>& scratch, std::int64_t begin, int count,
                  DType out_dtype, unsigned char* const* out) {
  const std::int64_t at = begin * static_cast<std::int64_t>(size_of(out_dtype));
  for (int p = 0; p < job.points; ++p) {
    const ValueT* const values = scratch.values + p * scratch.stride;
    if constexpr (std::is_same_v<ValueT, double>) {
      write_tile(values, count, out_dtype, out[p] + at);
    } else {
      const int width = (count + wide_lanes - 1) / wide_lanes * wide_lanes;
      read_wide<DType::f32>(reinterpret_cast<const unsigned char*>(values), width, scratch.results);
      write_tile(scratch.results, count, out_dtype, out[p] + at);
    }
  }
}

template <class ValueT>
void select_as(const SelectJob& job, const RowSource* rows, std::int64_t begin, std::int64_t count,
               DType out_dtype, unsigned char* const* out, std::int64_t* nonfinite, unsigned char* memory) {
  const Scratch<ValueT> scratch(job, memory);
  const int strip = strip_of(job);
  const std::int64_t out_size = static_cast<std::int64_t>(size_of(out_dtype));
  std::fill_n(lanes_at<double>(scratch.zeros), static_cast<std::size_t>(strip), 0.0);
  const bool sorts = job.weights == nullptr && job.rule.kind != SelectRule::Kind::none;
  if (sorts) prepare_constants(job, scratch);
  for (int p = 0; p < job.points && job.mixed && sorts; ++p) {
    scratch.at[p] = reinterpret_cast<const unsigned char*>(scratch.values + p * scratch.stride);
  }
  for (int g = 0; g < subset_groups && job.subsets != nullptr; ++g) {
    std::fill_n(scratch.subsets + g * subset_group_bytes, subset_bytes, std::uint8_t{0});  // the empty subset
  }
  for (std::int64_t done = 0; done < count; done += strip) {
    const int length = static_cast<int>(std::min<std::int64_t>(strip, count - done));
    if (job.mixed) mix_points(job, rows, begin + done, length, scratch);
    if (job.rule.kind == SelectRule::Kind::none) {
      write_points(job, scratch, begin + done, length, out_dtype, out);
      continue;
    }
    if (job.weights != nullptr) {
      if (!job.mixed) {
        read_values(job, rows, begin + done, length, scratch);
        // Counting rereads the rows, so it comes before an output that may lie on one of them.
        if (job.count_nonfinite) count_nonfinite(job, rows, begin + done, length, nonfinite);
      }
      select_weighted(job, scratch.values, static_cast<std::size_t>(strip), length, scratch.results,
                      scratch.order);
    } else if (job.mixed) {
      const int step = step_columns(job);
      sort_strip(job, (length + step - 1) / step * step, scratch, scratch.results);
    } else {
      select_plain(job, rows, begin + done, length, nonfinite, scratch);
    }
    write_tile(scratch.results, length, out_dtype, out[0] + (begin + done) * out_size);
  }
}

void select_any(const SelectJob& job, const RowSource* rows, std::int64_t begin, std::int64_t count,
                DType out_dtype, unsigned char* const* out, std::int64_t* nonfinite, unsigned char* memory) {
  if (job.wide) {
    select_as<double>(job, rows, begin, count, out_dtype, out, nonfinite, memory);
  } else {
    select_as<float>(job, rows, begin, count, out_dtype, out, nonfinite, memory);
  }
}

std::size_t scratch_bytes(const SelectJob& job) {
  return job.wide ? Scratch<double>(job, nullptr).bytes : Scratch<float>(job, nullptr).bytes;
}

const char* name() { return hwy::TargetName(HWY_TARGET); }

}  // namespace
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bragg::detail::cpu {

HWY_EXPORT(select_any);
HWY_EXPORT(scratch_bytes);
HWY_EXPORT(name);

void select_chunk(const SelectJob& job, const RowSource* rows, std::int64_t begin, std::int64_t count,
                  DType out_dtype, unsigned char* const* out, std::int64_t* nonfinite,
                  unsigned char* scratch) {
  HWY_DYNAMIC_DISPATCH(select_any)(job, rows, begin, count, out_dtype, out, nonfinite, scratch);
}

std::size_t select_scratch_bytes(const SelectJob& job) { return HWY_DYNAMIC_DISPATCH(scratch_bytes)(job); }

const char* target_name() noexcept { return HWY_DYNAMIC_DISPATCH(name)(); }

}  // namespace bragg::detail::cpu
#endif  // HWY_ONCE
