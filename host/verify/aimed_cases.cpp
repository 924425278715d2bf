// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "host/verify/aimed.hpp"
#include "host/verify/draw.hpp"
#include "rules/needs.hpp"
#include "rules/table.hpp"

namespace bragg::verify {

namespace {

constexpr std::array texts = {
    "median",
    "median(even=lower)",
    "trimmed_mean(f=F)",
    "meamed(f=F)",
    "phocas(f=F)",
    "sign_vote(step=0.5)",
    "krum(f=F)",
    "krum(f=F, neighbors=N1)",
    "multi_krum(f=F)",
    "multi_krum(f=F, m=2)",
    "geometric_median",
    "geometric_median(start=mean)",
    "geometric_median(start=origin)",
    "centered_clipping(tau=C)",
    "centered_clipping(tau=C, iters=3)",
    "mda(f=F)",
    "smea(f=F)",
    "caf(f=F)",
    "monna(f=F, pivot=0)",
    "cge(f=F)",
    "faba(f=F)",
    "huber(tau=C)",
    "huber(tau=C, start=mean)",
    "autogm(lam=C)",
    "centered_clipping(tau=C, start=pivot)",
    "centered_clipping(tau=C, iters=3, start=pivot)",
    "balance(gamma=1)",
    "balance(gamma=0.25, alpha=0)",
    "fltrust(pivot=0)",
    "bulyan(f=F)",
    "nnm(f=F) | median",
    "nnm(f=F) | trimmed_mean(f=F)",
    "nnm(f=F) | meamed(f=F)",
    "nnm(f=F) | krum(f=F)",
    "nnm(f=F) | multi_krum(f=F)",
    "nnm(f=F) | geometric_median",
    "nnm(f=F) | smea(f=F)",
    "nnm(f=F) | bulyan(f=F)",
    "nnm(f=F) | centered_clipping(tau=C, iters=3)",
    "bucketing(s=2, permutation=P) | median",
    "bucketing(s=2, permutation=P) | trimmed_mean(f=F)",
    "bucketing(s=2, permutation=P) | krum(f=F)",
    "bucketing(s=2, permutation=P) | multi_krum(f=F)",
    "bucketing(s=2, permutation=P) | geometric_median",
    "bucketing(s=3, permutation=P) | geometric_median",
    "bucketing(s=2, permutation=P) | autogm(lam=C)",
    "bucketing(s=2, permutation=P) | mda(f=F)",
    "bucketing(s=2, permutation=P) | smea(f=F)",
    "bucketing(s=2, permutation=P) | caf(f=F)",
    "bucketing(s=2, permutation=P) | cge(f=F)",
    "bucketing(s=3, permutation=P) | nnm(f=F) | trimmed_mean(f=F)",
    "bucketing(s=2, permutation=P) | clip(c=C) | mean",
    "clip(c=C) | mean",
    "clip(c=C) | trimmed_mean(f=F)",
    "clip(c=C) | multi_krum(f=F)",
    "clip(c=C) | geometric_median",
    "clip(c=C) | huber(tau=C)",
    "clip(c=C) | autogm(lam=C)",
    "clip(c=C) | nnm(f=F) | trimmed_mean(f=F)",
    "clip(c=C) | bucketing(s=2, permutation=P) | geometric_median",
    "clip(c=C) | centered_clipping(tau=C, start=pivot)",
    "clip(c=C) | balance(gamma=1)",
    "clip(c=C) | fltrust(pivot=0)",
    "clip(c=C) | foolsgold",
    "clip(c=C) | dnc(f=F, sample=20)",
    "arc(f=F) | mean",
    "arc(f=F) | fltrust(pivot=0)",
    "arc(f=F) | trimmed_mean(f=F)",
    "arc(f=F) | krum(f=F)",
    "arc(f=F) | geometric_median",
    "arc(f=F) | nnm(f=F) | trimmed_mean(f=F)",
    "quantile_clip | mean",
    "quantile_clip | trimmed_mean(f=F)",
    "quantile_clip | geometric_median",
    "quantile_clip | nnm(f=F) | trimmed_mean(f=F)",
    "quantile_clip | majority_cluster",
    "quantile_clip | dnc(f=F)",
};

// Shapes ----------------------------------------------------------------------------------------------------

int draw_n(Random& random) {
  constexpr std::array large = {32, 48, 64, 65, 100};
  return one_in(random, 10) ? any_of(random, large) : 1 + below(random, 24);
}

std::int64_t draw_d(Random& random, int n) {
  constexpr std::array<std::int64_t, 16> small = {1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 17, 33, 64, 100, 129, 257};
  constexpr std::array<std::int64_t, 4> large = {777, 1025, 8193, 20000};
  const std::int64_t most = (one_in(random, 40) ? 4'000'000 : 100'000) / n / n;
  const std::int64_t d = one_in(random, 12) ? any_of(random, large) : any_of(random, small);
  return std::clamp<std::int64_t>(d, 1, std::max<std::int64_t>(1, most));
}

bool is_affordable(const Pipeline& pipeline, int n) {
  if (is_combinatorial(pipeline)) return points_at_rule(pipeline, n) <= 11;
  return n <= 24 || !std::holds_alternative<Caf>(pipeline.rule);
}

void replace(std::string& text, const std::string& from, const std::string& to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from))
    text.replace(at, from.size(), to);
}

const Bucketing* bucketing_of(const Pipeline& pipeline) {
  for (const PreAggregator& stage : pipeline.pre) {
    if (const auto* const found = std::get_if<Bucketing>(&stage)) return found;
  }
  return nullptr;
}

std::optional<Pipeline> filled_in(const char* text, int n, int f, const std::vector<int>& permutation,
                                  double length) {
  std::string filled = text;
  replace(filled, "=C", fmt::format("={:.17g}", length));
  replace(filled, "=P", fmt::format("=[{}]", fmt::join(permutation, ",")));
  return legal_pipeline(filled.c_str(), n, f);
}

// Data ------------------------------------------------------------------------------------------------------

/// Sizes that a dtype holds. f64 rows count as infinite beyond 2⁵⁰⁰.
struct Sizes {
  long double large, small, denormal, most;
};

Sizes sizes_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return {1e3L, 1e-3L, 1e-6L, 65504};
    case DType::bf16:
      return {1e20L, 1e-30L, 1e-39L, 0x1.FEp127L};
    case DType::f32:
      return {1e20L, 1e-30L, 1e-43L, std::numeric_limits<float>::max()};
    case DType::f64:
      break;
  }
  return {1e140L, 1e-150L, 1e-320L, 0x1p500L};
}

