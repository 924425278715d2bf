// SPDX-License-Identifier: Apache-2.0
#include <bragg/pipeline.hpp>

#include "tests/fuzz/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace bragg;
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const std::string written = to_string(parse(text));
    fuzz::expect(to_string(parse(written)) == written, "'" + written + "' is read as another pipeline");
  } catch (const ParseError& error) {
    const auto columns = static_cast<std::size_t>(error.column());
    fuzz::expect(error.column() >= 1 && columns <= size + 1,
                 "an error at column " + std::to_string(error.column()));
    fuzz::expect(error.status() == Status::invalid_argument && std::string(error.what()).size() < 4096,
                 error.what());
  }
  return 0;
}
