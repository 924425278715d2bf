// SPDX-License-Identifier: Apache-2.0
// Strips of points sorted by networks as far as the rule needs, or bisected. Compiled once per target.
#if defined(BRAGG_HOST_CPU_SORT_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef BRAGG_HOST_CPU_SORT_INL_HPP_
#undef BRAGG_HOST_CPU_SORT_INL_HPP_
#else
#define BRAGG_HOST_CPU_SORT_INL_HPP_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>
#include <variant>

#include "host/cpu/columns.hpp"
#include "host/cpu/mix-inl.hpp"
#include "host/cpu/reduce-inl.hpp"
#include "host/cpu/scratch.hpp"
#include "host/cpu/select.hpp"
#include "host/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
namespace {

/// Bytes asked of memory ahead of what is sorted. 64 rows fill a third of L1 with it; at 256 and more they
/// evict each other, and with none the memory idles while networks run (64 rows: half the bandwidth).
constexpr std::int64_t sort_ahead = 128;

/// Columns of a vector of keys.
int key_lanes(DType dtype) {
  return with_dtype(dtype, []<DType kTypeT>() HWY_ATTR {
    return static_cast<int>(hn::MaxLanes(hn::ScalableTag<Key<kTypeT>>()));
  });
}

/// Columns that are sorted or bisected at a time, of which a strip is a multiple.
int step_columns(const SelectJob& job) {
  return std::holds_alternative<Bisection>(job.method) ? bisection_columns() : key_lanes(job.dtype);
}

/// Scratch of a strip.
template <class ValueT>
struct SortScratch {
  int strip = 0;                       // its columns
  unsigned char* keys = nullptr;       // [rank or wire][tile]; bisected: what bisection takes
  ValueT* decoded = nullptr;           // 16-bit types: the same, as values
  const unsigned char** at = nullptr;  // per wire
  std::int64_t* real = nullptr;        // per wire
  unsigned char* seen = nullptr;       // a vector
  unsigned char* positive = nullptr;   // a strip of +inf
  unsigned char* negative = nullptr;   // a strip of −inf
  unsigned char* zeros = nullptr;      // rows: a strip
  unsigned char* tail = nullptr;       // rows: [point][step_columns]

