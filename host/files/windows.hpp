// SPDX-License-Identifier: Apache-2.0
// A model cut into windows that are read, aggregated and written one at a time.
#pragma once

#include <algorithm>
#include <bragg/io.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bragg::detail {

/// Elements [begin, end) of a tensor; begin is a multiple of gram_block.
struct Piece {
  std::size_t tensor = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const noexcept { return end - begin; }
};

/// Pieces of one dtype. A tensor that fits into a window is in one window whole, perhaps with others; one
/// that does not has windows of its own.
struct Window {
  std::vector<Piece> pieces;
  std::int64_t elements = 0;
};

/// Cuts those of `tensors` that `chosen` lists, in that order, into windows of at most `capacity(t)`
/// elements, a multiple of gram_block.
template <class CapacityF>
std::vector<Window> plan_windows(std::span<const TensorInfo> tensors, std::span<const std::size_t> chosen,
                                 CapacityF capacity) {
  std::vector<Window> windows;
  const TensorInfo* last = nullptr;  // what the open window may be continued with; null: nothing
  for (const std::size_t t : chosen) {
    const TensorInfo& tensor = tensors[t];
    const std::int64_t most = capacity(t);
    if (tensor.elements > most) {
      for (std::int64_t begin = 0; begin < tensor.elements; begin += most) {
        const std::int64_t size = std::min(most, tensor.elements - begin);
        windows.push_back({{{t, begin, begin + size}}, size});
      }
      last = nullptr;
      continue;
    }
    if (last == nullptr || last->dtype != tensor.dtype || windows.back().elements + tensor.elements > most) {
      windows.emplace_back();
    }
    windows.back().pieces.push_back({t, 0, tensor.elements});
    windows.back().elements += tensor.elements;
    last = &tensor;
  }
  return windows;
}

}  // namespace bragg::detail
