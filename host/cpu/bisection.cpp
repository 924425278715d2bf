// SPDX-License-Identifier: Apache-2.0
// Median and trimmed mean of many points: ranks found by bisection over the bits of keys, which are integers
// in the order of the values. As many passes for any data, so that no row can slow them down.
//
// Keys are cut into bytes, the most significant first, one plane of each: a vector compares as many columns
// as it has bytes, and a pass reads the points of a block of columns in sequence. Eight passes find the first
// byte of a rank's key; the next byte is sought among the points that have that one.
//
// One thread of Zen 2, f32, 1e5 columns, ns a value: median of 256, 1024, 4096 points 1.10, 1.31, 2.00, where
// merges of sorted chunks take 1.39, 3.58, 11.8; trimmed mean 1.61, 1.89, 2.92 instead of 1.77, 4.64, 15.6.
#include "host/cpu/select.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/cpu/bisection.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "host/cpu/columns-inl.hpp"
#include "host/cpu/means-inl.hpp"
#include "host/cpu/scratch.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
namespace {

template <DType kTypeT>
using KeysOf = std::conditional_t<kTypeT == DType::f32, KeysF32,
                                  std::conditional_t<kTypeT == DType::f64, KeysF64, KeysSixteen>>;
template <DType kTypeT>
using ValueOf = std::conditional_t<kTypeT == DType::f64, double, float>;

/// The trimmed mean of values whose first and last kept are `least` and `most`, of which as many are kept as
/// `of_least` and `of_most` say, and of those between, whose sum is `sum`; `shrunk`: of values times
/// `shrink`.
template <class ValueT>
HWY_INLINE WideVector mean_of_kept(const Bisection& job, WideVector least, WideVector most,
                                   WideVector of_least, WideVector of_most, WideVector sum, bool shrunk) {
  const int kept = job.last_rank - job.first_rank + 1;
  const auto scale = hn::Set(Wide(), shrunk ? shrink : 1);
  const auto ties = hn::Add(hn::Mul(of_least, hn::Mul(least, scale)), hn::Mul(of_most, hn::Mul(most, scale)));
  const auto all = hn::Add(sum, ties);
  const auto result =
      shrunk ? finish_shrunk_mean(all, kept, least, most) : finish_mean<ValueT>(all, kept, least, most);
  return hn::IfThenElse(hn::Eq(least, most), least, result);
}

#if HWY_TARGET == HWY_SCALAR

// A vector of one lane has no room for the bytes of several columns: each is partitioned by itself, with the
// same sums in the same order.
constexpr int block_columns = 16;

template <DType kTypeT>
ValueOf<kTypeT> value_of(hn::Vec<typename KeysOf<kTypeT>::D> key) {
  if constexpr (size_of(kTypeT) == 2) {
    const hn::ScalableTag<std::int16_t> di;
    const hn::ScalableTag<float> df;
    const auto bits = hn::BitCast(hn::RebindToUnsigned<decltype(di)>(), flip_magnitude(di, key));
    return hn::GetLane(f32_of_bits<kTypeT>(df, bits));
  } else {
    return hn::GetLane(key);
  }
}

template <class ValueT>
double column_result(const Bisection& job, const ValueT* values, ValueT* order) {
  std::copy_n(values, job.points, order);
  std::nth_element(order, order + job.first_rank, order + job.points);
  const ValueT low = order[job.first_rank];
  std::nth_element(order + job.first_rank, order + job.last_rank, order + job.points);
  const ValueT high = order[job.last_rank];
  const Wide d;
  const auto least = hn::Set(d, low), most = hn::Set(d, high);
  if (job.is_median)
    return job.first_rank == job.last_rank ? low : hn::GetLane(midpoint<ValueT>(least, most));
  int through = 0, below = 0;
  for (int p = 0; p < job.points; ++p) through += values[p] <= low, below += values[p] < high;
  const auto mean = [&](bool shrunk) HWY_ATTR {
    double sum = 0;
    for (int p = 0; p < job.points; ++p) {
      if (values[p] > low && values[p] < high) sum += values[p] * (shrunk ? shrink : 1);
    }
    return mean_of_kept<ValueT>(job, least, most, hn::Set(d, through - job.first_rank),
                                hn::Set(d, job.last_rank + 1 - below), hn::Set(d, sum), shrunk);
  };
  const bool shrunk = std::is_same_v<ValueT, double> && !hn::AllFalse(d, is_large(least, most));
  return hn::GetLane(mean(shrunk));
}

template <class ValueT>
struct BisectionScratch {
  ScratchCutter cut;
  ValueT* values;  // of a column: [point]
  ValueT* order;   // the same, partitioned

