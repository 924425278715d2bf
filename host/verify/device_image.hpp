// SPDX-License-Identifier: Apache-2.0
// Host buffers mirrored on a device (or on the executor that stands in for one), guards and all.
#pragma once

#include <bragg/plan.hpp>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "kernels/runtime/runtime.hpp"

namespace bragg::verify {

class DeviceImage {
 public:
  explicit DeviceImage(detail::cuda::Stream stream) : stream_(stream) {}

  /// Mirrors a piece of host memory; its alignment modulo 256 is kept.
  void add(std::span<unsigned char> host) {
    const std::size_t shift = reinterpret_cast<std::uintptr_t>(host.data()) % 256;
    Piece piece{host, detail::cuda::DeviceMemory(host.size() + shift), nullptr};
    piece.device = static_cast<unsigned char*>(piece.memory.data()) + shift;
    detail::cuda::copy_to_device(piece.device, host.data(), host.size(), stream_);
    pieces_.push_back(std::move(piece));
  }

  /// The mirrored address of one in a piece that was added; null stays null.
  void* on_device(const void* host) const {
    if (host == nullptr) return nullptr;
    const auto* const at = static_cast<const unsigned char*>(host);
    for (const Piece& piece : pieces_) {
      if (at >= piece.host.data() && at <= piece.host.data() + piece.host.size()) {
        return piece.device + (at - piece.host.data());
      }
    }
    throw std::logic_error("an address that was not mirrored");
  }

  /// Brings what the device made of the pieces back to the host.
  void fetch() {
    for (const Piece& piece : pieces_) {
      detail::cuda::copy_to_host(piece.host.data(), piece.device, piece.host.size(), stream_);
    }
    detail::cuda::synchronize(stream_);
  }

 private:
  struct Piece {
    std::span<unsigned char> host;
    detail::cuda::DeviceMemory memory;
    unsigned char* device;
  };

  detail::cuda::Stream stream_;
  std::vector<Piece> pieces_;
};

}  // namespace bragg::verify
