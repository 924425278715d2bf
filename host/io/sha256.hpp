// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "host/io/file.hpp"

namespace bragg::detail {

class Sha256 {
 public:
  static constexpr std::size_t hex_digits = 64;

  /// @throws Error internal: OpenSSL has no SHA-256.
  Sha256();
  void add(std::span<const std::byte> bytes);
  /// In hexadecimal, of all that was added; once.
  std::string hex();

 private:
  std::unique_ptr<void, void (*)(void*)> context_;
};

/// SHA-256 of a whole file, in hexadecimal. `read` is told the bytes of each read.
/// @throws Error bad_file where the file changed since it was opened; io_error; internal: OpenSSL has no
/// SHA-256.
std::string sha256_of(const ReadFile& file, const std::function<void(std::uint64_t bytes)>& read);

}  // namespace bragg::detail
