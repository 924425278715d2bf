// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bragg/io.hpp>
#include <cstring>
#include <stdexcept>
#include <string>

#include "examples/digits/network.hpp"

namespace digits {

Network Network::load(const std::filesystem::path& path) {
  const bragg::Checkpoint file = bragg::Checkpoint::open(path);
  Network network;
  for (const Tensor& tensor : tensors) {
    const auto found =
        std::find_if(file.tensors().begin(), file.tensors().end(), [&](const bragg::TensorInfo& t) {
          return t.name == tensor.name && t.dtype == "F32" &&
                 t.elements == static_cast<std::int64_t>(tensor.size());
        });
    if (found == file.tensors().end()) {
      throw std::runtime_error(path.string() + " has no F32 tensor " + std::string(tensor.name) + " of " +
                               std::to_string(tensor.size()) + " elements");
    }
    std::memcpy(network.parameters.data() + tensor.offset,
                file.data(static_cast<std::size_t>(found - file.tensors().begin())),
                tensor.size() * sizeof(float));
  }
  return network;
}

void Network::save(const std::filesystem::path& path) const {
  std::vector<bragg::TensorToWrite> out;
  for (const Tensor& tensor : tensors) {
    std::vector<std::int64_t> shape{static_cast<std::int64_t>(tensor.rows)};
    if (tensor.columns != 0) {
      shape.push_back(static_cast<std::int64_t>(tensor.columns));
    }
    out.push_back({std::string(tensor.name), "F32", std::move(shape), parameters.data() + tensor.offset});
  }
  bragg::write_safetensors(path, out);
}

}  // namespace digits
