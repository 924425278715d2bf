// SPDX-License-Identifier: Apache-2.0
// A pipeline's steps in their order, for whoever runs them: threads of the host, or kernels on a stream.
#pragma once

#include <algorithm>
#include <span>
#include <type_traits>

#include "rules/certify.hpp"
#include "rules/select_rule.hpp"
#include "rules/steps.hpp"

namespace bragg::detail {

template <class RuleT>
constexpr bool is_coordinate_wise =
    std::is_same_v<RuleT, Mean> || std::is_same_v<RuleT, Median> || std::is_same_v<RuleT, TrimmedMean> ||
    std::is_same_v<RuleT, Meamed> || std::is_same_v<RuleT, Phocas>;

inline bool is_geometric(const Aggregator& rule) {
  return std::visit([](const auto& r) { return !is_coordinate_wise<std::decay_t<decltype(r)>>; }, rule);
}

/// What pass 1 has to give.
struct PassNeeds {
  bool statistics = false;  ///< which rows are finite
  bool products = false;
  bool pairs = false;  ///< products of all rows; else only of each with itself and with the references
};

/// Whether distances between rows are wanted, and not only those to the references. Clipping leaves a point
/// on the line from its row to a reference; of a mean of rows, all their products are part.
inline bool takes_pairs(const Pipeline& pipeline) {
  bool merged = false;
  for (const PreAggregator& stage : pipeline.pre) {
    const bool merges = std::holds_alternative<Bucketing>(stage);
    if (std::holds_alternative<Nnm>(stage) || (merged && !merges)) return true;
    merged = merged || merges;
  }
  return is_geometric(pipeline.rule) && (merged || !std::holds_alternative<Cge>(pipeline.rule));
}

inline PassNeeds needs_of(const Pipeline& pipeline) {
  const bool geometric = is_geometric(pipeline.rule);
  const bool measures = std::any_of(pipeline.pre.begin(), pipeline.pre.end(), [](const PreAggregator& stage) {
    return !std::holds_alternative<Bucketing>(stage);
  });
  return {.statistics = geometric || !pipeline.pre.empty(),
          .products = geometric || measures,
          .pairs = takes_pairs(pipeline)};
}

/// What pass 2 does with the block that the steps leave behind.
struct Finish {
  Stage stage;
  bool combine = false;  ///< of b.row_weight; else `rule` of the points
  SelectRule rule = {};
  int points = 0;       ///< that `rule` sees
  bool chosen = false;  ///< they are b.chosen's; else all
  bool scored = false;  ///< b.scores are the points' scores
};

/// What a run brings beside the data.
struct SequenceInputs {
  Stage stage = {};  ///< of the rows
  int pivot = 0;     ///< monna's, among the points
  std::uint64_t round = 0;
  const std::uint64_t* rounds = nullptr;  ///< as BucketingDraw::rounds
  /// Per pre-aggregator the address of its permutation on the device; empty: the rule's own.
  std::span<const int* const> permutations = {};
};

namespace sequence {

inline SelectRule select_rule(const Median& rule, int) {
  return {.kind = SelectRule::Kind::median, .even = rule.even};
}
inline SelectRule select_rule(const TrimmedMean& rule, int) {
  return {.kind = SelectRule::Kind::trimmed_mean, .f = rule.f};
}
inline SelectRule select_rule(const Meamed& rule, int points) {
  return {.kind = SelectRule::Kind::closest_to_median, .f = rule.f, .keep = points - rule.f};
}
inline SelectRule select_rule(const Phocas& rule, int points) {
  return {.kind = SelectRule::Kind::closest_to_trimmed_mean, .f = rule.f, .keep = points - rule.f};
}

/// The reference that a rule measures from, as an index among the stage's points; -1: none.
template <class RuleT>
int reference_of(const RuleT& rule, const Stage& stage) {
  if constexpr (std::is_same_v<RuleT, Clip> || std::is_same_v<RuleT, Arc> || std::is_same_v<RuleT, Cge>) {
    return stage.count;
  } else if constexpr (std::is_same_v<RuleT, GeometricMedian>) {
    return rule.start == Start::origin ? stage.count : -1;
  } else if constexpr (std::is_same_v<RuleT, CenteredClipping>) {
    return stage.size() - 1;  // the previous output, or the origin where there is none
  } else {
    return -1;
  }
}

/// How the points stand after a pre-aggregator.
inline Stage after(const Stage& from, const PreAggregator& rule, bool products) {
  Stage to = from;
  const auto* const bucketing = std::get_if<Bucketing>(&rule);
  const bool merges = bucketing != nullptr || std::holds_alternative<Nnm>(rule);
  if (bucketing != nullptr) {
    const int s = bucketing->s < from.count ? bucketing->s : from.count;
    to.count = (from.count + s - 1) / s;
  }
  to.weighted = from.weighted && !std::holds_alternative<Nnm>(rule);  // its means consume them
  to.are_rows = from.are_rows && !merges;
  to.mixed = true;
  to.marks = 1 - from.marks;
  to.mix = 1 - from.mix;
  if (products) to.gram = 1 - from.gram;
  to.shifted = products && (std::holds_alternative<Clip>(rule) || std::holds_alternative<Arc>(rule));
  // Twice a sum over the old points, and of coefficients as often.
  to.rounding = from.rounding + 4 * (from.size() + 2) * 0x1p-53;
  return to;
}

template <class RunF>
void transform_step(const PreAggregator& rule, const SequenceInputs& in, std::size_t k, const Stage& from,
                    const Stage& to, bool products, bool weighted, RunF& run) {
  std::visit(
      [&](const auto& r) {
        using RuleT = std::decay_t<decltype(r)>;
        if constexpr (std::is_same_v<RuleT, Bucketing>) {
          const int* const own = r.permutation.empty() ? nullptr : r.permutation.data();
          const int* const permutation = in.permutations.empty() ? own : in.permutations[k];
          run(TransformStep<BucketingDraw>{.rule = {.s = r.s,
                                                    .seed = r.seed,
                                                    .round = in.round,
                                                    .rounds = in.rounds,
                                                    .permutation = permutation},
                                           .from = from,
                                           .to = to,
                                           .weighted = weighted,
                                           .measured = products});
        } else {
          run(TransformStep<RuleT>{.rule = r,
                                   .from = from,
                                   .to = to,
                                   .reference = reference_of(r, from),
                                   .weighted = weighted,
                                   .measured = products});
        }
      },
      rule);
}

template <class RunF>
Finish rule_steps(const Pipeline& pipeline, const SequenceInputs& in, const Stage& stage, RunF& run) {
  Finish finish{.stage = stage, .points = stage.count};
  std::visit(
      [&](const auto& rule) {
        using RuleT = std::decay_t<decltype(rule)>;
        if constexpr (std::is_same_v<RuleT, Bulyan>) {
          run(ChooseStep{.rule = rule, .stage = stage});
          finish.chosen = true;
          finish.points = stage.count - 2 * rule.f;
          finish.rule = {.kind = SelectRule::Kind::closest_to_median, .keep = finish.points - 2 * rule.f};
        } else if constexpr (std::is_same_v<RuleT, Mean>) {
          run(MeanStep{.stage = stage});
          finish.combine = true;
        } else if constexpr (is_coordinate_wise<RuleT>) {
          finish.rule = select_rule(rule, stage.count);
        } else {
          if constexpr (std::is_same_v<RuleT, Mda> || std::is_same_v<RuleT, Smea>) {
            run(SearchStep<RuleT>{.rule = rule, .stage = stage});
          } else if constexpr (std::is_same_v<RuleT, Monna>) {
            run(SolveStep<Monna>{.rule = {.f = rule.f, .pivot = in.pivot}, .stage = stage});
          } else if constexpr (std::is_same_v<RuleT, Krum>) {
            // One row of least score: the mean of the first.
            run(SolveStep<MultiKrum>{.rule = {.f = rule.f, .m = 1, .neighbors = rule.neighbors},
                                     .stage = stage});
          } else {
            run(SolveStep<RuleT>{.rule = rule,
                                 .stage = stage,
                                 .reference = reference_of(rule, stage),
                                 .out_of_range = std::is_same_v<RuleT, GeometricMedian>});
          }
          finish.combine = finish.scored = true;
        }
      },
      pipeline.rule);
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

/// f of the first stage that has one; where none has, less than half.
inline int tolerated_rows(const Pipeline& pipeline, int rows) {
  int f = -1;
  const auto ask = [&](const auto& stage) {
    if constexpr (requires { stage.f; }) f = f < 0 ? stage.f : f;
  };
  for (const PreAggregator& stage : pipeline.pre) std::visit(ask, stage);
  std::visit(ask, pipeline.rule);
  return f >= 0 ? f : (rows - 1) / 2;
}

/// `rows`: the stage of the rows. Where the majority that a pipeline trusts is one of rows, it is among those
/// that buckets are made of, too.
inline Recentring recentring_of(const Pipeline& pipeline, const Stage& rows) {
  const PassNeeds needs = needs_of(pipeline);
  Recentring out;
  out.certificate.pairs = needs.pairs;
  out.certificate.tolerated = tolerated_rows(pipeline, rows.inputs);
  bool has_nnm = false;
  bool from_origin = std::holds_alternative<Cge>(pipeline.rule);
  bool starts_at_origin = false;
  for (const PreAggregator& stage : pipeline.pre) {
    has_nnm = has_nnm || std::holds_alternative<Nnm>(stage);
    from_origin = from_origin || std::holds_alternative<Clip>(stage) || std::holds_alternative<Arc>(stage);
  }
  const bool clipping = std::holds_alternative<CenteredClipping>(pipeline.rule);
  const bool from_previous = clipping && rows.references > 1;
  from_origin = from_origin || (clipping && !from_previous);
  if (const auto* const median = std::get_if<GeometricMedian>(&pipeline.rule)) {
    // Where a run ends does not depend on where it starts, unless it is told the number of its steps.
    const bool counted = median->max_iters < GeometricMedian::plain_iters || median->nu > 0;
    starts_at_origin = !counted && median->start == Start::origin;
    from_origin = from_origin || (counted && median->start == Start::origin);
  }
  if (from_origin) out.certificate.needed |= 1U;
  if (from_previous) out.certificate.needed |= 2U;
  out.certificate.measured = out.certificate.needed | (starts_at_origin ? 1U : 0U);
  if (!needs.pairs) {
    // From the origin of zeros a row's length is its product with itself, which is clear.
    if (rows.has_origin) out.plan = {.kind = CenterPlan::Kind::row, .row = rows.inputs};
  } else if (clipping && !has_nnm && (from_previous || rows.has_origin)) {
    // What bounds this rule is no majority, but lengths about where it starts.
    out.certificate.pairs = false;
    out.plan = {.kind = CenterPlan::Kind::row, .row = rows.rows() - 1};
  } else {
    out.certificate.weighted =
        rows.weighted && !has_nnm && std::holds_alternative<GeometricMedian>(pipeline.rule);
    out.plan = {.kind = CenterPlan::Kind::median, .weighted = out.certificate.weighted};
  }
  return out;
}

/// Gives run(step) every step of the pipeline in turn. A block is good for pass 2 when all have run.
template <class RunF>
Finish run_sequence(const Pipeline& pipeline, const SequenceInputs& in, RunF run) {
  const PassNeeds needs = needs_of(pipeline);
  Stage stage = in.stage;
  run(StartStep{.stage = stage, .statistics = needs.statistics, .products = needs.products});
  const Recentring recentring = recentring_of(pipeline, stage);
  if (needs.products) {
    run(ErrorStep{.stage = stage,
                  .certificate = recentring.certificate,
                  .certified = recentring.plan.kind != CenterPlan::Kind::none});
  }
  const bool weighted = recentring.certificate.weighted;
  for (std::size_t k = 0; k < pipeline.pre.size(); ++k) {
    bool products = is_geometric(pipeline.rule);  // of the new points, for a later stage
    for (std::size_t later = k + 1; later < pipeline.pre.size(); ++later) {
      products = products || !std::holds_alternative<Bucketing>(pipeline.pre[later]);
    }
    const Stage next = sequence::after(stage, pipeline.pre[k], products);
    sequence::transform_step(pipeline.pre[k], in, k, stage, next, products, weighted, run);
    run(MixStep{.from = stage, .to = next, .products = products});
    if (products) run(GramStep{.from = stage, .to = next});
    stage = next;
  }
  return sequence::rule_steps(pipeline, in, stage, run);
}

}  // namespace bragg::detail
