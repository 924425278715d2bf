// SPDX-License-Identifier: Apache-2.0
// The upload of upload.hpp, and a task for a thread block when all bytes have arrived: it saves a launch.
#pragma once

#include <cstring>

#include "kernels/common/simt.cuh"
#include "kernels/common/upload.hpp"

namespace bragg::detail::cuda {

/// The bytes that travel with one launch.
template <int size>
struct Parcel {
  uint4 words[size];
};
inline constexpr std::size_t small_parcel =
    64 * sizeof(uint4);  ///< 1 KiB: the table of 16 rows of one tensor
inline constexpr std::size_t large_parcel = 960 * sizeof(uint4);  ///< 15 KiB

template <int size, class ThenT>
BRAGG_KERNEL(size, 1)
upload_kernel(BRAGG_GRID_CONSTANT Parcel<size> parcel, uint4* to, int count, BRAGG_GRID_CONSTANT ThenT then) {
  simt::grid_dependency_sync();
  if (simt::thread() < count) to[simt::thread()] = parcel.words[simt::thread()];
  then();
}

/// Sends one parcel, whose block then runs then(), which is to begin with a barrier.
template <class ThenT>
void send_parcel(unsigned char* to, const unsigned char* from, std::size_t bytes, const ThenT& then,
                 Stream stream) {
  const auto send = [&](auto parcel, auto kernel) {
    std::memcpy(parcel.words, from, bytes);
    const auto most = static_cast<int>(sizeof(parcel) / sizeof(uint4));
    const auto count = static_cast<int>(bytes / sizeof(uint4));
    simt::launch_dependent(kernel, 1, 1, most, 0, stream, parcel, reinterpret_cast<uint4*>(to), count, then);
  };
  if (bytes <= small_parcel) {
    send(Parcel<small_parcel / sizeof(uint4)>(), upload_kernel<small_parcel / sizeof(uint4), ThenT>);
  } else {
    send(Parcel<large_parcel / sizeof(uint4)>(), upload_kernel<large_parcel / sizeof(uint4), ThenT>);
  }
}

/// As `upload`, and then() when all is there.
template <class ThenT>
void upload_then(void* device, const void* host, std::size_t bytes, const ThenT& then, Stream stream) {
  const std::size_t before = bytes > large_parcel ? (bytes - 1) / large_parcel * large_parcel : 0;
  upload(device, host, before, stream);
  send_parcel(static_cast<unsigned char*>(device) + before, static_cast<const unsigned char*>(host) + before,
              bytes - before, then, stream);
}

}  // namespace bragg::detail::cuda
