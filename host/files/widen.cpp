// SPDX-License-Identifier: Apache-2.0
#include "host/files/widen.hpp"

#include <cstring>

#include "host/base/dtype.hpp"

namespace bragg::detail {

namespace {

/// Element i of T is read before anything is written over it: writing goes up from below, and meets it last.
template <class T, class F>
void widen(std::byte* begin, std::int64_t count, F convert) noexcept {
  const std::byte* from = begin + count * static_cast<std::int64_t>(8 - sizeof(T));
  for (std::int64_t i = 0; i < count; ++i) {
    T narrow;
    std::memcpy(&narrow, from + i * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    const double wide = convert(narrow);
    std::memcpy(begin + i * 8, &wide, 8);
  }
}

}  // namespace

void widen_to_f64(std::byte* begin, std::int64_t count, DType dtype) noexcept {
  with_dtype(dtype, [&]<DType kTypeT>() {
    if constexpr (kTypeT == DType::f32) widen<float>(begin, count, [](float x) { return x; });
    if constexpr (size_of(kTypeT) == 2) widen<std::uint16_t>(begin, count, float_of<kTypeT>);
  });
}

}  // namespace bragg::detail
