// SPDX-License-Identifier: Apache-2.0
// Coordinate-wise rules: a tile of points × a few vectors is read (or mixed), sorted lane by lane by a
// comparator network as far as the rule needs, and reduced in f64. A tile is read whole before any of it is
// written, so the output may lie on a row.
#include "host/cpu/kernels.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/cpu/select.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "host/cpu/simd-inl.hpp"
#include "kernels/select/networks.hpp"

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {
namespace {

// Vectors of a point that are mixed at a time, for four points: as many as the registers hold.
#undef BRAGG_MIX_FOUR
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
#define BRAGG_MIX_FOUR 0
constexpr int mix_vectors = 2;
#else
#define BRAGG_MIX_FOUR 1
constexpr int mix_vectors = 4;
#endif

int wide_lanes() { return static_cast<int>(hn::Lanes(Wide())); }

// Vectors of a wire in the tile: enough to hide the loop over comparators, few enough for L1.
int tile_vectors(const SelectJob& job) {
  const int vectors = job.points <= 64 ? 8 : job.points <= 128 ? 4 : job.points <= 256 ? 2 : 1;
  return job.mixed ? std::max(vectors, mix_vectors) : vectors;
}

template <class ValueT>
int tile_width(const SelectJob& job) {
  return tile_vectors(job) * static_cast<int>(hn::Lanes(hn::ScalableTag<ValueT>()));
}

std::size_t padded(std::size_t bytes) { return (bytes + vector_bytes - 1) / vector_bytes * vector_bytes; }

// A thread's scratch, cut from one aligned block.
template <class ValueT>
struct Scratch {
  ValueT* tile;         // [point][width]
  double* results;      // [width]
  unsigned char* tail;  // one row's last elements, width of them
  double* mix_tile;     // [used row][mix_vectors·lanes]
  int* order;           // weighted rules: [point]
  std::size_t bytes;

  Scratch(const SelectJob& job, unsigned char* memory) {
    const std::size_t width = static_cast<std::size_t>(tile_width<ValueT>(job));
    const std::size_t mix_width = static_cast<std::size_t>(mix_vectors * wide_lanes());
    bytes = 0;
    const auto take = [&](std::size_t size) {
      unsigned char* place = memory == nullptr ? nullptr : memory + bytes;
      bytes += padded(size);
      return place;
    };
    tile = reinterpret_cast<ValueT*>(take(static_cast<std::size_t>(job.points) * width * sizeof(ValueT)));
    results = reinterpret_cast<double*>(take(width * sizeof(double)));
    tail = take(width * sizeof(double));
    mix_tile = reinterpret_cast<double*>(
        take(static_cast<std::size_t>(job.used_row_count) * mix_width * sizeof(double)));
    order =
        reinterpret_cast<int*>(take(job.weights == nullptr ? 0 : static_cast<std::size_t>(job.points) * 4));
  }
};

// reading -----------------------------------------------------------------------------------------

template <class DT>
HWY_INLINE hn::Vec<DT> nan_to_infinity(DT d, hn::Vec<DT> v) {
#if HWY_ARCH_X86
  return hn::Min(v, hn::Inf(d));  // the second operand where one is NaN
#else
  return hn::IfThenElse(hn::IsNaN(v), hn::Inf(d), v);
#endif
}

template <class ValueT, DType kTypeT>
HWY_INLINE hn::Vec<hn::ScalableTag<ValueT>> load_value(const unsigned char* bytes) {
  const hn::ScalableTag<ValueT> d;
  if constexpr (std::is_same_v<ValueT, double>) {
    return load_f64<kTypeT>(bytes);
  } else if constexpr (kTypeT != DType::f64) {
    return load_f32<kTypeT>(d, bytes);
  } else {  // an f64 reference among narrower rows
    HWY_ALIGN float narrow[vector_bytes / sizeof(float)];
    for (std::size_t i = 0; i < hn::Lanes(d); i += hn::Lanes(Wide())) {
      hn::Store(round_to_f32(load_f64<DType::f64>(bytes + i * sizeof(double))), Narrow(), narrow + i);
    }
    return hn::Load(d, narrow);
  }
}

// Reads `width` elements and says whether one of them is not finite.
template <class ValueT, DType kTypeT>
bool read_values(const unsigned char* bytes, int width, ValueT* HWY_RESTRICT tile) {
  const hn::ScalableTag<ValueT> d;
  const hn::RebindToSigned<hn::ScalableTag<ValueT>> di;
  const int lanes = static_cast<int>(hn::Lanes(d));
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  auto largest = hn::Zero(di);
  for (int i = 0; i < width; i += lanes) {
    hwy::Prefetch(bytes + (2 * width + i) * size);  // many short streams: the hardware gives up on them
    const auto v = load_value<ValueT, kTypeT>(bytes + i * size);
    largest = hn::Max(largest, hn::BitCast(di, hn::Abs(v)));
    hn::Store(nan_to_infinity(d, v), d, tile + i);
  }
  const auto finite = hn::BitCast(di, hn::Set(d, std::numeric_limits<ValueT>::max()));
  return !hn::AllFalse(di, hn::Gt(largest, finite));
}

template <class ValueT>
bool read_any(DType dtype, const unsigned char* bytes, int width, ValueT* tile) {
  switch (dtype) {
    case DType::f32:
      return read_values<ValueT, DType::f32>(bytes, width, tile);
    case DType::f16:
      return read_values<ValueT, DType::f16>(bytes, width, tile);
    case DType::bf16:
      return read_values<ValueT, DType::bf16>(bytes, width, tile);
    case DType::f64:
      return read_values<ValueT, DType::f64>(bytes, width, tile);
  }
  return false;
}

// The bytes of `count` elements from `begin`, followed by zeros up to `width`.
const unsigned char* whole(const RowSource& row, std::int64_t begin, int count, int width,
                           unsigned char* tail) {
  if (count == width) return row.at(begin);
  const std::size_t size = size_of(row.dtype);
  std::memset(tail, 0, static_cast<std::size_t>(width) * size);
  std::memcpy(tail, row.at(begin), static_cast<std::size_t>(count) * size);
  return tail;
}

template <class ValueT>
bool read_points(const SelectJob& job, const RowSource* rows, std::int64_t begin, int count, int width,
                 const Scratch<ValueT>& scratch) {
  bool nonfinite = false;
  for (int p = 0; p < job.points; ++p) {
    ValueT* tile = scratch.tile + static_cast<std::size_t>(p) * static_cast<std::size_t>(width);
    const RowSource& row = rows[job.rows[p]];
    if (job.infinite != nullptr && job.infinite[p] != 0) {
      std::fill_n(tile, width, std::numeric_limits<ValueT>::infinity());
      nonfinite = true;  // its values are counted, though not read here
    } else if (row.data == nullptr) {
      std::fill_n(tile, width, ValueT{0});
    } else {
      nonfinite |= read_any(row.dtype, whole(row, begin, count, width, scratch.tail), width, tile);
    }
  }
  return nonfinite;
}

// mixing ------------------------------------------------------------------------------------------

template <DType kTypeT>
bool read_wide(const unsigned char* bytes, int width, double* HWY_RESTRICT tile) {
  const Wide d;
  const int lanes = wide_lanes();
  constexpr std::int64_t size = static_cast<std::int64_t>(size_of(kTypeT));
  auto bad = hn::Zero(d);  // becomes NaN
  for (int i = 0; i < width; i += lanes) {
    hwy::Prefetch(bytes + (2 * width + i) * size);
    const auto v = load_f64<kTypeT>(bytes + i * size);
    bad = hn::Add(bad, hn::Sub(v, v));
    hn::Store(v, d, tile + i);
  }
  return !hn::AllFalse(d, hn::IsNaN(bad));
}

bool read_wide_any(DType dtype, const unsigned char* bytes, int width, double* tile) {
  switch (dtype) {
    case DType::f32:
      return read_wide<DType::f32>(bytes, width, tile);
    case DType::f16:
      return read_wide<DType::f16>(bytes, width, tile);
    case DType::bf16:
      return read_wide<DType::bf16>(bytes, width, tile);
    case DType::f64:
      return read_wide<DType::f64>(bytes, width, tile);
  }
  return false;
}

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
               ValueT* HWY_RESTRICT to, std::size_t width, int points) {
  const Wide d;
  const int lanes = wide_lanes();
  auto s00 = hn::Zero(d), s10 = s00, s20 = s00, s30 = s00;
  auto s01 = s00, s11 = s00, s21 = s00, s31 = s00;
#if BRAGG_MIX_FOUR
  auto s02 = s00, s12 = s00, s22 = s00, s32 = s00;
  auto s03 = s00, s13 = s00, s23 = s00, s33 = s00;
#endif
  for (std::size_t e = 0; e < entry_count; ++e) {
    const double* x = rows + static_cast<std::ptrdiff_t>(entries[e].row) * mix_vectors * lanes;
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
  const int row = mix_vectors * lanes;
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
      store_mixed(hn::Load(d, sums + p * row + i), to + static_cast<std::size_t>(p) * width + i);
    }
  }
}

