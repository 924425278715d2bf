// SPDX-License-Identifier: Apache-2.0
// 16-bit floats and matrix products, written from their definitions.
#include <algorithm>
#include <cmath>

#include "tests/simt/simt_executor.hpp"

namespace bragg::detail::simt {
namespace {

struct Format {
  int exponent_bits;
  int fraction_bits;
};
constexpr Format f16{5, 10};
constexpr Format bf16{8, 7};
constexpr std::uint16_t sign_bit = 0x8000;
constexpr std::uint16_t canonical_nan = 0x7FFF;

std::uint16_t infinity_bits(Format f) {
  return static_cast<std::uint16_t>(((1 << f.exponent_bits) - 1) << f.fraction_bits);
}
bool is_nan(std::uint16_t bits, Format f) { return (bits & ~sign_bit) > infinity_bits(f); }

/// Counts the format's spacing in |x|; ties to even is the rounding mode.
std::uint16_t round_to(double x, Format f) {
  if (std::isnan(x)) return canonical_nan;
  const std::uint16_t sign = std::signbit(x) ? sign_bit : std::uint16_t{0};
  const double magnitude = std::fabs(x);
  if (magnitude == 0) return sign;
  if (std::isinf(x)) return sign | infinity_bits(f);
  const int least = 2 - (1 << (f.exponent_bits - 1));  // exponent of the smallest normal number
  const int exponent = std::max(std::ilogb(magnitude), least);
  const double steps = std::nearbyint(std::ldexp(magnitude, f.fraction_bits - exponent));
  // The leading one of a normal number's steps adds one to the exponent's field; so does a carry.
  const double bits = std::ldexp(exponent - least, f.fraction_bits) + steps;
  return sign | static_cast<std::uint16_t>(std::min(bits, static_cast<double>(infinity_bits(f))));
}

std::uint16_t smaller(std::uint16_t a, std::uint16_t b, Format f) {
  if (is_nan(a, f)) return is_nan(b, f) ? canonical_nan : b;
  if (is_nan(b, f)) return a;
  const int key_a = (a & sign_bit) != 0 ? -static_cast<int>(a & ~sign_bit) - 1 : a;
  const int key_b = (b & sign_bit) != 0 ? -static_cast<int>(b & ~sign_bit) - 1 : b;
  return key_a < key_b ? a : b;
}

std::uint16_t negated(std::uint16_t bits, Format f) {
  return is_nan(bits, f) ? bits : static_cast<std::uint16_t>(bits ^ sign_bit);
}

template <class F>
std::uint32_t halves(std::uint32_t a, std::uint32_t b, F f) {
  const auto low = f(static_cast<std::uint16_t>(a), static_cast<std::uint16_t>(b));
  const auto high = f(static_cast<std::uint16_t>(a >> 16), static_cast<std::uint16_t>(b >> 16));
  return static_cast<std::uint32_t>(high) << 16 | low;
}

std::uint32_t smaller_halves(std::uint32_t a, std::uint32_t b, Format f) {
  return halves(a, b, [f](std::uint16_t x, std::uint16_t y) { return smaller(x, y, f); });
}
std::uint32_t larger_halves(std::uint32_t a, std::uint32_t b, Format f) {
  return halves(a, b, [f](std::uint16_t x, std::uint16_t y) {
    return negated(smaller(negated(x, f), negated(y, f), f), f);
  });
}

/// `seen`, all ones in each half whose bits of `exponent` are all set in v.
std::uint32_t mark_nonfinite(std::uint32_t v, std::uint32_t seen, std::uint32_t exponent) {
  for (std::uint32_t half = exponent; half != 0; half = half == exponent ? exponent << 16 : 0) {
    if ((v & half) == half) seen |= half == exponent ? 0xFFFFu : 0xFFFF0000u;
  }
  return seen;
}

struct ByteFragments {
  std::uint32_t a[4];
  std::uint32_t b[2];
  int c[4];
};

std::int32_t byte_of(std::uint32_t bytes, int e) { return static_cast<std::int8_t>(bytes >> (8 * e)); }

void complete_byte_product(const void* const* in, void* const* out) {
  std::int32_t a[16][32];
  std::int32_t b[8][32];  // [column][k]
  for (int lane = 0; lane < 32; ++lane) {
    const auto& f = *static_cast<const ByteFragments*>(in[lane]);
    for (int k = 0; k < 8; ++k) {
      const int half = k / 4;
      const int at = 16 * half + 4 * (lane % 4) + k % 4;
      for (int r = 0; r < 2; ++r) a[lane / 4 + 8 * r][at] = byte_of(f.a[2 * half + r], k % 4);
      b[lane / 4][at] = byte_of(f.b[half], k % 4);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const std::int32_t* const row = a[lane / 4 + 8 * (i / 2)];
      const std::int32_t* const column = b[2 * (lane % 4) + i % 2];
      std::int32_t sum = 0;  // 32 products of less than 2¹⁵
      for (int k = 0; k < 32; ++k) sum += row[k] * column[k];
      const auto before = static_cast<std::uint32_t>(static_cast<const ByteFragments*>(in[lane])->c[i]);
      static_cast<int*>(out[lane])[i] = static_cast<int>(before + static_cast<std::uint32_t>(sum));
    }
  }
}

struct Fragments {
  double a[8];
  double b[4];
  double c[4];
};

/// C[16][8] += A[16][16]·B[16][8], k ascending, each step rounded once.
using Product = void (*)(double (&c)[16][8], const double (&a)[16][16], const double (&b)[16][8]);

#define BRAGG_SIMT_PRODUCT                                                            \
  for (int i = 0; i < 16; ++i) {                                                      \
    for (int k = 0; k < 16; ++k) {                                                    \
      for (int j = 0; j < 8; ++j) c[i][j] = __builtin_fma(a[i][k], b[k][j], c[i][j]); \
    }                                                                                 \
  }
void product(double (&c)[16][8], const double (&a)[16][16], const double (&b)[16][8]) { BRAGG_SIMT_PRODUCT }
#if defined(__x86_64__)
__attribute__((target("avx2,fma"), optimize("O3"))) void product_with_fma(double (&c)[16][8],
                                                                          const double (&a)[16][16],
                                                                          const double (&b)[16][8]){
    BRAGG_SIMT_PRODUCT} Product best_product() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &product_with_fma : &product;
}
#else
Product best_product() { return &product; }
#endif

void complete_product(const void* const* in, void* const* out) {
  static const Product multiply = best_product();
  double a[16][16];
  double b[16][8];
  double c[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& f = *static_cast<const Fragments*>(in[lane]);
    const int g = lane / 4;
    const int t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      for (int h = 0; h < 2; ++h) a[g + 8 * h][t + 4 * i] = f.a[2 * i + h];
      b[t + 4 * i][g] = f.b[i];
    }
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < 2; ++i) c[g + 8 * h][2 * t + i] = f.c[2 * h + i];
    }
  }
  multiply(c, a, b);
  for (int lane = 0; lane < 32; ++lane) {
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < 2; ++i)
        static_cast<double*>(out[lane])[2 * h + i] = c[lane / 4 + 8 * h][2 * (lane % 4) + i];
    }
  }
}

}  // namespace

