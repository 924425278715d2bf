// SPDX-License-Identifier: Apache-2.0
#include "host/pipeline/engine.hpp"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>

#include "host/pipeline/rules.hpp"
#include "host/solve/arc.hpp"
#include "host/solve/bucketing.hpp"
#include "host/solve/bulyan.hpp"
#include "host/solve/caf.hpp"
#include "host/solve/centered_clipping.hpp"
#include "host/solve/cge.hpp"
#include "host/solve/clip.hpp"
#include "host/solve/geometric_median.hpp"
#include "host/solve/krum.hpp"
#include "host/solve/mda.hpp"
#include "host/solve/monna.hpp"
#include "host/solve/nnm.hpp"
#include "host/solve/smea.hpp"

namespace bragg::detail {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// The host's team: threads share the loops over points once there are enough of them to pay.
struct HostTeam : SerialTeam {
  int threads = 1;

  template <class F>
  void parallel_for(int n, F f) const {
    constexpr int worthwhile = 512;
    if (n < worthwhile || threads == 1) {
      SerialTeam::parallel_for(n, f);
      return;
    }
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads)
    for (int i = 0; i < n; ++i) f(i);
  }
};

template <class RuleT>
constexpr bool is_coordinate_wise =
    std::is_same_v<RuleT, Mean> || std::is_same_v<RuleT, Median> || std::is_same_v<RuleT, TrimmedMean> ||
    std::is_same_v<RuleT, Meamed> || std::is_same_v<RuleT, Phocas>;

/// Measures from o: a stage that cannot do with a reference that is not finite.
bool uses_origin(const PreAggregator& stage) {
  return std::holds_alternative<Clip>(stage) || std::holds_alternative<Arc>(stage);
}

bool uses_origin(const Aggregator& rule, bool has_previous) {
  if (std::holds_alternative<Cge>(rule)) return true;
  if (const auto* median = std::get_if<GeometricMedian>(&rule)) return median->start == Start::origin;
  if (const auto* clipping = std::get_if<CenteredClipping>(&rule)) {
    return clipping->start != Start::previous || !has_previous;
  }
  return false;
}

/// The pass-2 rule of a coordinate-wise aggregator that sees `points` points.
SelectRule select_rule(const Mean&, int) { return {.kind = SelectRule::Kind::trimmed_mean}; }
SelectRule select_rule(const Median& rule, int) {
  return {.kind = SelectRule::Kind::median, .even = rule.even};
}
SelectRule select_rule(const TrimmedMean& rule, int) {
  return {.kind = SelectRule::Kind::trimmed_mean, .f = rule.f};
}
SelectRule select_rule(const Meamed& rule, int points) {
  return {.kind = SelectRule::Kind::closest_to_median, .f = rule.f, .keep = points - rule.f};
}
SelectRule select_rule(const Phocas& rule, int points) {
  return {.kind = SelectRule::Kind::closest_to_trimmed_mean, .f = rule.f, .keep = points - rule.f};
}

/// The host-only exact searches give the rows to keep.
template <class SearchF>
Status solve_by_search(const Points& points, int f, int* chosen, std::uint8_t* keep, Combination& out,
                       SearchF search) {
  if (count_infinite(points) > f) return Status::too_many_nonfinite;
  clear(SerialTeam{}, out, points);
  const Status status = search(keep);
  if (status != Status::ok) return status;
  int kept = 0;
  for (int i = 0; i < points.count; ++i) {
    if (keep[i]) chosen[kept++] = i;
  }
  mean_of(points, chosen, kept, out.coefficients);
  return Status::ok;
}

}  // namespace

