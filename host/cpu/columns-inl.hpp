// SPDX-License-Identifier: Apache-2.0
// A network over the vectors of one column each, unrolled. Compiled once per target and kind of key.
//
// A value is loaded where it is first used and stored where it is final, so that few are alive at a time; the
// order of comparators (schedules.hpp) sees to the rest. Memory is asked for the next columns in between, a
// line at a time: asked for all at once, the requests would queue up and the comparisons wait behind them.
#if defined(BRAGG_HOST_CPU_COLUMNS_INL_HPP_) == defined(HWY_TARGET_TOGGLE)
#ifdef BRAGG_HOST_CPU_COLUMNS_INL_HPP_
#undef BRAGG_HOST_CPU_COLUMNS_INL_HPP_
#else
#define BRAGG_HOST_CPU_COLUMNS_INL_HPP_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>
#include <utility>

#include "host/cpu/columns.hpp"
#include "host/cpu/simd-inl.hpp"
#include "rules/networks/schedules.hpp"

#undef BRAGG_LARGEST_UNROLLED
#undef BRAGG_SCHEDULE
#if defined(BRAGG_FEWER_NETWORKS)
#define BRAGG_LARGEST_UNROLLED 8  // with sanitizers, larger ones take minutes to compile
#elif HWY_ARCH_X86 && HWY_TARGET > HWY_AVX2
#define BRAGG_LARGEST_UNROLLED 16  // the baseline is there to be right; larger networks would only cost code
#else
#define BRAGG_LARGEST_UNROLLED 64
#endif
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
#define BRAGG_SCHEDULE schedules::sixteen
#else
#define BRAGG_SCHEDULE schedules::thirty_two
#endif

HWY_BEFORE_NAMESPACE();
namespace bragg::detail::cpu::HWY_NAMESPACE {

// A KeysT loads keys, and where kCheckT remembers whether a real value was not finite: `check` is a vector of
// lanes that are large (integers) or NaN (f64) then. Where everything is sorted the least and the largest
// tell.
//
// f32 is compared as it is. As integers of the same order it can be compared faster (Zen 2: three minima a
// cycle instead of two), but the way there and back costs five operations a value: a median of 8 took 47
// cycles a vector instead of 37, one of 64 as many.

struct KeysF32 {
  using Lane = float;
  using D = hn::ScalableTag<float>;
  using DI = hn::ScalableTag<std::int32_t>;
  hn::Vec<DI> check;

  explicit KeysF32(const Columns& c) : check(hn::Load(DI(), lanes_at<std::int32_t>(c.seen))) {}
  void store_check(const Columns& c) const { hn::Store(check, DI(), lanes_at<std::int32_t>(c.seen)); }

  template <bool kCheckT, bool kMaybeConstantT>
  HWY_INLINE hn::Vec<D> load(const Columns& c, int wire) {
    const auto raw = hn::LoadU(D(), lanes_at<float>(c.at[wire] + c.offset));
    if constexpr (kCheckT) {
      auto mask = hn::Set(DI(), std::numeric_limits<std::int32_t>::max());
      if constexpr (kMaybeConstantT) {
        mask = hn::And(mask, hn::Set(DI(), static_cast<std::int32_t>(c.real[wire])));
      }
      check = hn::Max(check, hn::And(hn::BitCast(DI(), raw), mask));
    }
    return nan_to_infinity(D(), raw);
  }
};

struct KeysSixteen {
  using Lane = std::int16_t;
  using D = hn::ScalableTag<Lane>;
  hn::Vec<D> check;
  hn::Vec<D> infinity;

  explicit KeysSixteen(const Columns& c)
      : check(hn::Load(D(), lanes_at<Lane>(c.seen))), infinity(hn::Set(D(), static_cast<Lane>(c.infinity))) {}
  void store_check(const Columns& c) const { hn::Store(check, D(), lanes_at<Lane>(c.seen)); }

  template <bool kCheckT, bool kMaybeConstantT>
  HWY_INLINE hn::Vec<D> load(const Columns& c, int wire) {
    const D di;
    const auto raw = hn::LoadU(di, lanes_at<Lane>(c.at[wire] + c.offset));
    const auto magnitude = hn::And(raw, hn::Set(di, std::numeric_limits<Lane>::max()));
    if constexpr (kCheckT) {
      auto checked = magnitude;
      if constexpr (kMaybeConstantT) checked = hn::And(checked, hn::Set(di, static_cast<Lane>(c.real[wire])));
      check = hn::Max(check, checked);
    }
    return hn::IfThenElse(hn::Gt(magnitude, infinity), infinity, flip_magnitude(di, raw));
  }
};

struct KeysF64 {
  using Lane = double;
  using D = Wide;
  WideVector check;

  explicit KeysF64(const Columns& c) : check(hn::Load(D(), lanes_at<Lane>(c.seen))) {}
  void store_check(const Columns& c) const { hn::Store(check, D(), lanes_at<Lane>(c.seen)); }

