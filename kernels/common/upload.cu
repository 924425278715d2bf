// SPDX-License-Identifier: Apache-2.0
#include "kernels/common/upload.hpp"

#include <algorithm>
#include <cstring>

#include "kernels/common/simt.cuh"

namespace bragg::detail::cuda {

namespace {

/// What travels with one launch.
template <int size>
struct Parcel {
  uint4 words[size];
};

}  // namespace

template <int size>
BRAGG_KERNEL(size, 1)
upload_kernel(BRAGG_GRID_CONSTANT Parcel<size> parcel, uint4* to, int count) {
  simt::grid_dependency_sync();
  if (simt::thread() < count) to[simt::thread()] = parcel.words[simt::thread()];
}

template <int size>
static void send(unsigned char* to, const unsigned char* from, std::size_t bytes, Stream stream) {
  Parcel<size> parcel;
  std::memcpy(parcel.words, from, bytes);
  const int count = static_cast<int>(bytes / sizeof(uint4));
  simt::launch_dependent(upload_kernel<size>, 1, 1, size, 0, stream, parcel, reinterpret_cast<uint4*>(to),
                         count);
}

void upload(void* device, const void* host, std::size_t bytes, Stream stream) {
  constexpr int small = 64;   // 1 KiB: the table of 16 rows of one tensor
  constexpr int large = 960;  // 15 KiB
  auto* to = static_cast<unsigned char*>(device);
  const auto* from = static_cast<const unsigned char*>(host);
  while (bytes > 0) {
    const bool fits = bytes <= small * sizeof(uint4);
    const std::size_t part = std::min(bytes, (fits ? small : large) * sizeof(uint4));
    fits ? send<small>(to, from, part, stream) : send<large>(to, from, part, stream);
    to += part;
    from += part;
    bytes -= part;
  }
}

}  // namespace bragg::detail::cuda
