// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "host/cpu/targets.hpp"

namespace bragg::detail::cpu {

/// Cuts aligned parts from one aligned block; without a block it measures what they take.
class ScratchCutter {
 public:
  explicit ScratchCutter(unsigned char* memory) : memory_(memory) {}

  template <class T>
  T* take(std::size_t count) {
    T* const part = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + bytes_);
    bytes_ += (count * sizeof(T) + vector_bytes - 1) / vector_bytes * vector_bytes;
    return part;
  }

  std::size_t bytes() const { return bytes_; }

 private:
  unsigned char* memory_;
  std::size_t bytes_ = 0;
};

}  // namespace bragg::detail::cpu
