// SPDX-License-Identifier: Apache-2.0
#include "host/io/sha256.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <new>
#include <vector>

namespace bragg::detail {

namespace {

void check(int code) {
  if (code != 1) throw Error(Status::internal, "OpenSSL does not compute SHA-256 here");
}

EVP_MD_CTX* raw(const std::unique_ptr<void, void (*)(void*)>& context) {
  return static_cast<EVP_MD_CTX*>(context.get());
}

}  // namespace

Sha256::Sha256()
    : context_(::EVP_MD_CTX_new(),
               [](void* context) { ::EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context)); }) {
  if (!context_) throw std::bad_alloc();
  check(::EVP_DigestInit_ex(raw(context_), ::EVP_sha256(), nullptr));
}

void Sha256::add(std::span<const std::byte> bytes) {
  check(::EVP_DigestUpdate(raw(context_), bytes.data(), bytes.size()));
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  check(::EVP_DigestFinal_ex(raw(context_), digest.data(), &size));
  return fmt::format("{:02x}", fmt::join(std::span(digest).first(size), ""));
}

std::string sha256_of(const ReadFile& file, const std::function<void(std::uint64_t)>& read) {
  constexpr std::int64_t at_a_time = 1 << 18;
  Sha256 hash;
  std::vector<std::byte> buffer(static_cast<std::size_t>(at_a_time));
  for (std::int64_t at = 0; at < file.size();) {
    const std::int64_t bytes = std::min(at_a_time, file.size() - at);
    file.read(at, buffer.data(), bytes);
    hash.add(std::span(buffer).first(static_cast<std::size_t>(bytes)));
    read(static_cast<std::uint64_t>(bytes));
    at += bytes;
  }
  file.check_unchanged();
  return hash.hex();
}

}  // namespace bragg::detail
