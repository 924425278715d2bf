// SPDX-License-Identifier: Apache-2.0
#include "rules/needs.hpp"

#include <algorithm>
#include <cmath>

#include "rules/all.hpp"

namespace bragg::detail {

namespace {

Products products_of(const auto& stage) {
  return visit_rule(stage, [](auto of, const auto&) { return of.products; });
}

Memory memory_of(const auto& stage) {
  return visit_rule(stage, [](auto of, const auto& rule) { return of.memory(rule); });
}

}  // namespace

// Clipping leaves a point on the line from its row to a reference; of a mean of rows, all their products are
// part.
bool takes_pairs(const Pipeline& pipeline) {
  bool merged = false;
  const auto takes = [&](Products products) {
    return products == Products::pairs || (merged && products == Products::lengths);
  };
  for (const PreAggregator& stage : pipeline.pre) {
    if (takes(products_of(stage))) return true;
    merged = merged || visit_rule(stage, [](auto of, const auto&) { return of.merges; });
  }
  return takes(products_of(pipeline.rule));
}

bool takes_products(const Pipeline& pipeline, std::size_t first) {
  const auto from = pipeline.pre.begin() + static_cast<std::ptrdiff_t>(std::min(first, pipeline.pre.size()));
  return products_of(pipeline.rule) != Products::none ||
         std::any_of(from, pipeline.pre.end(),
                     [](const PreAggregator& stage) { return products_of(stage) != Products::none; });
}

PassNeeds needs_of(const Pipeline& pipeline) {
  const bool products = takes_products(pipeline, 0);
  const bool statistics =
      visit_rule(pipeline.rule, [](auto of, const auto& rule) { return of.needs_statistics(rule); });
  const Sampling sampling =
      visit_rule(pipeline.rule, [](auto of, const auto& rule) { return of.sampling(rule); });
  return {.statistics = products || statistics || !pipeline.pre.empty(),
          .products = products,
          .pairs = takes_pairs(pipeline),
          .sampling = sampling};
}

std::optional<NeededOrder> needed_order_of(const Pipeline& pipeline, int n) {
  const auto order = [&](const auto& stage) {
    return visit_rule(stage, [&](auto of, const auto& rule) { return of.needed_order(rule, n); });
  };
  if (pipeline.pre.empty()) return order(pipeline.rule);
  if (takes_products(pipeline, 1) || needs_of(pipeline).sampling.count > 0 || pipeline.pre.size() > 1)
    return std::nullopt;
  return order(pipeline.pre.front());
}

bool keeps_previous(const Pipeline& pipeline) { return memory_of(pipeline.rule) == Memory::previous; }

bool has_memory(const Pipeline& pipeline) {
  return memory_of(pipeline.rule) != Memory::none ||
         std::any_of(pipeline.pre.begin(), pipeline.pre.end(),
                     [](const PreAggregator& stage) { return memory_of(stage) != Memory::none; });
}

// The factors are measured, at n = 2000.
double work_of(const Pipeline& pipeline, int n) {
  const auto ranking = [](const auto& stage, double points) {
    return products_of(stage) == Products::pairs ? 60 * points * points * std::log2(points) : 0.0;
  };
  double work = 0;
  for (std::size_t k = 0; k < pipeline.pre.size(); ++k) {
    const PreAggregator& stage = pipeline.pre[k];
    work += ranking(stage, n);
    if (takes_products(pipeline, k + 1)) work += 5 * std::pow(n, 3);
    n = visit_rule(stage, [&](auto of, const auto& rule) { return of.points_after(rule, n); });
  }
  work += ranking(pipeline.rule, n);
  return work + visit_rule(pipeline.rule, [&](auto of, const auto& rule) { return of.work(rule, n); });
}

std::optional<Pivot> pivot_of(const Pipeline& pipeline) {
  const bool regrouped =
      std::any_of(pipeline.pre.begin(), pipeline.pre.end(), [](const PreAggregator& stage) {
        return visit_rule(stage, [](auto of, const auto&) { return of.regroups; });
      });
  return visit_rule(pipeline.rule, [&](auto of, auto rule) -> std::optional<Pivot> {
    const int* const pivot = of.pivot(rule);
    if (pivot == nullptr) return std::nullopt;
    return Pivot{.rule = of.text.name, .index = *pivot, .is_row = !regrouped};
  });
}

void set_pivot(Pipeline& pipeline, int index) {
  std::visit(
      [index](auto& rule) {
        if (int* const pivot = RuleOf<std::decay_t<decltype(rule)>>::pivot(rule)) *pivot = index;
      },
      pipeline.rule);
}

bool searches_on_host(const Pipeline& pipeline) {
  return visit_rule(pipeline.rule,
                    [](auto of, const auto&) { return is_search<typename decltype(of)::Step>; });
}

}  // namespace bragg::detail
