// SPDX-License-Identifier: Apache-2.0
#include "host/plan/engine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <limits>
#include <numeric>
#include <type_traits>

#include "host/base/team.hpp"
#include "host/cpu/select.hpp"
#include "host/plan/report.hpp"
#include "rules/floating_environment.hpp"
#include "rules/search.hpp"
#include "rules/sequence.hpp"
#include "rules/solve/eigen.hpp"
#include "rules/table.hpp"

namespace bragg::detail {

namespace {

/// Of the calling thread: unlike the wall clock, it does not count what others run meanwhile.
std::chrono::nanoseconds processor_time() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

/// The host's team: threads share what is left of a loop over points when its beginning took long enough to
/// pay for them. Each loop that they share waits for the last of them: on a busy machine, for its next time
/// slice.
struct HostTeam : SerialTeam {
  int threads = 1;

  template <class F>
  void parallel_for(int n, F f) const {
    constexpr int least = 512;
    constexpr std::chrono::milliseconds worthwhile(1);
    if (n < least || threads == 1) {
      SerialTeam::parallel_for(n, f);
      return;
    }
    const std::chrono::nanoseconds start = processor_time();
    int done = 0;
    for (int next = 32; done < n; next = std::min(4 * next, n)) {
      for (; done < next; ++done) f(done);
      if (processor_time() - start > worthwhile) break;
    }
    if (done == n) return;
#pragma omp parallel num_threads(team(threads))
    {
      const FloatingEnvironment environment;
#pragma omp for schedule(dynamic, 16)
      for (int i = done; i < n; ++i) f(i);
    }
  }
  template <class F>
  void divide(int n, F f) const {
    parallel_for(n, [&](int i) { f(SerialTeam{}, i); });
  }
};

/// Seconds of what work_of counts one of.
double seconds_of_work() {
  constexpr int n = 192;
  std::vector<double> matrix(n * n), values(4 * n);
  double* const work = values.data() + 3 * n;
  const Tridiagonal t{
      .n = n, .diagonal = values.data(), .off = values.data() + n, .factor = values.data() + 2 * n};
  std::chrono::nanoseconds least = std::chrono::nanoseconds::max();
  for (int run = 0; run < 3; ++run) {
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) matrix[static_cast<std::size_t>(i) * n + j] = 1.0 / (1 + i + j);
    }
    const std::chrono::nanoseconds start = processor_time();
    tridiagonalize(SerialTeam{}, matrix.data(), n, t, work);
    least = std::min(least, processor_time() - start);
  }
  return std::chrono::duration<double>(least).count() / (double{n} * n * n);
}

}  // namespace

struct Engine::Impl {
  Pipeline pipeline;
  int n;
  CpuPasses passes;
  HostTeam team;
  PassNeeds needs;
  bool points_alone;

  // Of the run.
  ActiveRows active;
  bool has_reference = false;
  bool has_previous = false;
  std::uint64_t round = 0;
  int pivot = 0;  ///< that the rule trusts, among the points

  std::vector<std::max_align_t> memory;  ///< the block
  std::vector<std::int64_t> counts;
  GramSums statistics;  ///< of what distances are not about
  GramSums sample;      ///< of a sample

  Impl(Pipeline pipeline_in, int n_in, const Options& options, bool points_alone_in)
      : pipeline(std::move(pipeline_in)),
        n(n_in),
        passes(n_in + 2, options.threads),
        needs(needs_of(pipeline)),
        points_alone(points_alone_in) {
    team.threads = threads_of(options.threads);
  }

  int references() const { return has_previous ? 2 : 1; }
  int table_rows() const { return static_cast<int>(active.rows.size()) + references(); }

  Stage stage() const {
    const auto inputs = static_cast<int>(active.rows.size());
    return {.inputs = inputs,
            .references = references(),
            .count = inputs,
            .weighted = active.weighted,
            .has_origin = has_reference};
  }

  SolveLayout layout() const {
    return {.rows = table_rows(),
            .products = needs.products,
            .stages = !pipeline.pre.empty(),
            .samples = needs.sampling.count};
  }

  std::string describe_samples() const {
    if (needs.sampling.count == 0) return "";
    return fmt::format("{}: iters = {} samples of sample = {} coordinates", entry_of(pipeline.rule).info.name,
                       needs.sampling.count, needs.sampling.size);
  }

  std::int64_t sample_bytes(std::int64_t d, int copies) const {
    const auto block = static_cast<double>(solve_block_bytes({.rows = table_rows(), .products = true}));
    const double values = static_cast<double>(needs.sampling.of(d)) * table_rows();
    const double bytes =
        needs.sampling.count * (block + copies * static_cast<double>(sizeof(double)) * values);
    return bytes < static_cast<double>(most_bytes) ? static_cast<std::int64_t>(bytes) : most_bytes;
  }

