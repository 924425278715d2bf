// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <vector>

namespace digits {

inline constexpr std::size_t pixels = 64;  // 8 × 8
inline constexpr std::size_t classes = 10;

struct Image {
  std::array<float, pixels> values;  // 0 … 1
  std::size_t label;
};

struct Dataset {
  std::vector<Image> train;
  std::vector<Image> test;  // every fifth image of the file
};

/// @throws std::runtime_error naming the line that is not 64 pixels of 0…16 and a digit.
Dataset load(const std::filesystem::path& csv);

}  // namespace digits
