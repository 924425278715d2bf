// SPDX-License-Identifier: Apache-2.0
#include "rules/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "rules/smea.hpp"

namespace bragg {

namespace detail {

namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(Status::invalid_argument, message); }

// Names of choices ------------------------------------------------------------------------------------------

constexpr std::array<std::pair<EvenMedian, std::string_view>, 3> even_names{
    {{EvenMedian::midpoint, "midpoint"}, {EvenMedian::lower, "lower"}, {EvenMedian::upper, "upper"}}};

constexpr std::array<std::pair<Start, std::string_view>, 5> start_names{{{Start::medoid, "medoid"},
                                                                         {Start::mean, "mean"},
                                                                         {Start::origin, "origin"},
                                                                         {Start::previous, "previous"},
                                                                         {Start::reference, "reference"}}};

constexpr const auto& names_of(EvenMedian) { return even_names; }
constexpr const auto& names_of(Start) { return start_names; }

template <class T>
constexpr bool is_choice = std::is_enum_v<T>;

// Bounds ----------------------------------------------------------------------------------------------------

std::string rows_text(const StagePoints& points) {
  if (points.n == points.workers) return fmt::format("n = {} row{}", points.n, points.n == 1 ? "" : "s");
  return fmt::format("n = {} of the buckets that {} rows make", points.n, points.workers);
}

/// What to do when n is too small for f: `largest_f` is the largest that n admits, negative when none does.
std::string remedy(int largest_f) {
  if (largest_f < 0) return "add workers";
  return fmt::format("lower f to at most {} or add workers", largest_f);
}

void need_f(const char* rule, int f) {
  if (f < 0) refuse(fmt::format("{}: f = {}: needs f ≥ 0, the number of bad rows to tolerate", rule, f));
}

/// 2f < n.
void need_majority(const char* rule, int f, const StagePoints& points) {
  need_f(rule, f);
  if (2LL * f >= points.n) {
    refuse(fmt::format("{}: {} with f = {}: needs n ≥ 2f+1 = {}; {}", rule, rows_text(points), f, 2LL * f + 1,
                       remedy((points.n - 1) / 2)));
  }
}

/// n ≥ factor·f + 3.
void need_more_than(const char* rule, int factor, int f, const StagePoints& points) {
  need_f(rule, f);
  const long long least = static_cast<long long>(factor) * f + 3;
  if (points.n < least) {
    refuse(fmt::format("{}: {} with f = {}: needs n ≥ {}f+3 = {}; {}", rule, rows_text(points), f, factor,
                       least, remedy(points.n < 3 ? -1 : (points.n - 3) / factor)));
  }
}

void need_between(const char* rule, const char* parameter, int value, int low, int high, const char* bound) {
  if (value < low || value > high) {
    refuse(fmt::format("{}: {} = {}: needs {}, here {} to {}", rule, parameter, value, bound, low, high));
  }
}

void need_at_least(const char* rule, const char* parameter, int value, int low) {
  if (value < low) refuse(fmt::format("{}: {} = {}: needs {} ≥ {}", rule, parameter, value, parameter, low));
}

void need_finite(const char* rule, const char* parameter, double value, bool zero_allowed) {
  if (std::isfinite(value) && (value > 0 || (zero_allowed && value == 0))) return;
  refuse(fmt::format("{}: {} = {}: needs {} {} 0 and finite", rule, parameter, value, parameter,
                     zero_allowed ? "≥" : ">"));
}

void check_neighbors(const char* rule, int f, int neighbors, const StagePoints& points) {
  if (neighbors == automatic ||
      static_cast<long long>(neighbors) == static_cast<long long>(points.n) - f - 2) {
    need_more_than(rule, 2, f, points);
    return;
  }
  need_majority(rule, f, points);
  if (points.n - f - 1 < 1) {
    refuse(fmt::format("{}: {} with f = {}: there are no neighbors to score by; add workers", rule,
                       rows_text(points), f));
  }
  need_between(rule, "neighbors", neighbors, 1, points.n - f - 1, "1 ≤ neighbors ≤ n−f−1");
}

void check_permutation(const std::vector<int>& permutation, const StagePoints& points) {
  if (permutation.empty()) return;
  if (permutation.size() != static_cast<std::size_t>(points.n)) {
    refuse(fmt::format("bucketing: permutation has {} entries for {}; list each of 0 to {} once",
                       permutation.size(), rows_text(points), points.n - 1));
  }
  std::vector<bool> seen(permutation.size());
  for (const int i : permutation) {
    if (i < 0 || i >= points.n) {
      refuse(fmt::format("bucketing: permutation holds {}; list each of 0 to {} once", i, points.n - 1));
    }
    if (seen[static_cast<std::size_t>(i)]) {
      refuse(
          fmt::format("bucketing: permutation holds {} twice; list each of 0 to {} once", i, points.n - 1));
    }
    seen[static_cast<std::size_t>(i)] = true;
  }
}

void check_subsets(int f, const StagePoints& points) {
  if (!smea_is_too_large(points.n, f)) return;
  throw Error(
      Status::too_large,
      fmt::format(
          "smea: {} with f = {}: more subsets of n−f rows to compare than the limits of {:.0f}, and of "
          "{:.2g} times (n−f)³; lower f, or take nnm(f={}) | trimmed_mean(f={})",
          rows_text(points), f, smea_subset_limit, smea_work_limit, f, f));
}

// Entries ---------------------------------------------------------------------------------------------------

template <class T>
struct MemberOf;
template <class RuleT, class ValueT>
struct MemberOf<ValueT RuleT::*> {
  using Rule = RuleT;
  using Value = ValueT;
};

template <class ValueT>
constexpr std::string_view type_name() {
  if constexpr (std::is_same_v<ValueT, int>) return "int";
  if constexpr (std::is_same_v<ValueT, std::uint64_t>) return "uint";
  if constexpr (std::is_same_v<ValueT, double>) return "float";
  if constexpr (std::is_same_v<ValueT, std::vector<int>>) return "int list";
  return "choice";
}

struct Parameter {
  ParameterInfo info;
  ParameterSlot (*slot)(void* rule);
};

constexpr std::string_view required;

/// The parameter that is kept in `member`.
template <auto member>
Parameter parameter(std::string_view name, std::string_view default_value, std::string_view bound,
                    std::string_view meaning) {
  using Member = MemberOf<decltype(member)>;
  return {{name, type_name<typename Member::Value>(), default_value, bound, meaning},
          [](void* rule) -> ParameterSlot { return &(static_cast<typename Member::Rule*>(rule)->*member); }};
}

template <auto member>
Parameter tolerated(std::string_view bound) {
  return parameter<member>("f", required, bound, "number of bad rows to tolerate");
}

/// What RuleInfo says beside the parameters.
struct Text {
  std::string_view name;
  RuleKind kind;
  std::string_view definition;
  std::string_view needs;
  std::string_view guarantee;
  std::string_view source;
  bool takes_weights = false;
};

template <class RuleT>
RuleEntry entry(const Text& text, const std::vector<Parameter>& parameters,
                void (*check)(const RuleT& rule, const StagePoints& points)) {
  RuleEntry made;
  for (const Parameter& p : parameters) {
    made.parameters.push_back(p.info);
    made.slots.push_back(p.slot);
  }
  // A moved vector keeps its buffer, so the view stays good when the entry moves.
  made.info = {text.name,  text.kind,      made.parameters, text.definition,
               text.needs, text.guarantee, text.source,     text.takes_weights};
  made.make = [] {
    if constexpr (PreAggregatorRule<RuleT>) {
      return AnyRule(PreAggregator(RuleT{}));
    } else {
      return AnyRule(Aggregator(RuleT{}));
    }
  };
  made.type = &typeid(RuleT);
  made.check = [check](const void* rule, const StagePoints& points) {
    check(*static_cast<const RuleT*>(rule), points);
  };
  return made;
}

constexpr auto coordinate_wise = RuleKind::coordinate_wise;
constexpr auto geometric = RuleKind::geometric;
constexpr auto pre_aggregator = RuleKind::pre_aggregator;

/// THE table. A rule is here or it does not exist; the order is that of the documentation. r = f/(n−2f).
std::vector<RuleEntry> make_table() {
  std::vector<RuleEntry> table;

  table.push_back(entry<Mean>({.name = "mean",
                               .kind = coordinate_wise,
                               .definition = "(1/n) Σ x_i",
                               .needs = "n ≥ 1",
                               .guarantee = "none: one bad row moves it anywhere, one NaN is in the result",
                               .source = "",
                               .takes_weights = true},
                              {}, [](const Mean&, const StagePoints&) {}));

  table.push_back(entry<Median>(
      {.name = "median",
       .kind = coordinate_wise,
       .definition =
           "the middle value of each coordinate; for even n what `even` says of the two middle ones",
       .needs = "n ≥ 1",
       .guarantee = "inside the honest range of each coordinate; κ = 4(1+r)², r = f/(n−2f)",
       .source = "Yin et al. 2018",
       .takes_weights = true},
      {parameter<&Median::even>("even", "midpoint", "midpoint | lower | upper",
                                "the median of an even number of values")},
      [](const Median&, const StagePoints&) {}));

  table.push_back(entry<TrimmedMean>(
      {.name = "trimmed_mean",
       .kind = coordinate_wise,
       .definition = "mean of what is left of each coordinate without its f smallest and f largest values",
       .needs = "n ≥ 2f+1",
       .guarantee = "inside the honest range of each coordinate; κ = 6r(1+r), r = f/(n−2f)",
       .source = "Yin et al. 2018",
       .takes_weights = true},
      {tolerated<&TrimmedMean::f>("0 ≤ f, 2f < n")}, [](const TrimmedMean& rule, const StagePoints& points) {
        need_majority("trimmed_mean", rule.f, points);
      }));

  table.push_back(entry<Meamed>(
      {.name = "meamed",
       .kind = coordinate_wise,
       .definition = "mean of the n−f values of each coordinate that are closest to its median",
       .needs = "n ≥ 2f+1",
       .guarantee = "at most one honest range beyond the honest values of each coordinate",
       .source = "Xie et al. 2018"},
      {tolerated<&Meamed::f>("0 ≤ f, 2f < n")},
      [](const Meamed& rule, const StagePoints& points) { need_majority("meamed", rule.f, points); }));

  table.push_back(entry<Phocas>(
      {.name = "phocas",
       .kind = coordinate_wise,
       .definition = "mean of the n−f values of each coordinate that are closest to its trimmed mean",
       .needs = "n ≥ 2f+1",
       .guarantee = "at most one honest range beyond the honest values of each coordinate",
       .source = "Xie et al. 2018"},
      {tolerated<&Phocas::f>("0 ≤ f, 2f < n")},
      [](const Phocas& rule, const StagePoints& points) { need_majority("phocas", rule.f, points); }));

  table.push_back(entry<Krum>(
      {.name = "krum",
       .kind = geometric,
       .definition = "the row whose `neighbors` nearest others have the least sum of squared distances to it",
       .needs = "n ≥ 2f+3; n ≥ 2f+1 with other neighbors than n−f−2",
       .guarantee = "κ = 6(1+r), r = f/(n−2f)",
       .source = "Blanchard et al. 2017"},
      {tolerated<&Krum::f>("0 ≤ f, 2f+3 ≤ n"),
       parameter<&Krum::neighbors>("neighbors", "n−f−2", "1 ≤ neighbors ≤ n−f−1",
                                   "other rows that make a score")},
      [](const Krum& rule, const StagePoints& points) {
        check_neighbors("krum", rule.f, rule.neighbors, points);
      }));

  table.push_back(
      entry<MultiKrum>({.name = "multi_krum",
                        .kind = geometric,
                        .definition = "mean of the m rows of least Krum score",
                        .needs = "n ≥ 2f+3; n ≥ 2f+1 with other neighbors than n−f−2",
                        .guarantee = "(f, κ)-robust for m ≤ n−f",
                        .source = "Blanchard et al. 2017",
                        .takes_weights = true},
                       {tolerated<&MultiKrum::f>("0 ≤ f, 2f+3 ≤ n"),
                        parameter<&MultiKrum::m>("m", "n−f", "1 ≤ m ≤ n", "rows to average"),
                        parameter<&MultiKrum::neighbors>("neighbors", "n−f−2", "1 ≤ neighbors ≤ n−f−1",
                                                         "other rows that make a score")},
                       [](const MultiKrum& rule, const StagePoints& points) {
                         check_neighbors("multi_krum", rule.f, rule.neighbors, points);
                         if (rule.m != automatic)
                           need_between("multi_krum", "m", rule.m, 1, points.n, "1 ≤ m ≤ n");
                       }));

  table.push_back(entry<GeometricMedian>(
      {.name = "geometric_median",
       .kind = geometric,
       .definition = "argmin_v Σ‖v − x_i‖, by Weiszfeld's iteration with weights 1/max(nu, ‖x_i − v‖)",
       .needs = "n ≥ 1",
       .guarantee = "κ = 4(1+r)², r = f/(n−2f)",
       .source = "Vardi & Zhang 2000; RFA: Pillutla et al. 2019",
       .takes_weights = true},
      {parameter<&GeometricMedian::nu>("nu", "0", "nu ≥ 0",
                                       "floor on the distances that weights are made of"),
       parameter<&GeometricMedian::max_iters>("max_iters", "1000", "max_iters ≥ 1",
                                              "iterations to stop after"),
       parameter<&GeometricMedian::tol>("tol", "1e-10", "tol ≥ 0",
                                        "gap of the objective to stop at, relative; of fewer than 100 "
                                        "iterations a step, relative to the median distance"),
       parameter<&GeometricMedian::start>("start", "medoid", "medoid | mean | origin",
                                          "where the iteration starts")},
      [](const GeometricMedian& rule, const StagePoints&) {
        need_finite("geometric_median", "nu", rule.nu, true);
        need_at_least("geometric_median", "max_iters", rule.max_iters, 1);
        need_finite("geometric_median", "tol", rule.tol, true);
      }));

  table.push_back(entry<CenteredClipping>(
      {.name = "centered_clipping",
       .kind = geometric,
       .definition = "iters times v ← v + (1/n) Σ (x_i − v)·min(1, tau/‖x_i − v‖)",
       .needs = "n ≥ 1",
       .guarantee = "bad rows move v by at most tau·f/n an iteration",
       .source = "Karimireddy et al. 2021",
       .takes_weights = true},
      {parameter<&CenteredClipping::tau>("tau", required, "tau > 0", "radius that updates are clipped to"),
       parameter<&CenteredClipping::iters>("iters", "1", "iters ≥ 1", "iterations"),
       parameter<&CenteredClipping::start>("start", "previous", "previous | reference | origin",
                                           "the first v; previous: the plan's last output")},
      [](const CenteredClipping& rule, const StagePoints&) {
        need_finite("centered_clipping", "tau", rule.tau, false);
        need_at_least("centered_clipping", "iters", rule.iters, 1);
      }));

  table.push_back(entry<Mda>(
      {.name = "mda",
       .kind = geometric,
       .definition = "mean of the n−f rows whose largest distance from each other is least, exactly",
       .needs = "n ≥ 2f+1",
       .guarantee = "(f, κ)-robust",
       .source = "El Mhamdi et al. 2018; Farhadkhani et al. 2022",
       .takes_weights = true},
      {tolerated<&Mda::f>("0 ≤ f, 2f < n")},
      [](const Mda& rule, const StagePoints& points) { need_majority("mda", rule.f, points); }));

  table.push_back(entry<Smea>(
      {.name = "smea",
       .kind = geometric,
       .definition = "mean of the n−f rows whose covariance has the least top eigenvalue, exactly",
       .needs = "n ≥ 2f+1, at most 2000000 subsets of n−f rows",
       .guarantee = "(f, κ)-robust",
       .source = "Allouah et al. 2023"},
      {tolerated<&Smea::f>("0 ≤ f, 2f < n")}, [](const Smea& rule, const StagePoints& points) {
        need_majority("smea", rule.f, points);
        check_subsets(rule.f, points);
      }));

  table.push_back(entry<Caf>(
      {.name = "caf",
       .kind = geometric,
       .definition =
           "rows that stick out along the top eigenvector of the covariance lose weight step by step; the "
           "mean of least top eigenvalue",
       .needs = "n ≥ 2f+1",
       .guarantee = "(f, κ)-robust",
       .source = "Allouah et al. 2025"},
      {tolerated<&Caf::f>("0 ≤ f, 2f < n")},
      [](const Caf& rule, const StagePoints& points) { need_majority("caf", rule.f, points); }));

  table.push_back(
      entry<Monna>({.name = "monna",
                    .kind = geometric,
                    .definition = "mean of the n−f rows nearest to row `pivot`, itself included",
                    .needs = "n ≥ 2f+1",
                    .guarantee = "(f, κ)-robust for an honest pivot",
                    .source = "Farhadkhani et al. 2023",
                    .takes_weights = true},
                   {tolerated<&Monna::f>("0 ≤ f, 2f < n"),
                    parameter<&Monna::pivot>("pivot", "0", "0 ≤ pivot < n", "index of the trusted row")},
                   [](const Monna& rule, const StagePoints& points) {
                     need_majority("monna", rule.f, points);
                     need_between("monna", "pivot", rule.pivot, 0, points.n - 1, "0 ≤ pivot < n");
                   }));

  table.push_back(entry<Cge>(
      {.name = "cge",
       .kind = geometric,
       .definition = "mean of the n−f rows of least norm about o, the origin or the reference",
       .needs = "n ≥ 2f+1",
       .guarantee = "bad rows are no longer than the longest honest row; no bound on their direction",
       .source = "Gupta et al. 2020",
       .takes_weights = true},
      {tolerated<&Cge::f>("0 ≤ f, 2f < n")},
      [](const Cge& rule, const StagePoints& points) { need_majority("cge", rule.f, points); }));

  table.push_back(entry<Bulyan>(
      {.name = "bulyan",
       .kind = geometric,
       .definition =
           "n−2f rows by repeated Krum, then of each coordinate the mean of the n−4f values closest to the "
           "median",
       .needs = "n ≥ 4f+3",
       .guarantee = "at most one honest range beyond the honest values of each coordinate",
       .source = "El Mhamdi et al. 2018"},
      {tolerated<&Bulyan::f>("0 ≤ f, 4f+3 ≤ n")},
      [](const Bulyan& rule, const StagePoints& points) { need_more_than("bulyan", 4, rule.f, points); }));

  table.push_back(
      entry<Nnm>({.name = "nnm",
                  .kind = pre_aggregator,
                  .definition = "each row becomes the mean of the n−f rows nearest to it, itself included",
                  .needs = "n ≥ 2f+1",
                  .guarantee = "the κ of the rule after it becomes 8f/(n−f)·(κ+1)",
                  .source = "Allouah et al. 2023",
                  .takes_weights = true},
                 {tolerated<&Nnm::f>("0 ≤ f, 2f < n")},
                 [](const Nnm& rule, const StagePoints& points) { need_majority("nnm", rule.f, points); }));

  table.push_back(entry<Bucketing>(
      {.name = "bucketing",
       .kind = pre_aggregator,
       .definition = "the rows, permuted, become ⌈n/s⌉ means of s rows each",
       .needs = "1 ≤ s ≤ n; the next rule must stand ⌈n/s⌉ rows",
       .guarantee = "that of the rule after it for ⌈n/s⌉ rows, f of them bad",
       .source = "Karimireddy et al. 2022",
       .takes_weights = true},
      {parameter<&Bucketing::s>("s", required, "1 ≤ s ≤ n", "rows in a bucket"),
       parameter<&Bucketing::seed>("seed", "0", "0 ≤ seed < 2^64", "of the permutations, one drawn each run"),
       parameter<&Bucketing::permutation>("permutation", "drawn", "each of 0 to n−1 once",
                                          "the permutation to use")},
      [](const Bucketing& rule, const StagePoints& points) {
        need_between("bucketing", "s", rule.s, 1, points.n, "1 ≤ s ≤ n");
        check_permutation(rule.permutation, points);
      }));

  table.push_back(
      entry<Clip>({.name = "clip",
                   .kind = pre_aggregator,
                   .definition = "o + (x_i − o)·min(1, c/‖x_i − o‖), o the origin or the reference",
                   .needs = "n ≥ 1",
                   .guarantee = "no row is farther than c from o",
                   .source = "",
                   .takes_weights = true},
                  {parameter<&Clip::c>("c", required, "c ≥ 0", "longest distance from o that is kept")},
                  [](const Clip& rule, const StagePoints&) { need_finite("clip", "c", rule.c, true); }));

  table.push_back(entry<Arc>(
      {.name = "arc",
       .kind = pre_aggregator,
       .definition = "the k = ⌊2f(n−f)/n⌋ rows of largest norm about o are scaled to the (k+1)-th largest",
       .needs = "n ≥ 2f+1",
       .guarantee = "no row is longer than the longest honest row",
       .source = "Allouah et al. 2024",
       .takes_weights = true},
      {tolerated<&Arc::f>("0 ≤ f, 2f < n")},
      [](const Arc& rule, const StagePoints& points) { need_majority("arc", rule.f, points); }));

  return table;
}

const std::vector<RuleEntry>& table() {
  static const std::vector<RuleEntry> made = make_table();
  return made;
}

/// The rule's struct.
void* address_of(AnyRule& rule) {
  return std::visit([](auto& stage) { return std::visit([](auto& r) -> void* { return &r; }, stage); }, rule);
}

const std::type_info& type_of(const AnyRule& rule) {
  return std::visit(
      [](const auto& stage) -> const std::type_info& {
        return std::visit([](const auto& r) -> const std::type_info& { return typeid(r); }, stage);
      },
      rule);
}

/// A choice that a struct holds may be one of another rule's.
void check_choices(const RuleEntry& entry, AnyRule& rule) {
  for (std::size_t p = 0; p < entry.parameters.size(); ++p) {
    const ParameterInfo& parameter = entry.parameters[p];
    if (parameter.type != "choice") continue;
    const std::string value = print_value(slot_of(entry, p, rule));
    const auto choices = choices_of(parameter);
    if (std::find(choices.begin(), choices.end(), value) == choices.end()) {
      refuse(fmt::format("{}: {} = {}: needs one of {}", entry.info.name, parameter.name, value,
                         parameter.bound));
    }
  }
}

void check_stage(AnyRule rule, const StagePoints& points) {
  const RuleEntry& entry = entry_of(rule);
  check_choices(entry, rule);
  entry.check(address_of(rule), points);
}

int points_after(const PreAggregator& stage, int n) {
  const auto* const bucketing = std::get_if<Bucketing>(&stage);
  if (bucketing == nullptr || bucketing->s < 1) return n;
  return n / bucketing->s + (n % bucketing->s != 0 ? 1 : 0);
}

template <class NumberT>
std::string print_number(NumberT value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return {text.data(), end};
}

}  // namespace

