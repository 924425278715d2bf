// SPDX-License-Identifier: Apache-2.0
#include "host/cli/holdings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "host/base/listed.hpp"
#include "host/cli/text.hpp"
#include "host/io/file.hpp"

namespace bragg::cli {

using Json = nlohmann::ordered_json;

std::string held_text(const std::vector<HeldTensors>& held) {
  std::map<std::size_t, std::vector<std::string>> by_n;
  for (const HeldTensors& each : held) {
    for (const std::string& name : each.tensors) by_n[each.n].push_back(detail::show(name));
  }
  std::string text;
  for (auto& [n, names] : by_n) {
    std::sort(names.begin(), names.end());
    text += printable(fmt::format("n = {} for {}", n, detail::listed(names))) + "\n";
  }
  return text;
}

std::string holds_text(const std::vector<HeldTensors>& held, std::size_t input) {
  std::size_t all = 0, there = 0;
  for (const HeldTensors& each : held) {
    const bool absent = std::binary_search(each.absent.begin(), each.absent.end(), input);
    all += each.tensors.size();
    there += absent ? 0 : each.tensors.size();
  }
  return fmt::format("{}/{}", there, all);
}

Json held_json(const std::vector<HeldTensors>& held, const std::vector<std::string>& names) {
  Json json = Json::array();
  for (const HeldTensors& each : held) {
    Json absent = Json::array();
    for (const std::size_t input : each.absent) absent.push_back(names[input]);
    json.push_back({{"n", each.n}, {"tensors", each.tensors}, {"absent", std::move(absent)}});
  }
  return json;
}

std::string unused_warnings(const std::vector<std::string>& unused) {
  std::string text;
  for (const std::string& each : unused)
    text += printable(fmt::format("bragg: warning: --exclude: {}", each)) + "\n";
  return text;
}

std::string dropped_text(const std::vector<DroppedTensor>& dropped, bool more) {
  constexpr std::size_t most = 8;
  std::vector<std::pair<std::string, std::vector<std::string>>> reasons;
  std::size_t untold = 0;
  for (const DroppedTensor& tensor : dropped) {
    auto same = std::find_if(reasons.begin(), reasons.end(),
                             [&](const auto& reason) { return reason.first == tensor.reason; });
    if (same == reasons.end() && reasons.size() == most) {
      ++untold;
      continue;
    }
    if (same == reasons.end()) same = reasons.insert(reasons.end(), {tensor.reason, {}});
    same->second.push_back(detail::show(tensor.name));
  }
  std::string text;
  for (const auto& [reason, names] : reasons)
    text += printable(fmt::format("left out of the output: {}: {}", detail::listed(names), reason)) + "\n";
  if (untold > 0 || more)
    text +=
        fmt::format("left out of the output: {}{} more\n", more ? "at least " : "", untold + (more ? 1 : 0));
  return text;
}

Json dropped_json(const std::vector<DroppedTensor>& dropped) {
  Json json = Json::array();
  for (const DroppedTensor& tensor : dropped)
    json.push_back({{"name", tensor.name}, {"inputs", tensor.inputs}, {"reason", tensor.reason}});
  return json;
}

}  // namespace bragg::cli