long double normal(Random& random) {
  return static_cast<long double>(std::normal_distribution<double>()(random));
}

long double uniform(Random& random, double low, double high) {
  return static_cast<long double>(std::uniform_real_distribution<double>(low, high)(random));
}

/// 10 to a power drawn between.
long double decades(Random& random, double low, double high) {
  return std::pow(10.0L, uniform(random, low, high));
}

Values normal_values(Random& random, std::size_t d) {
  Values values(d);
  for (long double& x : values) x = normal(random);
  return values;
}

/// Nearest values of the dtype, none of them infinite.
void round_finite(Values& row, DType dtype) {
  const long double most = sizes_of(dtype).most;
  for (long double& x : row) x = round_to(dtype, std::clamp(x, -most, most));
}

class Draw {
 public:
  Draw(Random& random, Case& drawn) : random_(random), drawn_(drawn), dtype_(drawn.request.dtype) {}
  void rows(int n, const std::vector<int>& permutation);

 private:
  std::size_t one_of(std::size_t count) { return random_() % count; }
  void note(const std::string& words) { drawn_.data += (drawn_.data.empty() ? "" : ", ") + words; }
  void shape_honest(std::size_t count);
  void hold_constants();
  void measure_honest();
  void place_bad(int n, const std::vector<int>& permutation);
  void fill_bad();
  std::size_t favourite();
  Values attack(std::size_t kind, std::size_t turn);
  void add_weights();
  void add_absent();
  void add_reference();

