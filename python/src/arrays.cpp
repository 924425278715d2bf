// SPDX-License-Identifier: Apache-2.0
#include "python/src/arrays.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nanobind/stl/pair.h>

#include <array>
#include <limits>
#include <utility>

namespace bragg::python {

namespace {

constexpr const char* dtypes_text = "float32, float16, bfloat16 or float64";

[[noreturn]] void refuse_type(const std::string& message) { throw nb::type_error(message.c_str()); }
[[noreturn]] void refuse_value(const std::string& message) { throw nb::value_error(message.c_str()); }

std::string str(nb::handle object) { return nb::str(object).c_str(); }
std::string class_of(nb::handle object) { return nb::inst_name(object).c_str(); }

[[noreturn]] void refuse_dtype(const Place& place, const std::string& found) {
  refuse_type(fmt::format("{}: dtype {}; needs {}", place.text(), found, dtypes_text));
}

std::string tuple_text(const std::vector<std::int64_t>& extents) {
  return fmt::format("({}{})", fmt::join(extents, ", "), extents.size() == 1 ? "," : "");
}

/// What is looked up in torch once, when the first tensor comes. Never freed: the interpreter may be gone.
struct Torch {
  nb::object tensor, strided;
  std::array<std::pair<nb::object, DType>, 4> dtypes;

