// SPDX-License-Identifier: Apache-2.0
// The first byte says whether the rest is the value of --weights, or of a file that it names.
#include <cmath>

#include "host/cli/arguments.hpp"
#include "tests/fuzz/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace bragg;
  if (size == 0) return 0;
  const bool from_file = data[0] == '@';
  std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (from_file) text = "@" + fuzz::put("weights.txt", data + 1, size - 1).string();
  if (!from_file && text.starts_with('@')) return 0;
  try {
    bool any = false;
    const cli::GivenWeights given = cli::parse_weights(text);
    for (const double weight : given.values) any = any || (weight > 0 && std::isfinite(weight));
    fuzz::expect(any, "weights without one that is valid");
    fuzz::expect(given.names.empty() || given.names.size() == given.values.size(), "a name without a weight");
    std::string warning;
    const auto matched =
        cli::match_weights(given, {"w/client-1.safetensors", "w/client-2.safetensors"}, warning);
    fuzz::expect(given.names.empty() || matched.size() == 2, "an input without a weight");
  } catch (const Error& error) {
    fuzz::expect(error.status() == Status::invalid_argument, error.what());
    fuzz::expect(std::string(error.what()).starts_with("--weights"), error.what());
    fuzz::expect(std::string(error.what()).size() < 4096, "a long error");
  }
  return 0;
}