  Random& random_;
  Case& drawn_;
  DType dtype_;
  std::size_t d_ = 0;
  Rows honest_;  ///< in full until they are put in their places
  Rows bad_;
  std::vector<bool> constant_;  ///< coordinates that all rows share
  Values mean_;                 ///< of honest rows
  long double spread_ = 0;      ///< root of the honest mean squared distance to it
  long double cluster_ = 1;     ///< size of a cluster by zero, in spreads
  Values direction_;            ///< of unit length, that an attack goes along
};

/// Without constants.
void Draw::shape_honest(std::size_t count) {
  const Sizes sizes = sizes_of(dtype_);
  const std::array<long double, 6> scales = {1, 1, 1, 1e-3L, sizes.small, sizes.large};
  const long double scale = any_of(random_, scales);
  const std::array<long double, 5> means = {0, 0.02L, 0.5L, 3, 20};
  const long double centre = any_of(random_, means);
  const std::size_t kind = one_of(12);
  Values middle = normal_values(random_, d_);
  for (long double& x : middle) x *= centre * scale;
  honest_.assign(count, middle);
  const auto add_normal = [&](long double deviation) {
    for (Values& row : honest_) {
      for (long double& x : row) x += deviation * normal(random_);
    }
  };
  switch (kind) {
    case 0: {
      note("one unit apart");
      for (Values& row : honest_) {
        round_finite(row, dtype_);
        for (long double& x : row) {
          x += spacing(dtype_, x) * static_cast<long double>(below(random_, 3) - 1);
        }
      }
      break;
    }
    case 1: {
      note("on a line");
      const Values along = normal_values(random_, d_);
      for (Values& row : honest_) {
        const long double at = scale * normal(random_);
        for (std::size_t j = 0; j < d_; ++j) row[j] += at * along[j];
      }
      break;
    }
    case 2: {
      note("two clusters");
      const Values apart = normal_values(random_, d_);
      const long double far = scale * decades(random_, 0, 6);
      add_normal(scale);
      for (std::size_t i = 0; i < count; i += 2) {
        for (std::size_t j = 0; j < d_; ++j) honest_[i][j] += far * apart[j];
      }
      break;
    }
    case 3:
      note("identical");
      break;
    case 4: {
      note("small integers");
      for (Values& row : honest_) {
        for (long double& x : row) x = static_cast<long double>(below(random_, 4));
      }
      break;
    }
    case 5:
      note("denormal");
      for (Values& row : honest_) {
        for (long double& x : row) x = sizes.denormal * normal(random_);
      }
      break;
    case 6: {
      note("a scale for each coordinate");
      const double most = dtype_ == DType::f16 ? 3 : dtype_ == DType::f64 ? 140 : 30;
      add_normal(1);
      for (std::size_t j = 0; j < d_; ++j) {
        const long double of_it = decades(random_, -most, most);
        for (Values& row : honest_) row[j] *= of_it;
      }
      break;
    }
    case 7:
      note("a tight cluster");
      add_normal(scale * decades(random_, -8, -1));
      break;
    default:
      note(scale == 1 ? "normal" : fmt::format("normal × {:.0e}", scale));
      add_normal(scale);
  }
}