  /// Null as long as nobody has imported torch: then nothing can be a tensor.
  static const Torch* loaded() {
    static const Torch* torch = nullptr;
    if (torch != nullptr) return torch;
    const nb::dict modules = nb::module_::import_("sys").attr("modules");
    if (!modules.contains("torch")) return nullptr;
    const nb::object module = modules["torch"];
    if (!nb::hasattr(module, "Tensor")) return nullptr;  // being imported
    torch = new Torch{module.attr("Tensor"),
                      module.attr("strided"),
                      {{{module.attr("float32"), DType::f32},
                        {module.attr("float16"), DType::f16},
                        {module.attr("bfloat16"), DType::bf16},
                        {module.attr("float64"), DType::f64}}}};
    return torch;
  }
};

Array read_tensor(const Torch& torch, nb::handle tensor, const Place& place) {
  Array array{.object = nb::borrow(tensor)};
  const nb::object dtype = tensor.attr("dtype");
  const DType* known = nullptr;
  for (const auto& [name, value] : torch.dtypes) {
    if (dtype.is(name)) known = &value;
  }
  if (known == nullptr) refuse_dtype(place, str(dtype));
  array.dtype = *known;
  if (!tensor.attr("layout").is(torch.strided)) {
    refuse_type(fmt::format("{}: a tensor of layout {}; needs a dense one: pass its to_dense()", place.text(),
                            str(tensor.attr("layout"))));
  }
  if (nb::cast<bool>(tensor.attr("is_neg")())) {
    refuse_value(
        fmt::format("{}: a view that negates what is in memory; pass its resolve_neg()", place.text()));
  }
  if (nb::cast<bool>(tensor.attr("is_cuda"))) {
    array.device = Device::cuda;
    array.cuda_device = nb::cast<int>(tensor.attr("get_device")());
  } else if (!nb::cast<bool>(tensor.attr("is_cpu"))) {
    refuse_type(fmt::format("{}: a tensor on {}; needs the CPU or a CUDA device", place.text(),
                            str(tensor.attr("device"))));
  }
  array.data = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(tensor.attr("data_ptr")()));
  for (const nb::handle extent : nb::tuple(tensor.attr("shape"))) {
    array.shape.push_back(nb::cast<std::int64_t>(extent));
  }
  const auto item = static_cast<std::int64_t>(size_of(array.dtype));
  for (const nb::handle stride : nb::tuple(tensor.attr("stride")())) {
    array.strides.push_back(nb::cast<std::int64_t>(stride) * item);
  }
  return array;
}

std::optional<DType> dtype_of_format(std::string_view format) {
  // Little-endian, as this machine is, or native.
  if (!format.empty() && (format.front() == '<' || format.front() == '=' || format.front() == '@')) {
    format.remove_prefix(1);
  }
  if (format == "f") return DType::f32;
  if (format == "d") return DType::f64;
  if (format == "e") return DType::f16;
  return {};
}

std::string dtype_text(nb::handle object, const char* otherwise) {
  return nb::hasattr(object, "dtype") ? str(object.attr("dtype")) : fmt::format("'{}'", otherwise);
}

/// By the buffer protocol; nothing where the object will not.
std::optional<Array> read_buffer(nb::handle object, const Place& place) {
  std::unique_ptr<Py_buffer, ReleaseBuffer> buffer(new Py_buffer{});
  if (PyObject_GetBuffer(object.ptr(), buffer.get(), PyBUF_STRIDED_RO | PyBUF_FORMAT) != 0) {
    PyErr_Clear();
    return {};
  }
  const char* const format = buffer->format == nullptr ? "B" : buffer->format;
  const std::optional<DType> dtype = dtype_of_format(format);
  if (!dtype) refuse_dtype(place, dtype_text(object, format));
  Array array{.data = buffer->buf,
              .shape = {buffer->shape, buffer->shape + buffer->ndim},
              .strides = {buffer->strides, buffer->strides + buffer->ndim},
              .dtype = *dtype,
              .writable = buffer->readonly == 0,
              .object = nb::borrow(object)};
  array.buffer = std::move(buffer);
  return array;
}

/// NumPy has no bfloat16 of its own; that of ml_dtypes can be had as its bits, in the same memory.
std::optional<Array> read_bfloat16(nb::handle object, const Place& place) {
  if (!nb::hasattr(object, "__array_interface__")) return {};
  if (str(object.attr("dtype")) != "bfloat16") return {};
  std::optional<Array> array = read_buffer(object.attr("view")("float16"), place);
  if (array) array->dtype = DType::bf16;
  return array;
}

DType dtype_of_dlpack(nb::dlpack::dtype dtype, nb::handle object, const Place& place) {
  using Code = nb::dlpack::dtype_code;
  const bool scalar = dtype.lanes == 1;
  if (scalar && dtype.code == static_cast<std::uint8_t>(Code::Bfloat) && dtype.bits == 16) return DType::bf16;
  if (scalar && dtype.code == static_cast<std::uint8_t>(Code::Float)) {
    if (dtype.bits == 16) return DType::f16;
    if (dtype.bits == 32) return DType::f32;
    if (dtype.bits == 64) return DType::f64;
  }
  refuse_dtype(place, dtype_text(object, fmt::format("{} bits, code {}", dtype.bits, dtype.code).c_str()));
}

Array read_dlpack(nb::handle object, const Place& place, std::uintptr_t stream) {
  const auto [type, index] = nb::cast<std::pair<int, int>>(object.attr("__dlpack_device__")());
  const bool on_device = type == nb::device::cuda::value || type == nb::device::cuda_managed::value;
  if (!on_device && type != nb::device::cpu::value && type != nb::device::cuda_host::value) {
    refuse_type(fmt::format("{}: on a device of DLPack's type {}; needs the CPU or a CUDA device",
                            place.text(), type));
  }
  Array array{.object = nb::borrow(object)};
  // DLPack writes the legacy default stream, a null handle, as 1.
  const nb::object exported =
      on_device ? object.attr("__dlpack__")(nb::arg("stream") = stream == 0 ? 1 : stream) : array.object;
  array.imported = nb::cast<nb::ndarray<nb::ro>>(exported);
  const nb::ndarray<nb::ro>& tensor = array.imported;
  array.dtype = dtype_of_dlpack(tensor.dtype(), object, place);
  array.data = const_cast<void*>(tensor.data());
  if (on_device) {
    array.device = Device::cuda;
    array.cuda_device = index;
  }
  for (std::size_t axis = 0; axis < tensor.ndim(); ++axis) {
    array.shape.push_back(static_cast<std::int64_t>(tensor.shape(axis)));
    array.strides.push_back(tensor.stride(axis) * static_cast<std::int64_t>(size_of(array.dtype)));
  }
  return array;
}

std::string contiguous_hint(const Array& array, const Place& place) {
  if (place.to_write) return "an array that has them so";
  const Torch* const torch = Torch::loaded();
  const bool is_tensor = torch != nullptr && nb::isinstance(array.object, torch->tensor);
  return is_tensor ? "its contiguous()" : "numpy.ascontiguousarray of it";
}

bool is_sequence(nb::handle object) {
  return PyList_Check(object.ptr()) != 0 || PyTuple_Check(object.ptr()) != 0;
}

}  // namespace

std::int64_t elements(const std::vector<std::int64_t>& shape) {
  std::int64_t product = 1;
  for (const std::int64_t extent : shape) product *= extent;
  return product;
}

