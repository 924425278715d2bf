// SPDX-License-Identifier: Apache-2.0
#include "host/files/failure.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "host/base/listed.hpp"
#include "host/plan/report.hpp"
#include "rules/needs.hpp"
#include "rules/table.hpp"

namespace bragg::detail {

namespace {

/// "2 of 12 hold NaN: a, b".
std::string list(const char* what, const std::vector<std::string>& texts, std::size_t of) {
  return fmt::format("{} of {} {}: {}", texts.size(), of, what, listed(texts));
}

/// How many inputs count for a tensor (null: for all tensors).
std::size_t count_rows(const Inputs& inputs, const TensorInfo* tensor) {
  if (tensor == nullptr) return voters(inputs);
  const auto t = static_cast<std::size_t>(tensor - inputs.tensors.data());
  return static_cast<std::size_t>(
      std::count_if(inputs.rows.begin(), inputs.rows.end(),
                    [&](const InputRow& row) { return !row.bad.empty() || holds(inputs, row, t); }));
}

/// Empty where none is known.
std::string list_bad_rows(const Solution& solution, const Inputs& inputs, const TensorInfo* tensor) {
  std::vector<std::string> bad, nonfinite, too_large, weights;
  for (std::size_t i = 0; i < inputs.rows.size(); ++i) {
    if (!inputs.rows[i].bad.empty()) {
      bad.push_back(fmt::format("{} ({})", inputs.names[i], inputs.rows[i].bad));
    } else if (inputs.rows[i].bad_weight) {
      weights.push_back(fmt::format("{} ({})", inputs.names[i], *inputs.rows[i].bad_weight));
    } else if (i < solution.report.rows.size() && solution.report.rows[i].nonfinite > 0) {
      const std::int64_t count = solution.report.rows[i].nonfinite;
      nonfinite.push_back(fmt::format("{} ({} value{})", inputs.names[i], count, count == 1 ? "" : "s"));
    } else if (solution.status == Status::too_many_nonfinite && i < solution.too_large.size() &&
               solution.too_large[i] != 0) {
      too_large.push_back(inputs.names[i]);
    }
  }
  std::string text;
  const auto add = [&](const char* what, const std::vector<std::string>& texts) {
    if (!texts.empty()) text += (text.empty() ? "" : "; ") + list(what, texts, count_rows(inputs, tensor));
  };
  add("are bad inputs", bad);
  add("have a weight that is negative or not finite", weights);
  add("hold NaN or infinity", nonfinite);
  add("hold values too large to measure (beyond 2^500, or far above the others)", too_large);
  return text;
}

/// The one of an npy has no name.
std::string text_of(const TensorInfo& tensor) {
  return tensor.name.empty() ? "the array" : fmt::format("tensor {}", show(tensor.name));
}

/// "monna: pivot = 3 (c.safetensors): "; empty of a bucket.
std::string which_pivot(const Inputs& inputs, const Pipeline& pipeline) {
  const std::optional<Pivot> trusted = pivot_of(pipeline);
  if (!trusted || !trusted->is_row) return "";
  return fmt::format("{}: pivot = {} ({}): ", trusted->rule, trusted->index,
                     inputs.names.at(static_cast<std::size_t>(trusted->index)));
}

/// What to do first about rows that the pipeline does not stand.
std::string tolerance_of(const Pipeline& pipeline) {
  const auto has_f = [](const AnyRule& rule) {
    const auto& parameters = entry_of(rule).info.parameters;
    return std::any_of(parameters.begin(), parameters.end(),
                       [](const ParameterInfo& parameter) { return parameter.name == "f"; });
  };
  const bool any =
      has_f(pipeline.rule) || std::any_of(pipeline.pre.begin(), pipeline.pre.end(),
                                          [&](const PreAggregator& stage) { return has_f(stage); });
  if (any) return "raise f, or ";
  const std::string_view name = entry_of(pipeline.rule).info.name;
  if (std::holds_alternative<AutoGm>(pipeline.rule))  // it has no weighted form
    return fmt::format("{} stands fewer than half of the rows; ", name);
  const bool by_weight =
      std::holds_alternative<GeometricMedian>(pipeline.rule) || std::holds_alternative<Huber>(pipeline.rule);
  return by_weight ? fmt::format("{} stands less than half of the weight; ", name) : "";
}

}  // namespace

void throw_failure(const Solution& solution, const Inputs& inputs, const Pipeline& pipeline,
                   const TensorInfo* tensor) {
  const std::string where = tensor != nullptr ? text_of(*tensor) + ": " : "";
  if (solution.status != Status::too_many_nonfinite) {
    std::string what = describe_failure(solution.status, {&solution.report, 1});
    if (solution.status == Status::nonfinite_pivot) what = which_pivot(inputs, pipeline) + what;
    if (solution.status == Status::nonfinite_base)
      what += ": " + (inputs.base ? inputs.base->path.string() : std::string());
    throw Error(solution.status, where + what);
  }
  std::string rows = list_bad_rows(solution, inputs, tensor);
  if (rows.empty()) rows = "no value is NaN or infinite, but those beyond 2^500 count so";
  throw Error(solution.status, fmt::format("{}too many workers are not finite for {}: {}; {}leave them out",
                                           where, bragg::to_string(pipeline), rows, tolerance_of(pipeline)));
}

void throw_nonfinite_output(const Solution& solution, const Inputs& inputs, const Pipeline& pipeline,
                            const TensorInfo& tensor, bool may_be_asked_for) {
  std::string rows = list_bad_rows(solution, inputs, &tensor);
  if (rows.empty()) rows = "all rows are finite, but their sum leaves the range";
  throw Error(Status::too_many_nonfinite,
              fmt::format("{}: the output would hold NaN or infinity, which {} does not keep out: {}; "
                          "{}{}",
                          text_of(tensor), bragg::to_string(pipeline), rows, tolerance_of(pipeline),
                          may_be_asked_for ? "ask for such an output (allow_nonfinite)"
                                           : "exclude the tensor, or copy it"));
}

bool is_none_finite(const Solution& solution, const ActiveRows& active, std::span<const std::uint8_t> bad) {
  // Of rows it knows nothing, and makes NaN of them; but votes are o and a step, whoever casts them.
  const bool knows_rows = !solution.coordinate_wise || solution.mixed;
  if (!knows_rows && solution.rule.kind != SelectRule::Kind::sign_vote) return false;
  const auto is_infinite = [&](std::size_t i) {
    const auto row = static_cast<std::size_t>(active.rows[i]);
    const bool too_large = row < solution.too_large.size() && solution.too_large[row] != 0;
    return bad[i] != 0 || active.invalid[i] != 0 || too_large || solution.report.rows[row].nonfinite > 0;
  };
  for (std::size_t i = 0; i < bad.size(); ++i) {
    if (!is_infinite(i)) return false;
  }
  return !bad.empty();
}

bool bad_decide(const Solution& solution, std::span<const std::uint8_t> bad) {
  const auto count = std::count(bad.begin(), bad.end(), 1);
  if (count == 0) return false;
  if (static_cast<std::size_t>(count) == bad.size() || solution.infinite_everywhere) return true;
  if (!solution.coordinate_wise) {
    for (std::size_t i = 0; i < std::min(bad.size(), solution.coefficients.size()); ++i) {
      if (bad[i] != 0 && solution.coefficients[i] != 0) return true;
    }
    return false;
  }
  int infinite = 0;
  for (std::size_t p = 0; p < static_cast<std::size_t>(solution.points); ++p) {
    const bool marked = !solution.infinite.empty() && solution.infinite[p] != 0;
    const bool is_bad = !solution.mixed && bad[static_cast<std::size_t>(solution.rows[p])] != 0;
    infinite += marked || is_bad ? 1 : 0;
  }
  const SelectRule& rule = solution.rule;
  const bool by_majority = rule.kind == SelectRule::Kind::median || rule.kind == SelectRule::Kind::sign_vote;
  return infinite > (by_majority ? (solution.points - 1) / 2 : rule.f);
}

void check_pivot(const Inputs& inputs, const Pipeline& pipeline) {
  const std::optional<Pivot> trusted = pivot_of(pipeline);
  if (!trusted || !trusted->is_row) return;
  const auto pivot = static_cast<std::size_t>(trusted->index);
  if (inputs.rows[pivot].bad.empty()) return;
  throw Error(Status::nonfinite_pivot, fmt::format("{}: pivot = {} is a bad input: {} ({})", trusted->rule,
                                                   pivot, inputs.names[pivot], inputs.rows[pivot].bad));
}

}  // namespace bragg::detail
