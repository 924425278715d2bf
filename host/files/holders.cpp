// SPDX-License-Identifier: Apache-2.0
#include "host/files/holders.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "host/io/file.hpp"
#include "rules/needs.hpp"
#include "rules/table.hpp"

namespace bragg::detail {

namespace {

ActiveRows rows_of(const HeldTogether& held, const FileOptions& options, double max_weight_share) {
  const int n = static_cast<int>(held.there.size());
  ActiveRows active;
  if (!options.weights.empty()) {
    std::vector<double> weights = options.weights;
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = held.there[i] ? weights[i] : 0;
    set_active_rows(weights, n, max_weight_share, active);
    return active;
  }
  for (int i = 0; i < n; ++i) {
    if (held.there[static_cast<std::size_t>(i)]) active.rows.push_back(i);
  }
  active.invalid.assign(active.rows.size(), 0);
  return active;
}

std::string fault_of(const HeldTogether& held, const Pipeline& pipeline, const FileOptions& options) {
  try {
    const ActiveRows active = rows_of(held, options, options.options.max_weight_share);
    const std::optional<Pipeline> remaining = remaining_pipeline(pipeline, active);
    if (!remaining) {
      const std::optional<Pivot> trusted = pivot_of(pipeline);
      return fmt::format("{}: pivot = {} does not hold it", trusted->rule, trusted->index);
    }
    validate(*remaining, static_cast<int>(active.rows.size()));
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

/// For each tensor why it cannot be in the output; empty: it can. Integers take a median of any rows.
std::vector<std::string> faults_of(const std::vector<HeldTogether>& groups, const Inputs& inputs) {
  std::vector<std::string> faults(inputs.tensors.size());
  for (const HeldTogether& held : groups) {
    const auto bad =
        static_cast<std::size_t>(std::count(held.there.begin(), held.there.end(), true)) - held.holders;
    const std::string few = fmt::format(
        "held by {} of {} inputs{}: {}", held.holders, voters(inputs),
        bad > 0 ? fmt::format(", and {} that {} bad", bad, bad == 1 ? "is" : "are") : "", held.fault);
    for (const auto* const tensors : {&held.floating, &held.integers}) {
      for (const std::size_t t : *tensors) {
        if (inputs.tensors[t].elements == 0) continue;
        if (held.holders == 0) {
          faults[t] = "held by no input";
        } else if (!held.fault.empty() && tensors == &held.floating) {
          faults[t] = few;
        }
      }
    }
  }
  return faults;
}

/// "tensor "b": held by 4 of 6 inputs: …; 2 more tensors cannot be aggregated"; empty: there is no fault.
std::string describe_faults(const std::vector<std::string>& faults, const Inputs& inputs) {
  const auto is_fault = [](const std::string& fault) { return !fault.empty(); };
  const auto first = std::find_if(faults.begin(), faults.end(), is_fault);
  if (first == faults.end()) return "";
  const auto more = std::count_if(first + 1, faults.end(), is_fault);
  const auto t = static_cast<std::size_t>(first - faults.begin());
  std::string text = fmt::format("tensor {}: {}", show(inputs.tensors[t].name), *first);
  if (more > 0) text += fmt::format("; {} more tensor{} cannot be aggregated", more, more == 1 ? "" : "s");
  return text;
}

std::vector<HeldTogether> groups_with_faults(const Inputs& inputs, const Pipeline& pipeline,
                                             const FileOptions& options) {
  std::vector<HeldTogether> groups = group_by_holders(inputs);
  for (HeldTogether& held : groups) held.fault = fault_of(held, pipeline, options);
  return groups;
}

}  // namespace

std::vector<HeldTogether> group_by_holders(const Inputs& inputs) {
  std::vector<HeldTogether> groups;
  std::map<std::vector<bool>, std::size_t> known;
  const auto add = [&](std::size_t t, bool floating) {
    std::vector<bool> there;
    for (const InputRow& row : inputs.rows) there.push_back(!row.bad.empty() || holds(inputs, row, t));
    const auto [found, added] = known.emplace(there, groups.size());
    if (added)
      groups.push_back(
          {.there = there, .holders = count_rows_with(inputs, t), .floating = {}, .integers = {}});
    HeldTogether& group = groups[found->second];
    (floating ? group.floating : group.integers).push_back(t);
  };
  for (const std::size_t t : inputs.floating) add(t, true);
  for (const std::size_t t : inputs.integers) add(t, false);
  return groups;
}

std::vector<HeldTensors> describe_holders(const std::vector<HeldTogether>& groups, const Inputs& inputs) {
  std::vector<HeldTensors> all;
  for (const HeldTogether& held : groups) {
    HeldTensors& each = all.emplace_back();
    for (const auto* const tensors : {&held.floating, &held.integers}) {
      for (const std::size_t t : *tensors) each.tensors.push_back(inputs.tensors[t].name);
    }
    for (std::size_t i = 0; i < held.there.size(); ++i) {
      if (held.there[i]) {
        ++each.n;
      } else if (!inputs.rows[i].left_out) {
        each.absent.push_back(i);
      }
    }
  }
  return all;
}

ActiveRows active_rows_of(const HeldTogether& held, const FileOptions& options) {
  return rows_of(held, options, held.fault.empty() ? options.options.max_weight_share : 0);
}

std::vector<HeldTogether> checked_holders(const Inputs& inputs, const Pipeline& pipeline,
                                          const FileOptions& options) {
  std::vector<HeldTogether> groups = groups_with_faults(inputs, pipeline, options);
  const std::string fault = describe_faults(faults_of(groups, inputs), inputs);
  if (!fault.empty()) {
    throw Error(Status::invalid_argument,
                fmt::format("partial: {}; exclude such tensors, or copy the base's", fault));
  }
  return groups;
}

void drop_few_held(Inputs& inputs, const Pipeline& pipeline, const FileOptions& options) {
  const int n = static_cast<int>(inputs.rows.size());
  validate(pipeline, n);
  ActiveRows all;
  set_active_rows(options.weights, n, options.options.max_weight_share, all);
  check_active_rows(pipeline, n, all);
  const std::vector<HeldTogether> groups = groups_with_faults(inputs, pipeline, options);
  const std::vector<std::string> faults = faults_of(groups, inputs);
  bool had_values = false, has_values = false;
  for (const std::size_t t : inputs.floating) {
    had_values = had_values || inputs.tensors[t].elements > 0;
    has_values = has_values || (inputs.tensors[t].elements > 0 && faults[t].empty());
  }
  if (had_values && !has_values)
    throw Error(Status::invalid_argument,
                fmt::format("partial: {}; no other is left", describe_faults(faults, inputs)));
  std::vector<DroppedTensor> few(inputs.tensors.size());
  for (std::size_t t = 0; t < few.size(); ++t) {
    if (!faults[t].empty()) few[t] = {inputs.tensors[t].name, count_rows_with(inputs, t), faults[t]};
  }
  drop_tensors(inputs, few);
}

}  // namespace bragg::detail
