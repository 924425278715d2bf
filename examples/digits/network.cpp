// SPDX-License-Identifier: Apache-2.0
#include "examples/digits/network.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace digits {
namespace {

const float* weights_of(const std::vector<float>& parameters, std::size_t tensor) {
  return parameters.data() + Network::tensors[tensor].offset;
}

float* weights_of(std::vector<float>& parameters, std::size_t tensor) {
  return parameters.data() + Network::tensors[tensor].offset;
}

/// out = weight · in + bias
void dense(const float* weight, const float* bias, std::span<const float> in, std::span<float> out) {
  for (std::size_t o = 0; o < out.size(); ++o) {
    out[o] = std::inner_product(in.begin(), in.end(), weight + o * in.size(), bias[o]);
  }
}

/// Adds the gradient of a dense layer's weight and bias, given that of its output.
void add_dense_gradient(std::span<const float> in, std::span<const float> out_gradient,
                        float* weight_gradient, float* bias_gradient) {
  for (std::size_t o = 0; o < out_gradient.size(); ++o) {
    bias_gradient[o] += out_gradient[o];
    for (std::size_t i = 0; i < in.size(); ++i) {
      weight_gradient[o * in.size() + i] += out_gradient[o] * in[i];
    }
  }
}

struct Activations {
  std::array<float, Network::hidden> hidden;
  std::array<float, classes> output;
};

Activations forward(const std::vector<float>& parameters, const Image& image) {
  Activations a{};
  dense(weights_of(parameters, 0), weights_of(parameters, 1), image.values, a.hidden);
  for (float& h : a.hidden) {
    h = h < 0 ? 0 : h;  // keeps NaN
  }
  dense(weights_of(parameters, 2), weights_of(parameters, 3), a.hidden, a.output);
  return a;
}

/// Derivative of the cross-entropy by the network's output: softmax minus the label's indicator.
std::array<float, classes> output_gradient(const Activations& a, std::size_t label) {
  std::array<float, classes> gradient = a.output;
  const float highest = *std::max_element(gradient.begin(), gradient.end());
  float sum = 0;
  for (float& g : gradient) {
    g = std::exp(g - highest);
    sum += g;
  }
  for (float& g : gradient) {
    g /= sum;
  }
  gradient[label] -= 1;
  return gradient;
}

void add_gradient(const std::vector<float>& parameters, const Image& image, std::vector<float>& gradient) {
  const Activations a = forward(parameters, image);
  const auto of_output = output_gradient(a, image.label);
  add_dense_gradient(a.hidden, of_output, weights_of(gradient, 2), weights_of(gradient, 3));

  std::array<float, Network::hidden> of_hidden{};
  for (std::size_t o = 0; o < classes; ++o) {
    for (std::size_t h = 0; h < Network::hidden; ++h) {
      of_hidden[h] += of_output[o] * weights_of(parameters, 2)[o * Network::hidden + h];
    }
  }
  for (std::size_t h = 0; h < Network::hidden; ++h) {
    of_hidden[h] = a.hidden[h] == 0 ? 0 : of_hidden[h];
  }
  add_dense_gradient(image.values, of_hidden, weights_of(gradient, 0), weights_of(gradient, 1));
}

}  // namespace

Network::Network(Random& random) : Network() {
  for (const Tensor& tensor : tensors) {
    const double deviation = tensor.columns == 0 ? 0 : std::sqrt(2.0 / static_cast<double>(tensor.columns));
    for (std::size_t i = 0; i < tensor.size(); ++i) {
      parameters[tensor.offset + i] = static_cast<float>(deviation * random.normal());
    }
  }
}

void Network::train(std::span<const Image> images, const Training& training, Random& random) {
  std::vector<float> velocity(parameter_count);
  std::vector<float> gradient(parameter_count);
  std::vector<std::size_t> order(images.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (int epoch = 0; epoch < training.epochs; ++epoch) {
    random.shuffle(order);
    for (std::size_t begin = 0; begin < order.size(); begin += training.batch) {
      const std::size_t end = std::min(begin + training.batch, order.size());
      std::fill(gradient.begin(), gradient.end(), 0.0F);
      for (std::size_t i = begin; i < end; ++i) {
        add_gradient(parameters, images[order[i]], gradient);
      }
      for (std::size_t p = 0; p < parameter_count; ++p) {
        velocity[p] = training.momentum * velocity[p] + gradient[p] / static_cast<float>(end - begin);
        parameters[p] -= training.learning_rate * velocity[p];
      }
    }
  }
}

double Network::accuracy(std::span<const Image> images) const {
  const auto right = std::count_if(images.begin(), images.end(), [this](const Image& image) {
    const Activations a = forward(parameters, image);
    const auto most_probable = std::max_element(a.output.begin(), a.output.end()) - a.output.begin();
    return static_cast<std::size_t>(most_probable) == image.label;
  });
  return static_cast<double>(right) / static_cast<double>(images.size());
}

}  // namespace digits
