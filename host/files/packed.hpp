// SPDX-License-Identifier: Apache-2.0
// What ranks tell each other, as bytes.
#pragma once

#include <bragg/error.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace bragg::detail {

class Packer {
 public:
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void put(const T& value) { bytes_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void put(std::string_view text) {
    put(text.size());
    bytes_.append(text);
  }
  template <class T>
  void put(const std::vector<T>& values) {
    put(values.size());
    for (const T& value : values) put(value);
  }
  const std::string& bytes() const noexcept { return bytes_; }

 private:
  std::string bytes_;
};

/// Takes values in the order in which they were put. @throws Error communication: there are no more.
class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : bytes_(bytes) {}

  bool empty() const noexcept { return bytes_.empty(); }
  template <class T>
  requires std::is_trivially_copyable_v<T> T take() {
    T value;
    std::memcpy(&value, next(sizeof value).data(), sizeof value);
    return value;
  }
  std::string take_text() { return std::string(next(take<std::size_t>())); }
  template <class T>
  std::vector<T> take_list() {
    const auto count = take<std::size_t>();
    std::vector<T> values;
    for (std::size_t k = 0; k < count; ++k) {
      if constexpr (std::is_same_v<T, std::string>) {
        values.push_back(take_text());
      } else {
        values.push_back(take<T>());
      }
    }
    return values;
  }

 private:
  std::string_view next(std::size_t bytes) {
    if (bytes > bytes_.size()) throw Error(Status::communication, "a rank's message is too short");
    const std::string_view taken = bytes_.substr(0, bytes);
    bytes_.remove_prefix(bytes);
    return taken;
  }

  std::string_view bytes_;
};

}  // namespace bragg::detail
