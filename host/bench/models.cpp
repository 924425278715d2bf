// SPDX-License-Identifier: Apache-2.0
#include "host/bench/models.hpp"

#include <fmt/format.h>
#include <bragg/error.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace bragg::bench {

namespace {

constexpr std::array<Model, 11> table = {{{"lenet-5", 61'706},
                                          {"resnet-20", 269'722},
                                          {"resnet-56", 853'018},
                                          {"mobilenet-v2", 3'504'872},
                                          {"resnet-18", 11'689'512},
                                          {"resnet-50", 25'557'032},
                                          {"vit-b-16", 86'567'656},
                                          {"bert-base", 109'482'240},
                                          {"gpt-2", 124'439'808},
                                          {"vit-l-16", 304'326'632},
                                          {"llama-2-7b", 6'738'415'616}}};

constexpr double largest = 1e13;

[[noreturn]] void refuse(std::string_view text, const std::string& why) {
  throw Error(Status::invalid_argument, fmt::format("--d: '{}' {}", text, why));
}

std::string names() {
  std::string text;
  for (const Model& model : table) text += fmt::format("{}{}", text.empty() ? "" : ", ", model.name);
  return text;
}

}  // namespace

std::span<const Model> models() noexcept { return table; }

Size parse_size(std::string_view text) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code == std::errc{} && end == text.data() + text.size()) {
    if (!(value >= 1 && value <= largest) || value != std::floor(value)) {
      refuse(text,
             fmt::format("is not a number of coordinates: needs a whole number from 1 to {:.0e}", largest));
    }
    return {.model = "", .d = static_cast<std::int64_t>(value)};
  }
  const std::size_t slash = text.find('/');
  const std::string_view name = text.substr(0, slash);
  const auto model = std::find_if(table.begin(), table.end(), [&](const Model& m) { return m.name == name; });
  if (model == table.end()) {
    refuse(text, fmt::format("is neither a number nor a model; models: {}", names()));
  }
  std::int64_t shards = 1;
  if (slash != std::string_view::npos) {
    const std::string_view count = text.substr(slash + 1);
    const auto [last, wrong] = std::from_chars(count.data(), count.data() + count.size(), shards);
    if (wrong != std::errc{} || last != count.data() + count.size() || shards < 1 ||
        shards > model->parameters) {
      refuse(text, fmt::format("needs a number of shards from 1 to {} after the slash, e.g. llama-2-7b/256",
                               model->parameters));
    }
  }
  return {.model = std::string(text), .d = (model->parameters + shards - 1) / shards, .shards = shards};
}

namespace {

/// He et al. 2016, table 1; weights and, of each normalization, scale and shift.
std::vector<std::int64_t> resnet_50() {
  std::vector<std::int64_t> sizes;
  const auto convolution = [&sizes](std::int64_t from, std::int64_t to, std::int64_t width) {
    sizes.insert(sizes.end(), {from * to * width * width, to, to});
  };
  convolution(3, 64, 7);
  std::int64_t from = 64;
  std::int64_t inner = 64;
  for (const int blocks : {3, 4, 6, 3}) {
    for (int block = 0; block < blocks; ++block) {
      convolution(from, inner, 1);
      convolution(inner, inner, 3);
      convolution(inner, 4 * inner, 1);
      if (block == 0) convolution(from, 4 * inner, 1);
      from = 4 * inner;
    }
    inner *= 2;
  }
  sizes.insert(sizes.end(), {1000 * from, 1000});
  return sizes;
}

/// Touvron et al. 2023: 32 layers, of 4096 and, within, 11008.
std::vector<std::int64_t> llama_2_7b() {
  constexpr std::int64_t width = 4096;
  constexpr std::int64_t inner = 11008;
  constexpr std::int64_t words = 32000;
  std::vector<std::int64_t> sizes = {words * width};
  for (int layer = 0; layer < 32; ++layer) {
    sizes.insert(sizes.end(), {width * width, width * width, width * width, width * width, inner * width,
                               inner * width, inner * width, width, width});
  }
  sizes.insert(sizes.end(), {width, words * width});
  return sizes;
}

}  // namespace

std::vector<std::int64_t> file_tensor_sizes(const Size& size) {
  const std::string_view name = std::string_view(size.model).substr(0, size.model.find('/'));
  if (size.tensors != 1 || (name != "resnet-50" && name != "llama-2-7b")) return tensor_sizes(size);
  std::vector<std::int64_t> sizes;
  std::int64_t before = 0;
  std::int64_t given = 0;
  for (const std::int64_t whole : name == "resnet-50" ? resnet_50() : llama_2_7b()) {
    before += whole;
    const std::int64_t end = (before + size.shards - 1) / size.shards;  // of the shard with the most
    if (end > given) sizes.push_back(end - given);
    given = end;
  }
  return sizes;
}

std::vector<std::int64_t> tensor_sizes(const Size& size) {
  if (size.tensors < 1 || size.tensors > size.d) {
    throw Error(Status::invalid_argument,
                fmt::format("--tensors: {}; needs 1 to {}, the coordinates", size.tensors, size.d));
  }
  if (size.tensors == 1) return {size.d};
  const std::int64_t large = (size.tensors + 2) / 3;
  const std::int64_t less = std::min<std::int64_t>(256, size.d / size.tensors);
  const std::int64_t rest = size.d - (size.tensors - large) * less;
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(size.tensors), less);
  // Multiples of 64, where there are so many, so that tensors stay aligned; the last has what is left.
  const std::int64_t share = rest / large;
  const std::int64_t even = share >= 64 ? share / 64 * 64 : share;
  for (std::size_t t = 0; t < sizes.size(); t += 3) sizes[t] = even;
  sizes[static_cast<std::size_t>(3 * (large - 1))] = rest - (large - 1) * even;
  return sizes;
}

}  // namespace bragg::bench
