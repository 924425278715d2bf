// SPDX-License-Identifier: Apache-2.0
// Memory and random updates for measurements.
#pragma once

#include <bragg/updates.hpp>
#include <cstddef>
#include <cstdint>
#include <span>

namespace bragg::bench {

/// Zeroed memory of whole pages, touched, in huge pages where the system gives them.
class Buffer {
 public:
  Buffer() = default;
  /// @throws Error out_of_memory.
  explicit Buffer(std::size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;

  unsigned char* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  unsigned char* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// An n × d matrix of updates, always the same: bell-shaped noise, of which each row has its own deviation
/// between 1 and 1.5. So no two distances are so close that rounding decides which is the less, and programs
/// that round differently choose the same rows.
Buffer random_updates(int n, std::int64_t d, DType dtype);

/// Row i of random_updates.
Buffer random_row(int i, int n, std::int64_t d, DType dtype);

/// A matrix in memory as updates: its rows cut into tensors of `sizes`, one after another.
Updates updates_at(const void* data, int n, std::span<const std::int64_t> sizes, DType dtype,
                   MemorySpace space);

/// A row in memory as an output, cut likewise.
Output output_at(void* data, std::span<const std::int64_t> sizes, DType dtype);

}  // namespace bragg::bench
