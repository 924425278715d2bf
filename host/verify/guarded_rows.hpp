// SPDX-License-Identifier: Apache-2.0
// Rows of data in every memory layout that the library accepts, between guard bytes, with a copy to tell
// writes by.
#pragma once

#include <bragg/plan.hpp>
#include <cstring>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "host/verify/values.hpp"

namespace bragg::verify {

enum class Layout { matrix, strided, rows, tensors };

inline const char* name_of(Layout layout) {
  switch (layout) {
    case Layout::matrix:
      return "matrix";
    case Layout::strided:
      return "strided";
    case Layout::rows:
      return "rows";
    default:
      return "tensors";
  }
}

/// A buffer between guard bytes whose first byte has a chosen misalignment.
class GuardedBuffer {
 public:
  GuardedBuffer(std::size_t bytes, std::size_t misalignment) : bytes_(bytes), offset_(guard + misalignment) {
    memory_.assign(bytes + 2 * guard + 64, pattern);
    // vector<char> memory is 16-aligned; the offset alone decides the alignment.
  }
  unsigned char* data() { return memory_.data() + offset_; }
  const unsigned char* data() const { return memory_.data() + offset_; }
  bool intact() const {
    for (std::size_t i = 0; i < memory_.size(); ++i) {
      const bool inside = i >= offset_ && i < offset_ + bytes_;
      if (!inside && memory_[i] != pattern) return false;
    }
    return true;
  }
  /// Its content before anything is written to it.
  static constexpr unsigned char pattern = 0xA5;
  /// Guards included.
  std::span<unsigned char> whole() { return memory_; }
  std::vector<unsigned char> copy() const { return {data(), data() + bytes_}; }

 private:
  static constexpr std::size_t guard = 128;
  std::size_t bytes_;
  std::size_t offset_;
  std::vector<unsigned char> memory_;
};

/// A cut of a row of d coordinates into tensors, some of them empty.
inline std::vector<std::int64_t> tensor_sizes(Layout layout, std::int64_t d) {
  if (layout != Layout::tensors) return {d};
  std::vector<std::int64_t> sizes{0};
  const std::int64_t parts[] = {1, 7, 64, 3, 1000000};
  std::int64_t left = d;
  for (const std::int64_t part : parts) {
    sizes.push_back(std::min(part, left));
    left -= sizes.back();
  }
  sizes.push_back(0);
  return sizes;
}

/// n rows of d values (exactly representable or rounded to dtype here).
class GuardedRows {
 public:
  GuardedRows(const std::vector<std::vector<long double>>& values, DType dtype, Layout layout,
              std::size_t misalignment)
      : n_(static_cast<int>(values.size())),
        d_(static_cast<std::int64_t>(values[0].size())),
        dtype_(dtype),
        layout_(layout),
        sizes_(tensor_sizes(layout, d_)) {
    const std::size_t size = size_of(dtype);
    const auto width = static_cast<std::size_t>(d_);
    if (layout == Layout::matrix || layout == Layout::strided) {
      stride_ = d_ + (layout == Layout::strided ? 5 : 0);
      buffers_.emplace_back(values.size() * static_cast<std::size_t>(stride_) * size, misalignment);
      std::memset(buffers_[0].data(), 0x7F, values.size() * static_cast<std::size_t>(stride_) * size);
    } else {
      for (std::size_t i = 0; i < values.size(); ++i)
        buffers_.emplace_back(width * size, misalignment + i % 3);
    }
    for (std::size_t i = 0; i < values.size(); ++i) {
      for (std::size_t j = 0; j < width; ++j) store(dtype, row(i), j, values[i][j]);
    }
    for (const GuardedBuffer& buffer : buffers_) copies_.push_back(buffer.copy());
  }

  unsigned char* row(std::size_t i) {
    if (buffers_.size() > 1 || n_ == 1 || layout_ == Layout::rows || layout_ == Layout::tensors)
      return buffers_[i].data();
    return buffers_[0].data() + i * static_cast<std::size_t>(stride_) * size_of(dtype_);
  }

  Updates updates() {
    if (layout_ == Layout::matrix || layout_ == Layout::strided) {
      return Updates::matrix(buffers_[0].data(), n_, d_, dtype_, stride_);
    }
    if (layout_ == Layout::rows) {
      std::vector<const void*> pointers;
      for (std::size_t i = 0; i < buffers_.size(); ++i) pointers.push_back(row(i));
      return Updates::rows(pointers, d_, dtype_);
    }
    std::vector<std::vector<const void*>> tensors(buffers_.size());
    for (std::size_t i = 0; i < buffers_.size(); ++i) {
      for (void* tensor : tensors_of(row(i))) tensors[i].push_back(tensor);
    }
    return Updates::tensors(tensors, sizes_, dtype_);
  }

  /// The addresses of the tensors of a row that starts at `data`.
  std::vector<void*> tensors_of(unsigned char* data) const {
    std::vector<void*> tensors;
    for (const std::int64_t size : sizes_) {
      tensors.push_back(size > 0 ? data : nullptr);
      data += static_cast<std::size_t>(size) * size_of(dtype_);
    }
    return tensors;
  }

  /// The values as stored, i.e. rounded to dtype.
  std::vector<std::vector<long double>> values() {
    std::vector<std::vector<long double>> out(static_cast<std::size_t>(n_));
    for (std::size_t i = 0; i < out.size(); ++i) {
      for (std::int64_t j = 0; j < d_; ++j)
        out[i].push_back(load(dtype_, row(i), static_cast<std::size_t>(j)));
    }
    return out;
  }

  bool intact() const {
    for (std::size_t b = 0; b < buffers_.size(); ++b) {
      if (!buffers_[b].intact() || buffers_[b].copy() != copies_[b]) return false;
    }
    return true;
  }

  std::vector<GuardedBuffer>& buffers() { return buffers_; }
  const std::vector<std::int64_t>& sizes() const { return sizes_; }
  std::int64_t d() const { return d_; }
  DType dtype() const { return dtype_; }

 private:
  int n_;
  std::int64_t d_;
  DType dtype_;
  Layout layout_;
  std::vector<std::int64_t> sizes_;
  std::int64_t stride_ = 0;
  std::vector<GuardedBuffer> buffers_;
  std::vector<std::vector<unsigned char>> copies_;
};

}  // namespace bragg::verify
