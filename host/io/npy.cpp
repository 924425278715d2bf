// SPDX-License-Identifier: Apache-2.0
// npy: "\x93NUMPY", version, header length, a Python dict {'descr', 'fortran_order', 'shape'}, the array.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "host/io/element_type.hpp"
#include "host/io/foreign.hpp"
#include "host/io/model.hpp"

namespace bragg::detail {

namespace {

constexpr std::int64_t max_npy_header = 1
                                        << 20;  // NumPy writes about 100 bytes, and reads no more than 10000

/// Reads the one dict literal that NumPy writes, and nothing more of Python.
class DictReader {
 public:
  DictReader(const std::filesystem::path& where, std::string_view text, std::int64_t offset)
      : where_(where), text_(text), offset_(offset) {}

  std::string descr;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;

  void read() {
    expect('{');
    bool has_descr = false, has_order = false, has_shape = false;
    while (!accept('}')) {
      const std::size_t key_at = at_;
      const std::string key = string();
      expect(':');
      bool* has = key == "descr"           ? &has_descr
                  : key == "fortran_order" ? &has_order
                  : key == "shape"         ? &has_shape
                                           : nullptr;
      if (has == nullptr || *has)
        fail_at(key_at, fmt::format("the key {} is {}", show(key), has ? "there twice" : "unknown"));
      *has = true;
      if (has == &has_descr) {
        descr = string();
      } else if (has == &has_order) {
        fortran_order = boolean();
      } else {
        tuple();
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_blanks();
    if (at_ != text_.size()) fail_at(at_, "there is text behind the dict");
    if (!has_descr || !has_order || !has_shape) fail_at(0, "'descr', 'fortran_order' or 'shape' is missing");
  }

 private:
  [[noreturn]] void fail_at(std::size_t at, const std::string& what) const {
    throw_bad_file(where_,
                   fmt::format("npy header at byte {}: {}", offset_ + static_cast<std::int64_t>(at), what));
  }

  void skip_blanks() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      ++at_;
  }

  bool accept(char wanted) {
    skip_blanks();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  void expect(char wanted) {
    if (!accept(wanted)) fail_at(at_, fmt::format("expected '{}'", wanted));
  }

  std::string string() {
    skip_blanks();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote != '\'' && quote != '"')
      fail_at(at_, "expected a string (a structured dtype is not supported)");
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string_view::npos) fail_at(at_, "the string does not end");
    const std::string_view inside = text_.substr(at_ + 1, end - at_ - 1);
    if (inside.find('\\') != std::string_view::npos) fail_at(at_, "escapes in strings are not supported");
    at_ = end + 1;
    return std::string(inside);
  }

  bool boolean() {
    skip_blanks();
    for (const auto& [word, value] :
         {std::pair{std::string_view("True"), true}, {std::string_view("False"), false}}) {
      if (text_.substr(at_, word.size()) == word) {
        at_ += word.size();
        return value;
      }
    }
    fail_at(at_, "expected True or False");
  }

  void tuple() {
    expect('(');
    while (!accept(')')) {
      if (shape.size() == max_dimensions)
        fail_at(at_, fmt::format("the shape has more than {} dimensions", max_dimensions));
      shape.push_back(integer());
      if (!accept(',')) {
        expect(')');
        if (shape.size() == 1) fail_at(at_, "expected a tuple: ',' after its only number");
        break;
      }
    }
  }

  std::int64_t integer() {
    skip_blanks();
    const std::size_t begin = at_;
    std::int64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      if (__builtin_mul_overflow(value, 10, &value) ||
          __builtin_add_overflow(value, text_[at_] - '0', &value)) {
        fail_at(begin, "the shape holds a number above 2^63 - 1");
      }
    }
    if (at_ == begin) fail_at(at_, "expected an integer ≥ 0");
    return value;
  }

  const std::filesystem::path& where_;
  std::string_view text_;
  std::int64_t offset_;
  std::size_t at_ = 0;
};

const ElementType& checked_type(const std::filesystem::path& where, const std::string& descr) {
  if (const ElementType* type = find_npy_type(descr)) return *type;
  const char* why = "expected one of <f2 <f4 <f8 |i1 <i2 <i4 <i8 |u1 <u2 <u4 <u8 |b1";
  if (descr.starts_with('>')) why = "big-endian arrays are not supported; save it little-endian";
  if (descr.find('O') != std::string::npos) why = "an array of Python objects holds no numbers to aggregate";
  throw_bad_file(where, fmt::format("npy descr {}: {}", show(descr), why));
}

}  // namespace

