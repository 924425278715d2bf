// SPDX-License-Identifier: Apache-2.0
// Models in device memory, for plans of several ranks.
#pragma once

#include <gtest/gtest.h>
#include <bragg/communicator.hpp>
#include <bragg/plan.hpp>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/device/device_rows.hpp"
#include "tests/support/alike.hpp"
#include "tests/support/fixture.hpp"

namespace bragg::test {

using Bytes = std::vector<std::byte>;

inline Options on_cuda(Options options = {}) {
  options.device = Device::cuda;
  return options;
}

/// Rows of a model on the device, each tensor in its own place, some unaligned.
class Model {
 public:
  Model(std::mt19937_64& random, int n, std::vector<std::int64_t> sizes_in, DType dtype_in, Kind kind)
      : sizes(std::move(sizes_in)), dtype(dtype_in), rows_(static_cast<std::size_t>(n)) {
    std::normal_distribution<double> normal(0.5, 1);
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      for (std::size_t t = 0; t < sizes.size(); ++t) {
        const std::int64_t size = sizes[t];
        const std::size_t shift = random() % 2 * size_of(dtype);
        Bytes tensor(shift + static_cast<std::size_t>(size) * size_of(dtype));
        for (std::int64_t j = 0; j < size; ++j) {
          double x = normal(random);
          if (kind == Kind::constant) x = 1e9 + 100 * x;
          if (kind == Kind::extreme) x *= t == 0 ? 1e200 : 1e180;
          if (kind == Kind::hostile && i == 1) x = x > 1.5 ? std::numeric_limits<double>::quiet_NaN() : x;
          if (kind == Kind::hostile && i == 5) x *= -1e30;
          if (dtype == DType::f32) x = std::clamp(x, -3e38, 3e38);
          store(dtype, reinterpret_cast<unsigned char*>(tensor.data()) + shift, static_cast<std::size_t>(j),
                x);
        }
        rows_[i].emplace_back(tensor);
        shifts_.push_back(shift);
      }
    }
  }

  int n() const { return static_cast<int>(rows_.size()); }
  Shape shape() const { return {.n = n(), .sizes = sizes, .dtype = dtype}; }
  Row row(int i, std::span<const Slice> slices) const {
    Row row;
    const auto r = static_cast<std::size_t>(i);
    for (std::size_t t = 0; t < sizes.size(); ++t) {
      row.tensors.push_back(rows_[r][t].data() + shifts_[r * sizes.size() + t] +
                            static_cast<std::size_t>(slices[t].begin) * size_of(dtype));
    }
    return row;
  }
  Row row(int i) const { return row(i, std::vector<Slice>(sizes.size())); }
  Updates updates(std::span<const Slice> slices, std::span<const std::int64_t> of_slices) const {
    std::vector<std::vector<const void*>> rows;
    for (int i = 0; i < n(); ++i) rows.push_back(row(i, slices).tensors);
    return Updates::tensors(rows, of_slices, dtype, MemorySpace::cuda);
  }
  Updates updates() const { return updates(std::vector<Slice>(sizes.size()), sizes); }
  /// Whether a row of one tensor is what `other` is.
  bool has_in(int i, const Output& other) const {
    const auto bytes_at = [&](const void* memory) {
      Bytes bytes(static_cast<std::size_t>(sizes[0]) * size_of(dtype));
      detail::cuda::copy_to_host(bytes.data(), memory, bytes.size(), nullptr);
      return bytes;
    };
    return bytes_at(row(i).tensors[0]) == bytes_at(other.tensors[0]);
  }

  std::vector<std::int64_t> sizes;
  DType dtype;

 private:
  std::vector<std::vector<DeviceArray<std::byte>>> rows_;  // [row][tensor]
  std::vector<std::size_t> shifts_;
};

/// An output of whole tensors on the device.
class Result {
 public:
  explicit Result(const Model& model) {
    for (const std::int64_t size : model.sizes)
      tensors_.emplace_back(Bytes(static_cast<std::size_t>(size) * size_of(model.dtype), std::byte{0xAA}));
  }
  Output output(const Model& model, std::span<const Slice> slices) const {
    Output out;
    for (std::size_t t = 0; t < tensors_.size(); ++t) {
      out.tensors.push_back(tensors_[t].data() +
                            static_cast<std::size_t>(slices[t].begin) * size_of(model.dtype));
    }
    return out;
  }
  Output output(const Model& model) const { return output(model, std::vector<Slice>(tensors_.size())); }
  bool operator==(const Result& other) const {
    for (std::size_t t = 0; t < tensors_.size(); ++t) {
      if (tensors_[t].values() != other.tensors_[t].values()) return false;
    }
    return tensors_.size() == other.tensors_.size();
  }

 private:
  std::vector<DeviceArray<std::byte>> tensors_;
};

using Body = std::function<void(Communicator&)>;

}  // namespace bragg::test
