// SPDX-License-Identifier: Apache-2.0
// A pipeline's steps in their order, for whoever runs them: threads of the host, or kernels on a stream.
#pragma once

#include <algorithm>

#include "rules/all.hpp"
#include "rules/certify.hpp"
#include "rules/needs.hpp"

namespace bragg::detail {

/// What pass 2 does with the block that the steps leave behind.
struct Finish {
  Stage stage;
  bool combine = false;  ///< of b.row_weight; else `rule` of the points
  SelectRule rule = {};
  int points = 0;       ///< that `rule` sees
  bool chosen = false;  ///< they are b.chosen's; else all
  bool scored = false;  ///< b.scores are the points' scores
};

namespace sequence {

/// How the points stand after a pre-aggregator.
inline Stage after(const Stage& from, const PreAggregator& rule, bool products) {
  return visit_rule(rule, [&](auto of, const auto& r) {
    Stage to = from;
    to.count = of.points_after(r, from.count);
    to.weighted = from.weighted && !of.consumes_weights;
    to.are_rows = from.are_rows && !of.merges;
    to.mixed = true;
    to.marks = 1 - from.marks;
    to.mix = 1 - from.mix;
    if (products) to.gram = 1 - from.gram;
    to.shifted = products && of.reference(r, from) >= 0;
    // Twice a sum over the old points, and of coefficients as often.
    to.rounding = from.rounding + 4 * (from.size() + 2) * 0x1p-53;
    return to;
  });
}

template <class RunF>
void transform_step(const PreAggregator& rule, const SequenceInputs& in, std::size_t k, const Stage& from,
                    const Stage& to, bool products, bool weighted, RunF& run) {
  visit_rule(rule, [&](auto of, const auto& r) {
    using StepT = typename decltype(of)::Step;
    if (StepT::is_ranked(products)) run(RankStep{.stage = from});
    run(StepT{.rule = of.on_block(r, in, k),
              .from = from,
              .to = to,
              .reference = of.reference(r, from),
              .weighted = weighted,
              .measured = products});
  });
}

template <class RunF>
Finish rule_steps(const Pipeline& pipeline, const SequenceInputs& in, const Stage& stage, RunF& run) {
  Finish finish{.stage = stage, .points = stage.count};
  visit_rule(pipeline.rule, [&](auto of, const auto& rule) {
    using RuleT = std::decay_t<decltype(rule)>;
    if constexpr (of.ranks) run(RankStep{.stage = stage});
    if constexpr (requires { of.scores(rule, stage); }) run(of.scores(rule, stage));
    if constexpr (!std::is_void_v<typename decltype(of)::Step>) run(of.step(rule, stage, in));
    if constexpr (requires { of.chosen_points(rule, 0); }) {
      finish.chosen = true;
      finish.points = of.chosen_points(rule, stage.count);
    }
    if constexpr (Selecting<RuleT>) {
      finish.rule = of.select(rule, finish.points);
    } else {
      finish.combine = true;
      finish.scored = !is_coordinate_wise<RuleT>;
    }
  });
  if (finish.combine) {
    run(CombinationStep{.stage = stage});
  } else {
    run(ShareStep{.stage = stage, .points = finish.points, .chosen = finish.chosen});
  }
  return finish;
}

}  // namespace sequence

/// Pass 1 as it may have to be run once more.
struct Recentring {
  Certificate certificate;
  CenterPlan plan;
};

/// Rows that may be bad: what the first stage says that does, times the rows in one of its points; where none
/// does, less than half if it is a majority that is trusted, else none.
inline int tolerated_rows(const Pipeline& pipeline, int rows, bool majority) {
  std::int64_t bad = -1;
  std::int64_t rows_in_point = 1;
  int points = rows;
  const auto ask = [&](auto of, const auto& rule) {
    if (bad >= 0) return;
    bad = of.may_be_bad(rule, points) * rows_in_point;
    if constexpr (of.kind == RuleKind::pre_aggregator) {
      rows_in_point *= of.points_in_one(rule, points);
      points = of.points_after(rule, points);
    }
  };
  for (const PreAggregator& stage : pipeline.pre) visit_rule(stage, ask);
  visit_rule(pipeline.rule, ask);
  if (bad < 0) return majority ? (rows - 1) / 2 : 0;
  return bad < rows ? static_cast<int>(bad) : rows - 1;
}

/// `rows`: the stage of the rows. Where the majority that a pipeline trusts is one of rows, it is among those
/// that buckets are made of, too.
inline Recentring recentring_of(const Pipeline& pipeline, const Stage& rows) {
  const PassNeeds needs = needs_of(pipeline);
  Recentring out;
  out.certificate.pairs = needs.pairs;
  const auto measure = [&](auto of, const auto& rule) {
    const int reference = of.reference(rule, rows) - rows.count;
    if (reference < 0) return;
    out.certificate.measured |= 1U << reference;
    if (!of.forgets_start(rule)) out.certificate.needed |= 1U << reference;
  };
  bool takes_pairs_before = false;
  bool weighted = rows.weighted;
  for (const PreAggregator& stage : pipeline.pre) {
    visit_rule(stage, [&](auto of, const auto& rule) {
      measure(of, rule);
      takes_pairs_before = takes_pairs_before || of.products == Products::pairs;
      weighted = weighted && !of.consumes_weights;
    });
  }
  bool by_reference = false;
  visit_rule(pipeline.rule, [&](auto of, const auto& rule) {
    measure(of, rule);
    if constexpr (is_coordinate_wise<std::decay_t<decltype(rule)>>) {
      weighted = false;
    } else {
      weighted = weighted && of.weighs_its_majority;
      by_reference = of.stays_by_reference(rule);
    }
  });
  if (!needs.pairs) {
    // From the origin of zeros a row's length is its product with itself, which is clear.
    if (rows.has_origin) out.plan = {.kind = CenterPlan::Kind::row, .row = rows.inputs};
  } else if (by_reference && !takes_pairs_before) {
    // What bounds this rule is no majority, but lengths about its reference. From zeros they are clear.
    out.certificate.pairs = false;
    if (rows.references > 1 || rows.has_origin)
      out.plan = {.kind = CenterPlan::Kind::row, .row = rows.rows() - 1};
  } else {
    out.certificate.weighted = weighted;
    out.plan = {.kind = CenterPlan::Kind::median, .weighted = weighted};
  }
  out.certificate.tolerated = tolerated_rows(pipeline, rows.inputs, out.certificate.pairs);
  return out;
}

/// The same of the passes over a sample of coordinates, by which the rule judges all points.
inline Recentring sample_recentring_of(const Pipeline& pipeline, const Stage& rows) {
  Recentring out = recentring_of(pipeline, rows);
  out.certificate.pairs = true;
  out.certificate.weighted = false;
  out.certificate.tolerated = tolerated_rows(pipeline, rows.inputs, true);
  out.plan = {.kind = CenterPlan::Kind::median};
  return out;
}

/// Gives run(step) every step of the pipeline in turn. A block is good for pass 2 when all have run.
template <class RunF>
Finish run_sequence(const Pipeline& pipeline, const SequenceInputs& in, RunF run) {
  const PassNeeds needs = needs_of(pipeline);
  Stage stage = in.stage;
  const std::optional<Pivot> trusted = pivot_of(pipeline);
  run(StartStep{.stage = stage,
                .statistics = needs.statistics,
                .products = needs.products,
                .pivot = trusted && trusted->is_row ? in.pivot : -1});
  const Recentring recentring = recentring_of(pipeline, stage);
  if (needs.products) {
    run(ErrorStep{.stage = stage,
                  .certificate = recentring.certificate,
                  .certified = recentring.plan.kind != CenterPlan::Kind::none});
  }
  const bool weighted = recentring.certificate.weighted;
  for (std::size_t k = 0; k < pipeline.pre.size(); ++k) {
    const bool products = takes_products(pipeline, k + 1);  // of the new points, for a later stage
    const Stage next = sequence::after(stage, pipeline.pre[k], products);
    sequence::transform_step(pipeline.pre[k], in, k, stage, next, products, weighted, run);
    run(MixStep{.from = stage, .to = next, .products = products});
    if (products) run(GramStep{.from = stage, .to = next});
    stage = next;
  }
  return sequence::rule_steps(pipeline, in, stage, run);
}

}  // namespace bragg::detail
