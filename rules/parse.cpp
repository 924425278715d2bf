// SPDX-License-Identifier: Apache-2.0
// The text form of a pipeline:
//   pipeline = stage { "|" stage }        stage = name [ "(" [ parameter { "," parameter } ] ")" ]
//   parameter = name "=" value            value = number | choice | "[" number { "," number } "]"
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <system_error>

#include "rules/floating_environment.hpp"
#include "rules/nearest.hpp"
#include "rules/table.hpp"

namespace bragg {

namespace detail {

namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_part(char c) { return is_letter(c) || is_digit(c); }
bool is_value_part(char c) { return is_name_part(c) || c == '.' || c == '+' || c == '-'; }

/// What was written, fit for a message.
std::string quoted(std::string_view text) {
  constexpr std::size_t longest = 40;
  std::string out = "'";
  for (const char c : text.substr(0, longest)) {
    if (c >= ' ' && c <= '~') {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  out += text.size() > longest ? "…'" : "'";
  return out;
}

std::string parameter_names(const RuleEntry& entry) {
  if (entry.info.parameters.empty()) return fmt::format("{} has no parameters", entry.info.name);
  std::string names;
  for (const ParameterInfo& parameter : entry.info.parameters) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", parameter.name);
    names += parameter.default_value.empty() ? " (required)"
                                             : fmt::format(" (default {})", parameter.default_value);
  }
  return fmt::format("{} has {}", entry.info.name, names);
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Pipeline parse() {
    skip_blanks();
    if (at_end()) fail("the pipeline is empty; write a rule, e.g. median or nnm(f=2) | trimmed_mean(f=2)");
    Pipeline pipeline;
    for (;;) {
      const RuleEntry& entry = read_rule_name();
      AnyRule stage = read_parameters(entry);
      skip_blanks();
      if (auto* const pre = std::get_if<PreAggregator>(&stage)) {
        pipeline.pre.push_back(std::move(*pre));
        if (at_end()) {
          fail(fmt::format("{} is a pre-aggregator, which needs a rule after it, e.g. {} | median",
                           entry.info.name, text_.substr(stage_begin_, stage_end_ - stage_begin_)));
        }
        expect('|', "between the stages of a pipeline");
        continue;
      }
      if (!at_end() && peek() == '|') {
        fail(fmt::format("{} ends a pipeline; only pre-aggregators ({}) can be followed by another stage",
                         entry.info.name, names_of(true)));
      }
      if (!at_end()) fail(fmt::format("unexpected {} after the pipeline", quoted(text_.substr(at_))));
      pipeline.rule = std::get<Aggregator>(stage);
      return pipeline;
    }
  }

  PreSequence parse_pre_aggregators() {
    skip_blanks();
    if (at_end()) fail("there is no pre-aggregator; write one, e.g. nnm(f=2)");
    PreSequence sequence;
    for (;;) {
      const RuleEntry& entry = read_rule_name();
      AnyRule stage = read_parameters(entry);
      auto* const pre = std::get_if<PreAggregator>(&stage);
      if (pre == nullptr) {
        fail_at(stage_begin_, fmt::format("{} is a rule; needs pre-aggregators ({}) alone", entry.info.name,
                                          names_of(true)));
      }
      sequence.pre.push_back(std::move(*pre));
      skip_blanks();
      if (at_end()) return sequence;
      expect('|', "between pre-aggregators");
    }
  }

 private:
  bool at_end() const { return at_ >= text_.size(); }
  char peek() const { return text_[at_]; }

  void skip_blanks() {
    while (!at_end() && is_blank(peek())) ++at_;
  }

  [[noreturn]] void fail_at(std::size_t at, const std::string& message) const {
    // Saturated: a text of 2^31 characters is accepted as input, if not as a pipeline.
    const std::size_t column = std::min<std::size_t>(at + 1, std::numeric_limits<int>::max());
    throw ParseError(fmt::format("pipeline, column {}: {}", column, message), static_cast<int>(column));
  }
  [[noreturn]] void fail(const std::string& message) const { fail_at(at_, message); }

  std::string found() const { return at_end() ? "the end" : quoted(text_.substr(at_, 1)); }

  void expect(char c, std::string_view where) {
    skip_blanks();
    if (at_end() || peek() != c) fail(fmt::format("expected '{}' {}, found {}", c, where, found()));
    ++at_;
  }

  std::string_view read_while(bool (*accepts)(char)) {
    const std::size_t begin = at_;
    while (!at_end() && accepts(peek())) ++at_;
    return text_.substr(begin, at_ - begin);
  }

  static std::string names_of(bool pre) {
    std::string names;
    for (const RuleEntry& entry : rule_entries()) {
      if ((entry.info.kind == RuleKind::pre_aggregator) != pre) continue;
      names += fmt::format("{}{}", names.empty() ? "" : ", ", entry.info.name);
    }
    return names;
  }

  const RuleEntry& read_rule_name() {
    skip_blanks();
    stage_begin_ = at_;
    if (at_end() || !is_letter(peek())) fail(fmt::format("expected the name of a rule, found {}", found()));
    const std::string_view name = read_while(is_name_part);
    stage_end_ = at_;
    for (const RuleEntry& entry : rule_entries()) {
      if (entry.info.name == name) return entry;
    }
    const std::string_view guess =
        nearest(name, rule_entries(), [](const RuleEntry& e) { return e.info.name; });
    if (!guess.empty())
      fail_at(stage_begin_, fmt::format("unknown rule {}; did you mean {}?", quoted(name), guess));
    fail_at(stage_begin_, fmt::format("unknown rule {}; the rules are {}, and before them {}", quoted(name),
                                      names_of(false), names_of(true)));
  }

  AnyRule read_parameters(const RuleEntry& entry) {
    AnyRule rule = entry.make();
    std::vector<bool> given(entry.info.parameters.size(), false);
    skip_blanks();
    if (!at_end() && peek() == '(') {
      ++at_;
      skip_blanks();
      if (at_end() || peek() != ')') {
        for (;;) {
          read_parameter(entry, rule, given);
          skip_blanks();
          if (at_end() || peek() != ',') break;
          ++at_;
        }
      }
      skip_blanks();
      if (at_end() || peek() != ')') {
        fail(fmt::format("expected ',' or ')' after a parameter of {}, found {}", entry.info.name, found()));
      }
      require_all(entry, given);
      ++at_;
      stage_end_ = at_;
    } else {
      require_all(entry, given);
    }
    return rule;
  }

  void require_all(const RuleEntry& entry, const std::vector<bool>& given) const {
    for (std::size_t p = 0; p < given.size(); ++p) {
      const ParameterInfo& parameter = entry.info.parameters[p];
      if (given[p] || !parameter.default_value.empty()) continue;
      fail(fmt::format("{} needs {}, the {}, e.g. {}({}=2)", entry.info.name, parameter.name,
                       parameter.meaning, entry.info.name, parameter.name));
    }
  }

  void read_parameter(const RuleEntry& entry, AnyRule& rule, std::vector<bool>& given) {
    skip_blanks();
    const std::size_t begin = at_;
    if (at_end() || !is_letter(peek())) {
      fail(fmt::format("expected a parameter as name=value, found {}; {}", found(), parameter_names(entry)));
    }
    const std::string_view name = read_while(is_name_part);
    const auto parameters = entry.info.parameters;
    const auto hit = std::find_if(parameters.begin(), parameters.end(),
                                  [&](const ParameterInfo& parameter) { return parameter.name == name; });
    if (hit == parameters.end()) {
      fail_at(begin, fmt::format("unknown parameter {}; {}", quoted(name), parameter_names(entry)));
    }
    const auto p = static_cast<std::size_t>(hit - parameters.begin());
    if (given[p]) fail_at(begin, fmt::format("{} is given twice", name));
    given[p] = true;
    expect('=', fmt::format("after {}", name));
    skip_blanks();
    std::visit([&](auto slot) { read_value(*hit, slot); }, slot_of(entry, p, rule));
  }

  std::string_view read_word(const ParameterInfo& parameter) {
    value_begin_ = at_;
    const std::string_view word = read_while(is_value_part);
    if (word.empty())
      fail(fmt::format("expected a value for {} ({}), found {}", parameter.name, expected(parameter),
                       found()));
    return word;
  }

  static std::string expected(const ParameterInfo& parameter) {
    switch (parameter.type) {
      case ParameterType::integer:
        return "an integer";
      case ParameterType::unsigned_int:
        return "an integer ≥ 0";
      case ParameterType::number:
        return "a number";
      case ParameterType::choice:
        return fmt::format("one of {}", parameter.bound);
      case ParameterType::integer_list:
        return "a list such as [2,0,1]";
    }
    return "a value";
  }

  void read_value(const ParameterInfo& parameter, std::optional<int>* value) {
    read_value(parameter, &value->emplace());
  }

  template <class NumberT>
  void read_value(const ParameterInfo& parameter, NumberT* value) {
    const std::string_view word = read_word(parameter);
    const auto [end, code] = std::from_chars(word.data(), word.data() + word.size(), *value);
    if (code == std::errc::result_out_of_range) refuse_size<NumberT>(parameter, word);
    bool good = code == std::errc{} && end == word.data() + word.size();
    if constexpr (std::is_floating_point_v<NumberT>) good = good && std::isfinite(*value);
    if (!good)
      fail_at(value_begin_,
              fmt::format("{} = {}: needs {}", parameter.name, quoted(word), expected(parameter)));
  }

  /// Of a number that its type cannot hold.
  template <class NumberT>
  [[noreturn]] void refuse_size(const ParameterInfo& parameter, std::string_view word) {
    using Limits = std::numeric_limits<NumberT>;
    const std::string range =
        std::is_floating_point_v<NumberT>
            ? fmt::format("0 or a magnitude from {} to {}", Limits::min(), Limits::max())
            : fmt::format("an integer from {} to {}", Limits::lowest(), Limits::max());
    fail_at(value_begin_, fmt::format("{} = {} is out of range: needs {}, and {}", parameter.name,
                                      quoted(word), range, parameter.bound));
  }

  void read_value(const ParameterInfo& parameter, const ChoiceSlot& choice) {
    const std::string_view word = read_word(parameter);
    const auto name = std::find(choice.names.begin(), choice.names.end(), word);
    if (name == choice.names.end()) {
      fail_at(value_begin_,
              fmt::format("{} = {}: needs {}", parameter.name, quoted(word), expected(parameter)));
    }
    *choice.value = static_cast<std::uint8_t>(name - choice.names.begin());
  }

  void read_value(const ParameterInfo& parameter, std::vector<int>* values) {
    value_begin_ = at_;
    if (at_end() || peek() != '[') {
      fail(fmt::format("expected {} for {}, found {}", expected(parameter), parameter.name, found()));
    }
    ++at_;
    for (;;) {
      skip_blanks();
      value_begin_ = at_;
      const std::string_view word = read_while(is_value_part);
      int number = 0;
      const auto [end, code] = std::from_chars(word.data(), word.data() + word.size(), number);
      if (code == std::errc::result_out_of_range) refuse_size<int>(parameter, word);
      if (word.empty() || code != std::errc{} || end != word.data() + word.size()) {
        fail_at(value_begin_, fmt::format("expected an integer in {}, found {}", parameter.name,
                                          word.empty() ? found() : quoted(word)));
      }
      values->push_back(number);
      skip_blanks();
      if (at_end() || (peek() != ',' && peek() != ']')) {
        fail(fmt::format("expected ',' or ']' in {}, found {}", parameter.name, found()));
      }
      if (text_[at_++] == ']') return;
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t stage_begin_ = 0;  // of the stage being read, for messages
  std::size_t stage_end_ = 0;
  std::size_t value_begin_ = 0;
};

std::string print_stage(AnyRule rule) {
  const RuleEntry& entry = entry_of(rule);
  AnyRule defaults = entry.make();
  std::string parameters;
  for (std::size_t p = 0; p < entry.info.parameters.size(); ++p) {
    const ParameterInfo& parameter = entry.info.parameters[p];
    const std::string value = print_value(slot_of(entry, p, rule));
    const bool is_required = parameter.default_value.empty();
    if (!is_required && value == print_value(slot_of(entry, p, defaults))) continue;
    parameters += fmt::format("{}{}={}", parameters.empty() ? "" : ", ", parameter.name, value);
  }
  if (parameters.empty()) return std::string(entry.info.name);
  return fmt::format("{}({})", entry.info.name, parameters);
}

}  // namespace

}  // namespace detail

inline namespace v0 {

Pipeline parse(std::string_view text) {
  const detail::FloatingEnvironment environment;  // of decimals
  return detail::Parser(text).parse();
}

PreSequence parse_pre_aggregators(std::string_view text) {
  const detail::FloatingEnvironment environment;
  return detail::Parser(text).parse_pre_aggregators();
}

std::string to_string(const Pipeline& pipeline) {
  std::string text;
  for (const PreAggregator& stage : pipeline.pre) text += detail::print_stage(stage) + " | ";
  return text + detail::print_stage(pipeline.rule);
}

}  // namespace v0

}  // namespace bragg
