// SPDX-License-Identifier: Apache-2.0
// The table of rules, as the parser, the printer and the validator use it. It is made of the list of rules.
#pragma once

#include <bragg/pipeline.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "rules/bounds.hpp"

namespace bragg::detail {

using AnyRule = std::variant<PreAggregator, Aggregator>;

/// A choice in its rule's struct: the index of its name.
struct ChoiceSlot {
  std::uint8_t* value;
  std::span<const std::string_view> names;
};

/// The place of a parameter in its rule's struct.
using ParameterSlot =
    std::variant<int*, std::optional<int>*, std::uint64_t*, double*, std::vector<int>*, ChoiceSlot>;

struct RuleEntry {
  RuleInfo info;
  std::vector<ParameterSlot (*)(AnyRule& rule)> slots;  ///< of info.parameters, in their order
  AnyRule (*make)() = nullptr;                          ///< the rule with its defaults
};

std::span<const RuleEntry> rule_entries();
const RuleEntry& entry_of(const AnyRule& rule);
ParameterSlot slot_of(const RuleEntry& entry, std::size_t parameter, AnyRule& rule);

/// The value as the text form spells it; of one that follows from n and f, nothing.
std::string print_value(const ParameterSlot& slot);

/// Whether client weights reach no rule for which they are not defined.
bool takes_weights(const Pipeline& pipeline);

/// Of a pipeline that does not: what it is, and which rules do. @throws Error invalid_argument.
[[noreturn]] void refuse_weights(const Pipeline& pipeline, std::string_view remedy);

}  // namespace bragg::detail
