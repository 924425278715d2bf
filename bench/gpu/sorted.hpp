// SPDX-License-Identifier: Apache-2.0
// Medians and trimmed means as they are written with a sort that others wrote: each coordinate's values are
// brought together, sorted, and the ranks that the rule wants are read. It shares with kernels/select how an
// element is read and rounded, and nothing of how one is selected, so that outputs can be held against it.
#pragma once

#include <bragg/updates.hpp>

#include <algorithm>
#include <cstdint>

#include "kernels/runtime/runtime.hpp"
#include "rules/select_rule.hpp"

namespace bragg::detail::cuda {

class SortedRows {
 public:
  /// Of n rows of d elements that lie one behind the other. A batch of coordinates is sorted at a time, so
  /// that its keys take `most_bytes` in each of two buffers, or one coordinate's. @throws Error
  /// out_of_memory.
  SortedRows(const void* rows, int n, std::int64_t d, DType dtype, std::size_t most_bytes);

  /// Coordinates of a batch, and bytes of a key, an unsigned integer.
  std::int64_t batch() const { return batch_; }
  std::size_t key_bytes() const { return size_of(dtype_); }

  /// Enqueues the median, or the trimmed mean, to out[d], of the rows' dtype. `sort`(keys, other, segments)
  /// sorts the n keys of each segment in place or to `other`, in order on the stream, and says where they
  /// are.
  template <class SortT>
  void select(const SelectRule& rule, void* out, Stream stream, const SortT& sort) const {
    for (std::int64_t first = 0; first < d_; first += batch_) {
      const std::int64_t count = std::min(batch_, d_ - first);
      enqueue_keys(first, count, stream);
      enqueue_results(sort(keys_.data(), other_.data(), count), rule, first, count, out, stream);
    }
  }

 private:
  void enqueue_keys(std::int64_t first, std::int64_t count, Stream stream) const;
  void enqueue_results(const void* keys, const SelectRule& rule, std::int64_t first, std::int64_t count,
                       void* out, Stream stream) const;

  const void* rows_;
  int n_;
  std::int64_t d_;
  DType dtype_;
  std::int64_t batch_;
  DeviceMemory keys_, other_;
};

}  // namespace bragg::detail::cuda