void check_contiguous(const Array& array, std::size_t first_axis, const Place& place) {
  auto step = static_cast<std::int64_t>(size_of(array.dtype));
  for (const std::int64_t extent : array.shape) {
    if (extent == 0) return;
  }
  for (std::size_t axis = array.shape.size(); axis-- > first_axis;) {
    if (array.shape[axis] != 1 && array.strides[axis] != step) {
      refuse_value(fmt::format(
          "{}: shape {} with strides of {} bytes: the elements{} are not one behind the other; pass {}",
          place.text(), tuple_text(array.shape), tuple_text(array.strides),
          first_axis == 1 ? " of a row" : "", contiguous_hint(array, place)));
    }
    step *= array.shape[axis];
  }
}

std::string Place::text() const {
  std::string text = argument;
  if (row >= 0) text += fmt::format("[{}]", row);
  if (tensor < 0) return text;
  if (names.is_valid() && !names.is_none()) return text + str(names[static_cast<std::size_t>(tensor)]);
  return text + fmt::format("[{}]", tensor);
}

Array read_array(nb::handle object, const Place& place, std::uintptr_t stream) {
  // Tensors have no buffer.
  if (PyObject_CheckBuffer(object.ptr()) != 0) {
    if (std::optional<Array> array = read_buffer(object, place)) return std::move(*array);
    if (std::optional<Array> array = read_bfloat16(object, place)) return std::move(*array);
  }
  const Torch* const torch = Torch::loaded();
  if (torch != nullptr && nb::isinstance(object, torch->tensor)) return read_tensor(*torch, object, place);
  if (nb::hasattr(object, "__dlpack_device__")) return read_dlpack(object, place, stream);
  refuse_type(fmt::format(
      "{}: {} is no array; needs one of NumPy, PyTorch, CuPy, JAX, or another library with DLPack",
      place.text(), class_of(object)));
}

void Batch::add_first(const Array& array, std::size_t first_axis, const Place& place) {
  if (sizes_.empty()) {
    first_ = place.text();
    device_ = array.device;
    cuda_device_ = array.cuda_device;
  } else if (array.dtype != dtypes_[0] && array.device == Device::cuda) {
    refuse_value(fmt::format("{}: dtype {}, but {} is {}; on a CUDA device all need one dtype: cast it",
                             place.text(), to_string(array.dtype), first_, to_string(dtypes_[0])));
  }
  dtypes_.push_back(array.dtype);
  shapes_.emplace_back(array.shape.begin() + static_cast<std::ptrdiff_t>(first_axis), array.shape.end());
  sizes_.push_back(elements(shapes_.back()));
}

void Batch::check(const Array& array, std::size_t tensor, DType dtype, const Place& place) const {
  if (array.dtype != dtype) {
    refuse_value(fmt::format("{}: dtype {}; needs {}{}", place.text(), to_string(array.dtype),
                             to_string(dtype), dtype == dtypes_[tensor] ? ", as the first row has" : ""));
  }
  if (array.device != device_ || array.cuda_device != cuda_device_) {
    refuse_value(fmt::format("{} is on {}, {} on {}; all must be on one device", place.text(),
                             device_text(array.device, array.cuda_device), first_,
                             device_text(device_, cuda_device_)));
  }
  if (array.shape != shapes_[tensor]) {
    refuse_value(fmt::format("{}: shape {}; needs {}, as the first row has", place.text(),
                             tuple_text(array.shape), tuple_text(shapes_[tensor])));
  }
}

Batch::Batch(nb::handle updates, nb::handle names, std::uintptr_t stream) : names_(names) {
  kept_.reserve(3);  // a matrix, out, base
  if (is_sequence(updates)) {
    read_rows(updates, stream);
  } else {
    read_matrix(updates, stream);
  }
}

void Batch::read_matrix(nb::handle updates, std::uintptr_t stream) {
  const Place place{.argument = "updates"};
  const Array& array = kept_.emplace_back(read_array(updates, place, stream));
  if (array.shape.empty()) {
    refuse_value("updates: an array of no axes; needs (n, …), a row of which is a worker's update");
  }
  check_contiguous(array, 1, place);
  add_first(array, 1, place);
  if (array.shape[0] > std::numeric_limits<int>::max()) {
    refuse_value(fmt::format("updates: n = {} rows; needs n < 2^31", array.shape[0]));
  }
  n_ = static_cast<int>(array.shape[0]);
  for (std::int64_t i = 0; i < array.shape[0]; ++i) {
    pointers_.push_back(static_cast<const std::byte*>(array.data) + i * array.strides[0]);
  }
}

