// SPDX-License-Identifier: Apache-2.0
#include "host/files/tensor_choice.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "host/io/file.hpp"
#include "rules/nearest.hpp"

namespace bragg::detail {

namespace {

/// Whether `c` is one of those that the brackets at `at` name, and in `end` what follows them; false with
/// `end` as it was where no bracket closes.
bool is_among(std::string_view pattern, std::size_t at, char c, std::size_t& end) {
  std::size_t k = at + 1;
  const bool others = k < pattern.size() && (pattern[k] == '!' || pattern[k] == '^');
  k += others ? 1 : 0;
  const std::size_t first = k;
  bool found = false;
  for (; k < pattern.size() && (pattern[k] != ']' || k == first); ++k) {
    const char from = pattern[k];
    char to = from;
    if (k + 2 < pattern.size() && pattern[k + 1] == '-' && pattern[k + 2] != ']') {
      to = pattern[k + 2];
      k += 2;
    }
    found = found || (from <= c && c <= to);
  }
  if (k >= pattern.size()) return false;
  end = k + 1;
  return found != others;
}

/// Whether one character is what stands in the pattern at `at`, and where the pattern goes on.
bool is_one(std::string_view pattern, std::size_t at, char c, std::size_t& end) {
  end = at + 1;
  if (pattern[at] == '?') return true;
  if (pattern[at] != '[') return pattern[at] == c;
  std::size_t behind = 0;
  const bool among = is_among(pattern, at, c, behind);
  if (behind == 0) return c == '[';  // a bracket that does not close is one as it stands
  end = behind;
  return among;
}

/// What a star matched is all that has to be tried again: of several the last.
bool is_match(std::string_view pattern, std::string_view name) {
  constexpr std::size_t none = std::string_view::npos;
  std::size_t p = 0, i = 0, star = none, from = 0, next = 0;
  while (i < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      from = i;
    } else if (p < pattern.size() && is_one(pattern, p, name[i], next)) {
      p = next;
      ++i;
    } else if (star != none) {
      p = star + 1;
      i = ++from;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::vector<std::string> names_of(std::span<const TensorInfo> tensors) {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : tensors) names.push_back(tensor.name);
  return names;
}

/// The names that are nearest to a pattern, wildcards aside: what it may have been meant for.
std::string near_names(std::string pattern, std::span<const std::string> names) {
  constexpr std::size_t most_compared = 10000;
  constexpr std::size_t most_shown = 3;
  std::erase_if(pattern, [](char c) { return c == '*' || c == '?'; });
  std::vector<std::pair<std::size_t, std::string_view>> order;
  for (const std::string_view name : names.first(std::min(names.size(), most_compared))) {
    // A part of a name that is spelled right may be anywhere in it.
    const bool holds = !pattern.empty() && name.find(pattern) != std::string_view::npos;
    const std::string_view part = std::string_view(pattern).substr(0, 64);
    order.emplace_back(holds ? 0 : 1 + edit_distance(part, name.substr(0, 256)), name);
  }
  const auto shown = std::min(order.size(), most_shown);
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(shown), order.end());
  std::string text;
  for (std::size_t k = 0; k < shown; ++k) text += (k > 0 ? ", " : "") + show(order[k].second);
  return text;
}

std::string describe_unused(const std::string& pattern, std::span<const std::string> names) {
  const std::string near = near_names(pattern, names);
  return fmt::format("{} matches no tensor{}", show(pattern),
                     near.empty() ? "; there is none" : "; near to it are " + near);
}

}  // namespace

bool matches(std::span<const std::string> patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return is_match(pattern, name); });
}

void check_patterns(const char* option, std::span<const std::string> patterns,
                    std::span<const std::string> names) {
  for (const std::string& pattern : patterns) {
    const auto is_meant = [&](const std::string& name) { return matches({&pattern, 1}, name); };
    if (std::any_of(names.begin(), names.end(), is_meant)) continue;
    throw Error(Status::invalid_argument, fmt::format("{}: {}", option, describe_unused(pattern, names)));
  }
}

TensorChoice::TensorChoice(const FileOptions& options)
    : exclude_(options.exclude), copy_(options.copy), used_(exclude_.size()) {
  if (!copy_.empty() && !options.base)
    throw Error(Status::invalid_argument, "copy: needs a base, from which the tensors are taken");
}

bool TensorChoice::is_excluded(const std::string& name) {
  bool found = false;
  for (std::size_t k = 0; k < exclude_.size(); ++k) {
    if (!matches({&exclude_[k], 1}, name)) continue;
    used_[k] = true;
    found = true;
  }
  return found;
}

Skips TensorChoice::of_owner() {
  if (exclude_.empty()) return {};
  return [this](const std::string& name) {
    const bool excluded = is_excluded(name);
    if (excluded && is_copied(name)) {
      throw Error(Status::invalid_argument,
                  fmt::format("copy: tensor {} is excluded too; it can be left out or copied", show(name)));
    }
    return excluded;
  };
}

Skips TensorChoice::of_worker() {
  if (exclude_.empty() && copy_.empty()) return {};
  return [this](const std::string& name) { return is_excluded(name) || is_copied(name); };
}

void TensorChoice::check_form(std::span<const TensorInfo> tensors) const {
  const bool leaves_out = std::find(used_.begin(), used_.end(), true) != used_.end();
  if (tensors.empty() && leaves_out)
    throw Error(Status::invalid_argument, "exclude: every tensor is left out; there is nothing to write");
  if (copy_.empty()) return;
  check_patterns("copy", copy_, names_of(tensors));
  const auto copied = [&](const TensorInfo& tensor) { return is_copied(tensor.name); };
  if (std::all_of(tensors.begin(), tensors.end(), copied)) {
    throw Error(Status::invalid_argument,
                "copy: every tensor is taken from the base; there is nothing to aggregate");
  }
}

std::vector<std::string> TensorChoice::unused(std::span<const TensorInfo> tensors) const {
  std::vector<std::string> texts;
  for (std::size_t k = 0; k < exclude_.size(); ++k) {
    if (!used_[k]) texts.push_back(describe_unused(exclude_[k], names_of(tensors)));
  }
  return texts;
}

std::vector<bool> judged_tensors(const FileOptions& options, std::span<const TensorInfo> tensors,
                                 std::span<const std::size_t> floating) {
  if (options.judge_by.empty() && options.ignore_in_distances.empty()) return {};
  const std::vector<std::string> names = names_of(tensors);
  check_patterns("judge_by", options.judge_by, names);
  check_patterns("ignore_in_distances", options.ignore_in_distances, names);
  std::vector<bool> judged;
  for (const std::size_t t : floating) {
    const std::string& name = tensors[t].name;
    judged.push_back((options.judge_by.empty() || matches(options.judge_by, name)) &&
                     !matches(options.ignore_in_distances, name));
  }
  if (std::find(judged.begin(), judged.end(), false) == judged.end()) return {};
  const char* const option = options.judge_by.empty() ? "ignore_in_distances" : "judge_by";
  bool any = false;  // of which there is something to judge
  for (std::size_t k = 0; k < judged.size(); ++k)
    any = any || (judged[k] && tensors[floating[k]].elements > 0);
  if (!any) {
    throw Error(Status::invalid_argument,
                fmt::format("{}: no floating-point tensor is left to judge the inputs by", option));
  }
  if (options.options.scope == Scope::per_tensor) {
    throw Error(
        Status::invalid_argument,
        fmt::format("{}: where scope is per tensor, each is judged by itself; leave one of the two out",
                    option));
  }
  return judged;
}

}  // namespace bragg::detail