/// Coordinates that all rows share, or that have a common part which leaves few digits for differences.
void Draw::hold_constants() {
  constant_.assign(d_, false);
  if (one_in(random_, 2)) return;
  const Sizes sizes = sizes_of(dtype_);
  const std::size_t which = one_of(4);
  const std::size_t only = one_of(d_);
  const bool same = one_in(random_, 2);
  const bool added = !same;
  const std::array<long double, 6> wide = {-1e9L, -sizes.most, sizes.most, 12345678, 1e20L, -1e4L};
  const std::array<long double, 4> narrow = {-65504, 60000, 2048, -100};
  const long double value = dtype_ == DType::f16 ? any_of(random_, narrow) : any_of(random_, wide);
  const long double offset = decades(random_, 0,
                                     dtype_ == DType::f64   ? 17
                                     : dtype_ == DType::f32 ? 9
                                                            : 4) *
                             (one_in(random_, 2) ? 1 : -1);
  note(same ? fmt::format("a constant of {:.3g}", value) : fmt::format("a common part of {:.3g}", offset));
  int count = 0;
  for (std::size_t j = 0; j < d_; ++j) {
    const bool here = which == 0   ? j == only
                      : which == 1 ? one_in(random_, 3)
                      : which == 2 ? j != only
                                   : (added || d_ == 1 || one_in(random_, 8));
    if (!here) continue;
    ++count;
    long double size = 0;
    for (const Values& row : honest_) size = std::max(size, std::fabs(row[j]));
    for (Values& row : honest_) row[j] = same ? value : row[j] + offset * (size > 0 ? size : 1);
    constant_[j] = same;
  }
  note(fmt::format("in {} of {} coordinates", count, d_));
}

void Draw::measure_honest() {
  const Values first = honest_[0];
  mean_.assign(d_, 0);
  for (const Values& row : honest_) {
    for (std::size_t j = 0; j < d_; ++j)
      mean_[j] += (row[j] - first[j]) / static_cast<long double>(honest_.size());
  }
  long double squared = 0;
  for (const Values& row : honest_) {
    for (std::size_t j = 0; j < d_; ++j) squared += std::pow(row[j] - first[j] - mean_[j], 2.0L);
  }
  for (std::size_t j = 0; j < d_; ++j) mean_[j] += first[j];
  spread_ = std::sqrt(squared / static_cast<long double>(honest_.size()));
  direction_ = normal_values(random_, d_);
  if (one_in(random_, 4)) {
    std::fill(direction_.begin(), direction_.end(), 0);
    direction_[one_of(d_)] = 1;
  } else if (one_in(random_, 4)) {
    const Values& other = honest_[one_of(honest_.size())];
    for (std::size_t j = 0; j < d_; ++j) direction_[j] = other[j] - first[j];
  }
  long double length = 0;
  for (std::size_t j = 0; j < d_; ++j) {
    if (constant_[j]) direction_[j] = 0;
    length += direction_[j] * direction_[j];
  }
  for (long double& x : direction_) x = length > 0 ? x / std::sqrt(length) : 0;
}

/// The bad row number `turn`.
Values Draw::attack(std::size_t kind, std::size_t turn) {
  const long double step = spread_ > 0 ? spread_ : 1;
  const long double most = sizes_of(dtype_).most;
  const auto at = [&](const Values& from, long double distance, long double jitter) {
    Values row = from;
    for (std::size_t j = 0; j < d_; ++j) {
      if (!constant_[j]) row[j] += distance * direction_[j] + jitter * normal(random_);
    }
    return row;
  };
  const auto each = [&](auto value) {
    Values row(d_);
    for (std::size_t j = 0; j < d_; ++j) row[j] = value(j);
    return row;
  };
  const auto sign = [](std::size_t bit) { return bit % 2 == 0 ? 1.0L : -1.0L; };
  switch (kind) {
    case 0:  // far
      return at(mean_, step * decades(random_, 0, 20), 0);
    case 1:  // far, of either side
      return at(mean_, sign(turn) * step * decades(random_, 0, 20), 0);
    case 2:  // copies of a honest row
      return honest_[0];
    case 3:  // huge, in pairs that cancel
      return each([&](std::size_t j) { return sign(turn + j) * most; });
    case 4:  // huge, all alike
      return each([&](std::size_t j) { return sign(j) * most; });
    case 5:  // huge, each of its own size
      return each([&](std::size_t) {
        return most * decades(random_, dtype_ == DType::f16 ? -4 : -30, 0) * normal(random_);
      });
    case 6:  // zeros
      return Values(d_, 0);
    case 7:  // at the cut
      return at(mean_, step * uniform(random_, 0.5, 4), 0);
    case 8:  // at the cut, close together
      return at(honest_[0], step * 1.5L, step * 1e-3L);
    case 9: {  // a ladder to zero
      const long double rung = dtype_ == DType::f16
                                   ? 1e-4L * std::pow(0.1L, static_cast<long double>(turn))
                                   : 1e-20L * std::pow(1e-3L, static_cast<long double>(turn));
      return each([&](std::size_t) { return rung * normal(random_); });
    }
    case 10: {  // a ladder to a honest row
      Values row = honest_[0];
      for (std::size_t j = 0; j < d_; ++j)
        row[j] += step * std::pow(1e-3L, static_cast<long double>(turn + 1)) * normal(random_);
      return row;
    }
    case 11:  // pairs that cancel to the honest mean
      return each([&](std::size_t j) {
        return turn % 2 == 0 ? sign(j) * most / 2 : 2 * mean_[j] - sign(j) * most / 2;
      });
    case 12: {  // no number
      Values row = honest_[0];
      row[one_of(d_)] = std::numeric_limits<long double>::quiet_NaN();
      return row;
    }
    case 13:  // a shield, and rows at the cut behind it
      return turn == 0 ? each([&](std::size_t) { return most; }) : at(mean_, step * 3, 0);
    case 14: {  // a cluster by zero
      const long double size = sizes_of(dtype_).most == 65504 ? 1e-4L : step * cluster_;
      return each([&](std::size_t) { return size * normal(random_); });
    }
    default: {  // the constants too, the other way round
      Values row = at(mean_, step * decades(random_, 0, 10), step);
      for (std::size_t j = 0; j < d_; ++j) row[j] = constant_[j] ? -row[j] : row[j];
      return row;
    }
  }
}

