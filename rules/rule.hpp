// SPDX-License-Identifier: Apache-2.0
// The vocabulary in which a rule's file says what the rule is. RuleOf<R> holds all that the library has to
// know of the rule R, but for its mathematics: `solve` or `transform`, a function of its own beside it.
#pragma once

#include <array>
#include <bragg/pipeline.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <tuple>

#include "rules/bounds.hpp"
#include "rules/needed_order.hpp"
#include "rules/sampling.hpp"
#include "rules/select_rule.hpp"
#include "rules/steps.hpp"

namespace bragg::detail {

/// As in RuleInfo.
struct RuleText {
  std::string_view name;
  std::string_view definition;
  std::string_view needs;
  std::string_view guarantee;
  std::string_view source;
};

/// A parameter, kept in `member`.
template <class RuleT, class ValueT>
struct Parameter {
  ValueT RuleT::*member;
  std::string_view name;
  std::string_view bound;  ///< of a choice empty: its names are the bound
  std::string_view meaning;
  bool required = false;
  std::string_view derived_default = {};  ///< how it follows from n and f; empty: it is the struct's
};

/// One with the struct's default.
template <class RuleT, class ValueT>
constexpr auto parameter(ValueT RuleT::*member, std::string_view name, std::string_view bound,
                         std::string_view meaning) {
  return Parameter<RuleT, ValueT>{member, name, bound, meaning};
}
template <class RuleT, class ValueT>
constexpr auto required(ValueT RuleT::*member, std::string_view name, std::string_view bound,
                        std::string_view meaning) {
  return Parameter<RuleT, ValueT>{member, name, bound, meaning, true};
}
template <class RuleT, class ValueT>
constexpr auto derived(ValueT RuleT::*member, std::string_view name, std::string_view derived_default,
                       std::string_view bound, std::string_view meaning) {
  return Parameter<RuleT, ValueT>{member, name, bound, meaning, false, derived_default};
}
template <class RuleT, class ChoiceT>
constexpr auto choice(ChoiceT RuleT::*member, std::string_view name, std::string_view meaning) {
  return Parameter<RuleT, ChoiceT>{member, name, {}, meaning};
}
template <class RuleT>
constexpr auto tolerated(int RuleT::*f, std::string_view bound) {
  return required(f, "f", bound, "number of bad rows to tolerate");
}

/// The names of an enumeration's values, which count from 0.
template <class ChoiceT>
struct ChoicesOf;

template <>
struct ChoicesOf<EvenMedian> {
  static constexpr std::array<std::string_view, 3> names = {"midpoint", "lower", "upper"};
};

/// Which inner products a rule takes of the points that reach it.
enum class Products : std::uint8_t {
  none,
  lengths,  ///< distances from a reference; after means of rows these are made of all pairs
  pairs,
};

/// What a rule keeps from run to run of a plan.
enum class Memory : std::uint8_t {
  none,
  round,  ///< which run it is
  previous,
};

/// What holds of most rules. A RuleOf hides what it says otherwise.
template <class RuleT>
struct CommonRule {
  using Step = void;  ///< that `step` makes, to run on the block; void: none
  static constexpr std::tuple<> parameters{};
  static constexpr Products products = Products::none;
  static constexpr bool takes_weights = false;  ///< client weights are defined for it
  static constexpr bool ranks = false;          ///< it finds all neighbours in its scratch (take_neighbors)
  /// It has to know which points are finite, though it takes no products.
  static bool needs_statistics(const RuleT&) { return false; }
  static void check(const RuleT&, const StagePoints&) {}
  /// The reference that it measures from, as an index among the stage's points; -1: none.
  static int reference(const RuleT&, const Stage&) { return -1; }
  /// The reference is a mere start, which the result does not depend on.
  static bool forgets_start(const RuleT&) { return false; }
  static Memory memory(const RuleT&) { return Memory::none; }
  /// The coordinates that it judges points by, where these are not all; it needs statistics then. Its step
  /// finds the products that rows have there in the block's samples.
  static Sampling sampling(const RuleT&) { return {}; }
  /// Of n points, where its result depends on distances by nothing but an order of theirs.
  static std::optional<NeededOrder> needed_order(const RuleT&, int) { return std::nullopt; }
  /// Of n points, how many may be bad; -1: it does not say.
  static int may_be_bad(const RuleT& rule, int) {
    if constexpr (requires { rule.f; }) {
      return rule.f;
    } else {
      return -1;
    }
  }
  /// Its parameter that is the index of a row which it trusts; null: it trusts none. `step` is given the
  /// point's index, of a row that is finite.
  static constexpr int* pivot(RuleT&) { return nullptr; }
  /// What the rule does on n points beyond ranking distances, at the most, in steps of an n³: multiply-adds
  /// of `tridiagonalize`. Said only where it may come to seconds.
  static double work(const RuleT&, int) { return 0; }
};

/// A rule that pass 2 computes of each coordinate: select(rule, points) says how.
template <class RuleT>
struct CoordinateWiseRule : CommonRule<RuleT> {
  static constexpr RuleKind kind = RuleKind::coordinate_wise;
};

/// A rule whose result is a combination of the points: solve(team, rule, points, scratch, out) finds it.
template <class RuleT>
struct GeometricRule : CommonRule<RuleT> {
  static constexpr RuleKind kind = RuleKind::geometric;
  static constexpr Products products = Products::pairs;
  static constexpr bool weighs_its_majority = false;  ///< the majority it trusts is one of client weight
  /// Bounded by lengths about its reference, by no majority; or it takes angles, seen from there.
  static bool stays_by_reference(const RuleT&) { return false; }
  using Step = SolveStep<RuleT>;
  static Step step(const RuleT& rule, const Stage& stage, const SequenceInputs& inputs) {
    RuleT placed = rule;
    if (int* const pivot = RuleOf<RuleT>::pivot(placed)) *pivot = inputs.pivot;
    return {.rule = placed, .stage = stage, .reference = RuleOf<RuleT>::reference(rule, stage)};
  }
};

/// A geometric rule whose subset of points is searched for on the host: search(rule, points, scratch, keep).
template <class RuleT>
struct SearchedRule : GeometricRule<RuleT> {
  using Step = SearchStep<RuleT>;
  static Step step(const RuleT& rule, const Stage& stage, const SequenceInputs&) {
    return {.rule = rule, .stage = stage};
  }
};

/// A rule before the last: transform(team, rule, points, scratch, out) makes new points of the old.
template <class RuleT>
struct PreAggregatingRule : CommonRule<RuleT> {
  static constexpr RuleKind kind = RuleKind::pre_aggregator;
  static constexpr bool merges = false;            ///< points become means of several
  static constexpr bool regroups = false;          ///< point i is no longer row i's
  static constexpr bool consumes_weights = false;  ///< the new points have none
  using Step = TransformStep<RuleT>;
  using OnBlock = RuleT;  ///< the rule as `transform` takes it: on_block(rule, inputs, which stage it is)
  static OnBlock on_block(const RuleT& rule, const SequenceInputs&, std::size_t) { return rule; }
  static int points_after(const RuleT&, int n) { return n; }
  /// Of n points, how many may have to be bad for a new one to be.
  static int points_in_one(const RuleT&, int) { return 1; }
};

template <class RuleT>
constexpr bool is_coordinate_wise = RuleOf<RuleT>::kind == RuleKind::coordinate_wise;

/// Pass 2 computes it of each coordinate, of all points or of those that its step chooses.
template <class RuleT>
concept Selecting = requires(const RuleT& rule) {
  { RuleOf<RuleT>::select(rule, 1) } -> std::same_as<SelectRule>;
};

template <class StepT>
constexpr bool is_search = false;
template <class RuleT>
constexpr bool is_search<SearchStep<RuleT>> = true;

}  // namespace bragg::detail