void mma_16x8x16(double (&c)[4], const double (&a)[8], const double (&b)[4], Site site) {
  Fragments mine;
  std::copy_n(a, 8, mine.a);
  std::copy_n(b, 4, mine.b);
  std::copy_n(c, 4, mine.c);
  exchange(&mine, c, &complete_product, site);
}

void mma_16x8x32(int (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], Site site) {
  ByteFragments mine;
  std::copy_n(a, 4, mine.a);
  std::copy_n(b, 2, mine.b);
  std::copy_n(c, 4, mine.c);
  exchange(&mine, c, &complete_byte_product, site);
}

float f16_to_float(std::uint16_t bits) {
  const float sign = (bits & sign_bit) != 0 ? -1.0f : 1.0f;
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  if (exponent == 31) return fraction != 0 ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
}
std::uint16_t double_to_f16(double x) { return round_to(x, f16); }
std::uint16_t double_to_bf16(double x) { return round_to(x, bf16); }

std::uint32_t min_f16x2(std::uint32_t a, std::uint32_t b) { return smaller_halves(a, b, f16); }
std::uint32_t max_f16x2(std::uint32_t a, std::uint32_t b) { return larger_halves(a, b, f16); }
std::uint32_t min_bf16x2(std::uint32_t a, std::uint32_t b) { return smaller_halves(a, b, bf16); }
std::uint32_t max_bf16x2(std::uint32_t a, std::uint32_t b) { return larger_halves(a, b, bf16); }

std::uint32_t mark_nonfinite_f16x2(std::uint32_t v, std::uint32_t seen) {
  return mark_nonfinite(v, seen, 0x7C00u);
}
std::uint32_t mark_nonfinite_bf16x2(std::uint32_t v, std::uint32_t seen) {
  return mark_nonfinite(v, seen, 0x7F80u);
}

}  // namespace bragg::detail::simt
