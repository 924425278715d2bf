// SPDX-License-Identifier: Apache-2.0
// safetensors: 8 bytes header length (little-endian), a JSON object {name: {dtype, shape, data_offsets}}, the
// data. The rules are those of the reference implementation: the tensors tile the data without holes or
// overlaps.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <optional>
#include <set>

#include "host/io/element_type.hpp"
#include "host/io/foreign.hpp"
#include "host/io/json.hpp"
#include "host/io/model.hpp"

namespace bragg::detail {

namespace {

struct HeaderTensor {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

/// All that has to be right with a tensor that is not looked at.
std::int64_t checked_bytes(const ReadFile& file, const HeaderTensor& tensor, std::int64_t data_bytes) {
  const std::int64_t begin = tensor.offsets[0], end = tensor.offsets[1];
  if (begin > end || end > data_bytes) {
    throw_bad_file(file.path(),
                   fmt::format("tensor {}: data_offsets [{}, {}] are not within the {} bytes of data",
                               show(tensor.name), begin, end, data_bytes));
  }
  return end - begin;
}

TensorInfo checked_info(const ReadFile& file, HeaderTensor& tensor, std::int64_t data_bytes,
                        bool takes_any_dtype) {
  const std::string name = show(tensor.name);
  const ElementType* type = find_element_type(tensor.dtype);
  if (takes_any_dtype && (type == nullptr || type->kind == ElementKind::foreign)) {
    const std::int64_t bytes = checked_bytes(file, tensor, data_bytes);
    if (type == nullptr || bytes > 0)
      return {std::move(tensor.name), show(tensor.dtype), std::move(tensor.shape), 0, bytes};
  }
  if (type == nullptr)
    throw_bad_file(file.path(), fmt::format("tensor {}: unknown dtype {}", name, show(tensor.dtype)));
  const auto count = element_count(tensor.shape, type->bytes);
  if (!count) {
    throw_bad_file(file.path(), fmt::format("tensor {}: shape {} of {} has more than 2^63 - 1 bytes", name,
                                            shape_text(tensor.shape), tensor.dtype));
  }
  if (type->kind == ElementKind::foreign && *count > 0) {
    const char* const instead = tensor.dtype == "C64" ? "store its real and imaginary parts as two tensors"
                                                      : "convert it to F16 or BF16";
    throw Error(Status::unsupported, fmt::format("{}: tensor {}: dtype {} cannot be aggregated; {}",
                                                 file.path().string(), name, tensor.dtype, instead));
  }
  const std::int64_t held = checked_bytes(file, tensor, data_bytes);
  const std::int64_t bytes = *count * type->bytes;
  if (held != bytes) {
    throw_bad_file(
        file.path(),
        fmt::format("tensor {}: data_offsets [{}, {}] hold {} bytes, expected {} for shape {} of {}", name,
                    tensor.offsets[0], tensor.offsets[1], held, bytes, shape_text(tensor.shape),
                    tensor.dtype));
  }
  return {std::move(tensor.name), std::move(tensor.dtype), std::move(tensor.shape), *count, bytes};
}

class HeaderReader final : public JsonReader {
 public:
  HeaderReader(const ReadFile& file, std::int64_t data_begin, ModelVisitor& visitor)
      : file_(file), data_begin_(data_begin), visitor_(visitor) {}

  bool null() override {
    if (at_ == At::metadata_value) {  // the reference implementation reads null as no metadata
      at_ = At::names;
      return true;
    }
    return refuse("null");
  }

  bool start_object(std::size_t) override {
    switch (at_) {
      case At::start:
        at_ = At::names;
        return true;
      case At::tensor_value:
        at_ = At::tensor;
        return true;
      case At::metadata_value:
        at_ = At::metadata;
        return true;
      default:
        return refuse("an object");
    }
  }

  bool end_object() override {
    if (at_ == At::tensor) {
      for (const auto& [has, key] :
           {std::pair{tensor_.has_dtype, "dtype"}, std::pair{tensor_.has_shape, "shape"},
            std::pair{tensor_.has_offsets, "data_offsets"}}) {
        if (!has) return fail(fmt::format("tensor {}: has no \"{}\"", show(tensor_.name), key));
      }
      const std::int64_t data_bytes = file_.size() - data_begin_;
      if (visitor_.skips(tensor_.name)) {
        visitor_.skipped(checked_bytes(file_, tensor_, data_bytes));
      } else {
        TensorInfo info = checked_info(file_, tensor_, data_bytes, visitor_.takes_any_dtype());
        visitor_.tensor(info, {.offset = data_begin_ + tensor_.offsets[0]});
      }
    }
    at_ = at_ == At::names ? At::end : At::names;
    return true;
  }