  BisectionScratch(const Bisection& job, unsigned char* memory) : cut(memory) {
    values = cut.take<ValueT>(static_cast<std::size_t>(job.points));
    order = cut.take<ValueT>(static_cast<std::size_t>(job.points));
  }
};

template <DType kTypeT>
void bisect_as(const Bisection& job, Columns columns, int count, unsigned char* memory, double* results) {
  const BisectionScratch<ValueOf<kTypeT>> scratch(job, memory);
  KeysOf<kTypeT> keys(columns);
  for (int i = 0; i < count; ++i) {
    columns.offset = std::int64_t{i} * static_cast<std::int64_t>(size_of(kTypeT));
    for (int p = 0; p < job.points; ++p)
      scratch.values[p] = value_of<kTypeT>(keys.template load<true, false>(columns, p));
    results[i] = column_result(job, scratch.values, scratch.order);
  }
  keys.store_check(columns);
}

std::size_t scratch_bytes(const Bisection& job) { return BisectionScratch<double>(job, nullptr).cut.bytes(); }

#else

// Columns that are in one vector of bytes, and so in a block.
using Digits = hn::ScalableTag<std::int8_t>;
using Counts = hn::RepartitionToWide<Digits>;  // signed: up to most_bisected_points
using DigitVector = hn::Vec<Digits>;
using CountVector = hn::Vec<Counts>;
constexpr int block_columns = static_cast<int>(hn::MaxLanes(Digits()));
constexpr int count_lanes = block_columns / 2;

constexpr int unrolled_points = 4;
constexpr int byte_points = 252;  // counted before a byte overflows
// Blocks that are cut side by side: as many as L2 has room for, but so many that the page and the lines of a
// row that are asked for are not for a few columns alone (4096 points: 1.5 ns a value of 128 bytes, 1.25 of
// 256).
constexpr std::size_t group_bytes = 262144;
constexpr int least_row_bytes = 256;
constexpr int most_group_blocks = 8;
constexpr int decoded_points = 16;  // at a time, in L1
constexpr int points_ahead = 8;     // from the row that is read to what is asked of memory

template <DType kTypeT>
using KeyBits = hn::RebindToUnsigned<typename KeysOf<kTypeT>::D>;
template <DType kTypeT>
constexpr int digits_of = static_cast<int>(size_of(kTypeT));

/// Points of a plane, filled up to whole steps of the loops; one step more keeps planes of a power of two of
/// points from sharing their places in L1.
std::ptrdiff_t plane_points(int points) {
  return (points + unrolled_points - 1) / unrolled_points * unrolled_points + unrolled_points;
}
std::ptrdiff_t plane_bytes(int points) { return plane_points(points) * block_columns; }

int group_blocks(int points, int digits) {
  const auto fitting = static_cast<int>(group_bytes / static_cast<std::size_t>(plane_bytes(points) * digits));
  const int least = std::max(1, least_row_bytes / (block_columns * digits));
  return std::clamp(fitting, least, most_group_blocks);
}

// keys and their bytes ----------------------------------------------------------------------------

/// Swaps the high kBitsT bits of every 2·kBitsT in the lower vectors with the low ones in those kBitsT / 8
/// vectors on.
template <int kBitsT, class DU>
HWY_INLINE void exchange(DU d, hn::Vec<DU>* v) {
  using T = hn::TFromD<DU>;
  constexpr int apart = kBitsT / 8;
  constexpr auto mask = static_cast<T>(static_cast<T>(~T{0}) / ((T{1} << kBitsT) + 1));
  const auto low = hn::Set(d, mask);
  for (int i = 0; i < static_cast<int>(sizeof(T)); ++i) {
    if ((i & apart) != 0) continue;
    const auto swapped = hn::And(hn::Xor(hn::ShiftRight<kBitsT>(v[i]), v[i + apart]), low);
    v[i + apart] = hn::Xor(v[i + apart], swapped);
    v[i] = hn::Xor(v[i], hn::ShiftLeft<kBitsT>(swapped));
  }
}

/// As many vectors as a key has bytes: byte i of lane l of vector j to byte j of lane l of vector i, and
/// back.
template <class DU>
HWY_INLINE void transpose_bytes(DU d, hn::Vec<DU>* v) {
  if constexpr (sizeof(hn::TFromD<DU>) >= 8) exchange<32>(d, v);
  if constexpr (sizeof(hn::TFromD<DU>) >= 4) exchange<16>(d, v);
  exchange<8>(d, v);
}

/// Makes bytes below the first one signed as well.
template <class DU>
HWY_INLINE hn::Vec<DU> flip_bytes(DU d, hn::Vec<DU> key) {
  using T = hn::TFromD<DU>;
  constexpr T all = static_cast<T>(~T{0});
  return hn::Xor(key, hn::Set(d, static_cast<T>((all / 255 * 128) & (all >> 8))));
}

/// A vector of values' keys; −0 and +0 have the same.
template <DType kTypeT>
HWY_INLINE hn::Vec<KeyBits<kTypeT>> key_of(hn::Vec<typename KeysOf<kTypeT>::D> v) {
  const typename KeysOf<kTypeT>::D d;
  const hn::RebindToSigned<decltype(d)> di;
  if constexpr (size_of(kTypeT) == 2) {
    const auto minus_zero = hn::VecFromMask(di, hn::Eq(v, hn::Set(di, -1)));
    return flip_bytes(KeyBits<kTypeT>(), hn::BitCast(KeyBits<kTypeT>(), hn::Sub(v, minus_zero)));
  } else {
    const auto bits = hn::BitCast(di, hn::Add(v, hn::Zero(d)));
    return flip_bytes(KeyBits<kTypeT>(), hn::BitCast(KeyBits<kTypeT>(), flip_magnitude(di, bits)));
  }
}

/// The keys of `blocks` blocks of columns to planes.
template <DType kTypeT>
void cut(Columns columns, int points, int blocks, std::int8_t* HWY_RESTRICT planes) {
  const KeyBits<kTypeT> d;
  constexpr int digits = digits_of<kTypeT>;
  constexpr std::int64_t vector = std::int64_t{block_columns};  // bytes, as any vector
  const std::ptrdiff_t plane = plane_bytes(points);
  const std::int64_t offset = columns.offset;
  KeysOf<kTypeT> keys(columns);
  for (int p = 0; p < points; ++p) {
    const unsigned char* const next = columns.at[std::min(p + points_ahead, points - 1)] + offset;
    std::int8_t* to = planes + std::ptrdiff_t{p} * block_columns;
    for (int b = 0; b < blocks; ++b, to += digits * plane) {
      hn::Vec<KeyBits<kTypeT>> v[digits];
      for (int i = 0; i < digits; ++i) {
        columns.offset = offset + (b * digits + i) * vector;
        hwy::Prefetch(next + (b * digits + i) * vector);
        v[i] = key_of<kTypeT>(keys.template load<true, false>(columns, p));
      }
      transpose_bytes(d, v);
      for (int i = 0; i < digits; ++i) {
        hn::Store(hn::BitCast(Digits(), v[digits - 1 - i]), Digits(), to + i * plane);
      }
    }
  }
  keys.store_check(columns);
  // The padding of a plane is below no digit.
  for (int i = 0; i < blocks * digits; ++i) {
    std::int8_t* const plane_at = planes + i * plane;
    std::fill(plane_at + std::ptrdiff_t{points} * block_columns, plane_at + plane,
              std::numeric_limits<std::int8_t>::max());
  }
}

/// The values of `points` points of a block: [point][column].
template <DType kTypeT>
void decode(const std::int8_t* HWY_RESTRICT digits, std::ptrdiff_t plane, int points,
            ValueOf<kTypeT>* HWY_RESTRICT values) {
  const KeyBits<kTypeT> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::ScalableTag<ValueOf<kTypeT>> dv;
  constexpr int count = digits_of<kTypeT>;
  constexpr int lanes = static_cast<int>(hn::MaxLanes(d));
  for (int p = 0; p < points; ++p, digits += block_columns, values += block_columns) {
    hn::Vec<KeyBits<kTypeT>> v[count];
    for (int i = 0; i < count; ++i) v[count - 1 - i] = hn::BitCast(d, hn::Load(Digits(), digits + i * plane));
    transpose_bytes(d, v);
    for (int i = 0; i < count; ++i) {
      const auto bits = flip_magnitude(di, hn::BitCast(di, flip_bytes(d, v[i])));
      if constexpr (size_of(kTypeT) == 2) {
        const hn::Rebind<std::uint16_t, decltype(dv)> half;
        HWY_ALIGN std::uint16_t sixteen[lanes];
        hn::Store(hn::BitCast(d, bits), d, sixteen);
        for (int k = 0; k < lanes; k += static_cast<int>(hn::MaxLanes(dv))) {
          hn::Store(f32_of_bits<kTypeT>(dv, hn::Load(half, sixteen + k)), dv, values + i * lanes + k);
        }
      } else {
        hn::Store(hn::BitCast(dv, bits), dv, values + i * lanes);
      }
    }
  }
}

// ranks -------------------------------------------------------------------------------------------

/// A number per column of a block: of the even and of the odd bytes of its digits.
struct BlockCounts {
  CountVector even, odd;

