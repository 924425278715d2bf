// SPDX-License-Identifier: Apache-2.0
#include "host/files/integers.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "host/io/element_type.hpp"

namespace bragg::detail {

namespace {

using namespace std::string_view_literals;

// Endings of names, behind "." or "_": of codes, and of what turns them into weights (GPTQ and AWQ,
// bitsandbytes, MXFP4, compressed-tensors).
constexpr std::array codes = {"weight"sv, "qweight"sv, "blocks"sv, "packed"sv};
constexpr std::array companions = {"SCB"sv,    "absmax"sv, "quant_map"sv, "scale"sv,
                                   "scales"sv, "zeros"sv,  "qzeros"sv,    "zero_point"sv};

/// The name without such an ending; empty where it has none.
template <std::size_t kCountT>
std::optional<std::string_view> without(std::string_view name,
                                        const std::array<std::string_view, kCountT>& endings) {
  for (const std::string_view ending : endings) {
    if (!name.ends_with(ending)) continue;
    const std::string_view rest = name.substr(0, name.size() - ending.size());
    if (rest.empty()) return rest;
    if (rest.back() == '.' || rest.back() == '_') return rest.substr(0, rest.size() - 1);
  }
  return std::nullopt;
}

/// What the names of codes and companions have in common: "a" of "a.qweight" and "a.weight_packed".
std::string_view stem(std::string_view name) {
  while (const auto shorter = without(name, codes)) name = *shorter;
  return name;
}

[[noreturn]] void refuse(const std::string& what) {
  throw Error(Status::invalid_argument,
              fmt::format("integers: {}; dequantise the models before, or say what is to become of "
                          "integers: lower-median, first or error",
                          what));
}

}  // namespace

void check_integers(const Inputs& inputs, Integers integers) {
  if (integers == Integers::lower_median || integers == Integers::first) return;
  // Counters are of one element.
  std::map<std::string_view, const TensorInfo*> arrays;  // by stem
  std::int64_t bytes = 0, all_bytes = 0;
  for (const std::size_t t : inputs.floating) all_bytes += inputs.tensors[t].bytes;
  for (const std::size_t t : inputs.integers) {
    const TensorInfo& tensor = inputs.tensors[t];
    all_bytes += tensor.bytes;
    if (tensor.elements == 0) continue;
    if (integers == Integers::error) {
      throw Error(Status::invalid_argument,
                  fmt::format("integers = error: tensor {} is of {}", show(tensor.name), tensor.dtype));
    }
    if (tensor.elements == 1 || element_type_of(tensor).kind == ElementKind::boolean) continue;
    bytes += tensor.bytes;
    arrays.emplace(stem(tensor.name), &tensor);
  }
  for (const TensorInfo& tensor : inputs.tensors) {
    const auto owner = without(tensor.name, companions);
    if (!owner) continue;
    const auto found = arrays.find(stem(*owner));
    if (found == arrays.end() || found->second == &tensor) continue;
    refuse(
        fmt::format("tensor {} of {} seems to be quantised, with {} of each worker's own: its median is of "
                    "codes, not of weights",
                    show(found->second->name), found->second->dtype, show(tensor.name)));
  }
  // An npy holds nothing else, and nothing that could scale it.
  if (inputs.npy || 2 * bytes <= all_bytes) return;
  const auto largest = std::max_element(arrays.begin(), arrays.end(), [](const auto& a, const auto& b) {
    return a.second->bytes < b.second->bytes;
  });
  refuse(fmt::format("{} of a model's {} bytes are integers, the most in tensor {} of {}", bytes, all_bytes,
                     show(largest->second->name), largest->second->dtype));
}

}  // namespace bragg::detail
