// SPDX-License-Identifier: Apache-2.0
// Rows in device memory for tests of the passes: any dtypes, tensors and alignment, with what they hold.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/common/rows.hpp"
#include "kernels/runtime/runtime.hpp"
#include "tests/support/values.hpp"

namespace bragg::test {

/// An array in device memory.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(const std::vector<T>& values)
      : memory_(values.size() * sizeof(T)), count_(values.size()) {
    detail::cuda::copy_to_device(memory_.data(), values.data(), values.size() * sizeof(T), nullptr);
    detail::cuda::synchronize(nullptr);
  }
  T* data() const { return static_cast<T*>(memory_.data()); }
  std::vector<T> values() const {
    std::vector<T> values(count_);
    detail::cuda::synchronize(nullptr);
    detail::cuda::copy_to_host(values.data(), memory_.data(), count_ * sizeof(T), nullptr);
    detail::cuda::synchronize(nullptr);
    return values;
  }

 private:
  detail::cuda::DeviceMemory memory_;
  std::size_t count_ = 0;
};

/// Bytes to shift every address by so that no more than `alignment` holds.
inline std::size_t shift_of(detail::cuda::Alignment alignment, DType dtype, std::size_t index) {
  const std::size_t size = size_of(dtype);
  if (alignment == detail::cuda::Alignment::vector) return 0;
  if (alignment == detail::cuda::Alignment::element) return size * (1 + index % (16 / size - 1));
  return 1 + 2 * (index % 7);
}

/// A tensor in device memory; nothing but its elements may be touched.
class DeviceTensor {
 public:
  DeviceTensor(const std::vector<long double>& values, DType dtype, std::size_t shift)
      : memory_(shift + values.size() * size_of(dtype)), shift_(shift) {
    std::vector<unsigned char> bytes(shift + values.size() * size_of(dtype), 0xA5);
    for (std::size_t i = 0; i < values.size(); ++i) store(dtype, bytes.data() + shift, i, values[i]);
    detail::cuda::copy_to_device(memory_.data(), bytes.data(), bytes.size(), nullptr);
    detail::cuda::synchronize(nullptr);
  }
  void* data() const { return static_cast<unsigned char*>(memory_.data()) + shift_; }
  /// With the bytes before the tensor.
  std::vector<unsigned char> bytes() const {
    std::vector<unsigned char> bytes(memory_.bytes());
    detail::cuda::synchronize(nullptr);
    detail::cuda::copy_to_host(bytes.data(), memory_.data(), bytes.size(), nullptr);
    detail::cuda::synchronize(nullptr);
    return bytes;
  }
  std::vector<long double> values(DType dtype) const {
    const std::vector<unsigned char> all = bytes();
    std::vector<long double> values((all.size() - shift_) / size_of(dtype));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = load(dtype, all.data() + shift_, i);
    return values;
  }
  bool is_intact() const {
    const std::vector<unsigned char> all = bytes();
    return std::all_of(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(shift_),
                       [](unsigned char b) { return b == 0xA5; });
  }

 private:
  detail::cuda::DeviceMemory memory_;
  std::size_t shift_;
};

/// Worker rows, then references.
struct RowsShape {
  DType dtype = DType::f32;
  int inputs = 1;
  std::vector<DType> references = {};
  std::vector<bool> zeros = {};  ///< per reference: in every tensor; empty: none
  std::vector<std::int64_t> sizes = {};
  detail::cuda::Alignment alignment = detail::cuda::Alignment::vector;

  int count() const { return inputs + static_cast<int>(references.size()); }
  DType dtype_of(int row) const {
    return row < inputs ? dtype : references[static_cast<std::size_t>(row - inputs)];
  }
  bool is_zeros(int row) const {
    return row >= inputs && !zeros.empty() && zeros[static_cast<std::size_t>(row - inputs)];
  }
};

/// The rows that a shape and a function of row and coordinate make.
class DeviceRows {
 public:
  using Values = std::function<long double(int row, std::int64_t coordinate)>;

  DeviceRows(RowsShape shape_in, const Values& value) : shape(std::move(shape_in)) {
    std::int64_t coordinate = 0;
    for (const std::int64_t size : shape.sizes) {
      for (int r = 0; r < shape.count(); ++r) {
        std::vector<long double> tensor(static_cast<std::size_t>(size), 0.0L);
        for (std::int64_t i = 0; !shape.is_zeros(r) && i < size; ++i) {
          tensor[static_cast<std::size_t>(i)] = round_to(shape.dtype_of(r), value(r, coordinate + i));
        }
        const DType dtype = shape.dtype_of(r);
        tensors.emplace_back(tensor, dtype, shift_of(shape.alignment, dtype, tensors.size()));
        pointers.push_back(shape.is_zeros(r) || size == 0 ? nullptr : tensors.back().data());
        values.push_back(std::move(tensor));
      }
      coordinate += size;
    }
    table_ = DeviceArray<const void*>(pointers);
    sizes_ = DeviceArray<std::int64_t>(shape.sizes);
    alignment_ = DeviceArray<std::uint8_t>(
        std::vector<std::uint8_t>(shape.sizes.size(), static_cast<std::uint8_t>(shape.alignment)));
  }

  std::size_t slot(std::size_t tensor, int row) const {
    return tensor * static_cast<std::size_t>(shape.count()) + static_cast<std::size_t>(row);
  }
  /// A reference that is null in one tensor reads as zeros there.
  void make_null(std::size_t tensor, int row) {
    pointers[slot(tensor, row)] = nullptr;
    std::fill(values[slot(tensor, row)].begin(), values[slot(tensor, row)].end(), 0.0L);
    table_ = DeviceArray<const void*>(pointers);
  }

  detail::cuda::Rows rows() const {
    detail::cuda::Rows rows;
    rows.data = table_.data();
    rows.sizes = sizes_.data();
    rows.alignment = alignment_.data();
    rows.tensors = static_cast<int>(shape.sizes.size());
    rows.count = shape.count();
    rows.inputs = shape.inputs;
    rows.dtype = shape.dtype;
    for (std::size_t k = 0; k < shape.references.size(); ++k) {
      rows.reference_dtype[k] = shape.references[k];
      rows.zeros[k] = shape.is_zeros(shape.inputs + static_cast<int>(k));
    }
    return rows;
  }

  detail::cuda::Cut cut(std::int64_t length) {
    std::vector<std::int64_t> first{0};
    for (const std::int64_t size : shape.sizes) first.push_back(first.back() + (size + length - 1) / length);
    first_ = DeviceArray<std::int64_t>(first);
    return {shape.sizes.size() > 1 ? first_.data() : nullptr, static_cast<int>(shape.sizes.size()),
            first.back(), length};
  }

  RowsShape shape;
  std::vector<DeviceTensor> tensors;             ///< [slot]
  std::vector<std::vector<long double>> values;  ///< [slot], as stored
  std::vector<const void*> pointers;

 private:
  DeviceArray<const void*> table_;
  DeviceArray<std::int64_t> sizes_;
  DeviceArray<std::uint8_t> alignment_;
  DeviceArray<std::int64_t> first_;
};

}  // namespace bragg::test