std::string describe_failure(Status status, std::span<const Report> reports) {
  for (const Report& report : reports) {
    if (report.status != status) continue;
    const std::string where =
        reports.size() > 1 ? fmt::format(" in tensor {}", static_cast<std::size_t>(&report - reports.data()))
                           : "";
    std::string rows;
    int count = 0;
    for (std::size_t i = 0; i < report.rows.size(); ++i) {
      if (report.rows[i].nonfinite == 0) continue;
      ++count;
      if (count <= 8)
        rows += fmt::format("{}{} ({} values)", count > 1 ? ", " : "", i, report.rows[i].nonfinite);
    }
    if (count > 8) rows += fmt::format(" and {} more", count - 8);
    switch (status) {
      case Status::too_many_nonfinite:
        if (count == 0) {
          return fmt::format(
              "too many rows are beyond the range in which distances can be taken, or have invalid weights"
              "{}; raise f, or leave them out with weight 0",
              where);
        }
        return fmt::format(
            "too many rows are not finite{}: {} of {} hold NaN or infinity: rows {}; raise f, or leave them "
            "out "
            "with weight 0",
            where, count, report.rows.size(), rows);
      case Status::nonfinite_reference:
        return fmt::format("the reference holds NaN or infinity{}, and the pipeline measures from it", where);
      case Status::too_large:
        return fmt::format("mda reached its work limit{}; lower f, or take nnm(f) | trimmed_mean(f)", where);
      default:
        return fmt::format("{}{}", to_string(status), where);
    }
  }
  return to_string(status);
}

struct Engine::Impl {
  Pipeline pipeline;
  int n;
  CpuPasses passes;
  HostTeam team;
  bool wants_products = false;
  bool wants_statistics = false;

  // Of the run.
  ActiveRows active;
  bool has_reference = false;
  bool has_previous = false;
  std::uint64_t round = 0;
  int pivot = 0;  ///< monna's, among the points

  // The points as they stand between stages.
  int count = 0;
  std::vector<double> gram, next_gram, product;
  std::vector<double> mix, next_mix;  ///< count × table_rows, once a pre-aggregator has run
  bool mixed = false;
  std::vector<std::uint8_t> infinite, next_infinite, keep;
  std::vector<double> weights, next_weights;
  bool weighted = false;
  double scale = 1;

  std::vector<double> coefficients, transform_coefficients, scores, clip_factors, doubles;
  std::vector<int> ints, chosen, point_of_row;
  std::vector<double> row_clip;  ///< per active row
  std::vector<std::int64_t> counts;

  Impl(Pipeline pipeline_in, int n_in, const Options& options)
      : pipeline(std::move(pipeline_in)), n(n_in), passes(n_in + 2, options.threads) {
    team.threads = options.threads > 0 ? options.threads : omp_get_max_threads();
    const bool geometric = std::visit(
        [](const auto& rule) { return !is_coordinate_wise<std::decay_t<decltype(rule)>>; }, pipeline.rule);
    wants_products = geometric;
    for (const PreAggregator& stage : pipeline.pre) {
      wants_products = wants_products || !std::holds_alternative<Bucketing>(stage);
    }
    wants_statistics = geometric || !pipeline.pre.empty();
  }

  int references() const { return has_previous ? 2 : 1; }
  int table_rows() const { return static_cast<int>(active.rows.size()) + references(); }
  int size() const { return count + references(); }

  Points points() const {
    return {.count = count,
            .size = size(),
            .gram = gram.data(),
            .infinite = infinite.data(),
            .weights = weighted ? weights.data() : nullptr,
            .scale = scale};
  }

  Scratch scratch() {
    const auto s = static_cast<std::size_t>(size());
    doubles.resize(scratch_doubles(s));
    ints.resize(scratch_ints(s));
    return {doubles.data(), ints.data()};
  }

  void validate_rest(const ActiveRows& rest);
  void start(const GramSums& sums);
  Status run_stage(const PreAggregator& stage, bool gram_needed);
  void apply_transform(const Transform& transform, bool gram_needed);
  void finish_combination(const Combination& found, bool scored, Report& report);
  void finish_select(const SelectRule& rule, std::span<const int> subset, Solution& solution);
  void finish_mean(Solution& solution);
  Status run_rule(Solution& solution);

  template <class RuleT>
  Status run_geometric(const RuleT& rule, Combination& out) {
    return detail::solve(team, rule, points(), scratch(), out);
  }
  Status run_geometric(const Mda& rule, Combination& out) {
    const Points p = points();
    product.resize(static_cast<std::size_t>(count) * count);
    team.parallel_for(count, [&](int i) {
      for (int j = 0; j < count; ++j)
        product[static_cast<std::size_t>(i) * count + j] = p.squared_distance(i, j);
    });
    return solve_by_search(p, rule.f, chosen.data(), keep.data(), out, [&](std::uint8_t* kept) {
      return solve_mda(product.data(), count, count, infinite.data(), rule.f, kept);
    });
  }
  Status run_geometric(const Smea& rule, Combination& out) {
    const Points p = points();
    return solve_by_search(p, rule.f, chosen.data(), keep.data(), out, [&](std::uint8_t* kept) {
      return solve_smea(gram.data(), count, size(), infinite.data(), rule.f, kept);
    });
  }
  Status run_geometric(const Monna& rule, Combination& out) {
    return detail::solve(team, Monna{.f = rule.f, .pivot = pivot}, points(), scratch(), out);
  }
};

