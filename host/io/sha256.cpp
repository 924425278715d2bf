// SPDX-License-Identifier: Apache-2.0
#include "host/io/sha256.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <vector>

namespace bragg::detail {

std::string sha256_of(const ReadFile& file, const std::function<void(std::uint64_t)>& read) {
  constexpr std::int64_t at_a_time = 1 << 18;
  const std::unique_ptr<EVP_MD_CTX, decltype(&::EVP_MD_CTX_free)> context(::EVP_MD_CTX_new(),
                                                                          &::EVP_MD_CTX_free);
  if (!context) throw std::bad_alloc();
  const auto check = [](int code) {
    if (code != 1) throw Error(Status::internal, "OpenSSL does not compute SHA-256 here");
  };
  check(::EVP_DigestInit_ex(context.get(), ::EVP_sha256(), nullptr));
  std::vector<std::byte> buffer(static_cast<std::size_t>(at_a_time));
  for (std::int64_t at = 0; at < file.size();) {
    const std::int64_t bytes = std::min(at_a_time, file.size() - at);
    file.read(at, buffer.data(), bytes);
    check(::EVP_DigestUpdate(context.get(), buffer.data(), static_cast<std::size_t>(bytes)));
    read(static_cast<std::uint64_t>(bytes));
    at += bytes;
  }
  file.check_unchanged();
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  check(::EVP_DigestFinal_ex(context.get(), digest.data(), &size));
  return fmt::format("{:02x}", fmt::join(std::span(digest).first(size), ""));
}

}  // namespace bragg::detail
