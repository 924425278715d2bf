// SPDX-License-Identifier: Apache-2.0
#include <bragg/io.hpp>

#include "tests/fuzz/target.hpp"

/// Whatever is accepted can be read to its last byte.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace bragg;
  const std::filesystem::path path = fuzz::put("input.npz", data, size);
  try {
    const Checkpoint model = Checkpoint::open(path);
    unsigned sum = 0;
    for (std::size_t t = 0; t < model.tensors().size(); ++t) {
      const auto* const bytes = static_cast<const unsigned char*>(model.data(t));
      for (std::int64_t i = 0; i < model.tensors()[t].bytes; ++i) sum += bytes[i];
    }
    [[maybe_unused]] volatile unsigned kept = sum;
  } catch (const Error& error) {
    fuzz::check_refusal(error, "input.npz");
  }
  return 0;
}
