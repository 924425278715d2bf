// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  bragg::fuzz::check_model(bragg::fuzz::put("input.npy", data, size), true);
  return 0;
}
