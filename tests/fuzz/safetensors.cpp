// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <random>

#include "tests/fuzz/target.hpp"

extern "C" {

std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  bragg::fuzz::check_model(bragg::fuzz::put("input.safetensors", data, size), false);
  return 0;
}

/// Mutations that forget the length of the header are refused by their first bytes: of most, the length is
/// put right.
std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t most, unsigned seed) {
  std::minstd_rand random(seed);
  std::uint64_t header = 0;
  constexpr std::size_t prefix = sizeof(header);
  if (size < prefix || most < prefix + 1 || random() % 8 == 0) return LLVMFuzzerMutate(data, size, most);
  std::memcpy(&header, data, prefix);
  const auto behind = static_cast<std::size_t>(std::min<std::uint64_t>(header, size - prefix));
  // The header is mutated at the end of the buffer, so that what follows it stays what it was.
  const std::string values(reinterpret_cast<const char*>(data) + prefix + behind, size - prefix - behind);
  const std::size_t room = most - prefix - std::min(most - prefix, values.size());
  if (behind > room) return LLVMFuzzerMutate(data, size, most);
  header = LLVMFuzzerMutate(data + prefix, behind, room);
  const std::size_t kept = std::min(values.size(), most - prefix - static_cast<std::size_t>(header));
  std::memcpy(data, &header, prefix);
  std::memcpy(data + prefix + header, values.data(), kept);
  return prefix + static_cast<std::size_t>(header) + kept;
}

}  // extern "C"