Engine::Engine(Pipeline pipeline, int n, const Options& options) {
  constexpr int most_rows = 65535;  // wires of a selection network are numbered in 16 bits
  if (n < 1 || n > most_rows) {
    throw Error(Status::invalid_argument, fmt::format("n = {}; needs 1 to {} rows", n, most_rows));
  }
  if (options.threads < 0) {
    throw Error(Status::invalid_argument,
                fmt::format("threads = {}; needs 0 (automatic) or a positive number", options.threads));
  }
  if (!(options.max_weight_share >= 0 && options.max_weight_share <= 1)) {
    throw Error(Status::invalid_argument,
                fmt::format("max_weight_share = {}; needs 0 (no cap) or a share in [1/n, 1]",
                            options.max_weight_share));
  }
  validate(pipeline, n);
  impl_ = std::make_unique<Impl>(std::move(pipeline), n, options);
}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

void Engine::begin(const ActiveRows& active, bool has_reference, bool has_previous, std::uint64_t round) {
  Impl& e = *impl_;
  const int rows = static_cast<int>(active.rows.size());
  if (active.weighted) check_takes_weights(e.pipeline);
  if (const auto* monna = std::get_if<Monna>(&e.pipeline.rule)) e.pivot = monna->pivot;
  if (rows < e.n) e.validate_rest(active);
  e.active = active;
  e.has_reference = has_reference;
  e.has_previous = has_previous;
  e.round = round;
}

/// The pipeline's bounds once more, for the rows that weights of 0 have left over.
void Engine::Impl::validate_rest(const ActiveRows& rest) {
  const int rows = static_cast<int>(rest.rows.size());
  if (rows < 1) {
    throw Error(Status::invalid_argument, "weights: every row has weight 0; at least one must count");
  }
  Pipeline remaining = pipeline;
  auto* const monna = std::get_if<Monna>(&remaining.rule);
  const bool has_buckets =
      std::any_of(pipeline.pre.begin(), pipeline.pre.end(),
                  [](const PreAggregator& stage) { return std::holds_alternative<Bucketing>(stage); });
  if (monna != nullptr && !has_buckets) {
    // The pivot is one of the caller's rows.
    const auto at = std::lower_bound(rest.rows.begin(), rest.rows.end(), monna->pivot);
    if (at == rest.rows.end() || *at != monna->pivot) {
      throw Error(
          Status::invalid_argument,
          fmt::format("monna: pivot = {} is a row of weight 0; choose one that counts", monna->pivot));
    }
    monna->pivot = pivot = static_cast<int>(at - rest.rows.begin());
  }
  try {
    validate(remaining, rows);
  } catch (const Error& error) {
    throw Error(error.status(), fmt::format("weights: {} of {} rows have weight 0 and are left out: {}",
                                            n - rows, n, error.what()));
  }
}

int Engine::table_rows() const noexcept { return impl_->table_rows(); }
bool Engine::needs_statistics() const noexcept { return impl_->wants_statistics; }
const Pipeline& Engine::pipeline() const noexcept { return impl_->pipeline; }

void Engine::reset(GramSums& sums) const { sums.reset(table_rows(), impl_->wants_products, 1); }

void Engine::accumulate(const RowTable& window, GramSums& sums) { impl_->passes.gram(window, sums); }