  /// Allocates. For samples a pipeline may ask for more memory than there is.
  template <class AllocateF>
  void allocate(AllocateF allocation) const {
    try {
      allocation();
    } catch (const std::bad_alloc&) {
      if (needs.sampling.count == 0) throw;
      refuse_samples();
    }
  }
  [[noreturn]] void refuse_samples() const {
    throw Error(Status::out_of_memory,
                fmt::format("there is no memory for {}; lower iters or sample", describe_samples()));
  }

  SolveBlock block() {
    allocate([&] {
      memory.resize((solve_block_bytes(layout()) + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t));
    });
    return solve_block(reinterpret_cast<std::byte*>(memory.data()), layout());
  }

  void load(const GramSums& sums, const SolveBlock& b) const;
  bool settled(GramSums& sums, const SolveBlock& b, const Recentring& recentring);
  void solve_samples(RowSamples& samples, const SolveBlock& b);
  void describe_points(const SolveBlock& b, const Finish& finish, Solution& solution) const;
};

void check_max_weight_share(double share) {
  if (share >= 0 && share <= 1) return;
  throw Error(Status::invalid_argument,
              fmt::format("max_weight_share = {}; needs 0 (no cap) or a share in [1/n, 1]", share));
}

void check_request(const Pipeline& pipeline, int n, const Options& options) {
  constexpr int most_rows = 65535;  // wires of a selection network are numbered in 16 bits
  if (n < 1 || n > most_rows) {
    throw Error(Status::invalid_argument, fmt::format("n = {}; needs 1 to {} rows", n, most_rows));
  }
  if (options.threads < 0) {
    throw Error(Status::invalid_argument,
                fmt::format("threads = {}; needs 0 (automatic) or a positive number", options.threads));
  }
  check_max_weight_share(options.max_weight_share);
  validate(pipeline, n);
}
Engine::Engine(Pipeline pipeline, int n, const Options& options, bool points_alone) {
  check_request(pipeline, n, options);
  impl_ = std::make_unique<Impl>(std::move(pipeline), n, options, points_alone);
}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

void Engine::begin(const ActiveRows& active, bool has_reference, bool has_previous, std::uint64_t round) {
  Impl& e = *impl_;
  e.pivot = check_active_rows(e.pipeline, e.n, active);
  e.active = active;
  e.has_reference = has_reference;
  e.has_previous = has_previous;
  e.round = round;
}

int Engine::table_rows() const noexcept { return impl_->table_rows(); }
std::optional<NeededOrder> Engine::needed_order() const {
  const Impl& e = *impl_;
  if (e.active.weighted || e.has_reference || e.has_previous) return std::nullopt;
  return needed_order_of(e.pipeline, e.stage().count);
}
bool Engine::needs_statistics() const noexcept { return impl_->needs.statistics; }
bool Engine::takes_distances() const noexcept { return impl_->needs.products; }
bool Engine::judges_rows() const noexcept { return impl_->needs.judge_rows(); }
const Pipeline& Engine::pipeline() const noexcept { return impl_->pipeline; }

std::int64_t Engine::square_bytes() const {
  const Impl& e = *impl_;
  const auto square = static_cast<std::size_t>(e.table_rows()) * static_cast<std::size_t>(e.table_rows());
  SolveLayout layout = e.layout();
  layout.samples = 0;
  std::size_t bytes = solve_block_bytes(layout);
  if (e.needs.products) bytes += 6 * sizeof(double) * square;  // GramSums, and two in DistanceShares
  if (e.needs.sampling.count > 0) bytes += 2 * sizeof(double) * square;  // GramSums of a sample
  // Solution::mix, and of four points at a time what Selection makes of it.
  if (!e.pipeline.pre.empty()) bytes += (sizeof(double) + sizeof(cpu::MixEntry) / 4) * square;
  return static_cast<std::int64_t>(bytes);
}

std::int64_t Engine::sample_bytes(std::int64_t d, int copies) const { return impl_->sample_bytes(d, copies); }

std::string Engine::describe_samples() const { return impl_->describe_samples(); }

double Engine::solve_seconds() const {
  const Impl& e = *impl_;
  constexpr double worthwhile = 1e9;  // some tenths of a second
  const double work = work_of(e.pipeline, e.stage().count);
  return work < worthwhile ? 0 : work * seconds_of_work();
}

void Engine::reset(GramSums& sums) const {
  sums.reset(table_rows(), impl_->needs.products, 1, impl_->needs.pairs);
  if (impl_->sample_bytes(sums.coordinates, 1) == most_bytes) impl_->refuse_samples();  // beyond any product
  impl_->allocate(
      [&] { sums.samples.draw(impl_->needs.sampling, impl_->round, sums.coordinates, table_rows()); });
}

