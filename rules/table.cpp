// SPDX-License-Identifier: Apache-2.0
#include "rules/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <tuple>
#include <type_traits>
#include <utility>

#include "rules/all.hpp"

namespace bragg {

namespace detail {

namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

// Entries ---------------------------------------------------------------------------------------------------

template <class ValueT>
constexpr ParameterType type_of() {
  if constexpr (std::is_enum_v<ValueT>) {
    return ParameterType::choice;
  } else if constexpr (std::is_same_v<ValueT, std::uint64_t>) {
    return ParameterType::unsigned_int;
  } else if constexpr (std::is_same_v<ValueT, double>) {
    return ParameterType::number;
  } else if constexpr (std::is_same_v<ValueT, std::vector<int>>) {
    return ParameterType::integer_list;
  } else {
    static_assert(std::is_same_v<ValueT, int> || std::is_same_v<ValueT, std::optional<int>>);
    return ParameterType::integer;
  }
}

template <class ValueT>
ParameterSlot slot_of_value(ValueT& value) {
  if constexpr (std::is_enum_v<ValueT>) {
    static_assert(std::is_same_v<std::underlying_type_t<ValueT>, unsigned char>);  // which may alias it
    return ChoiceSlot{reinterpret_cast<unsigned char*>(&value), ChoicesOf<ValueT>::names};
  } else {
    return &value;
  }
}

template <class RuleT>
using StageOf = std::conditional_t<PreAggregatorRule<RuleT>, PreAggregator, Aggregator>;

template <class RuleT, std::size_t index>
ParameterSlot slot_in(AnyRule& rule) {
  constexpr auto parameter = std::get<index>(RuleOf<RuleT>::parameters);
  return slot_of_value(std::get<RuleT>(std::get<StageOf<RuleT>>(rule)).*parameter.member);
}

template <class RuleT, class ValueT>
ParameterInfo info_of(const Parameter<RuleT, ValueT>& parameter, std::vector<std::string>& texts) {
  ParameterInfo info{.name = parameter.name,
                     .type = type_of<ValueT>(),
                     .default_value = parameter.derived_default,
                     .bound = parameter.bound,
                     .meaning = parameter.meaning,
                     .choices = {}};
  RuleT defaults;
  const ParameterSlot slot = slot_of_value(defaults.*parameter.member);
  if (const auto* const choice = std::get_if<ChoiceSlot>(&slot)) {
    info.choices = choice->names;
    info.bound = texts.emplace_back(fmt::format("{}", fmt::join(choice->names, " | ")));
  }
  if (!parameter.required && info.default_value.empty()) {
    info.default_value = texts.emplace_back(print_value(slot));
  }
  return info;
}

template <class RuleT>
RuleEntry make_entry() {
  using Of = RuleOf<RuleT>;
  constexpr std::size_t count = std::tuple_size_v<std::remove_const_t<decltype(Of::parameters)>>;
  // What the entry views.
  static std::vector<std::string> texts;
  static std::vector<ParameterInfo> parameters;
  // What is here was begun by a call that found no memory.
  texts.clear();
  parameters.clear();
  texts.reserve(2 * count);
  RuleEntry entry;
  entry.make = [] { return AnyRule(StageOf<RuleT>(RuleT{})); };
  [&]<std::size_t... index>(std::index_sequence<index...>) {
    (parameters.push_back(info_of(std::get<index>(Of::parameters), texts)), ...);
    entry.slots = {slot_in<RuleT, index>...};
  }
  (std::make_index_sequence<count>());
  entry.info = {.name = Of::text.name,
                .kind = Of::kind,
                .parameters = parameters,
                .definition = Of::text.definition,
                .needs = Of::text.needs,
                .guarantee = Of::text.guarantee,
                .source = Of::text.source,
                .takes_weights = Of::takes_weights,
                .examples = Of::examples};
  return entry;
}

/// In the order of `entry_of`.
template <class... RuleT, class... PreT>
std::vector<RuleEntry> make_entries(RuleList<RuleT...>, RuleList<PreT...>) {
  return {make_entry<RuleT>()..., make_entry<PreT>()...};
}

const std::vector<RuleEntry>& table() {
  static const std::vector<RuleEntry> made = make_entries(Aggregators{}, PreAggregators{});
  return made;
}

// Checks ----------------------------------------------------------------------------------------------------

/// A choice that a struct holds may be none.
void check_choices(AnyRule rule) {
  const RuleEntry& entry = entry_of(rule);
  for (std::size_t p = 0; p < entry.slots.size(); ++p) {
    const ParameterSlot slot = slot_of(entry, p, rule);
    const auto* const choice = std::get_if<ChoiceSlot>(&slot);
    if (choice == nullptr || *choice->value < choice->names.size()) continue;
    const ParameterInfo& parameter = entry.info.parameters[p];
    refuse(fmt::format("{}: {} = {}: needs one of {}", entry.info.name, parameter.name, *choice->value,
                       parameter.bound));
  }
}

template <class StageT>
void check_stage(const StageT& stage, const StagePoints& points) {
  check_choices(stage);
  visit_rule(stage, [&](auto of, const auto& rule) { of.check(rule, points); });
}

int points_after(const PreAggregator& stage, int n) {
  return visit_rule(stage, [n](auto of, const auto& rule) { return of.points_after(rule, n); });
}

bool regroups(const PreAggregator& stage) {
  return visit_rule(stage, [](auto of, const auto&) { return of.regroups; });
}

template <class NumberT>
std::string print_number(NumberT value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return {text.data(), end};
}

struct Print {
  template <class NumberT>
  std::string operator()(const NumberT* value) const {
    return print_number(*value);
  }
  std::string operator()(const std::optional<int>* value) const {
    return *value ? print_number(**value) : std::string();
  }
  std::string operator()(const std::vector<int>* values) const {
    return fmt::format("[{}]", fmt::join(*values, ","));
  }
  std::string operator()(const ChoiceSlot& choice) const {
    if (*choice.value < choice.names.size()) return std::string(choice.names[*choice.value]);
    return print_number(static_cast<int>(*choice.value));
  }
};

}  // namespace

std::span<const RuleEntry> rule_entries() { return table(); }

const RuleEntry& entry_of(const AnyRule& rule) {
  const auto* const pre = std::get_if<PreAggregator>(&rule);
  return table()[pre == nullptr ? std::get<Aggregator>(rule).index()
                                : std::variant_size_v<Aggregator> + pre->index()];
}

ParameterSlot slot_of(const RuleEntry& entry, std::size_t parameter, AnyRule& rule) {
  return entry.slots[parameter](rule);
}

std::string print_value(const ParameterSlot& slot) { return std::visit(Print{}, slot); }

bool takes_weights(const Pipeline& pipeline) {
  return entry_of(pipeline.rule).info.takes_weights ||
         std::any_of(pipeline.pre.begin(), pipeline.pre.end(), [](const PreAggregator& stage) {
           return visit_rule(stage, [](auto of, const auto&) { return of.consumes_weights; });
         });
}

void refuse_weights(const Pipeline& pipeline, std::string_view remedy) {
  std::string others;
  for (const RuleEntry& entry : table()) {
    if (!entry.info.takes_weights || entry.info.kind == RuleKind::pre_aggregator) continue;
    others += fmt::format("{}{}", others.empty() ? "" : ", ", entry.info.name);
  }
  refuse(fmt::format("weights: {} has no weighted form; {}, put nnm before it, or take one of {}",
                     entry_of(pipeline.rule).info.name, remedy, others));
}

}  // namespace detail

