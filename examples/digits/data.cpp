// SPDX-License-Identifier: Apache-2.0
#include "examples/digits/data.hpp"

#include <charconv>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>

namespace digits {
namespace {

/// Reads 64 pixels and a digit, separated by commas; false if the line is anything else.
bool read_integers(const std::string& line, std::array<int, pixels + 1>& out) {
  const char* at = line.data();
  const char* const end = at + line.size();
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (i > 0 && (at == end || *at++ != ',')) {
      return false;
    }
    const auto [next, error] = std::from_chars(at, end, out[i]);
    if (error != std::errc() || out[i] < 0 || out[i] > 16) {
      return false;
    }
    at = next;
  }
  return at == end && out.back() < static_cast<int>(classes);
}

}  // namespace

Dataset load(const std::filesystem::path& csv) {
  std::ifstream file(csv);
  if (!file) {
    throw std::runtime_error("cannot open " + csv.string());
  }
  Dataset dataset;
  std::string line;
  for (std::size_t number = 0; std::getline(file, line); ++number) {
    std::array<int, pixels + 1> integers{};
    if (!read_integers(line, integers)) {
      throw std::runtime_error(csv.string() + ": line " + std::to_string(number + 1) +
                               " is not 64 pixels of 0…16 and a digit");
    }
    Image image{};
    for (std::size_t i = 0; i < pixels; ++i) {
      image.values[i] = static_cast<float>(integers[i]) / 16.0F;
    }
    image.label = static_cast<std::size_t>(integers.back());
    (number % 5 == 4 ? dataset.test : dataset.train).push_back(image);
  }
  if (dataset.test.empty()) {
    throw std::runtime_error(csv.string() + ": fewer than five images");
  }
  return dataset;
}

}  // namespace digits
