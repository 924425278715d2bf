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

void check(std::span<const std::byte> messages, std::span<const std::int64_t> bytes, int rank,
           const std::exception_ptr& failure, const char* what) {
  const std::vector<Hello> hellos = hellos_of(messages, bytes);
  for (std::size_t r = 0; r < hellos.size(); ++r) {
    if (hellos[r].status == Status::ok) continue;
    if (static_cast<int>(r) == rank && failure) std::rethrow_exception(failure);
    throw Error(hellos[r].status, fmt::format("rank {}: {}", r, hellos[r].reason));
  }
  for (std::size_t r = 1; r < hellos.size(); ++r) {
    if (hellos[r].digest == hellos[0].digest) continue;
    throw Error(Status::disagreement, fmt::format("ranks 0 and {} {}", r, what));
  }
}

}  // namespace

Hello hello_of(std::uint64_t digest, const std::exception_ptr& failure) {
  Hello hello{.digest = digest};
  const auto fail = [&](Status status, const std::string& reason) {
    hello.status = status;
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
  check(messages, bytes, rank, failure,
        "were given different things: the same version of bragg on the same instruction set is needed, the "
        "same "
        "pipeline, shape, options, sharding and weights, and as many runs before");
}

void check_verdicts(std::span<const std::byte> messages, std::span<const std::int64_t> bytes, int rank,
                    const std::exception_ptr& failure) {
  check(
      messages, bytes, rank, failure,
      "computed different coefficients from the same sums: their libraries differ, or one's hardware fails");
}

}  // namespace bragg::detail