  bool start_array(std::size_t) override {
    if (at_ == At::shape_value) {
      at_ = At::shape;
    } else if (at_ == At::offsets_value) {
      at_ = At::offsets;
    } else {
      return refuse("an array");
    }
    return true;
  }

  bool end_array() override {
    if (at_ == At::offsets && tensor_.offsets.size() != 2) {
      return fail(fmt::format("tensor {}: data_offsets holds {} numbers, expected 2", show(tensor_.name),
                              tensor_.offsets.size()));
    }
    at_ = At::tensor;
    return true;
  }

  bool key(std::string& name) override {
    if (at_ == At::names) return name_key(name);
    if (at_ == At::metadata) {
      metadata_key_ = name;
      at_ = At::text;
      return true;
    }
    HeaderTensor& tensor = tensor_;
    bool* has = nullptr;
    if (name == "dtype") {
      has = &tensor.has_dtype;
      at_ = At::dtype;
    } else if (name == "shape") {
      has = &tensor.has_shape;
      at_ = At::shape_value;
    } else if (name == "data_offsets") {
      has = &tensor.has_offsets;
      at_ = At::offsets_value;
    } else {
      return fail(fmt::format("tensor {}: unknown key {}, expected dtype, shape or data_offsets",
                              show(tensor.name), show(name)));
    }
    if (*has) return fail(fmt::format("tensor {}: the key {} is there twice", show(tensor.name), show(name)));
    *has = true;
    return true;
  }

  bool string(std::string& text) override {
    if (at_ == At::dtype) {
      tensor_.dtype = text;
      at_ = At::tensor;
    } else if (at_ == At::text) {
      visitor_.metadata(metadata_key_, text);
      at_ = At::metadata;
    } else {
      return refuse("the string " + show(text));
    }
    return true;
  }

  bool number_unsigned(std::uint64_t value) override {
    if (at_ != At::shape && at_ != At::offsets) return refuse(std::to_string(value));
    HeaderTensor& tensor = tensor_;
    std::vector<std::int64_t>& list = at_ == At::shape ? tensor.shape : tensor.offsets;
    const char* what = at_ == At::shape ? "shape" : "data_offsets";
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return fail(
          fmt::format("tensor {}: {} holds {}, expected at most 2^63 - 1", show(tensor.name), what, value));
    }
    const std::size_t longest = at_ == At::shape ? max_dimensions : 2;
    if (list.size() == longest) {
      return fail(fmt::format("tensor {}: {} holds more than {} numbers", show(tensor.name), what, longest));
    }
    list.push_back(static_cast<std::int64_t>(value));
    return true;
  }

 private:
  enum class At : std::uint8_t {
    start,
    names,
    tensor_value,
    tensor,
    dtype,
    shape_value,
    shape,
    offsets_value,
    offsets,
    metadata_value,
    metadata,
    text,
    end
  };

  bool name_key(const std::string& name) {
    if (name == "__metadata__") {
      if (has_metadata_) return fail("the key \"__metadata__\" is there twice");
      has_metadata_ = true;
      at_ = At::metadata_value;
      return true;
    }
    tensor_ = {};
    tensor_.name = name;
    at_ = At::tensor_value;
    return true;
  }

  bool refuse(const std::string& found) override {
    const std::string name = show(tensor_.name);
    switch (at_) {
      case At::start:
        return fail(fmt::format("the header is {}, expected an object", found));
      case At::metadata_value:
        return fail(fmt::format("__metadata__ is {}, expected an object of strings", found));
      case At::text:
        return fail(fmt::format("__metadata__: {} is {}, expected a string", show(metadata_key_), found));
      case At::dtype:
        return fail(fmt::format("tensor {}: dtype is {}, expected a string", name, found));
      case At::shape_value:
      case At::shape:
        return fail(fmt::format("tensor {}: shape holds {}, expected an array of integers ≥ 0", name, found));
      case At::offsets_value:
      case At::offsets:
        return fail(fmt::format("tensor {}: data_offsets holds {}, expected two integers ≥ 0", name, found));
      default:
        return fail(fmt::format("tensor {}: is {}, expected an object", name, found));
    }
  }

