// SPDX-License-Identifier: Apache-2.0
// A model cut into windows that are read, aggregated and written one at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "host/io/element_type.hpp"

namespace bragg::detail {

/// Elements [begin, end) of a tensor; begin is a multiple of gram_block.
struct Piece {
  std::size_t tensor = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const noexcept { return end - begin; }
};

/// Some pieces of a window.
struct Range {
  std::size_t first = 0;
  std::size_t count = 0;
};

/// Pieces of one dtype, and of one in the output. A tensor that fits into a window is in one window whole,
/// perhaps with others; one that does not has windows of its own.
struct Window {
  const ElementType* type = nullptr;  ///< in the inputs' files
  const ElementType* out = nullptr;   ///< in the output's
  DType judged = DType::f32;          ///< of the rows of pass 1
  DType combined = DType::f32;        ///< of the rows of pass 2
  DType made = DType::f32;            ///< of what pass 2 makes, which is then turned into `out`
  std::vector<Piece> pieces;
  std::int64_t elements = 0;
  std::size_t judged_pieces = 0;  ///< so many, from the first, are of tensors that rows are judged by

  /// Of a row in the inputs' files.
  std::uint64_t bytes() const noexcept { return static_cast<std::uint64_t>(elements * type->bytes); }
  std::span<const Piece> some(Range range) const {
    return std::span(pieces).subspan(range.first, range.count);
  }
};

}  // namespace bragg::detail