// As mix_group for one of its points, without touching rows that it has no coefficient for: they may not be
// finite.
template <class ValueT>
void mix_point(const MixEntry* entries, std::size_t entry_count, int point, const double* HWY_RESTRICT rows,
               ValueT* HWY_RESTRICT to) {
  const Wide d;
  const int lanes = wide_lanes();
  for (int i = 0; i < mix_vectors * lanes; i += lanes) {
    auto sum = hn::Zero(d);
    for (std::size_t e = 0; e < entry_count; ++e) {
      const double coefficient = entries[e].coefficient[point];
      if (coefficient == 0) continue;
      const double* x = rows + static_cast<std::ptrdiff_t>(entries[e].row) * mix_vectors * lanes;
      sum = hn::MulAdd(hn::Set(d, coefficient), hn::Load(d, x + i), sum);
    }
    store_mixed(sum, to + i);
  }
}

template <class ValueT>
void mix_points(const SelectJob& job, const RowSource* rows, std::int64_t begin, int count, int width,
                const Scratch<ValueT>& scratch) {
  const int mix_width = mix_vectors * wide_lanes();
  const std::size_t stride = static_cast<std::size_t>(width);
  for (int done = 0; done < count; done += mix_width) {
    const int length = std::min(mix_width, count - done);
    bool nonfinite = false;
    for (int u = 0; u < job.used_row_count; ++u) {
      const RowSource& row = rows[job.used_rows[u]];
      double* x = scratch.mix_tile + static_cast<std::ptrdiff_t>(u) * mix_width;
      if (row.data == nullptr) {
        std::fill_n(x, mix_width, 0.0);
      } else {
        const unsigned char* bytes = whole(row, begin + done, length, mix_width, scratch.tail);
        nonfinite |= read_wide_any(row.dtype, bytes, mix_width, x);
      }
    }
    for (int first = 0; first < job.points; first += 4) {
      const int points = std::min(4, job.points - first);
      const std::size_t group = static_cast<std::size_t>(first / 4);
      const MixEntry* entries = job.entries + job.group_start[group];
      const std::size_t entry_count = job.group_start[group + 1] - job.group_start[group];
      ValueT* to = scratch.tile + static_cast<std::size_t>(first) * stride + done;
      if (!nonfinite) {
        mix_group(entries, entry_count, scratch.mix_tile, to, stride, points);
      } else {
        for (int p = 0; p < points; ++p) {
          mix_point(entries, entry_count, p, scratch.mix_tile, to + static_cast<std::size_t>(p) * stride);
        }
      }
    }
  }
  if (job.infinite == nullptr) return;
  for (int p = 0; p < job.points; ++p) {
    if (job.infinite[p] == 0) continue;
    std::fill_n(scratch.tile + static_cast<std::size_t>(p) * stride, width,
                std::numeric_limits<ValueT>::infinity());
  }
}

