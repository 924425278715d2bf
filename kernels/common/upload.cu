// SPDX-License-Identifier: Apache-2.0
#include "kernels/common/upload.hpp"

#include <algorithm>

#include "kernels/common/upload.cuh"

namespace bragg::detail::cuda {

namespace {

struct ThenNothing {
  BRAGG_DEVICE void operator()() const {}
};

}  // namespace

void upload(void* device, const void* host, std::size_t bytes, Stream stream) {
  for (std::size_t done = 0; done < bytes; done += large_parcel) {
    send_parcel(static_cast<unsigned char*>(device) + done, static_cast<const unsigned char*>(host) + done,
                std::min(bytes - done, large_parcel), ThenNothing{}, stream);
  }
}

}  // namespace bragg::detail::cuda