bool Engine::settled(GramSums& sums) const {
  // Squares of f64 values leave the range of f64: then sum values scaled by a power of two that puts the
  // largest at 2^480. Rows 2^940 times smaller stay below the reach of f64 and count as equal to 0; so that a
  // huge row cannot do that to the others, rows that much larger than the median row count as infinite.
  constexpr double reach = 0x1p920;
  const auto takes_part = [&](std::size_t i) {
    return sums.nonfinite[i] == 0 && sums.max_abs[i] > 0 && sums.max_abs[i] <= sums.limit;
  };
  double largest = 0;
  double least = infinity;
  for (std::size_t i = 0; i < sums.max_abs.size(); ++i) {
    if (!takes_part(i)) continue;
    largest = std::max(largest, sums.max_abs[i]);
    least = std::min(least, sums.max_abs[i]);
  }
  const bool fits = largest <= 0x1p480 && least >= 0x1p-460;
  if (sums.settled || largest == 0 || fits || !sums.wanted) return true;

  std::vector<double> sizes;
  for (std::size_t i = 0; i < sums.max_abs.size(); ++i) {
    if (takes_part(i)) sizes.push_back(sums.max_abs[i]);
  }
  std::sort(sizes.begin(), sizes.end());
  const double limit = std::min(0x1p500, sizes[(sizes.size() - 1) / 2] * reach);
  largest = *std::prev(std::upper_bound(sizes.begin(), sizes.end(), limit));
  sums.reset(sums.rows, sums.wanted, std::ldexp(1.0, std::clamp(479 - std::ilogb(largest), -1000, 1000)));
  sums.limit = limit;
  sums.settled = true;
  return false;
}

void Engine::Impl::start(const GramSums& sums) {
  count = static_cast<int>(active.rows.size());
  const int rows = table_rows();
  mixed = false;
  weighted = active.weighted;
  weights = active.weights;
  scale = wants_products ? sums.scale : 1;
  infinite.assign(static_cast<std::size_t>(rows), 0);
  for (int i = 0; i < count; ++i) {
    const auto k = static_cast<std::size_t>(i);
    infinite[k] =
        active.invalid[k] || (wants_statistics && (sums.nonfinite[k] > 0 || sums.max_abs[k] > sums.limit));
  }
  for (int i = count; i < rows && wants_statistics; ++i) {
    infinite[static_cast<std::size_t>(i)] = sums.nonfinite[static_cast<std::size_t>(i)] > 0;
  }
  if (wants_products) {
    gram = sums.products;
    for (int i = 0; i < rows; ++i) {
      if (!infinite[static_cast<std::size_t>(i)]) continue;
      for (int j = 0; j < rows; ++j) {
        gram[static_cast<std::size_t>(i) * rows + j] = 0;
        gram[static_cast<std::size_t>(j) * rows + i] = 0;
      }
    }
  }
  row_clip.assign(static_cast<std::size_t>(count), 1);
  point_of_row.resize(static_cast<std::size_t>(count));
  std::iota(point_of_row.begin(), point_of_row.end(), 0);
  chosen.resize(static_cast<std::size_t>(count));
  keep.resize(static_cast<std::size_t>(count));
}

Status Engine::Impl::run_stage(const PreAggregator& stage, bool gram_needed) {
  const Points before = points();
  transform_coefficients.assign(static_cast<std::size_t>(count) * before.size, 0);
  next_infinite.resize(static_cast<std::size_t>(count));
  next_weights.resize(static_cast<std::size_t>(count));
  clip_factors.assign(static_cast<std::size_t>(count), 1);
  Transform transform{.coefficients = transform_coefficients.data(),
                      .infinite = next_infinite.data(),
                      .weights = next_weights.data(),
                      .clip_factors = clip_factors.data()};
  const Status status = std::visit(
      [&](const auto& rule) {
        if constexpr (std::is_same_v<std::decay_t<decltype(rule)>, Bucketing>) {
          const BucketingDraw draw{
              .s = rule.s,
              .seed = rule.seed,
              .round = round,
              .permutation = rule.permutation.empty() ? nullptr : rule.permutation.data()};
          return detail::transform(team, draw, before, scratch(), transform);
        } else {
          return detail::transform(team, rule, before, scratch(), transform);
        }
      },
      stage);
  if (status != Status::ok) return status;
  for (std::size_t i = 0; i < row_clip.size(); ++i) {
    if (point_of_row[i] >= 0) row_clip[i] *= clip_factors[static_cast<std::size_t>(point_of_row[i])];
  }
  if (std::holds_alternative<Bucketing>(stage) || std::holds_alternative<Nnm>(stage)) {
    std::fill(point_of_row.begin(), point_of_row.end(), -1);
  }
  apply_transform(transform, gram_needed);
  return Status::ok;
}