// sorting -----------------------------------------------------------------------------------------

template <class ValueT, int kVectorsT>
void run_network(const Comparator* network, std::size_t comparators, ValueT* HWY_RESTRICT tile) {
  const hn::ScalableTag<ValueT> d;
  const std::size_t lanes = hn::Lanes(d);
  const std::size_t width = kVectorsT * lanes;
  for (std::size_t k = 0; k < comparators; ++k) {
    ValueT* low = tile + network[k].low * width;
    ValueT* high = tile + network[k].high * width;
    if (network[k].need_low && network[k].need_high) {
      for (std::size_t i = 0; i < kVectorsT; ++i) {
        const auto x = hn::Load(d, low + i * lanes);
        const auto y = hn::Load(d, high + i * lanes);
        hn::Store(hn::Min(x, y), d, low + i * lanes);
        hn::Store(hn::Max(x, y), d, high + i * lanes);
      }
    } else if (network[k].need_low) {
      for (std::size_t i = 0; i < kVectorsT; ++i) {
        hn::Store(hn::Min(hn::Load(d, low + i * lanes), hn::Load(d, high + i * lanes)), d, low + i * lanes);
      }
    } else {
      for (std::size_t i = 0; i < kVectorsT; ++i) {
        hn::Store(hn::Max(hn::Load(d, low + i * lanes), hn::Load(d, high + i * lanes)), d, high + i * lanes);
      }
    }
  }
}

