// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <bragg/bragg.hpp>
#include <cstdio>

int main() {
  const std::array<float, 6> updates{1, 2, 1, 2, 900, -900};  // three workers, two coordinates
  std::array<float, 2> result{};
  bragg::aggregate(bragg::Median{}, bragg::Updates::matrix(updates, 3, 2), bragg::Output(result));
  std::printf("bragg %s: median %g %g\n", BRAGG_VERSION_STRING, result[0], result[1]);
  try {
    bragg::parse("median | krum");
  } catch (const bragg::ParseError& error) {
    std::printf("refused at column %d: %s\n", error.column(), error.what());
    return result == std::array<float, 2>{1, 2} ? 0 : 1;
  }
  return 1;
}