NpyHeader read_npy_header(
    const std::filesystem::path& where, std::int64_t size, std::int64_t longest,
    const std::function<void(std::int64_t offset, void* to, std::int64_t bytes)>& read) {
  std::array<unsigned char, 12> head{};
  const auto head_bytes = std::min<std::int64_t>(size, 12);
  read(0, head.data(), head_bytes);
  if (head_bytes < 6 || std::memcmp(head.data(), "\x93NUMPY", 6) != 0) {
    throw_bad_file(where, "does not begin with the npy magic \"\\x93NUMPY\" at byte 0");
  }
  const int version = head[6];
  if (head_bytes < 8 || version < 1 || version > 3 || head[7] != 0) {
    throw_bad_file(where,
                   fmt::format("npy version {}.{} at byte 6, expected 1.0, 2.0 or 3.0", version, head[7]));
  }
  const std::int64_t header_begin = version == 1 ? 10 : 12;
  std::int64_t length = head[8] | head[9] << 8;
  if (version > 1)
    length |= static_cast<std::int64_t>(head[10]) << 16 | static_cast<std::int64_t>(head[11]) << 24;
  if (size < header_begin || length > size - header_begin || length > longest) {
    throw_bad_file(
        where, fmt::format("npy header length {} at byte 8 is longer than the file of {} bytes, or above {}",
                           length, size, longest));
  }
  std::string header(static_cast<std::size_t>(length), '\0');
  read(header_begin, header.data(), length);
  DictReader dict(where, header, header_begin);
  dict.read();

  const ElementType& type = checked_type(where, dict.descr);
  // With at most one long axis both orders are one.
  if (dict.fortran_order && std::count_if(dict.shape.begin(), dict.shape.end(),
                                          [](std::int64_t extent) { return extent > 1; }) > 1) {
    throw_bad_file(where,
                   fmt::format("npy fortran_order is True for shape {}, expected False; save it in C order "
                               "(numpy.ascontiguousarray)",
                               shape_text(dict.shape)));
  }
  const auto count = element_count(dict.shape, type.bytes);
  if (!count) {
    throw_bad_file(where, fmt::format("npy shape {} of {} has more than 2^63 - 1 bytes",
                                      shape_text(dict.shape), type.npy));
  }
  const std::int64_t data_begin = header_begin + length;
  const std::int64_t bytes = *count * type.bytes;
  if (bytes != size - data_begin) {
    throw_bad_file(where,
                   fmt::format("has {} bytes of data from byte {}, expected {} for npy shape {} of {}",
                               size - data_begin, data_begin, bytes, shape_text(dict.shape), type.npy));
  }
  return {{"", std::string(type.name), std::move(dict.shape), *count, bytes}, data_begin};
}

NpyHeader read_npy(const ReadFile& file) {
  std::array<char, 6> magic{};
  file.read(0, magic.data(), std::min<std::int64_t>(file.size(), 6));
  if (std::memcmp(magic.data(), "\x93NUMPY", 6) != 0) refuse_foreign(file);
  return read_npy_header(
      file.path(), file.size(), max_npy_header,
      [&](std::int64_t offset, void* to, std::int64_t bytes) { file.read(offset, to, bytes); });
}

Layout npy_layout(const TensorInfo& tensor) {
  const ElementType* type = find_element_type(tensor.dtype);
  if (type == nullptr || type->npy.empty()) {
    throw Error(
        Status::invalid_argument,
        fmt::format("dtype {} cannot be written to npy and npz; write a .safetensors, or another dtype "
                    "(out_dtype)",
                    show(tensor.dtype)));
  }
  const auto count = element_count(tensor.shape, type->bytes);
  if (!count) {
    throw Error(Status::invalid_argument,
                fmt::format("shape {} is negative somewhere or has more than 2^63 - 1 bytes",
                            shape_text(tensor.shape)));
  }
  std::string shape;
  for (const std::int64_t extent : tensor.shape) shape += fmt::format("{}, ", extent);
  if (tensor.shape.size() > 1) shape.resize(shape.size() - 2);  // "(3,)" but "(2, 3)"
  if (tensor.shape.size() == 1) shape.pop_back();
  std::string dict =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type->npy, shape);
  constexpr std::size_t preamble = 10, alignment = 64;
  const std::size_t total = (preamble + dict.size() + 1 + alignment - 1) / alignment * alignment;
  dict.resize(total - preamble - 1, ' ');
  dict += '\n';
  Layout layout;
  layout.header = std::string("\x93NUMPY\x01\x00", 8);
  layout.header += static_cast<char>(dict.size() & 0xFF);
  layout.header += static_cast<char>(dict.size() >> 8);
  layout.header += dict;
  layout.offsets = {static_cast<std::int64_t>(total)};
  layout.bytes = static_cast<std::int64_t>(total) + *count * type->bytes;
  return layout;
}

}  // namespace bragg::detail
