// SPDX-License-Identifier: Apache-2.0
#include "host/bench/peaks.hpp"

#include "host/cpu/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "host/bench/peaks.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>

// A minimum taken twice is the minimum: the compiler must not know that it is.
#undef BRAGG_OPAQUE
#if defined(__GNUC__) && HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
#define BRAGG_OPAQUE(vector) __asm__("" : "+v"((vector).raw))
#elif defined(__GNUC__) && HWY_ARCH_ARM_A64 && HWY_TARGET == HWY_NEON
#define BRAGG_OPAQUE(vector) __asm__("" : "+w"((vector).raw))
#else
#define BRAGG_OPAQUE(vector) static_cast<void>(vector)
#endif

HWY_BEFORE_NAMESPACE();
namespace bragg::bench::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr std::size_t line = 64;

template <class DT>
struct MultiplyAdd {
  hn::Vec<DT> factor, term;
  explicit MultiplyAdd(DT d) : factor(hn::Set(d, 0.5)), term(hn::Set(d, 0.25)) {}
  HWY_INLINE void operator()(hn::Vec<DT>& v) const {
    v = hn::MulAdd(v, factor, term);
    v = hn::MulAdd(v, factor, term);
  }
};

template <class DT>
struct MinMax {
  hn::Vec<DT> low, high;
  explicit MinMax(DT d) : low(hn::Set(d, 1)), high(hn::Set(d, 2)) {}
  HWY_INLINE void operator()(hn::Vec<DT>& v) const {
    v = hn::Min(v, high);
    BRAGG_OPAQUE(v);
    v = hn::Max(v, low);
    BRAGG_OPAQUE(v);
  }
};

/// The lower half of a vector's bits, as f32, to f64.
template <class DT>
struct Widen {
  explicit Widen(DT /*d*/) {}
  HWY_INLINE void operator()(hn::Vec<DT>& v) const {
    widen(v);
    widen(v);
  }

 private:
  static HWY_INLINE void widen(hn::Vec<DT>& v) {
#if HWY_TARGET == HWY_SCALAR
    v = hn::PromoteTo(DT(), hn::DemoteTo(hn::Rebind<float, DT>(), v));
#else
    const hn::Repartition<float, DT> df;
    v = hn::PromoteTo(DT(), hn::LowerHalf(hn::Half<decltype(df)>(), hn::BitCast(df, v)));
#endif
  }
};

// Twelve chains: a unit of latency 4 to 5 that takes two operations a cycle needs ten, and with two constants
// they fit into 16 registers. GCC 12 would keep an array of them in memory.
template <class LaneT, template <class> class OperationT>
double chains(std::int64_t steps) {
  const hn::ScalableTag<LaneT> d;
  const OperationT<hn::ScalableTag<LaneT>> operation(d);
  const auto start = [&](int i) { return hn::Set(d, static_cast<LaneT>(i)); };
  auto v0 = start(0), v1 = start(1), v2 = start(2), v3 = start(3), v4 = start(4), v5 = start(5);
  auto v6 = start(6), v7 = start(7), v8 = start(8), v9 = start(9), v10 = start(10), v11 = start(11);
  for (std::int64_t k = 0; k < steps; ++k) {
    operation(v0);
    operation(v1);
    operation(v2);
    operation(v3);
    operation(v4);
    operation(v5);
    operation(v6);
    operation(v7);
    operation(v8);
    operation(v9);
    operation(v10);
    operation(v11);
  }
  // Their sum must be used. Their addresses must not: they would live in memory.
  const auto first = hn::Add(hn::Add(hn::Add(v0, v1), hn::Add(v2, v3)), hn::Add(v4, v5));
  const auto second = hn::Add(hn::Add(hn::Add(v6, v7), hn::Add(v8, v9)), hn::Add(v10, v11));
  [[maybe_unused]] const volatile LaneT used = hn::GetLane(hn::Add(first, second));
  return 24.0 * static_cast<double>(steps) * static_cast<double>(hn::Lanes(d));
}

double run_unit(Unit unit, std::int64_t steps) {
  switch (unit) {
    case Unit::fma_f32:
      return chains<float, MultiplyAdd>(steps);
    case Unit::fma_f64:
      return chains<double, MultiplyAdd>(steps);
    case Unit::to_f64:
      return chains<double, Widen>(steps);
    case Unit::min_max_float_32:
      return chains<float, MinMax>(steps);
    case Unit::min_max_float_64:
      return chains<double, MinMax>(steps);
    case Unit::min_max_integer_16:
      return chains<std::int16_t, MinMax>(steps);
    case Unit::min_max_integer_32:
      return chains<std::int32_t, MinMax>(steps);
    case Unit::min_max_integer_64:
      return chains<std::int64_t, MinMax>(steps);
  }
  return 0;
}

