// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/error.hpp>
#include <bragg/types.hpp>
#include <concepts>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace bragg {
inline namespace v0 {

// Notation: n rows x_i in R^d, f of them Byzantine. o is the origin, or the caller's base.
// Coordinate-wise rules ------------------------------------------------------------------------------------

/// (1/n) Σ x_i. Not robust: one NaN is in the result, unless `nonfinite` says to leave rows with such values
/// out.
struct Mean {
  enum class Nonfinite : std::uint8_t { propagate, skip };
  Nonfinite nonfinite = Nonfinite::propagate;
  bool operator==(const Mean&) const = default;
};

/// Median of each coordinate. Yin et al. 2018. NaN is read as +inf.
struct Median {
  EvenMedian even = EvenMedian::midpoint;
  bool operator==(const Median&) const = default;
};

/// Mean of what is left of each coordinate after the f smallest and f largest values. Yin et al. 2018. 2f <
/// n.
struct TrimmedMean {
  int f = 0;
  bool operator==(const TrimmedMean&) const = default;
};

/// Mean of the n−f values closest to the median of each coordinate. Xie et al. 2018. 2f < n.
struct Meamed {
  int f = 0;
  bool operator==(const Meamed&) const = default;
};

/// Mean of the n−f values closest to the trimmed mean of each coordinate. Xie et al. 2018. 2f < n.
struct Phocas {
  int f = 0;
  bool operator==(const Phocas&) const = default;
};

/// o_j + step · sgn(Σ_i p_i sgn(x_ij − o_j)); sums for and against within 1e-12 of each other are a draw, and
/// o_j. NaN is read as +inf; an infinite point has no vote. signSGD with majority vote: Bernstein et al.
/// 2019. step > 0.
struct SignVote {
  double step = 1;
  bool operator==(const SignVote&) const = default;
};

// Geometric rules ------------------------------------------------------------------------------------------

/// The row of least score; score_i = Σ of its `neighbors` least squared distances. Blanchard et al. 2017.
struct Krum {
  int f = 0;
  std::optional<int> neighbors = std::nullopt;  ///< none: n−f−2
  bool operator==(const Krum&) const = default;
};

/// Mean of the m rows of least Krum score. Blanchard et al. 2017.
struct MultiKrum {
  int f = 0;
  std::optional<int> m = std::nullopt;          ///< none: n−f
  std::optional<int> neighbors = std::nullopt;  ///< none: n−f−2
  bool operator==(const MultiKrum&) const = default;
};

/// argmin_v Σ‖v − x_i‖ by Weiszfeld's iteration, weights 1/max(nu, ‖x_i − v‖). Vardi & Zhang 2000; RFA:
/// Pillutla et al. 2019 (nu = 1e-6, max_iters = 3, start = mean). With nu = 0 and max_iters of at least
/// `plain_iters`, a run to convergence, Newton steps help where Weiszfeld's are slow; from a start more than
/// four median distances from the medoid it goes on from the medoid. It ends where the objective is proven to
/// be at most `tol` above its minimum, relative to half of the weight times the distance to v within which
/// more than half of it is. Where no gap below `proven_gap` can be proven the status is not_converged; one
/// between that and 1e-9 (or tol) is ok and not `converged`. Any other run stops when the steps still to come
/// are estimated to add up to at most `tol` (weighted) median distances of the rows to v, or after max_iters.
struct GeometricMedian {
  /// `origin`: the origin, or the caller's reference where one is given.
  enum class Start : std::uint8_t { medoid, mean, origin };
  static constexpr int plain_iters = 100;
  static constexpr double proven_gap = 0x1p-7;
  double nu = 0;
  int max_iters = 1000;
  double tol = 1e-10;
  Start start = Start::medoid;
  bool operator==(const GeometricMedian&) const = default;
};

/// argmin_v Σ φ(‖x_i − v‖), φ(t) = t²/2 up to tau and tau·t − tau²/2 beyond: what centered clipping converges
/// to. Zhao et al. 2024. It runs and ends as geometric_median does, and a tau that distances do not tell from
/// 0 counts as the least that they do. tau > 0.
struct Huber {
  double tau = 0;
  int max_iters = 1000;
  double tol = 1e-10;
  GeometricMedian::Start start = GeometricMedian::Start::medoid;
  bool operator==(const Huber&) const = default;
};

/// In turn v = argmin_v Σ α_i ‖x_i − v‖, at first with equal weights α, and those of least Σ α_i r_i +
/// (lam/2) Σ α_i², Σ α_i = 1, r_i = ‖x_i − v‖: α_i = max(0, (η − r_i)/lam). Li et al. 2022.
/// Ends where v moves by no more than tol of the median distance, or after `max_iters` medians: at the limit
/// of this alternation, which need not be the least of the sum over v and α. lam > 0.
struct AutoGm {
  double lam = 0;
  int max_iters = 1000;
  double tol = 1e-10;
  bool operator==(const AutoGm&) const = default;
};

/// `iters` times v ← v + (1/n) Σ (x_i − v)·min(1, tau/‖x_i − v‖). Karimireddy et al. 2021. start = previous:
/// the plan's last output; on the first run the base if there is one, else the origin.
struct CenteredClipping {
  /// `previous`: the plan's last output; on the first run the base if there is one, else the origin.
  /// `reference` and `origin`: the base if there is one, else the origin.
  /// `pivot`: the row of that index, which the caller trusts: He et al. 2022, self-centred clipping.
  enum class Start : std::uint8_t { previous, reference, origin, pivot };
  double tau = 0;
  int iters = 1;
  Start start = Start::previous;
  int pivot = 0;
  bool operator==(const CenteredClipping&) const = default;
};

/// Mean of the (n−f)-subset of least diameter, exactly. El Mhamdi et al. 2018, Farhadkhani et al. 2022. 2f <
/// n.
struct Mda {
  int f = 0;
  bool operator==(const Mda&) const = default;
};

/// Mean of the (n−f)-subset whose covariance has the least top eigenvalue, exactly. Allouah et al. 2023. 2f <
/// n.
struct Smea {
  int f = 0;
  bool operator==(const Smea&) const = default;
};

/// Covariance-bound agnostic filter. Allouah et al. 2025. 2f < n.
struct Caf {
  int f = 0;
  bool operator==(const Caf&) const = default;
};

/// Mean of the n−f rows nearest to row `pivot`, which the caller trusts. Farhadkhani et al. 2023. 2f < n.
struct Monna {
  int f = 0;
  int pivot = 0;
  bool operator==(const Monna&) const = default;
};

/// Mean of the n−f rows of least norm about o. Gupta et al. 2020. 2f < n.
struct Cge {
  int f = 0;
  bool operator==(const Cge&) const = default;
};

/// f times the row farthest from the mean of those left is removed; the mean of the rest. Xia et al. 2019. 2f
/// < n.
struct Faba {
  int f = 0;
  bool operator==(const Faba&) const = default;
};

/// `iters` times, by rows at `sample` coordinates drawn afresh, the ⌈c·f⌉ rows that stick out farthest along
/// the top eigenvector of their covariance are dropped; the mean of the rows that were kept most often.
/// Shejwalkar & Houmansadr 2021. Coordinates are drawn from Philox4x32-10(seed, round), the round counting a
/// plan's runs; rows of no more than `sample` coordinates are judged by all. 0 ≤ f, iters ≥ 1, c > 0, sample
/// ≥ 1, ⌈c·f⌉ < n.
struct Dnc {
  int f = 0;
  int iters = 1;
  double c = 1;
  int sample = 10000;
  std::uint64_t seed = 0;
  bool operator==(const Dnc&) const = default;
};

/// alpha·x_p + (1−alpha)·mean of the rows no farther than gamma·‖x_p − o‖ from x_p, row p = `pivot`; without
/// any: x_p. Fang et al. 2024, whose schedule goes into gamma. gamma > 0, 0 ≤ alpha ≤ 1.
struct Balance {
  double gamma = 0;
  double alpha = 0.5;
  int pivot = 0;
  bool operator==(const Balance&) const = default;
};

/// o + Σ t_i (N_p/N_i) u_i / Σ t_i over the rows but row p = `pivot`, which the caller trusts: u_i = x_i − o,
/// N_i = ‖u_i‖, t_i = max(0, cosine of u_i and u_p); Σ t_i = 0: o. Cao et al. 2021. n ≥ 2.
struct FlTrust {
  int pivot = 0;
  bool operator==(const FlTrust&) const = default;
};

/// Mean of the rows weighted by how little each points as any other does, seen from o. Fung et al. 2020,
/// without memory. Rows that all point alike are no_majority. kappa > 0, n ≥ 2.
struct FoolsGold {
  double kappa = 1;
  bool operator==(const FoolsGold&) const = default;
};

/// Rows are joined in the order of their angles, seen from o, until more than n/2 hang together; the mean of
/// these. quantile_clip | majority_cluster is FLAME without its noise: Nguyen et al. 2022. n ≥ 2.
struct MajorityCluster {
  bool operator==(const MajorityCluster&) const = default;
};

/// n−2f rows chosen by repeated Krum, then MeaMed-like averaging per coordinate. El Mhamdi et al. 2018. n ≥
/// 4f+3.
struct Bulyan {
  int f = 0;
  bool operator==(const Bulyan&) const = default;
};

// Pre-aggregators ------------------------------------------------------------------------------------------

/// Each row becomes the mean of the n−f rows nearest to it, itself included. Allouah et al. 2023. 2f < n.
struct Nnm {
  int f = 0;
  bool operator==(const Nnm&) const = default;
};

/// Rows are permuted and replaced by the means of groups of s. Karimireddy et al. 2022. The permutation is
/// drawn by Fisher–Yates from Philox4x32-10(seed, round), the round counting a plan's runs, unless it is
/// given.
struct Bucketing {
  int s = 1;
  std::uint64_t seed = 0;
  std::vector<int> permutation = {};  ///< empty: drawn afresh each run
  bool operator==(const Bucketing&) const = default;
};

/// Rows are scaled about o to a norm of at most c.
struct Clip {
  double c = 0;
  bool operator==(const Clip&) const = default;
};

/// The ⌊2f(n−f)/n⌋ rows of largest norm about o are scaled to the next largest norm. Allouah et al. 2024. 2f
/// < n.
struct Arc {
  int f = 0;
  bool operator==(const Arc&) const = default;
};

/// Rows are scaled about o to a norm of at most the ⌈q·n⌉-th smallest norm. As SignGuard, FLAME and LASA clip
/// to the median norm (q = 0.5). 0 < q ≤ 1.
struct QuantileClip {
  double q = 0.5;
  bool operator==(const QuantileClip&) const = default;
};

// The closed list of rules ---------------------------------------------------------------------------------

/// A list of rules, from which all follows that is made for each of them.
template <class... RuleT>
struct RuleList {
  using Variant = std::variant<RuleT...>;
  template <class T>
  static constexpr bool contains = (std::same_as<T, RuleT> || ...);
};

// A rule is here or it does not exist; the order is that of the documentation.
using PreAggregators = RuleList<Nnm, Bucketing, Clip, Arc, QuantileClip>;
using Aggregators = RuleList<Mean, Median, TrimmedMean, Meamed, Phocas, SignVote, Krum, MultiKrum,
                             GeometricMedian, Huber, AutoGm, CenteredClipping, Mda, Smea, Caf, Monna, Cge,
                             Faba, Dnc, Balance, FlTrust, FoolsGold, MajorityCluster, Bulyan>;

using PreAggregator = PreAggregators::Variant;
using Aggregator = Aggregators::Variant;

template <class T>
concept PreAggregatorRule = PreAggregators::contains<T>;
template <class T>
concept AggregatorRule = Aggregators::contains<T>;

/// Any sequence of pre-aggregators, applied left to right, and one rule.
struct BRAGG_API Pipeline {
  std::vector<PreAggregator> pre;
  Aggregator rule;

  Pipeline() : rule(Median{}) {}
  Pipeline(Aggregator rule_in) : rule(std::move(rule_in)) {}  // NOLINT: a rule is a pipeline
  template <AggregatorRule RuleT>
  Pipeline(RuleT rule_in) : rule(std::move(rule_in)) {}  // NOLINT: a rule is a pipeline
  Pipeline(std::vector<PreAggregator> pre_in, Aggregator rule_in)
      : pre(std::move(pre_in)), rule(std::move(rule_in)) {}

  bool operator==(const Pipeline&) const = default;
};

/// Pre-aggregators, applied left to right, that have no rule yet: what `Nnm{.f = 1} | Clip{.c = 2}` is.
struct PreSequence {
  std::vector<PreAggregator> pre;

  PreSequence() = default;
  PreSequence(std::vector<PreAggregator> pre_in) : pre(std::move(pre_in)) {}  // NOLINT: it is no more
  template <PreAggregatorRule RuleT>
  PreSequence(RuleT stage) : pre{std::move(stage)} {}  // NOLINT: a pre-aggregator is a sequence

  bool operator==(const PreSequence&) const = default;
};

template <PreAggregatorRule A, PreAggregatorRule B>
PreSequence operator|(A a, B b) {
  return std::vector<PreAggregator>{std::move(a), std::move(b)};
}
template <PreAggregatorRule B>
PreSequence operator|(PreSequence a, B b) {
  a.pre.emplace_back(std::move(b));
  return a;
}
template <PreAggregatorRule A, AggregatorRule B>
Pipeline operator|(A a, B b) {
  return {{std::move(a)}, Aggregator(std::move(b))};
}
template <AggregatorRule B>
Pipeline operator|(PreSequence a, B b) {
  return {std::move(a.pre), Aggregator(std::move(b))};
}

/// Reads the text form, e.g. "nnm(f=3) | trimmed_mean(f=3)": names and parameters as in `rules()`, in any
/// order, those with a default may be left out; blanks are free.
/// @throws ParseError with the 1-based column of the mistake.
BRAGG_API Pipeline parse(std::string_view text);

/// The same of pre-aggregators alone, e.g. "bucketing(s=2) | nnm(f=3)".
/// @throws ParseError with the 1-based column of the mistake.
BRAGG_API PreSequence parse_pre_aggregators(std::string_view text);

/// The text form that `parse` reads back to an equal pipeline. Parameters at their default are left out.
BRAGG_API std::string to_string(const Pipeline& pipeline);

/// Checks every bound of the pipeline for n rows, each stage against the number of points that reach it.
/// @throws Error invalid_argument naming the rule, the parameter, its value and the bound it breaks.
BRAGG_API void validate(const Pipeline& pipeline, int n);

/// The points that reach the last rule: n, or fewer after bucketing.
BRAGG_API int points_at_rule(const Pipeline& pipeline, int n);
/// The points that the pre-aggregators make of n rows.
BRAGG_API int points_after(const PreSequence& sequence, int n);

// The table of rules ---------------------------------------------------------------------------------------

enum class RuleKind : std::uint8_t { coordinate_wise, geometric, pre_aggregator };

/// "coordinate-wise", "geometric" or "pre-aggregator".
BRAGG_API const char* to_string(RuleKind kind) noexcept;

enum class ParameterType : std::uint8_t {
  integer,       ///< int or std::optional<int>
  unsigned_int,  ///< std::uint64_t
  number,        ///< double
  choice,        ///< an enumeration
  integer_list,  ///< std::vector<int>
};

/// "int", "uint", "float", "choice" or "int list".
BRAGG_API const char* to_string(ParameterType type) noexcept;

struct ParameterInfo {
  std::string_view name;  ///< as in text and in the struct
  ParameterType type;
  std::string_view default_value;  ///< empty: required
  std::string_view bound;          ///< e.g. "0 ≤ f, 2f < n"; of a choice "a | b"
  std::string_view meaning;
  std::span<const std::string_view> choices;  ///< the names that a choice can be; else empty
};

struct RuleInfo {
  std::string_view name;
  RuleKind kind;
  std::span<const ParameterInfo> parameters;
  std::string_view definition;            ///< one sentence or formula
  std::string_view needs;                 ///< bound on n, e.g. "n ≥ 2f+3"
  std::string_view guarantee;             ///< what f bad rows can do, e.g. "κ = 6(1+r), r = f/(n−2f)"
  std::string_view source;                ///< paper
  bool takes_weights;                     ///< client weights are defined for it
  std::span<const char* const> examples;  ///< pipelines with it, where F stands for f, and N1 for n−f−1
};

/// Every rule there is, in the order of the documentation.
BRAGG_API std::span<const RuleInfo> rules();

}  // namespace v0
}  // namespace bragg
