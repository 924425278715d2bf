// SPDX-License-Identifier: Apache-2.0
#include "examples/digits/partition.hpp"

#include <algorithm>
#include <stdexcept>

#include "examples/digits/random.hpp"

namespace digits {
namespace {

/// Cumulative shares of a Dirichlet draw; the last is 1.
std::vector<double> cumulative_shares(std::size_t parts, double alpha, Random& random) {
  std::vector<double> sums(parts);
  double sum = 0;
  for (double& s : sums) {
    sum += random.gamma(alpha);
    s = sum;
  }
  for (double& s : sums) {
    s /= sum;
  }
  return sums;
}

std::vector<std::vector<Image>> deal(const std::vector<Image>& images, std::size_t clients, double alpha,
                                     Random& random) {
  std::vector<std::vector<Image>> parts(clients);
  for (std::size_t label = 0; label < classes; ++label) {
    std::vector<Image> of_class;
    std::copy_if(images.begin(), images.end(), std::back_inserter(of_class),
                 [label](const Image& image) { return image.label == label; });
    random.shuffle(of_class);
    const std::vector<double> until = cumulative_shares(clients, alpha, random);
    std::size_t client = 0;
    for (std::size_t i = 0; i < of_class.size(); ++i) {
      while (client + 1 < clients &&
             static_cast<double>(i) >= until[client] * static_cast<double>(of_class.size())) {
        ++client;
      }
      parts[client].push_back(of_class[i]);
    }
  }
  return parts;
}

}  // namespace

std::vector<std::vector<Image>> dirichlet_partition(const std::vector<Image>& images, std::size_t clients,
                                                    double alpha, std::size_t least, std::uint64_t seed) {
  Random random(seed, 0);
  constexpr int tries = 10000;
  for (int i = 0; i < tries; ++i) {
    auto parts = deal(images, clients, alpha, random);
    if (std::all_of(parts.begin(), parts.end(), [least](const auto& part) { return part.size() >= least; })) {
      return parts;
    }
  }
  throw std::runtime_error("no partition gives every client " + std::to_string(least) +
                           " images; ask for fewer, or a larger alpha");
}

}  // namespace digits
