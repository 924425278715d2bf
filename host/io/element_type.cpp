// SPDX-License-Identifier: Apache-2.0
#include "host/io/element_type.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

namespace bragg::detail {

namespace {

constexpr std::array<ElementType, 23> element_types = {{
    {"F32", "<f4", 4, ElementKind::floating, DType::f32},
    {"F16", "<f2", 2, ElementKind::floating, DType::f16},
    {"BF16", "", 2, ElementKind::floating, DType::bf16},
    {"F64", "<f8", 8, ElementKind::floating, DType::f64},
    {"F8_E4M3", "", 1, ElementKind::floating, DType::f16},
    {"F8_E5M2", "", 1, ElementKind::floating, DType::f16},
    {"I64", "<i8", 8, ElementKind::signed_integer, {}},
    {"I32", "<i4", 4, ElementKind::signed_integer, {}},
    {"I16", "<i2", 2, ElementKind::signed_integer, {}},
    {"I8", "|i1", 1, ElementKind::signed_integer, {}},
    {"U64", "<u8", 8, ElementKind::unsigned_integer, {}},
    {"U32", "<u4", 4, ElementKind::unsigned_integer, {}},
    {"U16", "<u2", 2, ElementKind::unsigned_integer, {}},
    {"U8", "|u1", 1, ElementKind::unsigned_integer, {}},
    {"BOOL", "|b1", 1, ElementKind::boolean, {}},
    {"C64", "", 8, ElementKind::foreign, {}},
    {"F4", "", 1, ElementKind::foreign, {}},  // two to a byte, if there were any
    {"F6_E2M3", "", 1, ElementKind::foreign, {}},
    {"F6_E3M2", "", 1, ElementKind::foreign, {}},
    {"F8_E4M3FNUZ", "", 1, ElementKind::foreign, {}},
    {"F8_E5M2FNUZ", "", 1, ElementKind::foreign, {}},
    {"F8_E8M0", "", 1, ElementKind::foreign, {}},
    {"E8M0", "", 1, ElementKind::foreign, {}},
}};

}  // namespace

const ElementType* find_element_type(std::string_view name) noexcept {
  const auto* found = std::find_if(element_types.begin(), element_types.end(),
                                   [&](const ElementType& type) { return type.name == name; });
  return found == element_types.end() ? nullptr : found;
}

const ElementType* find_npy_type(std::string_view descr) noexcept {
  const auto* found = std::find_if(element_types.begin(), element_types.end(), [&](const ElementType& type) {
    return !type.npy.empty() && type.npy == descr;
  });
  return found == element_types.end() ? nullptr : found;
}

const ElementType& element_type_of(DType dtype) noexcept {
  return *std::find_if(element_types.begin(), element_types.end(), [&](const ElementType& type) {
    return type.kind == ElementKind::floating && type.dtype == dtype;
  });
}

const ElementType* find_floating_type(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  const ElementType* const found = find_element_type(upper);
  return found != nullptr && found->kind == ElementKind::floating ? found : nullptr;
}

const ElementType& element_type_of(const TensorInfo& tensor) noexcept {
  return *find_element_type(tensor.dtype);
}

std::optional<std::int64_t> element_count(std::span<const std::int64_t> shape,
                                          std::int64_t element_bytes) noexcept {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(count, extent, &count)) return std::nullopt;
  }
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(count, element_bytes, &bytes)) return std::nullopt;
  return count;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace bragg::detail