void Engine::accumulate(const RowTable& window, GramSums& sums) { impl_->passes.gram(window, sums); }

void Engine::sample(const RowTable& window, std::span<const std::int64_t> first, GramSums& sums) {
  if (sums.round == 0) sums.samples.take(window, first, impl_->team.threads);
}

void Engine::count_nonfinite(const RowTable& window, std::span<std::int64_t> nonfinite) {
  GramSums& found = impl_->statistics;
  found.reset(window.rows, false, 1);
  impl_->passes.gram(window, found);
  for (std::size_t i = 0; i < nonfinite.size(); ++i) nonfinite[i] += found.nonfinite[i];
}

bool Engine::settled(GramSums& sums) {
  Impl& e = *impl_;
  return !sums.wanted || e.settled(sums, e.block(), recentring_of(e.pipeline, e.stage()));
}

bool Engine::Impl::settled(GramSums& sums, const SolveBlock& b, const Recentring& recentring) {
  const bool has_centre = recentring.plan.kind != CenterPlan::Kind::none;
  const int most_rounds = (has_centre ? 1 : 0) + (sums.wide ? 1 : 0);
  if (sums.round >= most_rounds) return true;
  load(sums, b);
  CertifyStep{.stage = stage(),
              .certificate = recentring.certificate,
              .plan = recentring.plan,
              .wide = sums.wide,
              .round = sums.round}(team, b);
  sums.distance_error = b.words->distance_error;
  if (b.words->settled != 0) return true;
  const int next = sums.round + 1;
  GramCenter center = std::move(sums.center);
  sums.reset(sums.rows, sums.wanted, b.words->scale, sums.pairs);
  sums.limit = b.words->limit;
  sums.round = next;
  if (b.words->recentred != 0) {
    const CenterPlan& plan = recentring.plan;
    center.kind = plan.kind == CenterPlan::Kind::row ? GramCenter::Kind::row : GramCenter::Kind::median;
    center.row = plan.row;
    center.left_out.assign(b.left_out, b.left_out + sums.rows);
    center.weights.clear();
    if (plan.weighted) center.weights = active.weights;
    sums.center = std::move(center);
  }
  return false;
}

/// Pass 1's sums, and what is known of the rows, into the block.
void Engine::Impl::load(const GramSums& sums, const SolveBlock& b) const {
  const auto inputs = active.rows.size();
  *b.words = {};
  std::copy(active.invalid.begin(), active.invalid.end(), b.invalid);
  std::fill(b.invalid + inputs, b.invalid + table_rows(), std::uint8_t{0});
  std::copy(active.weights.begin(), active.weights.end(), b.weights[0]);
  if (!needs.statistics) return;
  b.words->scale = sums.wanted ? sums.scale : 1;
  b.words->limit = sums.limit;
  std::copy(sums.nonfinite.begin(), sums.nonfinite.end(), b.nonfinite);
  std::copy(sums.max_abs.begin(), sums.max_abs.end(), b.max_abs);
  b.words->rounding = sums.rounding;
  b.words->distance_error = sums.distance_error;
  b.words->recentred = sums.center.kind != GramCenter::Kind::none;
  if (b.words->recentred != 0)
    std::copy(sums.center.left_out.begin(), sums.center.left_out.end(), b.left_out);
  if (!sums.wanted) return;
  std::copy(sums.products.begin(), sums.products.end(), b.gram[0]);
  std::copy(sums.low.begin(), sums.low.end(), b.low);
}

/// The products of rows at the samples' coordinates, when the block holds what pass 1 found of all.
void Engine::Impl::solve_samples(RowSamples& samples, const SolveBlock& b) {
  StartStep{.stage = stage(), .statistics = true, .products = needs.products}(team, b);
  for (int t = 0; t < samples.count(); ++t) {
    const SolveBlock at = sample_block(b, table_rows(), t);
    const RowTable rows = samples.table(t, stage().inputs);
    sample.reset(table_rows(), true, 1);
    do {
      passes.gram(rows, sample);
      // Rows that are infinite are so in every sample, whatever they hold at its coordinates.
      for (int i = 0; i < table_rows(); ++i) sample.nonfinite[i] += b.infinite[0][i];
    } while (!settled(sample, at, sample_recentring_of(pipeline, stage())));
    load(sample, at);
    StartStep{.stage = stage(), .statistics = true, .products = true}(team, at);
  }
}