  const ReadFile& file_;
  std::int64_t data_begin_;
  ModelVisitor& visitor_;
  At at_ = At::start;
  bool has_metadata_ = false;
  HeaderTensor tensor_;
  std::string metadata_key_;
};

}  // namespace

void visit_safetensors(const ReadFile& file, ModelVisitor& visitor) {
  visitor.files.push_back({file.path(), file.id()});
  std::array<unsigned char, 9> start{};
  file.read(0, start.data(), std::min<std::int64_t>(file.size(), 9));
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= static_cast<std::uint64_t>(start[i]) << (8 * i);
  // Any bytes may be a length: only with a header behind it are they surely one.
  const bool fits = file.size() >= 8 && length <= static_cast<std::uint64_t>(file.size() - 8);
  if (!fits || start[8] != '{') refuse_foreign(file);
  if (file.size() < 8) {
    throw_bad_file(
        file.path(),
        fmt::format("has {} bytes, expected at least the 8 of a safetensors header length", file.size()));
  }
  if (!fits) {
    throw_bad_file(file.path(),
                   fmt::format("header length {} at byte 0 is longer than the {} bytes that follow", length,
                               file.size() - 8));
  }
  if (length > static_cast<std::uint64_t>(max_header_bytes)) {
    throw_bad_file(file.path(),
                   fmt::format("header length {} at byte 0 is above {}", length, max_header_bytes));
  }
  const auto header_bytes = static_cast<std::int64_t>(length);
  char first = '\0';
  if (header_bytes > 0) file.read(8, &first, 1);
  if (first != '{') throw_bad_file(file.path(), "the header at byte 8 does not begin with '{'");

  const std::int64_t data_begin = 8 + header_bytes;
  HeaderReader reader(file, data_begin, visitor);
  read_json(file, 8, data_begin, reader);
  visitor.data(data_begin, file.size());
}

Layout safetensors_layout(std::span<const TensorInfo> tensors, const Metadata& metadata) {
  std::vector<std::int64_t> element_bytes, bytes;
  for (const TensorInfo& tensor : tensors) {
    const ElementType* type = find_element_type(tensor.dtype);
    if (type == nullptr || tensor.name == "__metadata__") {
      throw Error(Status::invalid_argument,
                  fmt::format("tensor {}: dtype {} or this name cannot be written to safetensors",
                              show(tensor.name), show(tensor.dtype)));
    }
    const auto count = element_count(tensor.shape, type->bytes);
    if (!count) {
      throw Error(Status::invalid_argument,
                  fmt::format("tensor {}: shape {} is negative somewhere or has more than 2^63 - 1 bytes",
                              show(tensor.name), shape_text(tensor.shape)));
    }
    if (type->kind == ElementKind::foreign && *count > 0) {
      throw Error(Status::invalid_argument,
                  fmt::format("tensor {}: bragg has no values of dtype {}", show(tensor.name), tensor.dtype));
    }
    element_bytes.push_back(type->bytes);
    bytes.push_back(*count * type->bytes);
  }
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(-element_bytes[a], std::string_view(tensors[a].name)) <
           std::pair(-element_bytes[b], std::string_view(tensors[b].name));
  });

  std::set<std::string_view> names;
  const auto add_unique = [&](std::string_view name) {
    if (!names.insert(name).second) {
      throw Error(Status::invalid_argument, fmt::format("{}: is given twice", show(name)));
    }
  };
  std::string text = "{";
  std::int64_t end = 0;
  Layout layout;
  layout.offsets.resize(tensors.size());
  try {
    if (!metadata.empty()) {
      text += "\"__metadata__\":{";
      for (const auto& [key, value] : metadata) {
        add_unique(key);
        text += fmt::format("{}:{},", nlohmann::json(key).dump(), nlohmann::json(value).dump());
      }
      text.back() = '}';
      text += ',';
      names.clear();
    }
    for (const std::size_t t : order) {
      add_unique(tensors[t].name);
      const std::int64_t begin = end;
      if (__builtin_add_overflow(begin, bytes[t], &end)) {
        throw Error(Status::invalid_argument, "the tensors have more than 2^63 - 1 bytes together");
      }
      layout.offsets[t] = begin;
      text += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}},",
                          nlohmann::json(tensors[t].name).dump(), tensors[t].dtype,
                          fmt::join(tensors[t].shape, ","), begin, end);
    }
  } catch (const nlohmann::json::type_error&) {
    throw Error(Status::invalid_argument, "a tensor's name or the metadata is not UTF-8");
  }
  if (text.back() == ',') text.pop_back();
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const auto length = static_cast<std::int64_t>(text.size());
  if (length > max_header_bytes || __builtin_add_overflow(end, 8 + length, &layout.bytes)) {
    throw Error(Status::invalid_argument, fmt::format("the header would have {} bytes, the format allows {}",
                                                      length, max_header_bytes));
  }
  for (std::size_t i = 0; i < 8; ++i) layout.header += static_cast<char>((length >> (8 * i)) & 0xFF);
  layout.header += text;
  for (std::int64_t& offset : layout.offsets) offset += 8 + length;
  return layout;
}

}  // namespace bragg::detail