std::span<const RuleEntry> rule_entries() { return table(); }

const RuleEntry& entry_of(const AnyRule& rule) {
  const std::type_info& type = type_of(rule);
  for (const RuleEntry& entry : table()) {
    if (*entry.type == type) return entry;
  }
  throw Error(Status::internal, fmt::format("a rule is missing in the table of rules: {}", type.name()));
}

ParameterSlot slot_of(const RuleEntry& entry, std::size_t parameter, AnyRule& rule) {
  return entry.slots[parameter](address_of(rule));
}

std::string print_value(const ParameterSlot& slot) {
  return std::visit(
      [](const auto* value) -> std::string {
        using ValueT = std::decay_t<decltype(*value)>;
        if constexpr (is_choice<ValueT>) {
          for (const auto& [choice, name] : names_of(*value)) {
            if (choice == *value) return std::string(name);
          }
          return print_number(static_cast<int>(*value));
        } else if constexpr (std::is_same_v<ValueT, std::vector<int>>) {
          return fmt::format("[{}]", fmt::join(*value, ","));
        } else {
          return print_number(*value);
        }
      },
      slot);
}

std::vector<std::string_view> choices_of(const ParameterInfo& parameter) {
  constexpr std::string_view separator = " | ";
  std::vector<std::string_view> choices;
  std::string_view rest = parameter.bound;
  for (;;) {
    const std::size_t end = rest.find(separator);
    choices.push_back(rest.substr(0, end));
    if (end == std::string_view::npos) return choices;
    rest.remove_prefix(end + separator.size());
  }
}