  SortScratch(const SelectJob& job, int strip_in, ScratchCutter& cut) : strip(strip_in) {
    const std::size_t size = size_of(job.dtype);
    int wires = job.points;
    if (const auto* const bisection = std::get_if<Bisection>(&job.method)) {
      keys = cut.take<unsigned char>(bisection_bytes(*bisection));
    } else if (const auto* const networks = std::get_if<Networks>(&job.method)) {
      wires = networks->wires;
      const int tile_wires = networks->two_chunks() ? 2 * networks->chunk : wires;
      const int kept = networks->middle_only ? 2 * strip : tile_wires * sorted_vectors * key_lanes(job.dtype);
      keys = cut.take<unsigned char>(static_cast<std::size_t>(kept) * size);
      if (size == 2) decoded = cut.take<ValueT>(static_cast<std::size_t>(kept));
    } else {
      return;
    }
    const auto columns = static_cast<std::size_t>(strip);
    at = cut.take<const unsigned char*>(static_cast<std::size_t>(wires));
    real = cut.take<std::int64_t>(static_cast<std::size_t>(wires));
    seen = cut.take<unsigned char>(static_cast<std::size_t>(key_lanes(job.dtype)) * size);
    positive = cut.take<unsigned char>(columns * size);
    negative = cut.take<unsigned char>(columns * size);
    if (job.mixed()) return;
    zeros = cut.take<unsigned char>(columns * size);
    tail = cut.take<unsigned char>(static_cast<std::size_t>(job.points * step_columns(job)) * size);
  }
};

/// ±infinity, as bits of the type.
void fill_infinity(DType dtype, double sign, unsigned char* to, int count) {
  with_dtype(dtype, [&]<DType kTypeT>() HWY_ATTR {
    if constexpr (size_of(kTypeT) == 2) {
      const auto bits = static_cast<std::uint16_t>(infinity_bits(kTypeT) | (sign < 0 ? 0x8000 : 0));
      std::fill_n(lanes_at<std::uint16_t>(to), count, bits);
    } else {
      using T = std::conditional_t<kTypeT == DType::f64, double, float>;
      std::fill_n(lanes_at<T>(to), count, static_cast<T>(sign) * std::numeric_limits<T>::infinity());
    }
  });
}

/// One store, as wide as the load of a network that follows it: bytes that others have written would make
/// that load wait.
void clear_seen(DType dtype, unsigned char* seen) {
  with_dtype(dtype, [&]<DType kTypeT>() HWY_ATTR {
    const hn::ScalableTag<Key<kTypeT>> d;
    hn::Store(hn::Zero(d), d, lanes_at<Key<kTypeT>>(seen));
  });
}

/// What stays in the scratch for all strips. `mixed`: null, or the points.
template <class ValueT>
void prepare(const SelectJob& job, const SortScratch<ValueT>& scratch, const Points<ValueT>& mixed) {
  if (scratch.seen == nullptr) return;
  const auto* const networks = std::get_if<Networks>(&job.method);
  const std::size_t size = size_of(job.dtype);
  clear_seen(job.dtype, scratch.seen);
  fill_infinity(job.dtype, 1, scratch.positive, scratch.strip);
  fill_infinity(job.dtype, -1, scratch.negative, scratch.strip);
  if (!job.mixed()) std::memset(scratch.zeros, 0, static_cast<std::size_t>(scratch.strip) * size);
  for (int p = 0; p < job.points; ++p) {
    scratch.real[p] = -1;
    if (job.mixed()) scratch.at[p] = reinterpret_cast<const unsigned char*>(mixed[p]);
  }
  // What sorts before and after all points, so that the middle stays in the middle.
  for (int wire = job.points; networks != nullptr && wire < networks->wires; ++wire) {
    scratch.real[wire] = 0;
    scratch.at[wire] = wire < job.points + networks->low_wires ? scratch.negative : scratch.positive;
  }
}

// what is not finite ------------------------------------------------------------------------------

/// Adds each point's non-finite values to its row's.
void count_nonfinite(const Rows& source, const Strip& strip, std::int64_t* nonfinite) {
  for (const int r : source.rows) {
    const RowSource& row = strip.rows[r];
    double unused = 0;
    if (row.data != nullptr) row_statistics(row, strip.begin, strip.count, nonfinite[r], unused);
  }
}

/// Whether a vector that ColumnSorts left in `seen` tells of a value that is not finite.
bool find_nonfinite(DType dtype, const unsigned char* seen) {
  return with_dtype(dtype, [&]<DType kTypeT>() HWY_ATTR {
    if constexpr (kTypeT == DType::f64) {
      const Wide d;
      return !hn::AllFalse(d, hn::IsNaN(hn::Load(d, lanes_at<double>(seen))));
    } else {
      const hn::RebindToSigned<hn::ScalableTag<Key<kTypeT>>> d;
      using T = hn::TFromD<decltype(d)>;
      const auto largest = static_cast<T>(sizeof(T) == 4 ? 0x7F7FFFFF : infinity_bits(kTypeT) - 1);
      return !hn::AllFalse(d, hn::Gt(hn::Load(d, lanes_at<T>(seen)), hn::Set(d, largest)));
    }
  });
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

// sorting -----------------------------------------------------------------------------------------

/// What merges sorted chunks in a tile of keys.
template <class LaneT>
HWY_NOINLINE void merge_chunks(std::span<const Comparator> merges, unsigned char* HWY_RESTRICT keys) {
  const hn::ScalableTag<LaneT> d;
  constexpr std::size_t lanes = hn::MaxLanes(d);
  constexpr std::size_t width = sorted_vectors * lanes;
  LaneT* HWY_RESTRICT const tile = lanes_at<LaneT>(keys);
  for (const Comparator& c : merges) {
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

/// Two sorted chunks of a tile, most_column_points wires and `second` of them, which become one. A list of
/// comparators would store and load each wire seven times; here it is twice, or once for a median.
template <class LaneT>
class TwoChunks {
 public:
  TwoChunks(unsigned char* keys, int second) : tile_(lanes_at<LaneT>(keys)), second_(second) {}

  /// Ranks first … last of all; other ranks hold anything.
  void merge(int first, int last) const {
    for (std::ptrdiff_t i = 0; i < width; i += lanes) {
      if (last - first <= 1) {
        const auto low = find_rank(first, i);
        const auto high = first == last ? low : find_rank(last, i);
        store(low, first, i);
        store(high, last, i);
      } else {
        merge_bitonically(first, last, i);
      }
    }
  }

 private:
  using D = hn::ScalableTag<LaneT>;
  using Vector = hn::Vec<D>;
  static constexpr int half = most_column_points;
  static constexpr std::ptrdiff_t lanes = hn::MaxLanes(D());
  static constexpr std::ptrdiff_t width = sorted_vectors * lanes;

  static HWY_INLINE void compare(Vector& low, Vector& high) {
    const auto least = hn::Min(low, high);
    high = hn::Max(low, high);
    low = least;
  }
  HWY_INLINE Vector load(int wire, std::ptrdiff_t i) const { return hn::Load(D(), tile_ + wire * width + i); }
  HWY_INLINE void store(Vector v, int wire, std::ptrdiff_t i) const {
    hn::Store(v, D(), tile_ + wire * width + i);
  }

  /// The least k + 1 of both chunks are the lesser of each a[i] and b[k − i], where either may be missing.
  HWY_INLINE Vector find_rank(int k, std::ptrdiff_t i) const {
    const int a_begin = std::max(0, k + 1 - second_);
    const int a_end = std::min(half, k + 1);
    Vector most[4];  // of each fourth pair, so that no chain of maxima is waited for
    each<4>([&](auto c) BRAGG_INLINED { most[c] = least_key(); });
    // What has no partner: ascending, so the last of them.
    if (a_begin > 0) most[0] = load(a_begin - 1, i);
    if (k + 1 > half) most[1] = load(half + k - half, i);
    int a = a_begin;
    for (; a + 4 <= a_end; a += 4) {
      each<4>([&](auto c) BRAGG_INLINED {
        most[c] = hn::Max(most[c], hn::Min(load(a + c, i), load(half + k - a - c, i)));
      });
    }
    for (; a < a_end; ++a) most[0] = hn::Max(most[0], hn::Min(load(a, i), load(half + k - a, i)));
    return hn::Max(hn::Max(most[0], most[1]), hn::Max(most[2], most[3]));
  }

  /// Batcher's bitonic merge, eight wires of each half at a time: those that its first four steps compare,
  /// then those of its last three. Wires that there are not are as if they held the largest key.
  HWY_INLINE void merge_bitonically(int first, int last, std::ptrdiff_t i) const {
    for (int start = 0; start < 8; ++start) {
      Vector low[8], high[8];  // wires start + 8j, and 127 − start − 8j
      each<8>([&](auto j) BRAGG_INLINED {
        const int wire = start + 8 * j;
        low[j] = load(wire, i);
        high[j] = half - 1 - wire < second_ ? load(2 * half - 1 - wire, i) : largest_key();
        compare(low[j], high[j]);
      });
      each<3>([&](auto step) BRAGG_INLINED {
        constexpr int stride = 4 >> step;
        each<8>([&](auto j) BRAGG_INLINED {
          if constexpr ((j & stride) == 0) {
            compare(low[j], low[j + stride]);
            compare(high[j + stride], high[j]);
          }
        });
      });
      each<8>([&](auto j) BRAGG_INLINED {
        store(low[j], start + 8 * j, i);
        store(high[j], 2 * half - 1 - start - 8 * j, i);
      });
    }
    for (int start = first / 8 * 8; start <= last; start += 8) {
      Vector v[8];
      each<8>([&](auto j) BRAGG_INLINED { v[j] = load(start + j, i); });
      each<3>([&](auto step) BRAGG_INLINED {
        constexpr int stride = 4 >> step;
        each<8>([&](auto j) BRAGG_INLINED {
          if constexpr ((j & stride) == 0) compare(v[j], v[j + stride]);
        });
      });
      each<8>([&](auto j) BRAGG_INLINED { store(v[j], start + j, i); });
    }
  }

  static constexpr bool is_real = !std::is_same_v<LaneT, std::int16_t>;
  static HWY_INLINE Vector largest_key() {
    if constexpr (is_real) return hn::Inf(D());
    return hn::Set(D(), std::numeric_limits<LaneT>::max());
  }
  static HWY_INLINE Vector least_key() {
    if constexpr (is_real) return hn::Neg(hn::Inf(D()));
    return hn::Set(D(), std::numeric_limits<LaneT>::lowest());
  }

  LaneT* tile_;
  int second_;
};

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
const ValueT* decode_ranks(DType dtype, const SortScratch<ValueT>& scratch, int width, int first, int last,
                           int columns) {
  if constexpr (std::is_same_v<ValueT, float>) {
    if (size_of(dtype) == 2) {
      for (int rank = first; rank <= last; ++rank) {
        const unsigned char* const from = scratch.keys + std::int64_t{rank} * width * 2;
        float* const to = scratch.decoded + std::int64_t{rank} * width;
        dtype == DType::f16 ? decode<DType::f16>(from, columns, to) : decode<DType::bf16>(from, columns, to);
      }
      return scratch.decoded;
    }
  }
  return lanes_at<ValueT>(scratch.keys);
}

/// The rule on the strip's columns [0, count), whole steps of them, which lie `at`.
template <class ValueT>
void sort_columns(const SelectJob& job, const Networks& networks, int count,
                  const SortScratch<ValueT>& scratch, double* results) {
  const auto size = static_cast<std::int64_t>(size_of(job.dtype));
  const int lanes = key_lanes(job.dtype);
  const int width = networks.middle_only ? scratch.strip : sorted_vectors * lanes;
  const bool note = !networks.middle_only && job.count_nonfinite();
  const int first_rank = networks.middle_only ? networks.first_rank : 0;  // of those in the tile
  Columns columns{.ahead = job.mixed() ? 0 : sort_ahead,
                  .infinity = infinity_bits(job.dtype),
                  .stride = width * size,
                  .seen = scratch.seen};
  for (int done = 0; done < count; done += width) {
    const int length = std::min(width, count - done);
    columns.offset = done * size;
    columns.vectors = length / lanes;
    for (int first = 0; first < job.points; first += networks.chunk) {
      columns.at = scratch.at + first;
      columns.real = scratch.real + first;
      columns.keys = scratch.keys + first * columns.stride;
      const int points = std::min(networks.chunk, job.points - first);
      (points == networks.chunk ? networks.network : networks.last_network).sort(columns);
      if (!note) continue;
      with_dtype(job.dtype, [&]<DType kTypeT>() HWY_ATTR {
        note_extremes<Key<kTypeT>>(columns.keys, columns.keys + (points - 1) * columns.stride, length,
                                   scratch.seen);
      });
    }
    if (networks.two_chunks()) {
      with_dtype(job.dtype, [&]<DType kTypeT>() HWY_ATTR {
        TwoChunks<Key<kTypeT>>(scratch.keys, networks.wires - networks.chunk)
            .merge(networks.first_rank, networks.last_rank);
      });
    } else if (!networks.merges.empty()) {
      with_dtype(job.dtype,
                 [&]<DType kTypeT>() HWY_ATTR { merge_chunks<Key<kTypeT>>(networks.merges, scratch.keys); });
    }
    const ValueT* const values = decode_ranks(job.dtype, scratch, width, networks.first_rank - first_rank,
                                              networks.last_rank - first_rank, length);
    apply_rule(job.rule, job.points, Sorted<ValueT>{values, width, first_rank}, length, results + done);
  }
}

template <class ValueT>
void sort_columns(const SelectJob& job, const Bisection& bisection, int count,
                  const SortScratch<ValueT>& scratch, double* results) {
  const Columns points{.at = scratch.at, .infinity = infinity_bits(job.dtype), .seen = scratch.seen};
  bisect(bisection, points, count, scratch.keys, results);
}

/// The rule on a strip of points that are rows, straight from them.
template <class ValueT, class MethodT>
void sort_rows(const SelectJob& job, const Rows& source, const MethodT& method, const Strip& strip,
               const SortScratch<ValueT>& scratch, double* results, std::int64_t* nonfinite) {
  const std::size_t size = size_of(job.dtype);
  clear_seen(job.dtype, scratch.seen);
  for (int p = 0; p < job.points; ++p) {
    const RowSource& row = strip.rows[source.rows[static_cast<std::size_t>(p)]];
    if (job.infinite != nullptr && job.infinite[p] != 0) {
      scratch.at[p] = scratch.positive;
    } else {
      scratch.at[p] = row.data == nullptr ? scratch.zeros : row.at(strip.begin);
    }
  }
  const int step = step_columns(job);
  const int whole_columns = strip.count / step * step;
  sort_columns(job, method, whole_columns, scratch, results);
  if (whole_columns < strip.count) {
    // The columns after the last whole step: copies, followed by zeros.
    const std::size_t step_bytes = static_cast<std::size_t>(step) * size;
    for (int p = 0; p < job.points; ++p) {
      unsigned char* const copy = scratch.tail + static_cast<std::size_t>(p) * step_bytes;
      std::memset(copy, 0, step_bytes);
      std::memcpy(copy, scratch.at[p] + static_cast<std::size_t>(whole_columns) * size,
                  static_cast<std::size_t>(strip.count - whole_columns) * size);
      scratch.at[p] = copy;
    }
    sort_columns(job, method, step, scratch, results + whole_columns);
  }
  if (source.count_nonfinite && find_nonfinite(job.dtype, scratch.seen)) {
    count_nonfinite(source, strip, nonfinite);
  }
}

}  // namespace
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
