// SPDX-License-Identifier: Apache-2.0
// The table of rules, as the parser, the printer and the validator use it. Its one definition is in
// rules.cpp.
#pragma once

#include <bragg/pipeline.hpp>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <typeinfo>
#include <variant>
#include <vector>

namespace bragg::detail {

using AnyRule = std::variant<PreAggregator, Aggregator>;

/// The place of a parameter in its rule's struct.
using ParameterSlot = std::variant<int*, std::uint64_t*, double*, EvenMedian*, Start*, std::vector<int>*>;

/// The points that reach a stage.
struct StagePoints {
  int n = 0;
  int workers = 0;  ///< the rows that the pipeline started with; more than n after bucketing
};

struct RuleEntry {
  RuleInfo info;
  std::vector<ParameterInfo> parameters;  ///< what info.parameters views
  std::vector<ParameterSlot (*)(void* rule)> slots;
  AnyRule (*make)() = nullptr;           ///< the rule with its defaults
  const std::type_info* type = nullptr;  ///< its struct
  std::function<void(const void* rule, const StagePoints& points)> check;
};

std::span<const RuleEntry> rule_entries();
const RuleEntry& entry_of(const AnyRule& rule);
ParameterSlot slot_of(const RuleEntry& entry, std::size_t parameter, AnyRule& rule);

/// The value as the text form spells it.
std::string print_value(const ParameterSlot& slot);

/// The names of a choice parameter's legal values: its bound, "a | b | c", split.
std::vector<std::string_view> choices_of(const ParameterInfo& parameter);

/// Sets a choice by name. False: not a name of this choice.
bool set_choice(const ParameterSlot& slot, std::string_view name);

/// @throws Error invalid_argument: client weights reach a rule for which they are not defined.
void check_takes_weights(const Pipeline& pipeline);

}  // namespace bragg::detail
