// SPDX-License-Identifier: Apache-2.0
// Sizes of models that people know, to say how many coordinates an update has, and in which tensors.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bragg::bench {

struct Model {
  std::string_view name;
  std::int64_t parameters;
};

/// By size.
std::span<const Model> models() noexcept;

struct Size {
  std::string model = {};  ///< as it was written; empty for a number
  std::int64_t d = 0;
  int tensors = 1;          ///< that each update is in
  std::int64_t shards = 1;  ///< of the model, of which this is one
};

/// "1000000", "1e6", "2.5e7", a model's name, or a name and the number of equal shards that it is held in, of
/// which one is meant: "llama-2-7b/256". @throws Error invalid_argument.
Size parse_size(std::string_view text);

/// Elements of each tensor, as in a network: of every three a large one, then two of 256, or fewer where d is
/// small. @throws Error invalid_argument: there are none, or more tensors than coordinates.
std::vector<std::int64_t> tensor_sizes(const Size& size);

/// Elements of each tensor of a model file: those of the network, where they are known (resnet-50 has 161,
/// llama-2-7b 291, of which a shard has its part each) and size.tensors is 1; else as tensor_sizes.
std::vector<std::int64_t> file_tensor_sizes(const Size& size);

}  // namespace bragg::bench