constexpr std::array attack_names = {"far",
                                     "far on either side",
                                     "copies of a honest row",
                                     "huge pairs that cancel",
                                     "huge and alike",
                                     "huge of any size",
                                     "zeros",
                                     "at the cut",
                                     "at the cut, together",
                                     "a ladder to zero",
                                     "a ladder to a honest row",
                                     "pairs that cancel to the honest mean",
                                     "NaN",
                                     "a shield before rows at the cut",
                                     "a cluster by zero",
                                     "other constants"};

/// The attack that suits the pipeline best.
std::size_t Draw::favourite() {
  constexpr std::array<std::size_t, 4> of_median = {4, 9, 10,
                                                    14};      // huge and alike, ladders, a cluster by zero
  constexpr std::array<std::size_t, 2> of_buckets = {3, 11};  // pairs that cancel
  constexpr std::array<std::size_t, 4> of_others = {0, 1, 7, 8};  // far, at the cut
  if (bucketing_of(drawn_.pipeline) != nullptr) return any_of(random_, of_buckets);
  const bool is_median = std::holds_alternative<GeometricMedian>(drawn_.pipeline.rule) ||
                         std::holds_alternative<Huber>(drawn_.pipeline.rule) ||
                         std::holds_alternative<AutoGm>(drawn_.pipeline.rule);
  return is_median ? any_of(random_, of_median) : any_of(random_, of_others);
}

void Draw::fill_bad() {
  if (bad_.empty()) return;
  const bool mixed = one_in(random_, 4);
  const std::size_t all = one_in(random_, 2) ? one_of(attack_names.size()) : favourite();
  cluster_ = decades(random_, -25, -5);
  note(fmt::format("{} bad: {}", bad_.size(), mixed ? "of several kinds" : attack_names[all]));
  for (std::size_t turn = 0; turn < bad_.size(); ++turn)
    bad_[turn] = attack(mixed ? one_of(attack_names.size()) : all, turn);
  for (Values& row : bad_) {
    for (long double& x : row) x = round_to(dtype_, x);
  }
}