using Words = hn::ScalableTag<std::uint32_t>;

HWY_INLINE hn::Vec<Words> load_words(const unsigned char* bytes) {
  return hn::LoadU(Words(), reinterpret_cast<const std::uint32_t*>(bytes));
}

// Two lines of a stream into two sums.
template <bool kPrefetchT>
HWY_INLINE void read_lines(const unsigned char* at, int ahead, hn::Vec<Words>& even, hn::Vec<Words>& odd) {
  const std::size_t step = hn::Lanes(Words()) * sizeof(std::uint32_t);
  if (kPrefetchT) {
    hwy::Prefetch(at + ahead);
    hwy::Prefetch(at + ahead + line);
  }
  for (std::size_t i = 0; i < line; i += step) {
    even = hn::Xor(even, load_words(at + i));
    odd = hn::Xor(odd, load_words(at + line + i));
  }
}

template <int kStreamsT, bool kPrefetchT>
std::uint32_t read_streams(const unsigned char* data, std::size_t bytes, int ahead) {
  const Words d;
  const std::size_t part = bytes / kStreamsT / (2 * line) * (2 * line);
  auto a = hn::Zero(d), b = hn::Zero(d), e = hn::Zero(d), f = hn::Zero(d);
  for (std::size_t i = 0; i < part; i += 2 * line) {
    for (std::size_t s = 0; s + 1 < kStreamsT; s += 2) {
      read_lines<kPrefetchT>(data + s * part + i, ahead, a, b);
      read_lines<kPrefetchT>(data + (s + 1) * part + i, ahead, e, f);
    }
    if (kStreamsT == 1) read_lines<kPrefetchT>(data + i, ahead, a, b);
  }
  // A vector may be longer than what is left.
  std::uint32_t rest = 0;
  for (std::size_t i = kStreamsT * part; i < bytes; ++i) rest += data[i];
  return rest ^ hn::GetLane(hn::Xor(hn::Xor(a, b), hn::Xor(e, f)));
}

template <bool kPrefetchT>
std::uint32_t read_any(const unsigned char* data, std::size_t bytes, ReadVariant variant) {
  switch (variant.streams) {
    case 2:
      return read_streams<2, kPrefetchT>(data, bytes, variant.ahead);
    case 4:
      return read_streams<4, kPrefetchT>(data, bytes, variant.ahead);
    case 8:
      return read_streams<8, kPrefetchT>(data, bytes, variant.ahead);
    default:
      return read_streams<1, kPrefetchT>(data, bytes, variant.ahead);
  }
}

std::uint32_t read_bytes(const unsigned char* data, std::size_t bytes, ReadVariant variant) {
  return variant.ahead > 0 ? read_any<true>(data, bytes, variant) : read_any<false>(data, bytes, variant);
}

void copy_bytes(unsigned char* to, const unsigned char* from, std::size_t bytes, CopyVariant variant) {
  const Words d;
  const std::size_t step = hn::Lanes(d) * sizeof(std::uint32_t);
  for (std::size_t at = 0; at + line <= bytes; at += line) {
    if (variant.ahead > 0) hwy::Prefetch(from + at + variant.ahead);
    for (std::size_t i = 0; i < line; i += step) {
      auto* const target = reinterpret_cast<std::uint32_t*>(to + at + i);
      const auto words = load_words(from + at + i);
      if (variant.streaming) {
        hn::Stream(words, d, target);
      } else {
        hn::Store(words, d, target);
      }
    }
  }
  if (variant.streaming) hwy::FlushStream();
}

}  // namespace
}  // namespace bragg::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bragg::bench {

HWY_EXPORT(run_unit);
HWY_EXPORT(read_bytes);
HWY_EXPORT(copy_bytes);

double run_unit(Unit unit, std::int64_t steps) { return HWY_DYNAMIC_DISPATCH(run_unit)(unit, steps); }

std::uint32_t read_bytes(const unsigned char* data, std::size_t bytes, ReadVariant variant) {
  return HWY_DYNAMIC_DISPATCH(read_bytes)(data, bytes, variant);
}

void copy_bytes(unsigned char* to, const unsigned char* from, std::size_t bytes, CopyVariant variant) {
  HWY_DYNAMIC_DISPATCH(copy_bytes)(to, from, bytes, variant);
}

}  // namespace bragg::bench
#endif
