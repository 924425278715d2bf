// SPDX-License-Identifier: Apache-2.0
// Arrays of other libraries as bragg sees them: addresses, sizes, dtype, device. Nothing is copied.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <bragg/plan.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace bragg::python {

namespace nb = nanobind;

/// Where an array stands in a call. Makes "updates[3]['fc.weight']".
struct Place {
  const char* argument;
  std::int64_t row = -1;     ///< -1: the argument has no rows, or is all of them
  std::int64_t tensor = -1;  ///< -1: a row is one array
  nb::handle names = {};     ///< a list of the tensors' names, or None
  bool to_write = false;

  std::string text() const;
};

struct ReleaseBuffer {
  void operator()(Py_buffer* buffer) const {
    PyBuffer_Release(buffer);
    delete buffer;
  }
};

/// One array, kept alive. To be made and destroyed with the GIL held.
struct Array {
  void* data = nullptr;
  std::vector<std::int64_t> shape = {};
  std::vector<std::int64_t> strides = {};  ///< in bytes
  DType dtype = DType::f32;
  Device device = Device::cpu;
  int cuda_device = -1;
  bool writable = true;

  nb::object object = {};
  std::unique_ptr<Py_buffer, ReleaseBuffer> buffer = {};
  nb::ndarray<nb::ro> imported = {};
};

/// Reads a torch tensor by its attributes (so that it may require gradients, and no stream is waited for),
/// what has the buffer protocol by that, and everything else by DLPack, made ready on `stream`, a
/// cudaStream_t.
/// @throws nb::type_error: no array, of another dtype, or on a device that bragg does not know.
Array read_array(nb::handle object, const Place& place, std::uintptr_t stream);

/// The number of elements.
std::int64_t elements(const std::vector<std::int64_t>& shape);

/// @throws nb::value_error: elements, along the axes from `first_axis`, are not one behind the other.
void check_contiguous(const Array& array, std::size_t first_axis, const Place& place);

/// The rows of one call.
class Batch {
 public:
  /// `updates`: an array whose first axis counts the rows, or a list or tuple of n rows, each an array or a
  /// list or tuple of arrays. `names`: of the tensors, or None.
  /// @throws nb::type_error as read_array; nb::value_error: rows that differ in shape or device, elements
  /// that are not one behind the other.
  Batch(nb::handle updates, nb::handle names, std::uintptr_t stream);

  /// Which tensors rows are judged by; empty: all. @throws Error as Updates::judge_by, here and of view().
  void judge_by(std::vector<bool> judged) {
    judged_ = std::move(judged);
    std::ignore = view();
  }

  int n() const noexcept { return n_; }
  Shape shape() const { return Shape::of(view()); }
  Device device() const noexcept { return device_; }
  int cuda_device() const noexcept { return cuda_device_; }
  Updates view() const;

  /// One more row of the same sizes and device: the base, or where the result goes. `arrays`: as one of
  /// the rows. `dtype`: of all its arrays, if they are not to be of the rows' own.
  /// @throws as the constructor; nb::value_error: another dtype, or it is to be written and cannot be.
  std::vector<void*> read_row(nb::handle arrays, const char* argument, std::optional<DType> dtype,
                              bool to_write, std::uintptr_t stream);

 private:
  void read_matrix(nb::handle updates, std::uintptr_t stream);
  void read_rows(nb::handle updates, std::uintptr_t stream);
  void add_first(const Array& array, std::size_t first_axis, const Place& place);
  void check(const Array& array, std::size_t tensor, DType dtype, const Place& place) const;

  nb::handle names_;
  bool tensors_ = false;  // rows are lists of arrays
  int n_ = 0;
  std::vector<const void*> pointers_;  // [row * tensors + tensor]
  std::vector<std::int64_t> sizes_;
  std::vector<std::vector<std::int64_t>> shapes_;  // of each tensor of a row
  std::vector<bool> judged_;
  std::vector<DType> dtypes_;  // of each tensor of a row
  std::string first_;          // the place of what the device is taken from
  Device device_ = Device::cpu;
  int cuda_device_ = -1;
  std::vector<Array> kept_;
};

/// "the CPU", "cuda:1".
std::string device_text(Device device, int index);

/// "f32", "float32", "torch.float32". @throws nb::value_error.
DType dtype_named(std::string_view name, const char* argument);

}  // namespace bragg::python