inline namespace v0 {

void validate(const Pipeline& pipeline, int n) {
  if (n < 1) throw Error(Status::invalid_argument, fmt::format("n = {} rows: needs n ≥ 1", n));
  detail::StagePoints points{n, n};
  for (const PreAggregator& stage : pipeline.pre) {
    detail::check_stage(stage, points);
    points.n = detail::points_after(stage, points.n);
    points.regrouped = points.regrouped || detail::regroups(stage);
  }
  detail::check_stage(pipeline.rule, points);
}

int points_after(const PreSequence& sequence, int n) {
  for (const PreAggregator& stage : sequence.pre) n = detail::points_after(stage, n);
  return n;
}

int points_at_rule(const Pipeline& pipeline, int n) { return points_after(pipeline.pre, n); }

const char* to_string(RuleKind kind) noexcept {
  switch (kind) {
    case RuleKind::coordinate_wise:
      return "coordinate-wise";
    case RuleKind::geometric:
      return "geometric";
    case RuleKind::pre_aggregator:
      return "pre-aggregator";
  }
  return "unknown kind";
}

const char* to_string(ParameterType type) noexcept {
  switch (type) {
    case ParameterType::integer:
      return "int";
    case ParameterType::unsigned_int:
      return "uint";
    case ParameterType::number:
      return "float";
    case ParameterType::choice:
      return "choice";
    case ParameterType::integer_list:
      return "int list";
  }
  return "unknown type";
}

std::span<const RuleInfo> rules() {
  static const std::vector<RuleInfo> infos = [] {
    std::vector<RuleInfo> made;
    for (const detail::RuleEntry& entry : detail::table()) made.push_back(entry.info);
    return made;
  }();
  return infos;
}

}  // namespace v0

}  // namespace bragg