/// Bad rows: at most f points at the rule are spoilt, or where it has no f less than half of them.
void Draw::place_bad(int n, const std::vector<int>& permutation) {
  const Pipeline& pipeline = drawn_.pipeline;
  const Bucketing* const bucketing = bucketing_of(pipeline);
  const int points = points_at_rule(pipeline, n);
  const bool has_f = std::string_view(drawn_.text).find("=F") != std::string_view::npos;
  const int most = has_f ? drawn_.f : (points - 1) / 2;
  const int count = one_in(random_, 8) || most == 0 ? 0
                    : one_in(random_, 3)            ? 1 + below(random_, static_cast<std::size_t>(most))
                                                    : most;
  std::vector<int> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  const std::size_t where = one_of(3);
  if (where == 1) std::reverse(order.begin(), order.end());
  if (where == 2) std::shuffle(order.begin(), order.end(), random_);
  std::vector<int> bad;
  // arc and nnm before the buckets see rows, of which then f at most may be bad.
  const bool buckets_first =
      bucketing != nullptr &&
      (pipeline.pre.size() == 1 || std::holds_alternative<Bucketing>(pipeline.pre[0]) || !has_f);
  if (buckets_first) {
    const int first = below(random_, static_cast<std::size_t>(points));
    for (int b = 0; b < count; ++b) {
      const int bucket = (first + b) % points;
      for (int place = bucket * bucketing->s; place < std::min(n, (bucket + 1) * bucketing->s); ++place) {
        if (place > bucket * bucketing->s && one_in(random_, 4)) continue;
        bad.push_back(permutation[static_cast<std::size_t>(place)]);
      }
    }
  } else {
    const std::optional<detail::Pivot> trusted = detail::pivot_of(pipeline);
    for (const int i : order) {
      if (static_cast<int>(bad.size()) == count) break;
      if (!trusted || i != trusted->index) bad.push_back(i);
    }
  }
  drawn_.roles.assign(static_cast<std::size_t>(n), Role::honest);
  for (const int i : bad) drawn_.roles[static_cast<std::size_t>(i)] = Role::bad;
  bad_.assign(bad.size(), Values(d_, 0));
}

void Draw::add_weights() {
  if (!detail::takes_weights(drawn_.pipeline) || !one_in(random_, 3)) return;
  constexpr std::array<double, 7> choices = {1, 2, 3, 0.1, 10, 0.5, 1e-3};
  std::vector<double>& weights = drawn_.request.weights;
  double honest = 0;
  double bad = 0;
  for (const Role role : drawn_.roles) {
    weights.push_back(any_of(random_, choices));
    (role == Role::bad ? bad : honest) += weights.back();
  }
  // The honest rows of a bad bucket count with it.
  if (const Bucketing* const bucketing = bucketing_of(drawn_.pipeline)) {
    double spoilt = 0;
    for (std::size_t place = 0; place < weights.size(); place += static_cast<std::size_t>(bucketing->s)) {
      double sum = 0;
      bool is_bad = false;
      for (std::size_t at = place;
           at < std::min(weights.size(), place + static_cast<std::size_t>(bucketing->s)); ++at) {
        const auto i = static_cast<std::size_t>(bucketing->permutation[at]);
        sum += weights[i];
        is_bad = is_bad || drawn_.roles[i] == Role::bad;
      }
      spoilt += is_bad ? sum : 0;
    }
    if (spoilt > 0.45 * (honest + bad)) return weights.clear();
  } else if (bad > 0.9 * honest) {
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (drawn_.roles[i] == Role::bad) weights[i] *= 0.9 * honest / bad;
    }
  }
  note("weights");
}

/// Rows of weight 0, which are as good as not there.
void Draw::add_absent() {
  if (drawn_.request.weights.empty() || bucketing_of(drawn_.pipeline) != nullptr || one_in(random_, 2))
    return;
  const int count = 1 + below(random_, 3);
  for (int k = 0; k < count; ++k) {
    drawn_.request.rows.push_back(attack(one_of(attack_names.size()), static_cast<std::size_t>(k)));
    for (long double& x : drawn_.request.rows.back()) x = round_to(dtype_, x);
    drawn_.request.weights.push_back(0);
    drawn_.roles.push_back(Role::absent);
  }
  note(fmt::format("{} of weight 0", count));
}