  explicit BlockCounts(int count) : even(hn::Set(Counts(), static_cast<std::int16_t>(count))), odd(even) {}
};

/// Per column, the points whose digit is less than `bound`.
HWY_INLINE BlockCounts count_below(const std::int8_t* HWY_RESTRICT plane, int points, DigitVector bound) {
  const Digits d;
  const hn::RebindToUnsigned<Counts> du;
  BlockCounts total(0);
  for (int first = 0; first < points; first += byte_points) {
    const std::int8_t* const end =
        plane + std::ptrdiff_t{std::min(points, first + byte_points)} * block_columns;
    auto a = hn::Zero(d), b = a, c = a, e = a;
    for (const std::int8_t* at = plane + std::ptrdiff_t{first} * block_columns; at < end;
         at += unrolled_points * block_columns) {
      a = hn::Sub(a, hn::VecFromMask(d, hn::Lt(hn::Load(d, at), bound)));
      b = hn::Sub(b, hn::VecFromMask(d, hn::Lt(hn::Load(d, at + block_columns), bound)));
      c = hn::Sub(c, hn::VecFromMask(d, hn::Lt(hn::Load(d, at + 2 * block_columns), bound)));
      e = hn::Sub(e, hn::VecFromMask(d, hn::Lt(hn::Load(d, at + 3 * block_columns), bound)));
    }
    const auto sum = hn::BitCast(du, hn::Add(hn::Add(a, b), hn::Add(c, e)));
    total.even = hn::Add(total.even, hn::BitCast(Counts(), hn::And(sum, hn::Set(du, 0xFF))));
    total.odd = hn::Add(total.odd, hn::BitCast(Counts(), hn::ShiftRight<8>(sum)));
  }
  return total;
}

/// Of the points whose digit is `found` in one plane (and all ones in `among`, but for the first plane), the
/// next digit; of others, one that no bound is above.
template <bool kFirstT>
HWY_INLINE void narrow(const std::int8_t* plane, DigitVector found, const std::int8_t* HWY_RESTRICT next,
                       std::ptrdiff_t bytes, std::int8_t* HWY_RESTRICT among, std::int8_t* masked) {
  const Digits d;
  const auto none = hn::Set(d, std::numeric_limits<std::int8_t>::max());
  for (std::ptrdiff_t i = 0; i < bytes; i += block_columns) {
    auto same = hn::VecFromMask(d, hn::Eq(hn::Load(d, plane + i), found));
    if constexpr (!kFirstT) same = hn::And(same, hn::Load(d, among + i));
    hn::Store(same, d, among + i);
    hn::Store(hn::IfVecThenElse(same, hn::Load(d, next + i), none), d, masked + i);
  }
}

/// The state of the search for a rank in a block of columns.
struct Rank {
  HWY_ALIGN std::int8_t digits[8 * block_columns];  // of its key: [digit][column]
  HWY_ALIGN std::int16_t below[block_columns];      // points of smaller keys; even bytes, then odd ones
  HWY_ALIGN std::int16_t through[block_columns];    // points of keys up to it
};

/// A thread's scratch, cut from one aligned block.
struct BisectionScratch {
  ScratchCutter cut;
  std::int8_t* planes;  // [block][digit][point][column]
  std::int8_t* among;   // [point][column]: all ones, or 0
  std::int8_t* masked;  // [point][column]: digits

