// SPDX-License-Identifier: Apache-2.0
// Arrays one after another in one block of memory, whose address may come later, or change from run to run.
#pragma once

#include <cstddef>

namespace bragg::detail::cuda {

/// The least multiple of `alignment` that is not less.
constexpr std::size_t padded(std::size_t bytes, std::size_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

/// Where an array lies in a block of memory.
template <class T>
struct Place {
  std::size_t offset = 0;

  T* in(void* memory) const noexcept {
    return reinterpret_cast<T*>(static_cast<std::byte*>(memory) + offset);
  }
};

class Layout {
 public:
  /// The array begins at a multiple of `alignment`, to which the memory must be aligned too.
  template <class T>
  Place<T> add(std::size_t count, std::size_t alignment = 16) {
    const Place<T> place{padded(bytes_, alignment)};
    bytes_ = place.offset + count * sizeof(T);
    return place;
  }
  /// A multiple of 16.
  std::size_t bytes() const noexcept { return padded(bytes_, 16); }

 private:
  std::size_t bytes_ = 0;
};

}  // namespace bragg::detail::cuda
