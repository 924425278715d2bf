// SPDX-License-Identifier: Apache-2.0
// Who holds what of partial models, for people and for programs.
#pragma once

#include <bragg/io.hpp>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace bragg::cli {

/// A line for each number of inputs that count for some tensors: the least first.
std::string held_text(const std::vector<HeldTensors>& held);
/// "3/4": of how many tensors the input has the values; a bad one of none.
std::string holds_text(const std::vector<HeldTensors>& held, std::size_t input);
/// `names`: of the inputs.
nlohmann::ordered_json held_json(const std::vector<HeldTensors>& held, const std::vector<std::string>& names);

/// A line for each pattern of --exclude that no tensor has.
std::string unused_warnings(const std::vector<std::string>& unused);

/// A line for each reason, "left out of the output: …"; empty: nothing was.
std::string dropped_text(const std::vector<DroppedTensor>& dropped, bool more);
nlohmann::ordered_json dropped_json(const std::vector<DroppedTensor>& dropped);

}  // namespace bragg::cli
