// SPDX-License-Identifier: Apache-2.0
// Arrays of an npz, read forwards: deflate has no way to begin in the middle, nor has a checksum.
#pragma once

#include <cstdint>
#include <memory>

#include "host/io/file.hpp"

namespace bragg::detail {

/// A raw deflate stream in a file. It takes some 50 KB, however long the stream.
class Inflater {
 public:
  explicit Inflater(std::int64_t offset);
  ~Inflater();
  Inflater(Inflater&&) noexcept;
  Inflater& operator=(Inflater&&) noexcept;

  /// Bytes [begin, begin + bytes) of what was deflated; cheap where `begin` is not before the last end.
  /// @throws Error bad_file, io_error, out_of_memory.
  void read(const ReadFile& file, std::int64_t begin, void* to, std::int64_t bytes);

  /// After the last byte. @throws Error bad_file: there are more, or the bytes read are not those of `crc`.
  void finish(const ReadFile& file, std::uint32_t crc);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The CRC-32 of bytes that follow those of `before` (0: none).
std::uint32_t crc32_after(std::uint32_t before, const void* bytes, std::int64_t count) noexcept;
/// Of the last `count` bytes, where `all` is that of all bytes and `before` that of those before them.
std::uint32_t crc32_of_rest(std::uint32_t all, std::uint32_t before, std::int64_t count) noexcept;

}  // namespace bragg::detail
