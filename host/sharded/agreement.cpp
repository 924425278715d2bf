// SPDX-License-Identifier: Apache-2.0
#include "host/sharded/agreement.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <vector>

namespace bragg::detail {

namespace {

std::vector<Hello> hellos_of(std::span<const std::byte> messages, std::span<const std::int64_t> bytes) {
  std::vector<Hello> hellos(bytes.size());
  std::size_t at = 0;
  for (std::size_t r = 0; r < bytes.size(); ++r) {
    std::memcpy(&hellos[r], messages.data() + at, sizeof(Hello));
    hellos[r].reason[sizeof hellos[r].reason - 1] = 0;
    at += static_cast<std::size_t>(bytes[r]);
  }
  return hellos;
}

constexpr std::array<const char*, topics> topic_names = {
    "versions of bragg, or devices",    "pipelines", "shapes", "options", "shardings", "weights", "bases",
    "numbers of runs before, or resets"};

/// What a stranger's process wrote, perhaps cut off, fit for a terminal, a log and Python: UTF-8.
std::string printable(const char* text) {
  std::string made;
  for (const char* at = text; *at != 0; ++at) {
    const auto byte = static_cast<unsigned char>(*at);
    // Of other characters those that messages have: U+2010 to U+22FF but marks of direction, U+00B7, U+00D7.
    const auto next = static_cast<unsigned char>(at[1]);
    const auto last = static_cast<unsigned char>(next != 0 ? at[2] : 0);
    const bool long_one = byte == 0xe2 && next >= 0x80 && next <= 0x8b && last >= 0x80 && last <= 0xbf &&
                          !(next == 0x80 && (last < 0x90 || last >= 0xa8)) && !(next == 0x81 && last >= 0xa0);
    const bool short_one = (byte == 0xc2 && next == 0xb7) || (byte == 0xc3 && next == 0x97);
    if (long_one || short_one) {
      made.append(at, long_one ? 3 : 2);
      at += long_one ? 2 : 1;
    } else {
      made += byte >= 0x20 && byte < 0x7f ? *at : '?';
    }
  }
  return made;
}

Status known(Status status) {
  const auto number = static_cast<int>(status);
  return number > 0 && number <= static_cast<int>(Status::disagreement) ? status : Status::disagreement;
}

/// `unlike`: a sentence about ranks whose digests of a topic differ.
template <class UnlikeF>
void check(std::span<const std::byte> messages, std::span<const std::int64_t> bytes, int rank,
           const std::exception_ptr& failure, bool doubted, UnlikeF unlike) {
  const std::vector<Hello> hellos = hellos_of(messages, bytes);
  for (std::size_t r = 0; r < hellos.size(); ++r) {
    if (hellos[r].status == Status::ok) continue;
    if (static_cast<int>(r) == rank && failure) {
      try {
        std::rethrow_exception(failure);
      } catch (const Error&) {
        throw;
      } catch (const std::exception&) {
        throw Error(hellos[r].status, fmt::format("rank {}: {}", r, hellos[r].reason));
      }
    }
    const std::string reason = printable(hellos[r].reason);
    throw Error(doubted ? Status::disagreement : known(hellos[r].status),
                fmt::format("rank {}: {}", r, reason));
  }
  for (std::size_t topic = 0; topic < topics; ++topic) {
    // The one that most have is taken for right.
    const auto count = [&](std::uint64_t digest) {
      return std::count_if(hellos.begin(), hellos.end(),
                           [&](const Hello& hello) { return hello.digests[topic] == digest; });
    };
    std::size_t usual = 0;
    for (std::size_t r = 1; r < hellos.size(); ++r) {
      if (count(hellos[r].digests[topic]) > count(hellos[usual].digests[topic])) usual = r;
    }
    for (std::size_t r = 0; r < hellos.size(); ++r) {
      if (hellos[r].digests[topic] == hellos[usual].digests[topic]) continue;
      throw Error(Status::disagreement, unlike(std::min(usual, r), std::max(usual, r), topic));
    }
  }
}

}  // namespace

Hello hello_of(const Topics& digests, const std::exception_ptr& failure) {
  Hello hello{.digests = digests};
  const auto fail = [&](Status status, const std::string& reason) {
    hello.status = status == Status::ok ? Status::internal : status;  // a caller's mistake
    std::copy_n(reason.data(), std::min(reason.size(), sizeof hello.reason - 1), hello.reason);
  };
  if (!failure) return hello;
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    fail(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    fail(Status::out_of_memory, "out of memory");
  } catch (const std::exception& error) {
    fail(Status::internal, error.what());
  }
  return hello;
}

void check_hellos(std::span<const std::byte> messages, std::span<const std::int64_t> bytes, int rank,
                  const std::exception_ptr& failure) {
  check(messages, bytes, rank, failure, false, [](std::size_t a, std::size_t b, std::size_t topic) {
    return fmt::format("ranks {} and {} were given different {}", a, b, topic_names[topic]);
  });
}

void check_steps(std::span<const std::byte> messages, std::span<const std::int64_t> bytes, int rank,
                 const std::exception_ptr& failure, bool doubted) {
  check(messages, bytes, rank, failure, doubted, [](std::size_t a, std::size_t b, std::size_t) {
    return fmt::format("ranks {} and {} are not in the same step of the same run", a, b);
  });
}

void check_verdicts(std::span<const std::byte> messages, std::span<const std::int64_t> bytes, int rank,
                    const std::exception_ptr& failure, bool doubted) {
  check(messages, bytes, rank, failure, doubted, [](std::size_t a, std::size_t b, std::size_t) {
    return fmt::format(
        "ranks {} and {} computed different coefficients from the same sums: their libraries differ, or "
        "one's "
        "hardware fails",
        a, b);
  });
}

}  // namespace bragg::detail