void Batch::read_rows(nb::handle updates, std::uintptr_t stream) {
  const std::size_t n = nb::len(updates);
  if (n == 0) refuse_value("updates: n = 0 rows; needs n ≥ 1");
  tensors_ = is_sequence(updates[std::size_t{0}]);
  n_ = static_cast<int>(n);
  const auto add = [&](nb::handle object, std::size_t i, std::size_t t) {
    const Place place{.argument = "updates",
                      .row = static_cast<std::int64_t>(i),
                      .tensor = tensors_ ? static_cast<std::int64_t>(t) : -1,
                      .names = names_};
    const Array& array = kept_.emplace_back(read_array(object, place, stream));
    check_contiguous(array, 0, place);
    if (i == 0) add_first(array, 0, place);
    check(array, t, dtypes_[t], place);
    pointers_.push_back(array.data);
  };
  for (std::size_t i = 0; i < n; ++i) {
    const nb::object row = updates[i];
    if (is_sequence(row) != tensors_) {
      refuse_type(fmt::format("updates[{}]: {}, but updates[0] is {}; all must be alike", i, class_of(row),
                              class_of(updates[std::size_t{0}])));
    }
    if (!tensors_) {
      add(row, i, 0);
      continue;
    }
    const std::size_t count = nb::len(row);
    if (i > 0 && count != sizes_.size()) {
      refuse_value(
          fmt::format("updates[{}]: {} tensors; needs {}, as updates[0] has", i, count, sizes_.size()));
    }
    if (i == 0) kept_.reserve(n * count + 2 * count);  // with out and base
    for (std::size_t t = 0; t < count; ++t) add(row[t], i, t);
  }
}

Updates Batch::view() const {
  const MemorySpace space = device_ == Device::cuda ? MemorySpace::cuda : MemorySpace::host;
  if (!tensors_) return Updates::rows(pointers_, sizes_[0], dtypes_[0], space);
  std::vector<std::vector<const void*>> rows(static_cast<std::size_t>(n_));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto first = pointers_.begin() + static_cast<std::ptrdiff_t>(i * sizes_.size());
    rows[i].assign(first, first + static_cast<std::ptrdiff_t>(sizes_.size()));
  }
  Updates updates = Updates::tensors(rows, sizes_, dtypes_, space);
  if (!judged_.empty()) updates.judge_by(judged_);
  return updates;
}

std::vector<void*> Batch::read_row(nb::handle arrays, const char* argument, std::optional<DType> dtype,
                                   bool to_write, std::uintptr_t stream) {
  std::vector<void*> tensors;
  const auto add = [&](nb::handle object, std::size_t t) {
    const Place place{.argument = argument,
                      .tensor = tensors_ ? static_cast<std::int64_t>(t) : -1,
                      .names = names_,
                      .to_write = to_write};
    const Array& array = kept_.emplace_back(read_array(object, place, stream));
    check_contiguous(array, 0, place);
    check(array, t, dtype.value_or(dtypes_[t]), place);
    if (to_write && !array.writable) {
      refuse_value(fmt::format("{} is read-only; pass an array that can be written to", place.text()));
    }
    tensors.push_back(array.data);
  };
  if (is_sequence(arrays) != tensors_) {
    refuse_type(fmt::format("{}: {}; needs what a row of updates is: {}", argument, class_of(arrays),
                            tensors_ ? "a list of arrays" : "an array"));
  }
  if (!tensors_) {
    add(arrays, 0);
    return tensors;
  }
  const std::size_t count = nb::len(arrays);
  if (count != sizes_.size()) {
    refuse_value(fmt::format("{}: {} tensors; needs {}, as updates has", argument, count, sizes_.size()));
  }
  for (std::size_t t = 0; t < count; ++t) add(arrays[t], t);
  return tensors;
}

std::string device_text(Device device, int index) {
  return device == Device::cpu ? "the CPU" : fmt::format("cuda:{}", index);
}

DType dtype_named(std::string_view name, const char* argument) {
  constexpr std::string_view torch = "torch.";
  if (name.starts_with(torch)) name.remove_prefix(torch.size());
  if (name == "f32" || name == "float32") return DType::f32;
  if (name == "f16" || name == "float16") return DType::f16;
  if (name == "bf16" || name == "bfloat16") return DType::bf16;
  if (name == "f64" || name == "float64") return DType::f64;
  refuse_value(fmt::format("{} = '{}'; needs {}", argument, name, dtypes_text));
}

}  // namespace bragg::python
