// SPDX-License-Identifier: Apache-2.0
// Element types on the device: reading, the order of coordinate-wise rules, rounding once to the output.
#pragma once

#include <type_traits>

#include "kernels/common/rows.hpp"
#include "kernels/common/simt.cuh"

namespace bragg::detail::cuda {

template <DType dtype>
struct ElementBits {
  using Type = std::uint16_t;
};
template <>
struct ElementBits<DType::f32> {
  using Type = std::uint32_t;
};
template <>
struct ElementBits<DType::f64> {
  using Type = std::uint64_t;
};
/// The bits of an element.
template <DType dtype>
using Bits = typename ElementBits<dtype>::Type;

/// f.operator()<dtype>() of a dtype known at run time.
#if defined(__CUDACC__)
#pragma nv_exec_check_disable
#endif
template <class F>
BRAGG_HD inline decltype(auto) with_dtype(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f32:
      return f.template operator()<DType::f32>();
    case DType::f16:
      return f.template operator()<DType::f16>();
    case DType::bf16:
      return f.template operator()<DType::bf16>();
    case DType::f64:
      break;
  }
  return f.template operator()<DType::f64>();
}

BRAGG_DEVICE int bytes_of(DType dtype) { return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2; }

/// The type that elements are widened to before they become f64: float, and double for f64. Exact.
template <DType dtype>
struct ValueOf {
  using Type = float;
};
template <>
struct ValueOf<DType::f64> {
  using Type = double;
};
template <DType dtype>
using Value = typename ValueOf<dtype>::Type;

/// The same of a dtype whose elements are computed with as ValueT.
template <class ValueT, class F>
BRAGG_DEVICE void with_dtype_of(DType dtype, const F& f) {
  if constexpr (std::is_same_v<ValueT, double>) {
    f.template operator()<DType::f64>();
  } else {
    switch (dtype) {
      case DType::f32:
        return f.template operator()<DType::f32>();
      case DType::f16:
        return f.template operator()<DType::f16>();
      case DType::bf16:
      case DType::f64:  // is double's
        break;
    }
    f.template operator()<DType::bf16>();
  }
}

template <DType dtype>
BRAGG_DEVICE Value<dtype> value_of(Bits<dtype> bits) {
  if constexpr (dtype == DType::f32) {
    return simt::float_of(bits);
  } else if constexpr (dtype == DType::bf16) {
    return simt::float_of(static_cast<std::uint32_t>(bits) << 16);
  } else if constexpr (dtype == DType::f16) {
    return simt::f16_to_float(bits);
  } else {
    return simt::double_of(bits);
  }
}

template <class T>
BRAGG_DEVICE T infinity_of();
template <>
BRAGG_DEVICE float infinity_of<float>() {
  return simt::float_of(0x7F800000u);
}
template <>
BRAGG_DEVICE double infinity_of<double>() {
  return simt::double_of(0x7FF0000000000000ull);
}

/// NaN is read as +inf: min gives the number where one operand is NaN. One instruction for float; for double
/// five, where a comparison and a selection are three.
BRAGG_DEVICE float nan_to_infinity(float x) { return fminf(x, infinity_of<float>()); }
BRAGG_DEVICE double nan_to_infinity(double x) { return x == x ? x : infinity_of<double>(); }

BRAGG_DEVICE bool is_finite(float x) { return (simt::bits_of(x) & 0x7F800000u) != 0x7F800000u; }
BRAGG_DEVICE bool is_finite(double x) {
  return (simt::bits_of(x) & 0x7FF0000000000000ull) != 0x7FF0000000000000ull;
}

/// One element at any address.
template <class BitsT>
BRAGG_DEVICE BitsT load_bytes(const unsigned char* p) {
  BitsT bits = 0;
  BRAGG_UNROLL
  for (int i = 0; i < static_cast<int>(sizeof(BitsT)); ++i) {
    bits = static_cast<BitsT>(bits | static_cast<BitsT>(static_cast<BitsT>(p[i]) << (8 * i)));
  }
  return bits;
}

/// Element `index` of a tensor, at an address of that alignment.
template <DType dtype>
BRAGG_DEVICE Bits<dtype> load_element(const void* tensor, std::int64_t index, Alignment alignment) {
  const auto* const p =
      static_cast<const unsigned char*>(tensor) + index * static_cast<std::int64_t>(sizeof(Bits<dtype>));
  if (alignment == Alignment::byte) return load_bytes<Bits<dtype>>(p);
  if constexpr (sizeof(Bits<dtype>) == 2) {
    return simt::load2(p);
  } else if constexpr (sizeof(Bits<dtype>) == 4) {
    return simt::load4(p);
  } else {
    const uint2 halves = simt::load8(p);
    return static_cast<std::uint64_t>(halves.y) << 32 | halves.x;
  }
}

/// The same for a dtype known at run time, as f64.
BRAGG_DEVICE double load_f64(const void* tensor, std::int64_t index, DType dtype, Alignment alignment) {
  return with_dtype(dtype, [&]<DType known>() {
    return static_cast<double>(value_of<known>(load_element<known>(tensor, index, alignment)));
  });
}