/// mix ← T·mix, gram ← T·gram·Tᵀ, the reference points passing through unchanged. Zero coefficients are
/// skipped, so a huge row that nothing chose spoils nothing.
void Engine::Impl::apply_transform(const Transform& transform, bool gram_needed) {
  const int old_size = size();
  const int rows = table_rows();
  const int refs = references();
  const int new_size = transform.count + refs;
  const auto at = [](std::vector<double>& m, int i, int width) {
    return m.data() + static_cast<std::size_t>(i) * width;
  };

  next_mix.assign(static_cast<std::size_t>(transform.count) * rows, 0);
  team.parallel_for(transform.count, [&](int i) {
    const double* const t = transform.coefficients + static_cast<std::size_t>(i) * old_size;
    double* const out = at(next_mix, i, rows);
    for (int k = 0; k < old_size; ++k) {
      if (t[k] == 0) continue;
      if (!mixed || k >= count) {
        // A point that is still a row, or a reference: its place in the table.
        out[k < count ? k : rows - refs + (k - count)] += t[k];
      } else {
        const double* const from = at(mix, k, rows);
        for (int j = 0; j < rows; ++j) out[j] += t[k] * from[j];
      }
    }
  });

  if (gram_needed) {
    product.assign(static_cast<std::size_t>(new_size) * old_size, 0);
    next_gram.resize(static_cast<std::size_t>(new_size) * new_size);
    team.parallel_for(new_size, [&](int i) {
      double* const out = at(product, i, old_size);
      if (i >= transform.count) {
        std::copy_n(at(gram, count + (i - transform.count), old_size), old_size, out);
        return;
      }
      const double* const t = transform.coefficients + static_cast<std::size_t>(i) * old_size;
      for (int k = 0; k < old_size; ++k) {
        if (t[k] == 0) continue;
        const double* const from = at(gram, k, old_size);
        for (int j = 0; j < old_size; ++j) out[j] += t[k] * from[j];
      }
    });
    team.parallel_for(new_size, [&](int j) {
      const double* const t = transform.coefficients + static_cast<std::size_t>(j) * old_size;
      for (int i = 0; i <= j; ++i) {
        const double* const from = at(product, i, old_size);
        double total = 0;
        if (j >= transform.count) {
          total = from[count + (j - transform.count)];
        } else {
          for (int k = 0; k < old_size; ++k) {
            if (t[k] != 0) total += t[k] * from[k];
          }
        }
        at(next_gram, i, new_size)[j] = total;
        at(next_gram, j, new_size)[i] = total;
      }
    });
    gram.swap(next_gram);
  }
  mix.swap(next_mix);
  mixed = true;
  weighted = transform.weighted;
  weights.swap(next_weights);
  for (int r = 0; r < refs; ++r) {
    next_infinite.resize(static_cast<std::size_t>(new_size));
    next_infinite[static_cast<std::size_t>(transform.count + r)] =
        infinite[static_cast<std::size_t>(count + r)];
  }
  infinite.swap(next_infinite);
  count = transform.count;
}

/// Coefficients of points → coefficients of table rows, and the report.
void Engine::Impl::finish_combination(const Combination& found, bool scored, Report& report) {
  const int rows = table_rows();
  const int refs = references();
  if (mixed) {
    next_mix.assign(static_cast<std::size_t>(rows), 0);
    for (int i = 0; i < count; ++i) {
      for (int j = 0; j < rows && coefficients[static_cast<std::size_t>(i)] != 0; ++j) {
        next_mix[static_cast<std::size_t>(j)] +=
            coefficients[static_cast<std::size_t>(i)] * mix[static_cast<std::size_t>(i) * rows + j];
      }
    }
    for (int r = 0; r < refs; ++r) {
      next_mix[static_cast<std::size_t>(rows - refs + r)] +=
          coefficients[static_cast<std::size_t>(count + r)];
    }
    coefficients = next_mix;
  }
  for (std::size_t i = 0; i < active.rows.size(); ++i) {
    RowReport& row = report.rows[static_cast<std::size_t>(active.rows[i])];
    row.weight = coefficients[i];
    row.selected = row.weight != 0;
    const int point = point_of_row[i];
    row.score = scored && point >= 0 ? found.scores[point] : nan;
    if (point >= 0) row_clip[i] *= found.clip_factors[point];
  }
  report.iterations = found.iterations;
  report.converged = found.converged;
}

