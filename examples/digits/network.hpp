// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "examples/digits/data.hpp"
#include "examples/digits/random.hpp"

namespace digits {

/// A part of the parameter vector.
struct Tensor {
  std::string_view name;
  std::size_t rows;     // outputs
  std::size_t columns;  // inputs; 0: a bias
  std::size_t offset;

  constexpr std::size_t size() const { return rows * (columns == 0 ? 1 : columns); }
};

/// A network of one hidden layer: 64 pixels, 64 rectified units, 10 classes. All parameters lie in one
/// vector, layer after layer; a weight matrix has a row per output.
class Network {
 public:
  static constexpr std::size_t hidden = 64;
  static constexpr std::array<Tensor, 4> tensors{
      {{"hidden.weight", hidden, pixels, 0},
       {"hidden.bias", hidden, 0, hidden* pixels},
       {"output.weight", classes, hidden, hidden*(pixels + 1)},
       {"output.bias", classes, 0, hidden*(pixels + 1 + classes)}}};
  static constexpr std::size_t parameter_count = tensors.back().offset + tensors.back().size();

  /// He initialisation.
  explicit Network(Random& random);

  /// Reads what `save` wrote, or an aggregate of such files.
  static Network load(const std::filesystem::path& path);
  void save(const std::filesystem::path& path) const;

  struct Training {
    int epochs = 2;
    std::size_t batch = 16;
    float learning_rate = 0.1F;
    float momentum = 0.9F;
  };
  /// Stochastic gradient descent with momentum on the cross-entropy.
  void train(std::span<const Image> images, const Training& training, Random& random);

  /// Share of the images whose most probable class is their label. A network of NaN takes every image for a
  /// 0.
  double accuracy(std::span<const Image> images) const;

  std::vector<float> parameters;

 private:
  Network() : parameters(parameter_count) {}
};

}  // namespace digits