  BisectionScratch(const Bisection& job, unsigned char* memory) : cut(memory) {
    const auto plane = static_cast<std::size_t>(plane_bytes(job.points));
    const auto digits = static_cast<int>(size_of(job.dtype));
    planes =
        cut.take<std::int8_t>(static_cast<std::size_t>(group_blocks(job.points, digits) * digits) * plane);
    among = cut.take<std::int8_t>(plane);
    masked = cut.take<std::int8_t>(plane);
  }
};

/// Per column, the key of the rank and the points around it.
template <int kDigitsT>
void find_rank(const BisectionScratch& scratch, const std::int8_t* planes, int points, int wanted,
               Rank& rank) {
  const Digits d;
  const Counts dc;
  const auto low_bytes = hn::BitCast(d, hn::Set(dc, 0x00FF));
  const std::ptrdiff_t plane = plane_bytes(points);
  BlockCounts left(wanted);  // its rank among the points that have its digits so far
  BlockCounts through(points);
  const std::int8_t* at = planes;
  for (int digit = 0; digit < kDigitsT; ++digit) {
    auto found = hn::Set(d, std::numeric_limits<std::int8_t>::min());
    BlockCounts below(0);
    for (int bit = 7; bit >= 0; --bit) {
      const auto bound = hn::Add(found, hn::Set(d, static_cast<std::int8_t>(1 << bit)));
      const BlockCounts count = count_below(at, points, bound);
      const auto even = hn::Gt(count.even, left.even), odd = hn::Gt(count.odd, left.odd);
      below.even = hn::IfThenElse(even, below.even, count.even);
      below.odd = hn::IfThenElse(odd, below.odd, count.odd);
      through.even = hn::IfThenElse(even, count.even, through.even);
      through.odd = hn::IfThenElse(odd, count.odd, through.odd);
      const auto beyond = hn::IfVecThenElse(low_bytes, hn::BitCast(d, hn::VecFromMask(dc, even)),
                                            hn::BitCast(d, hn::VecFromMask(dc, odd)));
      found = hn::IfVecThenElse(beyond, found, bound);
    }
    left.even = hn::Sub(left.even, below.even), left.odd = hn::Sub(left.odd, below.odd);
    through.even = hn::Sub(through.even, below.even), through.odd = hn::Sub(through.odd, below.odd);
    hn::Store(found, d, rank.digits + digit * block_columns);
    if (digit + 1 == kDigitsT) break;
    const std::int8_t* const next = planes + (digit + 1) * plane;
    if (digit == 0) {
      narrow<true>(at, found, next, plane, scratch.among, scratch.masked);
    } else {
      narrow<false>(at, found, next, plane, scratch.among, scratch.masked);
    }
    at = scratch.masked;
  }
  const auto all = hn::Set(dc, static_cast<std::int16_t>(wanted));
  const auto even = hn::Sub(all, left.even), odd = hn::Sub(all, left.odd);
  hn::Store(even, dc, rank.below), hn::Store(odd, dc, rank.below + count_lanes);
  hn::Store(hn::Add(even, through.even), dc, rank.through);
  hn::Store(hn::Add(odd, through.odd), dc, rank.through + count_lanes);
}

/// From the order of bytes in a vector of digits to that of columns.
template <DType kTypeT>
void order_counts(const std::int16_t* counts, double* ordered) {
  constexpr int digits = digits_of<kTypeT>;
  constexpr int lanes = block_columns / digits;
  for (int i = 0; i < block_columns; ++i) {
    const int half = i / 2;  // of the even or the odd bytes
    ordered[i % digits * lanes + i / digits] = counts[i % 2 * count_lanes + half];
  }
}

// rules -------------------------------------------------------------------------------------------

/// body(values, points) for all points of a block, some of them at a time.
template <DType kTypeT, class BodyT>
HWY_INLINE void each_points(const std::int8_t* planes, int points, const BodyT& body) {
  HWY_ALIGN ValueOf<kTypeT> values[decoded_points * block_columns];
  for (int first = 0; first < points; first += decoded_points) {
    const int count = std::min(decoded_points, points - first);
    decode<kTypeT>(planes + std::ptrdiff_t{first} * block_columns, plane_bytes(points), count, values);
    body(values, count);
  }
}

/// Per column, the least value above `low`.
template <DType kTypeT>
void find_above(const std::int8_t* planes, int points, const ValueOf<kTypeT>* low,
                ValueOf<kTypeT>* HWY_RESTRICT above) {
  const hn::ScalableTag<ValueOf<kTypeT>> d;
  std::fill_n(above, block_columns, std::numeric_limits<ValueOf<kTypeT>>::infinity());
  each_points<kTypeT>(planes, points, [&](const ValueOf<kTypeT>* values, int count) HWY_ATTR {
    for (int i = 0; i < block_columns; i += static_cast<int>(hn::MaxLanes(d))) {
      const auto least = hn::Load(d, low + i);
      auto found = hn::Load(d, above + i);
      for (int p = 0; p < count; ++p) {
        const auto v = hn::Load(d, values + p * block_columns + i);
        found = hn::IfThenElse(hn::Gt(v, least), hn::Min(found, v), found);
      }
      hn::Store(found, d, above + i);
    }
  });
}

/// Per column, the sum of the values strictly between `low` and `high`, in the order of the points; of values
/// times `shrink`.
template <DType kTypeT, bool kShrinkT>
void sum_between(const std::int8_t* planes, int points, const ValueOf<kTypeT>* low,
                 const ValueOf<kTypeT>* high, double* HWY_RESTRICT sums) {
  std::fill_n(sums, block_columns, 0.0);
  each_points<kTypeT>(planes, points, [&](const ValueOf<kTypeT>* values, int count) HWY_ATTR {
    for (int i = 0; i < block_columns; i += wide_lanes) {
      const auto least = load_wide(low + i), most = load_wide(high + i);
      auto sum = hn::Load(Wide(), sums + i);
      for (int p = 0; p < count; ++p) {
        const auto v = load_wide(values + p * block_columns + i);
        auto kept = hn::IfThenElseZero(hn::And(hn::Gt(v, least), hn::Lt(v, most)), v);
        if constexpr (kShrinkT) kept = hn::Mul(kept, hn::Set(Wide(), shrink));
        sum = hn::Add(sum, kept);
      }
      hn::Store(sum, Wide(), sums + i);
    }
  });
}

template <DType kTypeT>
void block_median(const Bisection& job, const BisectionScratch& scratch, const std::int8_t* planes,
                  double* results) {
  Rank rank;
  find_rank<digits_of<kTypeT>>(scratch, planes, job.points, job.first_rank, rank);
  HWY_ALIGN ValueOf<kTypeT> low[block_columns];
  decode<kTypeT>(rank.digits, block_columns, 1, low);
  if (job.first_rank == job.last_rank) {
    for (int i = 0; i < block_columns; i += wide_lanes) hn::Store(load_wide(low + i), Wide(), results + i);
    return;
  }
  HWY_ALIGN ValueOf<kTypeT> above[block_columns];
  HWY_ALIGN double through[block_columns];
  find_above<kTypeT>(planes, job.points, low, above);
  order_counts<kTypeT>(rank.through, through);
  const auto last = hn::Set(Wide(), job.last_rank);
  for (int i = 0; i < block_columns; i += wide_lanes) {
    const auto least = load_wide(low + i);
    const auto same = hn::Gt(hn::Load(Wide(), through + i), last);
    const auto most = hn::IfThenElse(same, least, load_wide(above + i));
    hn::Store(midpoint<ValueOf<kTypeT>>(least, most), Wide(), results + i);
  }
}

template <DType kTypeT>
void block_trimmed_mean(const Bisection& job, const BisectionScratch& scratch, const std::int8_t* planes,
                        double* results) {
  const Wide d;
  Rank first, last;
  find_rank<digits_of<kTypeT>>(scratch, planes, job.points, job.first_rank, first);
  find_rank<digits_of<kTypeT>>(scratch, planes, job.points, job.last_rank, last);
  HWY_ALIGN ValueOf<kTypeT> low[block_columns];
  HWY_ALIGN ValueOf<kTypeT> high[block_columns];
  decode<kTypeT>(first.digits, block_columns, 1, low);
  decode<kTypeT>(last.digits, block_columns, 1, high);
  HWY_ALIGN double low_count[block_columns];  // kept of the values that are `low`
  HWY_ALIGN double high_count[block_columns];
  order_counts<kTypeT>(first.through, low_count);
  order_counts<kTypeT>(last.below, high_count);
  HWY_ALIGN double sums[block_columns];
  const auto mean = [&](int i, bool shrunk) HWY_ATTR {
    const auto of_low = hn::Sub(hn::Load(d, low_count + i), hn::Set(d, job.first_rank));
    const auto of_high = hn::Sub(hn::Set(d, job.last_rank + 1), hn::Load(d, high_count + i));
    return mean_of_kept<ValueOf<kTypeT>>(job, load_wide(low + i), load_wide(high + i), of_low, of_high,
                                         hn::Load(d, sums + i), shrunk);
  };
  sum_between<kTypeT, false>(planes, job.points, low, high, sums);
  for (int i = 0; i < block_columns; i += wide_lanes) hn::Store(mean(i, false), d, results + i);
  if constexpr (kTypeT == DType::f64) {
    const auto large = [&](int i) HWY_ATTR { return is_large(load_wide(low + i), load_wide(high + i)); };
    bool any = false;
    for (int i = 0; i < block_columns; i += wide_lanes) any |= !hn::AllFalse(d, large(i));
    if (!any) return;
    sum_between<kTypeT, true>(planes, job.points, low, high, sums);
    for (int i = 0; i < block_columns; i += wide_lanes) {
      hn::Store(hn::IfThenElse(large(i), mean(i, true), hn::Load(d, results + i)), d, results + i);
    }
  }
}

template <DType kTypeT>
void bisect_as(const Bisection& job, Columns columns, int count, unsigned char* memory, double* results) {
  const BisectionScratch scratch(job, memory);
  const std::ptrdiff_t block = digits_of<kTypeT> * plane_bytes(job.points);
  const int group = group_blocks(job.points, digits_of<kTypeT>);
  for (int done = 0; done < count; done += group * block_columns) {
    const int blocks = std::min(group, (count - done) / block_columns);
    columns.offset = std::int64_t{done} * digits_of<kTypeT>;
    cut<kTypeT>(columns, job.points, blocks, scratch.planes);
    for (int b = 0; b < blocks; ++b) {
      const std::int8_t* const planes = scratch.planes + b * block;
      double* const to = results + done + b * block_columns;
      if (job.is_median) {
        block_median<kTypeT>(job, scratch, planes, to);
      } else {
        block_trimmed_mean<kTypeT>(job, scratch, planes, to);
      }
    }
  }
}

std::size_t scratch_bytes(const Bisection& job) { return BisectionScratch(job, nullptr).cut.bytes(); }

#endif  // HWY_TARGET == HWY_SCALAR

void bisect_any(const Bisection& job, const Columns& columns, int count, unsigned char* memory,
                double* results) {
  with_dtype(job.dtype,
             [&]<DType kTypeT>() HWY_ATTR { bisect_as<kTypeT>(job, columns, count, memory, results); });
}

int block() { return block_columns; }

}  // namespace
}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bragg::detail::cpu {

HWY_EXPORT(bisect_any);
HWY_EXPORT(block);
HWY_EXPORT(scratch_bytes);

void bisect(const Bisection& job, const Columns& columns, int count, unsigned char* memory, double* results) {
  HWY_DYNAMIC_DISPATCH(bisect_any)(job, columns, count, memory, results);
}

int bisection_columns() { return HWY_DYNAMIC_DISPATCH(block)(); }
std::size_t bisection_bytes(const Bisection& job) { return HWY_DYNAMIC_DISPATCH(scratch_bytes)(job); }

}  // namespace bragg::detail::cpu
#endif  // HWY_ONCE