  template <bool kCheckT, bool kMaybeConstantT>
  HWY_INLINE WideVector load(const Columns& c, int wire) {
    const D d;
    const auto raw = hn::LoadU(d, lanes_at<double>(c.at[wire] + c.offset));
    if constexpr (kCheckT) {
      auto checked = raw;
      if constexpr (kMaybeConstantT) {
        checked = hn::And(raw, hn::BitCast(d, hn::Set(hn::RebindToSigned<D>(), c.real[wire])));
      }
      check = hn::Add(check, hn::Sub(checked, checked));
    }
    return nan_to_infinity(d, raw);
  }
};

template <class KeysT, int kSizeT, bool kMiddleT>
struct UnrolledNetwork {
  static constexpr int wires = schedules::sizes[kSizeT];
  static constexpr int smaller = kSizeT == 0 ? 0 : schedules::sizes[kSizeT - 1];
  static constexpr std::string_view network = BRAGG_SCHEDULE::networks[2 * kSizeT + (kMiddleT ? 0 : 1)];
  static constexpr int count = static_cast<int>(network.size() / 3);
  static constexpr int first_rank = kMiddleT ? (wires - 1) / 2 : 0;
  using D = typename KeysT::D;
  using Vector = hn::Vec<D>;
  static constexpr auto key_vector =
      static_cast<std::int64_t>(hn::MaxLanes(D()) * sizeof(typename KeysT::Lane));  // bytes

  // Cache lines asked for while the network runs: of all wires, or of half of them where a line is two
  // vectors.
  static constexpr std::size_t line_bytes = 64;
  static constexpr bool whole_lines = HWY_MAX_BYTES >= line_bytes;
  static constexpr int lines = whole_lines ? wires : (wires + 1) / 2;

  static HWY_INLINE void ask(const Columns& c, int first_wire, int line) {
    // For its last byte: a vector that two lines share comes with the later one.
    hwy::Prefetch(c.at[first_wire + line] + c.offset + c.ahead + key_vector - 1);
  }

  template <int kRankT>
  static HWY_INLINE void store(const Columns& c, Vector v) {
    // A constant distance between the ranks of a tile spares a register and an instruction for each of them.
    const std::int64_t stride = kMiddleT ? c.stride : sorted_vectors * key_vector;
    hn::Store(v, D(), lanes_at<typename KeysT::Lane>(c.keys + (kRankT - first_rank) * stride));
  }

  template <std::size_t kStepT>
  static HWY_INLINE void step(const Columns& c, int first_wire, KeysT& keys, Vector* v) {
    constexpr schedules::Step s = schedules::step_of(network, kStepT);
    constexpr int low = s.low;
    constexpr int high = s.high;
    constexpr int flags = s.flags;
    constexpr int line = static_cast<int>(kStepT) * lines / count;
    constexpr int next_line = (static_cast<int>(kStepT) + 1) * lines / count;
    if constexpr (next_line > line) ask(c, first_wire, line);
    if constexpr (next_line > line + 1) ask(c, first_wire, line + 1);
    if constexpr ((flags & schedules::load_low) != 0)
      v[low] = keys.template load<kMiddleT, (low > smaller)>(c, low);
    if constexpr ((flags & schedules::load_high) != 0) {
      v[high] = keys.template load<kMiddleT, (high > smaller)>(c, high);
    }
    const auto least = hn::Min(v[low], v[high]);
    if constexpr ((flags & schedules::need_high) != 0) v[high] = hn::Max(v[low], v[high]);
    if constexpr ((flags & schedules::need_low) != 0) v[low] = least;
    if constexpr ((flags & schedules::store_low) != 0) store<low>(c, v[low]);
    if constexpr ((flags & schedules::store_high) != 0) store<high>(c, v[high]);
  }

  // Halved until a list is short enough for one expression.
  template <std::size_t kFirstT, std::size_t... kStepsT>
  static HWY_INLINE void some(const Columns& c, int first_wire, KeysT& keys, Vector* v,
                              std::index_sequence<kStepsT...>) {
    (step<kFirstT + kStepsT>(c, first_wire, keys, v), ...);
  }
  template <std::size_t kFirstT, std::size_t kCountT>
  static HWY_INLINE void all(const Columns& c, int first_wire, KeysT& keys, Vector* v) {
    if constexpr (kCountT > 64) {
      all<kFirstT, kCountT / 2>(c, first_wire, keys, v);
      all<kFirstT + kCountT / 2, kCountT - kCountT / 2>(c, first_wire, keys, v);
    } else {
      some<kFirstT>(c, first_wire, keys, v, std::make_index_sequence<kCountT>());
    }
  }

  static void run(const Columns& columns) {
    Columns c = columns;
    KeysT keys(c);  // local, so that it stays in registers
    for (int k = 0; k < c.vectors; ++k) {
      const int first_wire = whole_lines || k % 2 == 0 ? 0 : wires - lines;
      Vector v[wires];
      all<0, static_cast<std::size_t>(count)>(c, first_wire, keys, v);
      c.offset += key_vector;
      c.keys += key_vector;
    }
    keys.store_check(c);
  }
};

template <class KeysT, bool kMiddleT, std::size_t... kSizesT>
ColumnNetwork find_network(int points, std::index_sequence<kSizesT...>) {
  constexpr ColumnSort sorts[] = {&UnrolledNetwork<KeysT, static_cast<int>(kSizesT), kMiddleT>::run...};
  std::size_t k = 0;
  while (k < sizeof...(kSizesT) && schedules::sizes[k] < points) ++k;
  if (k == sizeof...(kSizesT)) return {};
  return {sorts[k], schedules::sizes[k]};
}

constexpr std::size_t unrolled_sizes() {
  std::size_t k = 0;
  while (k < schedules::size_count && schedules::sizes[k] <= BRAGG_LARGEST_UNROLLED) ++k;
  return k;
}

template <class KeysT>
ColumnNetwork unrolled_network(int points, bool middle) {
  constexpr auto sizes = std::make_index_sequence<unrolled_sizes()>();
  return middle ? find_network<KeysT, true>(points, sizes) : find_network<KeysT, false>(points, sizes);
}

}  // namespace bragg::detail::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