bool set_choice(const ParameterSlot& slot, std::string_view name) {
  return std::visit(
      [&](auto* value) {
        if constexpr (is_choice<std::decay_t<decltype(*value)>>) {
          for (const auto& [choice, choice_name] : names_of(*value)) {
            if (choice_name != name) continue;
            *value = choice;
            return true;
          }
        }
        return false;
      },
      slot);
}

void check_takes_weights(const Pipeline& pipeline) {
  for (const PreAggregator& stage : pipeline.pre) {
    if (std::holds_alternative<Nnm>(stage)) return;  // its means use the weights up
  }
  const RuleInfo& rule = entry_of(pipeline.rule).info;
  if (rule.takes_weights) return;
  std::string others;
  for (const RuleEntry& entry : table()) {
    if (!entry.info.takes_weights || entry.info.kind == pre_aggregator) continue;
    others += fmt::format("{}{}", others.empty() ? "" : ", ", entry.info.name);
  }
  refuse(fmt::format(
      "weights: {} has no weighted form; leave the weights out, put nnm before it, or take one of {}",
      rule.name, others));
}

}  // namespace detail

inline namespace v0 {

void validate(const Pipeline& pipeline, int n) {
  if (n < 1) throw Error(Status::invalid_argument, fmt::format("n = {} rows: needs n ≥ 1", n));
  detail::StagePoints points{n, n};
  for (const PreAggregator& stage : pipeline.pre) {
    detail::check_stage(stage, points);
    points.n = detail::points_after(stage, points.n);
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

std::span<const RuleInfo> rules() noexcept {
  static const std::vector<RuleInfo> infos = [] {
    std::vector<RuleInfo> made;
    for (const detail::RuleEntry& entry : detail::table()) made.push_back(entry.info);
    return made;
  }();
  return infos;
}

}  // namespace v0

}  // namespace bragg