constexpr int register_points = 16;  // networks to this size are unrolled and stay in registers

template <int kLowT, int kHighT, class VectorT>
HWY_INLINE void exchange(VectorT* v) {
  const auto low = hn::Min(v[kLowT], v[kHighT]);
  v[kHighT] = hn::Max(v[kLowT], v[kHighT]);
  v[kLowT] = low;
}

template <int kPointsT, class VectorT, std::size_t... kStepsT>
HWY_INLINE void sort_all(VectorT* v, std::index_sequence<kStepsT...>) {
  constexpr const std::uint8_t* wires = sort_wires + 2 * sort_start[kPointsT];
  (exchange<wires[2 * kStepsT], wires[2 * kStepsT + 1]>(v), ...);
}

template <int kPointsT, class VectorT, std::size_t... kStepsT>
HWY_INLINE void sort_middle(VectorT* v, std::index_sequence<kStepsT...>) {
  constexpr const std::uint8_t* wires = median_wires + 2 * median_start[kPointsT];
  (exchange<wires[2 * kStepsT], wires[2 * kStepsT + 1]>(v), ...);
}

template <class DT, class VectorT, std::size_t... kWiresT>
HWY_INLINE void load_wires(DT d, const hn::TFromD<DT>* tile, std::size_t width, VectorT* v,
                           std::index_sequence<kWiresT...>) {
  ((v[kWiresT] = hn::Load(d, tile + kWiresT * width)), ...);
}

template <std::size_t kFirstT, class DT, class VectorT, std::size_t... kWiresT>
HWY_INLINE void store_wires(DT d, hn::TFromD<DT>* tile, std::size_t width, const VectorT* v,
                            std::index_sequence<kWiresT...>) {
  (hn::Store(v[kFirstT + kWiresT], d, tile + (kFirstT + kWiresT) * width), ...);
}

// Where only the middle is stored, the compiler drops what it does not depend on.
template <class ValueT, int kPointsT, bool kMiddleT>
void sort_in_registers(ValueT* HWY_RESTRICT tile, std::size_t width) {
  const hn::ScalableTag<ValueT> d;
  for (std::size_t i = 0; i < width; i += hn::Lanes(d)) {
    hn::Vec<decltype(d)> v[kPointsT];
    load_wires(d, tile + i, width, v, std::make_index_sequence<kPointsT>());
    if constexpr (kMiddleT && kPointsT >= 3) {
      constexpr std::size_t steps = median_start[kPointsT + 1] - median_start[kPointsT];
      constexpr int low = (kPointsT - 1) / 2;
      constexpr int high = kPointsT / 2;
      sort_middle<kPointsT>(v, std::make_index_sequence<steps>());
      if constexpr (low != high) exchange<low, high>(v);  // the list leaves the two in any order
      store_wires<low>(d, tile + i, width, v, std::make_index_sequence<high - low + 1>());
    } else {
      constexpr std::size_t steps = sort_start[kPointsT + 1] - sort_start[kPointsT];
      sort_all<kPointsT>(v, std::make_index_sequence<steps>());
      store_wires<0>(d, tile + i, width, v, std::make_index_sequence<kPointsT>());
    }
  }
}

template <class ValueT>
using RegisterSort = void (*)(ValueT* HWY_RESTRICT, std::size_t);

