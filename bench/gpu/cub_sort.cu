// SPDX-License-Identifier: Apache-2.0
#include "bench/gpu/cub_sort.hpp"

#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>
#include <bragg/error.hpp>

#include <cub/device/device_segmented_sort.cuh>
#include <limits>

#include "kernels/runtime/check.hpp"
#include "rules/solve/team.hpp"

namespace bragg::detail::cuda {
namespace {

struct Times {
  int n;
  BRAGG_HD int operator()(int segment) const { return segment * n; }
};

/// Where `memory` is null, only `bytes` are found.
template <class KeyT>
void* sort_keys(void* memory, std::size_t& bytes, void* keys, void* other, int n, std::int64_t segments,
                Stream stream) {
  const auto begins = thrust::make_transform_iterator(thrust::counting_iterator<int>(0), Times{n});
  cub::DoubleBuffer<KeyT> buffers(static_cast<KeyT*>(keys), static_cast<KeyT*>(other));
  BRAGG_CUDA_CHECK(cub::DeviceSegmentedSort::SortKeys(memory, bytes, buffers, segments * n, segments, begins,
                                                      begins + 1, stream));
  return buffers.Current();
}

void* sort_any(void* memory, std::size_t& bytes, void* keys, void* other, int n, std::int64_t segments,
               std::size_t key_bytes, Stream stream) {
  if (key_bytes == 2) return sort_keys<std::uint16_t>(memory, bytes, keys, other, n, segments, stream);
  if (key_bytes == 4) return sort_keys<std::uint32_t>(memory, bytes, keys, other, n, segments, stream);
  return sort_keys<std::uint64_t>(memory, bytes, keys, other, n, segments, stream);
}

}  // namespace

CubSort::CubSort(int n, std::int64_t most_segments, std::size_t key_bytes) : n_(n), key_bytes_(key_bytes) {
  if (most_segments > std::numeric_limits<int>::max() / n) {
    throw Error(Status::invalid_argument, "CubSort: 2^31 keys or more at a time");
  }
  std::size_t bytes = 0;
  sort_any(nullptr, bytes, nullptr, nullptr, n, most_segments, key_bytes, nullptr);
  memory_ = DeviceMemory(bytes);
}

void* CubSort::sort(void* keys, void* other, std::int64_t segments, Stream stream) const {
  std::size_t bytes = memory_.bytes();
  return sort_any(memory_.data(), bytes, keys, other, n_, segments, key_bytes_, stream);
}

}  // namespace bragg::detail::cuda
