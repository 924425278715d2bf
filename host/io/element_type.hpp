// SPDX-License-Identifier: Apache-2.0
// The element types that files hold.
#pragma once

#include <bragg/io.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace bragg::detail {

enum class ElementKind : std::uint8_t {
  floating,
  signed_integer,
  unsigned_integer,
  boolean,
  foreign  ///< of the safetensors format, but not for bragg to aggregate: only tensors of no elements
};

struct ElementType {
  std::string_view name;  ///< as safetensors spells it
  std::string_view npy;   ///< as numpy spells it; empty: numpy has none
  std::int64_t bytes;
  ElementKind kind;
  DType dtype;  ///< of floating ones: the smallest that holds their values
};

/// Null where the safetensors format does not have the type.
const ElementType* find_element_type(std::string_view name) noexcept;
const ElementType* find_npy_type(std::string_view descr) noexcept;

/// The safetensors name of a floating-point type.
const ElementType& element_type_of(DType dtype) noexcept;

/// The floating-point type of this name, in upper or lower case; null for another.
const ElementType* find_floating_type(std::string_view name);

/// The type of a tensor whose dtype bragg knows, as of all that files were found to hold.
const ElementType& element_type_of(const TensorInfo& tensor) noexcept;

/// Product of a shape, 1 for a scalar; nothing where it or its bytes do not fit in 63 bits.
std::optional<std::int64_t> element_count(std::span<const std::int64_t> shape,
                                          std::int64_t element_bytes) noexcept;

/// "[2, 3]".
std::string shape_text(std::span<const std::int64_t> shape);

}  // namespace bragg::detail