template <class ValueT, bool kMiddleT, std::size_t... kPointsT>
RegisterSort<ValueT> register_sort(int points, std::index_sequence<kPointsT...>) {
  constexpr RegisterSort<ValueT> sorts[] = {
      &sort_in_registers<ValueT, static_cast<int>(kPointsT) + 2, kMiddleT>...};
  return sorts[points - 2];
}

template <class ValueT>
void sort_tile(const SelectJob& job, ValueT* tile) {
  if (job.points >= 2 && job.points <= register_points) {
    const std::size_t width = static_cast<std::size_t>(tile_width<ValueT>(job));
    constexpr auto sizes = std::make_index_sequence<register_points - 1>();
    const auto sort = job.rule.kind == SelectRule::Kind::median
                          ? register_sort<ValueT, true>(job.points, sizes)
                          : register_sort<ValueT, false>(job.points, sizes);
    return sort(tile, width);
  }
  switch (tile_vectors(job)) {
    case 8:
      return run_network<ValueT, 8>(job.network, job.comparators, tile);
    case 4:
      return run_network<ValueT, 4>(job.network, job.comparators, tile);
    case 2:
      return run_network<ValueT, 2>(job.network, job.comparators, tile);
    default:
      return run_network<ValueT, 1>(job.network, job.comparators, tile);
  }
}

// rules, on the sorted values of Lanes(Wide) coordinates ------------------------------------------

template <class ValueT>
struct Sorted {
  const ValueT* values;
  std::size_t stride;

  HWY_INLINE WideVector operator[](int rank) const {
    const ValueT* at = values + static_cast<std::size_t>(rank) * stride;
    if constexpr (std::is_same_v<ValueT, float>) {
      return hn::PromoteTo(Wide(), hn::Load(Narrow(), at));
    } else {
      return hn::Load(Wide(), at);
    }
  }
};

constexpr double large_value = 0x1p1000;
constexpr double shrink = 0x1p-64;  // sums of up to 2^64 values of any size stay finite

// Lanes where a plain f64 sum of values between low and high might overflow.
HWY_INLINE hn::Mask<Wide> is_large(WideVector low, WideVector high) {
  const Wide d;
  const auto most = hn::Max(hn::Abs(low), hn::Abs(high));
  return hn::Ge(most, hn::Set(d, large_value));
}

// sum/count, inside [low, high]; −inf where the least value is −inf.
HWY_INLINE WideVector finish_mean(WideVector sum, int count, WideVector low, WideVector high) {
  const Wide d;
  const auto mean = hn::Div(sum, hn::Set(d, static_cast<double>(count)));
  const auto clamped = hn::Max(hn::Min(mean, high), low);
  return hn::IfThenElse(hn::Eq(low, hn::Neg(hn::Inf(d))), low, clamped);
}

template <class ValueT>
WideVector median_of(const Sorted<ValueT>& y, int points) {
  const Wide d;
  if (points % 2 == 1) return y[points / 2];
  const auto low = y[points / 2 - 1];
  const auto high = y[points / 2];
  const auto half = hn::Set(d, 0.5);
  const auto sum = hn::Add(low, high);
  auto middle = hn::Mul(sum, half);
  if constexpr (std::is_same_v<ValueT, double>) {
    const auto of_halves = hn::Add(hn::Mul(low, half), hn::Mul(high, half));
    middle = hn::IfThenElse(is_finite(d, sum), middle, of_halves);
  }
  return hn::IfThenElse(hn::IsNaN(middle), low, middle);  // NaN: −inf and +inf
}

