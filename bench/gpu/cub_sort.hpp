// SPDX-License-Identifier: Apache-2.0
// The CUDA Toolkit's sort of many segments, each of as many keys.
#pragma once

#include <cstdint>

#include "kernels/runtime/runtime.hpp"

namespace bragg::detail::cuda {

class CubSort {
 public:
  /// Has the memory for up to `most_segments` of n unsigned keys of 2, 4 or 8 bytes: about 8 bytes a segment.
  /// @throws Error out_of_memory; invalid_argument: 2³¹ keys and more.
  CubSort(int n, std::int64_t most_segments, std::size_t key_bytes);

  /// Sorts keys[segments][n] on the stream, and says where they are then: there, or in other[segments][n].
  /// Of more than 500 segments it waits for the stream, so it cannot be captured.
  void* sort(void* keys, void* other, std::int64_t segments, Stream stream) const;

 private:
  int n_;
  std::size_t key_bytes_;
  DeviceMemory memory_;
};

}  // namespace bragg::detail::cuda