/// The points that pass 2 sees: all, or a subset of them.
void Engine::Impl::finish_select(const SelectRule& rule, std::span<const int> subset, Solution& solution) {
  solution.coordinate_wise = true;
  solution.rule = rule;
  solution.mixed = mixed;
  const int rows = table_rows();
  const int origin = rows - references();
  const int n_points = subset.empty() ? count : static_cast<int>(subset.size());
  const auto point = [&](int k) { return subset.empty() ? k : subset[static_cast<std::size_t>(k)]; };

  bool any_infinite = false;
  solution.rows.clear();
  solution.start.assign(1, 0);
  solution.entry_row.clear();
  solution.entry_coefficient.clear();
  solution.infinite.resize(static_cast<std::size_t>(n_points));
  coefficients.assign(static_cast<std::size_t>(rows), 0);

  double total_weight = 0;
  bool equal_weights = true;
  for (int k = 0; k < n_points && weighted; ++k) {
    total_weight += weights[static_cast<std::size_t>(point(k))];
    equal_weights = equal_weights && weights[static_cast<std::size_t>(point(k))] ==
                                         weights[static_cast<std::size_t>(point(0))];
  }
  const bool use_weights = weighted && !equal_weights && total_weight > 0;
  solution.weights.clear();

  for (int k = 0; k < n_points; ++k) {
    const int i = point(k);
    const auto at = static_cast<std::size_t>(i);
    // Without mixing pass 2 judges each coordinate by itself: only a row's weight can make all of it
    // infinite.
    const bool is_infinite = mixed ? infinite[at] != 0 : active.invalid[at] != 0;
    solution.infinite[static_cast<std::size_t>(k)] = is_infinite;
    any_infinite = any_infinite || is_infinite;
    if (use_weights) solution.weights.push_back(weights[at]);
    const double share = use_weights ? weights[at] / total_weight : 1.0 / n_points;
    if (!mixed) {
      solution.rows.push_back(i);
      if (!is_infinite) coefficients[at] = share;
      continue;
    }
    for (int j = 0; j < rows && !is_infinite; ++j) {
      const double coefficient = mix[at * static_cast<std::size_t>(rows) + static_cast<std::size_t>(j)];
      if (coefficient == 0) continue;
      coefficients[static_cast<std::size_t>(j)] += coefficient * share;
      if (j == origin && !has_reference) continue;  // a row of zeros
      solution.entry_row.push_back(j);
      solution.entry_coefficient.push_back(coefficient);
    }
    solution.start.push_back(static_cast<int>(solution.entry_row.size()));
  }
  if (!any_infinite) solution.infinite.clear();
  for (std::size_t i = 0; i < active.rows.size(); ++i) {
    RowReport& row = solution.report.rows[static_cast<std::size_t>(active.rows[i])];
    row.weight = coefficients[i];
    row.selected = row.weight != 0;
  }
}

void Engine::Impl::finish_mean(Solution& solution) {
  coefficients.assign(static_cast<std::size_t>(size()), 0);
  double total = 0;
  bool any_infinite = false;
  for (int i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    coefficients[at] = weighted ? weights[at] : 1;
    total += coefficients[at];
    any_infinite = any_infinite || (mixed && infinite[at]);
  }
  if (!(total > 0)) {
    solution.status = Status::too_many_nonfinite;  // no row has a valid weight
    return;
  }
  if (any_infinite) {
    // A bucket of infinite rows only: the mean is infinite in every coordinate, which combinations cannot
    // say.
    finish_select(select_rule(Mean{}, count), {}, solution);
    return;
  }
  for (double& coefficient : coefficients) coefficient /= total;
  scores.assign(static_cast<std::size_t>(count), nan);
  clip_factors.assign(static_cast<std::size_t>(count), 1);
  finish_combination(
      {.coefficients = coefficients.data(), .scores = scores.data(), .clip_factors = clip_factors.data()},
      false, solution.report);
  solution.coefficients = coefficients;
}

