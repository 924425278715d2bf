// SPDX-License-Identifier: Apache-2.0
#include "host/io/inflate.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>
#include <new>

namespace bragg::detail {

struct Inflater::State {
  std::int64_t offset;     // of the stream in the file
  std::int64_t taken = 0;  // bytes of the stream that were read from the file
  std::int64_t made = 0;   // bytes inflated
  std::uint32_t crc = 0;   // of those
  bool ended = false;
  z_stream stream{};
  std::array<unsigned char, 16384> in{};

  explicit State(std::int64_t offset_in) : offset(offset_in) {
    // No header of zlib's; the largest window.
    if (::inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  }
  ~State() { ::inflateEnd(&stream); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void restart() {
    ::inflateReset(&stream);
    stream.avail_in = 0;
    taken = made = 0;
    crc = 0;
    ended = false;
  }

  /// Inflates up to `bytes` bytes; fewer only at the end of the stream.
  std::int64_t inflate_some(const ReadFile& file, unsigned char* to, std::int64_t bytes) {
    std::int64_t done = 0;
    while (done < bytes && !ended) {
      if (stream.avail_in == 0) {
        const std::int64_t there =
            std::min<std::int64_t>(static_cast<std::int64_t>(in.size()), file.size() - offset - taken);
        if (there <= 0) refuse(file, "does not end before the file");
        file.read(offset + taken, in.data(), there);
        taken += there;
        stream.next_in = in.data();
        stream.avail_in = static_cast<uInt>(there);
      }
      const auto room =
          static_cast<uInt>(std::min<std::int64_t>(bytes - done, std::numeric_limits<int>::max()));
      stream.next_out = to + done;
      stream.avail_out = room;
      const int code = ::inflate(&stream, Z_NO_FLUSH);
      const uInt made_now = room - stream.avail_out;
      crc = crc32_after(crc, to + done, made_now);
      done += made_now;
      if (code == Z_STREAM_END) {
        ended = true;
      } else if (code == Z_MEM_ERROR) {
        throw std::bad_alloc();
      } else if (code != Z_OK && code != Z_BUF_ERROR) {
        refuse(file, "is damaged");
      }
    }
    made += done;
    return done;
  }

  [[noreturn]] void refuse(const ReadFile& file, const char* what) const {
    throw_bad_file(file.path(), "the deflated data at byte " + std::to_string(offset) + " " + what);
  }
};

Inflater::Inflater(std::int64_t offset) : state_(std::make_unique<State>(offset)) {}
Inflater::~Inflater() = default;
Inflater::Inflater(Inflater&&) noexcept = default;
Inflater& Inflater::operator=(Inflater&&) noexcept = default;

void Inflater::read(const ReadFile& file, std::int64_t begin, void* to, std::int64_t bytes) {
  State& state = *state_;
  if (begin < state.made) state.restart();
  const auto expect = [&](std::int64_t wanted, std::int64_t got) {
    if (got < wanted) state.refuse(file, "ends early");
  };
  std::array<unsigned char, 16384> unused{};
  while (state.made < begin) {
    const std::int64_t some =
        std::min<std::int64_t>(static_cast<std::int64_t>(unused.size()), begin - state.made);
    expect(some, state.inflate_some(file, unused.data(), some));
  }
  expect(bytes, state.inflate_some(file, static_cast<unsigned char*>(to), bytes));
}

void Inflater::finish(const ReadFile& file, std::uint32_t crc) {
  State& state = *state_;
  unsigned char more = 0;
  if (state.inflate_some(file, &more, 1) > 0) state.refuse(file, "is more than the directory says");
  if (state.crc != crc) state.refuse(file, "is damaged: its CRC-32 is not the directory's");
}

std::uint32_t crc32_after(std::uint32_t before, const void* bytes, std::int64_t count) noexcept {
  return static_cast<std::uint32_t>(
      ::crc32_z(before, static_cast<const Bytef*>(bytes), static_cast<std::size_t>(count)));
}

std::uint32_t crc32_of_rest(std::uint32_t all, std::uint32_t before, std::int64_t count) noexcept {
  return all ^ static_cast<std::uint32_t>(::crc32_combine(before, 0, count));  // it adds the second by xor
}

}  // namespace bragg::detail
