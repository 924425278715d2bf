// SPDX-License-Identifier: Apache-2.0
// Deflated arrays of an npz, read forwards: deflate has no way to begin in the middle.
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

}  // namespace bragg::detail