void Draw::add_reference() {
  if (one_in(random_, 2)) return;
  Values& reference = drawn_.request.reference;
  reference = mean_;
  const long double step = spread_ > 0 ? spread_ : 1;
  switch (one_of(4)) {
    case 0:
      note("a reference amid the rows");
      for (std::size_t j = 0; j < d_; ++j) reference[j] += constant_[j] ? 0 : step * normal(random_) * 0.1L;
      break;
    case 1:
      note("a reference that is a row");
      reference = honest_[one_of(honest_.size())];
      break;
    case 2: {
      note("a reference far off");
      const long double far = step * decades(random_, 0, 8);
      for (std::size_t j = 0; j < d_; ++j) reference[j] += constant_[j] ? 0 : far * normal(random_);
      break;
    }
    default:
      note("a reference of zeros but for constants");
      for (std::size_t j = 0; j < d_; ++j) reference[j] = constant_[j] ? reference[j] : 0;
  }
  round_finite(reference, dtype_);
}

void Draw::rows(int n, const std::vector<int>& permutation) {
  d_ = static_cast<std::size_t>(draw_d(random_, n));
  place_bad(n, permutation);
  shape_honest(static_cast<std::size_t>(n) - bad_.size());
  hold_constants();
  for (Values& row : honest_) round_finite(row, dtype_);
  measure_honest();
  fill_bad();
  add_weights();
  Rows honest = honest_;
  Rows bad = bad_;
  for (const Role role : drawn_.roles) {
    Rows& from = role == Role::bad ? bad : honest;
    drawn_.request.rows.push_back(from.back());
    from.pop_back();
  }
  add_absent();
  add_reference();
}

/// A length about those of the honest rows from o, or about their spread.
double draw_length(Random& random, const Case& drawn) {
  std::vector<long double> lengths;
  const Values& reference = drawn.request.reference;
  for (std::size_t i = 0; i < drawn.request.rows.size(); ++i) {
    if (drawn.roles[i] != Role::honest) continue;
    long double squared = 0;
    for (std::size_t j = 0; j < drawn.request.rows[i].size(); ++j)
      squared += std::pow(drawn.request.rows[i][j] - (reference.empty() ? 0 : reference[j]), 2.0L);
    lengths.push_back(std::sqrt(squared));
  }
  std::sort(lengths.begin(), lengths.end());
  constexpr std::array<long double, 6> factors = {1, 0.5L, 0.9L, 2, 0.1L, 1e-3L};
  const auto length = static_cast<double>(any_of(random, factors) * lengths[random() % lengths.size()]);
  // f64 squares of it must be there.
  return std::isfinite(length) && length > 1e-150 ? length : 1;
}

}  // namespace

std::span<const char* const> aimed_pipelines() { return texts; }

Case draw_aimed_case(const char* text, DType dtype, std::uint64_t seed) {
  Random random = generator(fmt::format("aimed {}", text), dtype, seed);
  Case drawn{.text = text, .seed = seed};
  std::vector<int> permutation;
  for (;;) {
    const int n = draw_n(random);
    drawn.f = draw_f(random, n);
    permutation.resize(static_cast<std::size_t>(n));
    std::iota(permutation.begin(), permutation.end(), 0);
    std::shuffle(permutation.begin(), permutation.end(), random);
    const std::optional<Pipeline> found = filled_in(text, n, drawn.f, permutation, 1);
    if (!found || !is_affordable(*found, n)) continue;
    drawn.pipeline = *found;
    break;
  }
  const auto n = static_cast<int>(permutation.size());
  Request& request = drawn.request;
  request.dtype = dtype;
  Draw(random, drawn).rows(n, permutation);
  drawn.pipeline = *filled_in(text, n, drawn.f, permutation, draw_length(random, drawn));
  request.layout = static_cast<Layout>(random() % 4);
  request.misalignment = one_in(random, 2) ? random() % 16 : 0;
  request.options.threads = 1 + below(random, 3);
  if (request.layout == Layout::tensors && one_in(random, 2)) request.options.scope = Scope::per_tensor;
  if (size_of(dtype) == 2 && one_in(random, 4)) request.options.out_dtype = DType::f32;
  return drawn;
}

}  // namespace bragg::verify
