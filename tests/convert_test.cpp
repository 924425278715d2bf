// SPDX-License-Identifier: Apache-2.0
// Values between the dtypes of files and those of the passes: every code of 8 and 16 bits, and every
// midpoint.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "host/files/convert.hpp"

namespace {

using namespace bragg;
using bragg::detail::ElementType;
using bragg::detail::find_element_type;

constexpr double infinity = std::numeric_limits<double>::infinity();

/// A format by its definition: the value of each code below the sign, by ldexp.
struct Format {
  const char* name;
  int exponent_bits, mantissa_bits;
  bool has_infinity;

  unsigned sign() const { return 1u << (exponent_bits + mantissa_bits); }
  double value(unsigned code) const {
    const unsigned mantissa = code & ((1u << mantissa_bits) - 1);
    const int exponent = static_cast<int>(code >> mantissa_bits);
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int last = (1 << exponent_bits) - 1;
    if (has_infinity && exponent == last) return mantissa == 0 ? infinity : std::nan("");
    if (!has_infinity && code == sign() - 1) return std::nan("");
    if (exponent == 0) return std::ldexp(mantissa, 1 - bias - mantissa_bits);
    return std::ldexp(mantissa + (1u << mantissa_bits), exponent - bias - mantissa_bits);
  }
  unsigned largest() const { return has_infinity ? sign() - (1u << mantissa_bits) - 1 : sign() - 2; }
  const ElementType& type() const { return *find_element_type(name); }
};

constexpr Format formats[] = {
    {"F8_E4M3", 4, 3, false}, {"F8_E5M2", 5, 2, true}, {"F16", 5, 10, true}, {"BF16", 8, 7, true}};

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

/// The codes of a file, widened to f64.
std::vector<double> widened(const Format& format, const std::vector<unsigned>& codes) {
  const auto count = static_cast<std::int64_t>(codes.size());
  std::vector<double> values(codes.size());
  auto* const begin = reinterpret_cast<std::byte*>(values.data());
  std::byte* to = begin + count * (8 - format.type().bytes);
  for (const unsigned code : codes) {
    std::memcpy(to, &code, static_cast<std::size_t>(format.type().bytes));  // little-endian
    to += format.type().bytes;
  }
  detail::widen(begin, count, format.type(), DType::f64);
  return values;
}

struct Narrowed {
  unsigned code;
  std::int64_t beyond;
};

Narrowed narrowed(const Format& format, double value) {
  auto* const begin = reinterpret_cast<std::byte*>(&value);
  const std::int64_t beyond = detail::narrow(begin, 1, format.type());
  unsigned code = 0;
  std::memcpy(&code, begin, static_cast<std::size_t>(format.type().bytes));
  return {code, beyond};
}

TEST(Convert, TheFormatsAreThoseOfTheirDefinitions) {
  EXPECT_EQ(formats[0].value(formats[0].largest()), 448);
  EXPECT_EQ(formats[0].value(1), 0x1p-9);
  EXPECT_EQ(formats[0].value(0x38), 1);
  EXPECT_EQ(formats[1].value(formats[1].largest()), 57344);
  EXPECT_EQ(formats[1].value(1), 0x1p-16);
  EXPECT_EQ(formats[2].value(formats[2].largest()), 65504);
  EXPECT_EQ(formats[3].value(0x3F80), 1);
}

TEST(Convert, EveryCodeWidensToItsValue) {
  for (const Format& format : formats) {
    std::vector<unsigned> codes(std::size_t{2} * format.sign());
    for (unsigned code = 0; code < codes.size(); ++code) codes[code] = code;
    const std::vector<double> values = widened(format, codes);
    for (unsigned code = 0; code < format.sign(); ++code) {
      ASSERT_TRUE(same(values[code], format.value(code))) << format.name << ' ' << code;
      ASSERT_TRUE(same(values[code + format.sign()], -format.value(code))) << format.name << ' ' << code;
    }
  }
}

TEST(Convert, EveryCodeOfEightBitsIsAnF16OfItsValue) {
  for (const Format& format : {formats[0], formats[1]}) {
    std::vector<std::uint16_t> halves(256);
    auto* const begin = reinterpret_cast<std::byte*>(halves.data());
    for (unsigned code = 0; code < 256; ++code) begin[256 + code] = static_cast<std::byte>(code);
    detail::widen(begin, 256, format.type(), DType::f16);
    for (unsigned code = 0; code < 256; ++code) {
      const unsigned magnitude = code & 0x7F;
      const double value = formats[2].value(halves[code] & 0x7FFF);
      EXPECT_TRUE(same(value, format.value(magnitude))) << format.name << ' ' << code;
      EXPECT_EQ(halves[code] >> 15, static_cast<int>(code >> 7));
    }
  }
}

TEST(Convert, EveryMidpointIsRoundedToEvenAndItsNeighboursToTheNearest) {
  for (const Format& format : formats) {
    for (unsigned code = 0; code <= format.largest(); ++code) {
      const double value = format.value(code);
      // The midpoint to what would be the next value if the exponents went on.
      const bool last = code == format.largest();
      const double step = last ? value - format.value(code - 1) : format.value(code + 1) - value;
      const double middle = value + step / 2;
      const unsigned next = last && !format.has_infinity ? format.sign() - 1 : code + 1;
      for (const double sign : {1.0, -1.0}) {
        const unsigned bit = sign < 0 ? format.sign() : 0;
        const auto expect = [&](double x, unsigned expected, bool beyond) {
          const Narrowed got = narrowed(format, sign * x);
          ASSERT_EQ(got.code, expected | bit) << format.name << ' ' << sign * x;
          ASSERT_EQ(got.beyond, beyond ? 1 : 0) << format.name << ' ' << sign * x;
        };
        expect(value, code, false);
        expect(std::nextafter(middle, 0), code, false);
        expect(middle, code % 2 == 0 ? code : next, last && code % 2 == 1);
        // Closer to the midpoint than an f32 could tell.
        expect(std::nextafter(middle, infinity), next, last);
      }
    }
  }
}

TEST(Convert, WhatIsBeyondIsInfinityOrNanAndCounted) {
  for (const Format& format : formats) {
    const unsigned beyond = format.has_infinity ? format.largest() + 1 : format.sign() - 1;
    for (const double value :
         {format.value(format.largest()) * 1.25, 1e30 * 1e30, std::numeric_limits<double>::max()}) {
      EXPECT_EQ(narrowed(format, value).code, beyond) << format.name << ' ' << value;
      EXPECT_EQ(narrowed(format, -value).code, beyond | format.sign());
      EXPECT_EQ(narrowed(format, value).beyond, 1);
    }
    EXPECT_EQ(narrowed(format, infinity).code, beyond);
    EXPECT_EQ(narrowed(format, infinity).beyond, 0);
    EXPECT_TRUE(std::isnan(format.value(narrowed(format, std::nan("")).code & (format.sign() - 1))));
    EXPECT_EQ(narrowed(format, std::nan("")).beyond, 0);
    for (const double value : {0.0, 1e-300, std::numeric_limits<double>::denorm_min()}) {
      EXPECT_EQ(narrowed(format, value).code, 0u) << format.name << ' ' << value;
      EXPECT_EQ(narrowed(format, -value).code, format.sign());
    }
  }
}

TEST(Convert, ManyValuesAreConvertedInPlace) {
  std::vector<unsigned> codes;
  for (unsigned k = 0; k < 1000; ++k) codes.push_back(k * 37 % 0x7B00);
  for (const Format& format : formats) {
    std::vector<unsigned> own = codes;
    for (unsigned& code : own) code %= format.largest();
    std::vector<double> values = widened(format, own);
    auto* const begin = reinterpret_cast<std::byte*>(values.data());
    ASSERT_EQ(detail::narrow(begin, 1000, format.type()), 0);
    for (std::size_t k = 0; k < own.size(); ++k) {
      unsigned code = 0;
      std::memcpy(&code, begin + k * static_cast<std::size_t>(format.type().bytes),
                  static_cast<std::size_t>(format.type().bytes));
      ASSERT_EQ(code, own[k]) << format.name << ' ' << k;
    }
  }
}

TEST(Convert, F32IsRoundedAndF64Stays) {
  double value = 1 + 0x1p-24 + 0x1p-50;
  EXPECT_EQ(detail::narrow(reinterpret_cast<std::byte*>(&value), 1, *find_element_type("F32")), 0);
  float rounded = 0;
  std::memcpy(&rounded, &value, 4);
  EXPECT_EQ(rounded, 1 + 0x1p-23f);
  value = 1e39;
  EXPECT_EQ(detail::narrow(reinterpret_cast<std::byte*>(&value), 1, *find_element_type("F32")), 1);
  value = 1e39;
  EXPECT_EQ(detail::narrow(reinterpret_cast<std::byte*>(&value), 1, *find_element_type("F64")), 0);
  EXPECT_EQ(value, 1e39);
}

}  // namespace
