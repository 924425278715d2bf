// SPDX-License-Identifier: Apache-2.0
// What ranks tell each other before they rely on each other: what they are about to do, or have found, and
// whether they failed.
#pragma once

#include <array>
#include <bragg/error.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <ranges>
#include <span>
#include <string_view>
#include <type_traits>

namespace bragg::detail {

/// FNV-1a of what ranks have to have in common. It finds mistakes, not forgeries.
class Digest {
 public:
  void add(std::string_view text) {
    add(text.size());
    add_bytes(text.data(), text.size());
  }
  template <class T>
  requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void add(T value) { add_bytes(&value, sizeof value); }
  template <std::ranges::contiguous_range RangeT>
  requires(!std::is_convertible_v<RangeT, std::string_view>) void add(const RangeT& values) {
    add(values.size());
    add_bytes(values.data(), values.size() * sizeof *values.data());
  }
  /// Much of it, eight bytes at a time.
  void add_words(const void* data, std::size_t bytes) {
    const auto* const from = static_cast<const unsigned char*>(data);
    std::size_t k = 0;
    for (; k + sizeof(std::uint64_t) <= bytes; k += sizeof(std::uint64_t)) {
      std::uint64_t word = 0;
      std::memcpy(&word, from + k, sizeof word);
      value_ = (value_ ^ word) * 0x9fb21c651e98df25;
      value_ ^= value_ >> 32;
    }
    add_bytes(from + k, bytes - k);
  }
  std::uint64_t value() const noexcept { return value_; }

 private:
  void add_bytes(const void* data, std::size_t bytes) {
    const auto* const from = static_cast<const unsigned char*>(data);
    for (std::size_t k = 0; k < bytes; ++k) value_ = (value_ ^ from[k]) * 0x100000001b3;
  }

  std::uint64_t value_ = 0xcbf29ce484222325;
};

/// What ranks have to be given alike, each told by a digest.
enum class Topic : std::uint8_t { software, pipeline, shape, options, sharding, weights, base, state };
inline constexpr std::size_t topics = 8;
using Topics = std::array<std::uint64_t, topics>;

/// Begins a rank's message.
struct Hello {
  Topics digests = {};
  Status status = Status::ok;
  char reason[188] = {};  ///< of a failure; ends with 0
};

Hello hello_of(const Topics& digests, const std::exception_ptr& failure);

/// Of messages of so many bytes, one behind the other, that begin with a Hello. Where a rank failed, all
/// throw what it met, that rank the same. What others say is not believed: their text is made printable.
/// @throws Error that of the first rank that failed; disagreement: digests differ.
void check_hellos(std::span<const std::byte> messages, std::span<const std::int64_t> bytes, int rank,
                  const std::exception_ptr& failure);
/// The same in the middle of a run, where ranks are told from honest ones by what they send.
/// @throws Error disagreement, whatever a rank says it met, where `doubted`.
void check_steps(std::span<const std::byte> messages, std::span<const std::int64_t> bytes, int rank,
                 const std::exception_ptr& failure, bool doubted);
/// The same of what was computed.
void check_verdicts(std::span<const std::byte> messages, std::span<const std::int64_t> bytes, int rank,
                    const std::exception_ptr& failure, bool doubted);

}  // namespace bragg::detail