/// x rounded once to the type, ties to even; zero becomes +0.
template <DType dtype>
BRAGG_DEVICE Bits<dtype> round_to(double x) {
  if constexpr (dtype == DType::f32) {
    return simt::bits_of(static_cast<float>(x) + 0.0f);
  } else if constexpr (dtype == DType::f64) {
    return simt::bits_of(x + 0.0);
  } else {
    const std::uint16_t bits = dtype == DType::f16 ? simt::double_to_f16(x) : simt::double_to_bf16(x);
    return bits == 0x8000 ? std::uint16_t{0} : bits;
  }
}

/// The same of a float.
template <DType dtype>
BRAGG_DEVICE Bits<dtype> round_to(float x) {
  if constexpr (dtype == DType::f32) {
    return simt::bits_of(x + 0.0f);
  } else if constexpr (dtype == DType::f64) {
    return round_to<dtype>(static_cast<double>(x));
  } else {
    const std::uint16_t bits = dtype == DType::f16 ? simt::float_to_f16(x) : simt::float_to_bf16(x);
    return bits == 0x8000 ? std::uint16_t{0} : bits;
  }
}

/// Stores one element at any address.
template <DType dtype>
BRAGG_DEVICE void store_element(void* tensor, std::int64_t index, Bits<dtype> bits, Alignment alignment) {
  auto* const p =
      static_cast<unsigned char*>(tensor) + index * static_cast<std::int64_t>(sizeof(Bits<dtype>));
  if (alignment == Alignment::byte) {
    BRAGG_UNROLL
    for (int i = 0; i < static_cast<int>(sizeof(Bits<dtype>)); ++i) {
      p[i] = static_cast<unsigned char>(bits >> (8 * i));
    }
  } else {
    *reinterpret_cast<Bits<dtype>*>(p) = bits;
  }
}

/// The same for a dtype known at run time.
BRAGG_DEVICE void store_rounded(void* tensor, std::int64_t index, double x, DType dtype,
                                Alignment alignment) {
  with_dtype(dtype,
             [&]<DType known>() { store_element<known>(tensor, index, round_to<known>(x), alignment); });
}

/// Piece `index` of a cut.
BRAGG_DEVICE Piece locate(const Cut& cut, const std::int64_t* sizes, std::int64_t index) {
  int low = 0;
  if (cut.tensors > 1) {
    // The last tensor whose first piece is not behind `index`: empty tensors before it share that number.
    int high = cut.tensors;
    while (high - low > 1) {
      const int middle = low + (high - low) / 2;
      if (cut.first[middle] <= index) {
        low = middle;
      } else {
        high = middle;
      }
    }
  }
  Piece piece;
  piece.tensor = low;
  piece.begin = (index - (cut.tensors > 1 ? cut.first[low] : 0)) * cut.length;
  const std::int64_t left = sizes[low] - piece.begin;
  piece.size = static_cast<int>(left < cut.length ? left : cut.length);
  return piece;
}

/// The pieces of a cut that a thread block takes: of P pieces and B blocks, P/B consecutive ones, or one
/// more. So most lie in the tensor of the one before, and the place of a piece is searched for once. Pieces
/// may be counted in `parts`, each of them an item by itself.
class OwnPieces {
 public:
  BRAGG_DEVICE OwnPieces(const Cut& cut, const std::int64_t* sizes, int parts = 1)
      : sizes_(sizes), length_(cut.length), parts_(parts) {
    const std::int64_t items = cut.pieces * parts;
    const std::int64_t each = items / simt::blocks();
    const std::int64_t rest = items - each * simt::blocks();
    const std::int64_t block = simt::block();
    const std::int64_t first = each * block + (block < rest ? block : rest);
    left_ = static_cast<int>(each + (block < rest ? 1 : 0));
    if (left_ == 0) return;
    part_ = static_cast<int>(first % parts);
    piece_ = locate(cut, sizes, first / parts);
  }

  BRAGG_DEVICE bool more() const { return left_ > 0; }
  BRAGG_DEVICE bool is_last() const { return left_ == 1; }
  BRAGG_DEVICE const Piece& piece() const { return piece_; }
  BRAGG_DEVICE int part() const { return part_; }
  BRAGG_DEVICE void advance() {
    if (--left_ == 0 || ++part_ < parts_) return;
    part_ = 0;
    piece_.begin += length_;
    while (piece_.begin >= sizes_[piece_.tensor]) {  // there is a piece behind
      ++piece_.tensor;
      piece_.begin = 0;
    }
    const std::int64_t left = sizes_[piece_.tensor] - piece_.begin;
    piece_.size = static_cast<int>(left < length_ ? left : length_);
  }

 private:
  const std::int64_t* sizes_;
  std::int64_t length_;
  int left_ = 0;
  int parts_;
  int part_ = 0;
  Piece piece_;
};

}  // namespace bragg::detail::cuda