template <class ValueT>
WideVector trimmed_mean_of(const Sorted<ValueT>& y, int points, int f) {
  const Wide d;
  const auto low = y[f];
  const auto high = y[points - 1 - f];
  const int count = points - 2 * f;
  auto sum = hn::Zero(d);
  for (int i = f; i < points - f; ++i) sum = hn::Add(sum, y[i]);
  const auto mean = finish_mean(sum, count, low, high);
  if constexpr (std::is_same_v<ValueT, double>) {
    const auto large = is_large(low, high);
    if (!hn::AllFalse(d, large)) {
      const auto scale = hn::Set(d, shrink);
      sum = hn::Zero(d);
      for (int i = f; i < points - f; ++i) sum = hn::MulAdd(y[i], scale, sum);
      const auto scaled = finish_mean(sum, count, hn::Mul(low, scale), hn::Mul(high, scale));
      return hn::IfThenElse(large, hn::Max(hn::Min(hn::Div(scaled, scale), high), low), mean);
    }
  }
  return mean;
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
      const auto scaled = finish_mean(sum, keep, hn::Mul(low, scale), hn::Mul(high, scale));
      mean = hn::IfThenElse(large, hn::Max(hn::Min(hn::Div(scaled, scale), high), low), mean);
    }
  }
  return hn::IfThenElse(is_finite(d, centre), mean, centre);
}

template <class ValueT>
WideVector apply_rule(const SelectJob& job, const Sorted<ValueT>& y) {
  const int points = job.points;
  switch (job.rule.kind) {
    case SelectRule::Kind::median:
      switch (job.rule.even) {
        case EvenMedian::midpoint:
          return median_of(y, points);
        case EvenMedian::lower:
          return y[(points - 1) / 2];
        case EvenMedian::upper:
          return y[points / 2];
      }
      break;
    case SelectRule::Kind::trimmed_mean:
      return trimmed_mean_of(y, points, job.rule.f);
    case SelectRule::Kind::closest_to_median:
      return closest_mean_of(y, points, job.rule.keep, median_of(y, points));
    case SelectRule::Kind::closest_to_trimmed_mean:
      return closest_mean_of(y, points, job.rule.keep, trimmed_mean_of(y, points, job.rule.f));
  }
  return hn::Zero(Wide());
}

// the pass ----------------------------------------------------------------------------------------

template <class ValueT>
void select_as(const SelectJob& job, const RowSource* rows, std::int64_t begin, std::int64_t count,
               DType out_dtype, unsigned char* out, std::int64_t* nonfinite, unsigned char* memory) {
  const Scratch<ValueT> scratch(job, memory);
  const int width = tile_width<ValueT>(job);
  const std::int64_t out_size = static_cast<std::int64_t>(size_of(out_dtype));
  for (std::int64_t done = 0; done < count; done += width) {
    const int length = static_cast<int>(std::min<std::int64_t>(width, count - done));
    if (job.mixed) {
      mix_points(job, rows, begin + done, length, width, scratch);
    } else if (read_points(job, rows, begin + done, length, width, scratch) && job.count_nonfinite) {
      // Counting rereads the rows, so it comes before an output that may lie on one of them.
      for (int p = 0; p < job.points; ++p) {
        const RowSource& row = rows[job.rows[p]];
        double unused = 0;
        if (row.data != nullptr) row_statistics(row, begin + done, length, nonfinite[job.rows[p]], unused);
      }
    }
    if (job.weights != nullptr) {
      select_weighted(job, scratch.tile, static_cast<std::size_t>(width), length, scratch.results,
                      scratch.order);
    } else {
      sort_tile(job, scratch.tile);
      for (int i = 0; i < length; i += wide_lanes()) {
        const Sorted<ValueT> y{scratch.tile + i, static_cast<std::size_t>(width)};
        hn::Store(apply_rule(job, y), Wide(), scratch.results + i);
      }
    }
    write_tile(scratch.results, length, out_dtype, out + (begin + done) * out_size);
  }
}

void select_any(const SelectJob& job, const RowSource* rows, std::int64_t begin, std::int64_t count,
                DType out_dtype, unsigned char* out, std::int64_t* nonfinite, unsigned char* memory) {
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
                  DType out_dtype, unsigned char* out, std::int64_t* nonfinite, unsigned char* scratch) {
  HWY_DYNAMIC_DISPATCH(select_any)(job, rows, begin, count, out_dtype, out, nonfinite, scratch);
}

std::size_t select_scratch_bytes(const SelectJob& job) { return HWY_DYNAMIC_DISPATCH(scratch_bytes)(job); }

const char* target_name() noexcept { return HWY_DYNAMIC_DISPATCH(name)(); }

}  // namespace bragg::detail::cpu
#endif  // HWY_ONCE