Status Engine::Impl::run_rule(Solution& solution) {
  return std::visit(
      [&](const auto& rule) {
        using RuleT = std::decay_t<decltype(rule)>;
        if constexpr (std::is_same_v<RuleT, Mean>) {
          finish_mean(solution);
          return solution.status;
        } else if constexpr (is_coordinate_wise<RuleT>) {
          finish_select(select_rule(rule, count), {}, solution);
          return Status::ok;
        } else if constexpr (std::is_same_v<RuleT, Bulyan>) {
          const Status status = select_points(team, rule, points(), scratch(), chosen.data());
          if (status != Status::ok) return status;
          const int kept = count - 2 * rule.f;
          std::sort(chosen.begin(), chosen.begin() + kept);
          finish_select({.kind = SelectRule::Kind::closest_to_median, .keep = kept - 2 * rule.f},
                        {chosen.data(), static_cast<std::size_t>(kept)}, solution);
          return Status::ok;
        } else {
          coefficients.resize(static_cast<std::size_t>(size()));
          scores.resize(static_cast<std::size_t>(count));
          clip_factors.resize(static_cast<std::size_t>(count));
          Combination out{.coefficients = coefficients.data(),
                          .scores = scores.data(),
                          .clip_factors = clip_factors.data()};
          const Status status = run_geometric(rule, out);
          if (status != Status::ok) return status;
          finish_combination(out, true, solution.report);
          solution.coefficients = coefficients;
          return Status::ok;
        }
      },
      pipeline.rule);
}

void Engine::solve(const GramSums& sums, Solution& solution) {
  Impl& e = *impl_;
  solution.status = Status::ok;
  solution.coordinate_wise = false;
  solution.coefficients.clear();
  Report& report = solution.report;
  report.iterations = 0;
  report.converged = true;
  report.rows.assign(static_cast<std::size_t>(e.n), RowReport{.score = nan});
  e.start(sums);
  if (e.wants_statistics) {
    for (std::size_t i = 0; i < e.active.rows.size(); ++i) {
      report.rows[static_cast<std::size_t>(e.active.rows[i])].nonfinite = sums.nonfinite[i];
    }
  }

  const auto lacks_reference = [&](bool needed) {
    return needed && e.infinite[static_cast<std::size_t>(e.count)] != 0;
  };
  const bool rule_is_geometric = std::visit(
      [](const auto& rule) { return !is_coordinate_wise<std::decay_t<decltype(rule)>>; }, e.pipeline.rule);
  for (std::size_t k = 0; k < e.pipeline.pre.size() && solution.status == Status::ok; ++k) {
    bool gram_needed = rule_is_geometric;
    for (std::size_t later = k + 1; later < e.pipeline.pre.size(); ++later) {
      gram_needed = gram_needed || !std::holds_alternative<Bucketing>(e.pipeline.pre[later]);
    }
    solution.status = lacks_reference(uses_origin(e.pipeline.pre[k]))
                          ? Status::nonfinite_reference
                          : e.run_stage(e.pipeline.pre[k], gram_needed);
  }
  if (solution.status == Status::ok) {
    solution.status = lacks_reference(uses_origin(e.pipeline.rule, e.has_previous))
                          ? Status::nonfinite_reference
                          : e.run_rule(solution);
  }
  for (std::size_t i = 0; i < e.active.rows.size(); ++i) {
    report.rows[static_cast<std::size_t>(e.active.rows[i])].clip_factor = e.row_clip[i];
  }
  report.status = solution.status;
}

void Engine::apply(const RowTable& window, Solution& solution, const OutTable& out) {
  Impl& e = *impl_;
  if (solution.status != Status::ok) return;
  std::span<std::int64_t> counts;
  if (!e.wants_statistics) {
    e.counts.assign(static_cast<std::size_t>(window.rows), 0);
    counts = e.counts;
  }
  if (solution.coordinate_wise) {
    const PointTable points{.count = solution.mixed ? static_cast<int>(solution.start.size()) - 1
                                                    : static_cast<int>(solution.rows.size()),
                            .rows = solution.rows,
                            .mixed = solution.mixed,
                            .start = solution.start,
                            .entry_row = solution.entry_row,
                            .entry_coefficient = solution.entry_coefficient,
                            .infinite = solution.infinite,
                            .weights = solution.weights};
    e.passes.select(window, solution.rule, points, out, counts);
  } else {
    e.passes.combine(window, solution.coefficients, out, counts);
  }
  for (std::size_t i = 0; i < e.active.rows.size() && !counts.empty(); ++i) {
    solution.report.rows[static_cast<std::size_t>(e.active.rows[i])].nonfinite += counts[i];
  }
}

bool Engine::reads_row(const Solution& solution, int table_row) {
  if (!solution.coordinate_wise) return solution.coefficients[static_cast<std::size_t>(table_row)] != 0;
  const std::vector<int>& rows = solution.mixed ? solution.entry_row : solution.rows;
  return std::find(rows.begin(), rows.end(), table_row) != rows.end();
}

}  // namespace bragg::detail