/// The points that pass 2 sees: all, or a subset of them.
void Engine::Impl::describe_points(const SolveBlock& b, const Finish& finish, Solution& solution) const {
  const Stage& stage = finish.stage;
  const int rows = table_rows();
  const std::uint8_t* const infinite = stage.mixed ? b.infinite[stage.marks] : b.invalid;
  const double* const weights = b.weights[stage.marks];
  solution.rule = points_alone ? SelectRule{.kind = SelectRule::Kind::none} : finish.rule;
  solution.points = finish.points;
  solution.mixed = stage.mixed;
  solution.origin = solution.rule.kind == SelectRule::Kind::sign_vote ? stage.inputs : -1;
  solution.rows.clear();
  solution.mix.clear();
  solution.infinite.clear();
  solution.weights.clear();

  bool any_infinite = false;
  bool equal_weights = true;
  double total_weight = 0;
  for (int k = 0; k < finish.points; ++k) {
    const int i = finish.chosen ? b.chosen[k] : k;
    solution.infinite.push_back(infinite[i]);
    any_infinite = any_infinite || infinite[i] != 0;
    if (stage.weighted) {
      solution.weights.push_back(weights[i]);
      total_weight += weights[i];
      equal_weights = equal_weights && weights[i] == solution.weights.front();
    }
    if (!stage.mixed) {
      solution.rows.push_back(i);
      continue;
    }
    const double* const mix = b.mix[stage.mix] + static_cast<std::size_t>(i) * rows;
    solution.mix.insert(solution.mix.end(), mix, mix + rows);
    if (!has_reference) solution.mix[solution.mix.size() - rows + stage.inputs] = 0;  // the origin: zeros
  }
  if (!any_infinite) solution.infinite.clear();
  if (equal_weights || !(total_weight > 0)) solution.weights.clear();
}

void Engine::solve(GramSums& sums, Solution& solution) {
  Impl& e = *impl_;
  const SolveBlock b = e.block();
  e.load(sums, b);
  if (e.needs.sampling.count > 0) e.solve_samples(sums.samples, b);
  const SequenceInputs inputs{.stage = e.stage(), .pivot = e.pivot, .round = e.round};
  const Finish finish = run_sequence(e.pipeline, inputs, [&](const auto& step) {
    if constexpr (requires { step(e.team, b); }) {
      step(e.team, b);
    } else {
      run_search(step, b);
    }
  });
  write_report(b, finish, e.n, e.active, e.needs.statistics, solution.report);
  solution.status = solution.report.status;
  solution.coordinate_wise = !finish.combine;
  solution.counted = e.needs.statistics;
  solution.infinite_everywhere = b.words->infinite != 0;
  solution.too_large.clear();
  if (e.needs.statistics) {
    solution.too_large.assign(static_cast<std::size_t>(e.n), 0);
    for (std::size_t i = 0; i < e.active.rows.size(); ++i) {
      solution.too_large[static_cast<std::size_t>(e.active.rows[i])] =
          is_out_of_range(b, static_cast<int>(i), true) && b.nonfinite[i] == 0 && b.invalid[i] == 0;
    }
  }
  if (solution.status != Status::ok) return;
  if (solution.coordinate_wise) {
    e.describe_points(b, finish, solution);
  } else {
    solution.coefficients.assign(b.row_weight, b.row_weight + e.table_rows());
  }
}

void Engine::apply(const RowTable& window, Solution& solution, const OutTable& out) {
  Impl& e = *impl_;
  if (solution.status != Status::ok) return;
  std::span<std::int64_t> counts;
  if (!e.needs.statistics) {
    e.counts.assign(static_cast<std::size_t>(window.rows), 0);
    counts = e.counts;
  }
  if (solution.coordinate_wise) {
    const PointTable points{.count = solution.points,
                            .origin = solution.origin,
                            .rows = solution.rows,
                            .mix = solution.mix,
                            .infinite = solution.infinite,
                            .weights = solution.weights};
    e.passes.select(window, solution.rule, points, out, counts);
  } else if (solution.infinite_everywhere) {
    CpuPasses::fill(window.sizes, out, infinity);
  } else {
    e.passes.combine(window, solution.coefficients, out, counts);
  }
  for (std::size_t i = 0; i < e.active.rows.size() && !counts.empty(); ++i) {
    solution.report.rows[static_cast<std::size_t>(e.active.rows[i])].nonfinite += counts[i];
  }
}

bool Engine::reads_row(const Solution& solution, int table_row) {
  if (solution.infinite_everywhere) return false;
  if (!solution.coordinate_wise) return solution.coefficients[static_cast<std::size_t>(table_row)] != 0;
  if (table_row == solution.origin) return true;
  if (!solution.mixed) {
    return std::find(solution.rows.begin(), solution.rows.end(), table_row) != solution.rows.end();
  }
  const std::size_t rows = solution.mix.size() / static_cast<std::size_t>(solution.points);
  for (auto k = static_cast<std::size_t>(table_row); k < solution.mix.size(); k += rows) {
    if (solution.mix[k] != 0) return true;
  }
  return false;
}

}  // namespace bragg::detail
