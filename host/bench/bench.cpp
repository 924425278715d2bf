// SPDX-License-Identifier: Apache-2.0
#include "host/bench/bench.hpp"

#include <fmt/format.h>
#include <malloc.h>
#include <bragg/io.hpp>

#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>

#include "host/base/bytes_text.hpp"
#include "host/base/team.hpp"
#include "host/bench/data.hpp"
#include "host/bench/device.hpp"
#include "host/bench/files.hpp"
#include "host/bench/gram_choices.hpp"
#include "host/bench/threads.hpp"
#include "host/plan/cpu_rows.hpp"
#include "rules/needs.hpp"

namespace bragg::bench {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double input_bytes_of(const Case& one) {
  return static_cast<double>(one.n) * static_cast<double>(one.size.d) *
         static_cast<double>(size_of(one.dtype));
}

double output_bytes_of(const Case& one) {
  return static_cast<double>(one.size.d) * static_cast<double>(size_of(one.dtype));
}

bool same_shape(const Case& a, const Case& b) {
  return a.n == b.n && a.size.d == b.size.d && a.size.model == b.size.model &&
         a.size.tensors == b.size.tensors && a.dtype == b.dtype;
}

/// The most memory that a call takes beyond what there is; nothing where the system does not say.
template <class CallF>
std::optional<double> extra_memory_of(const CallF& call) {
  malloc_trim(0);  // memory that was given back before would hide what this takes
  const std::int64_t before = resident_bytes();
  const bool measured = reset_peak();
  call();
  const auto peak = peak_bytes();
  if (!measured || !peak) return std::nullopt;
  return static_cast<double>(std::max<std::int64_t>(*peak - before, 0));
}

/// Data and bandwidth that all rules on a shape share.
struct Shaped {
  Buffer data, out;
  std::shared_ptr<const void> on_device;
  FirstProducts products;  ///< of the rows there
  std::unique_ptr<WrittenUpdates> files;
  double bandwidth = 0;
  bool in_cache = false;
};

/// Times of the passes by themselves and of the solve, as a plan calls them.
struct Phases {
  std::vector<double> first, solve, second;
  detail::Solution solution;
  bool f32 = false;  ///< products were taken in f32
};

Phases time_phases(const Case& one, const Shaped& shaped, const Options& options, const Budget& budget) {
  const std::vector<std::int64_t> sizes = tensor_sizes(one.size);
  const Updates updates = updates_at(shaped.data.data(), one.n, sizes, one.dtype, MemorySpace::host);
  const Output out = output_at(shaped.out.data(), sizes, one.dtype);
  const detail::PlanRequest request(one.pipeline, Shape::of(updates), options);
  detail::CpuRows rows(request, request);
  detail::GramSums sums;
  std::vector<detail::Solution> solutions(1);
  Phases phases;
  const auto once = [&](bool keep) {
    rows.begin(updates, out, {});
    const Clock::time_point start = Clock::now();
    rows.sum_up(0, sums);
    const double first = seconds_since(start);
    rows.engine().solve(sums, solutions[0]);
    const double solved = seconds_since(start);
    rows.finish(solutions);
    rows.keep();
    const double all = seconds_since(start);
    if (!keep) return all;
    phases.first.push_back(1e3 * first);
    phases.solve.push_back(1e3 * (solved - first));
    phases.second.push_back(1e3 * (all - solved));
    return all;
  };
  once(false);
  double total = 0;
  for (int k = 0; k < 3 || (total < budget.seconds / 2 && k < 1000); ++k) total += once(true);
  phases.solution = std::move(solutions[0]);
  phases.f32 = sums.f32;
  return phases;
}

class Bench {
 public:
  explicit Bench(const Settings& settings) : settings_(settings) {}
  Findings run();

 private:
  void report(const std::string& text) const;
  void update_floors();
  void measure(const Case& one);
  void shape_for(const Case& one);
  bool fits(const Case& one);
  Row on_cpu(const Case& one);
  void from_files(const Case& one);
  void tell();
  void ask_peers(const Case& one, Row& row);

  const Settings& settings_;
  Options options_;
  Findings findings_;
  Buffer memory_;  // that floors are measured in
  Shaped shaped_;
  const Case* shape_ = nullptr;  ///< that shaped_ is of
  std::optional<PeerInput> input_;
  Clock::time_point start_ = Clock::now();
  double done_ = 0, total_ = 0;
};

/// By the floors that are known.
void set_floors(Findings& findings) {
  for (Row& row : findings.rows) {
    if (row.asked.source != Source::memory) continue;  // its floor is that of the files
    const Rates rates = findings.floors.rates(row.bandwidth);
    row.bandwidth = rates.read > 0 ? rates.read : rates.copy;
    for (PassRow& pass : row.passes) pass.floor = floor_of(pass.work, rates);
  }
}

void Bench::report(const std::string& text) const {
  if (settings_.progress) settings_.progress({.share = total_ > 0 ? done_ / total_ : 0, .text = text});
}

/// Data of the shape. A plain matrix: what the bandwidth is of, too, where it may be in the cache.
void Bench::shape_for(const Case& one) {
  if (shape_ != nullptr && same_shape(*shape_, one)) return;
  input_.reset();
  shaped_ = {};
  shape_ = nullptr;
  if (!settings_.files.empty()) {
    shaped_.files = std::make_unique<WrittenUpdates>(settings_.files, one.n, one.size, one.dtype);
    shape_ = &one;
    return;
  }
  if (settings_.device == Device::cuda) {
    shaped_.on_device = updates_on_device(one.n, one.size.d, one.dtype);
    shape_ = &one;
    return;
  }
  shaped_.data = random_updates(one.n, one.size.d, one.dtype);
  shaped_.out = Buffer(static_cast<std::size_t>(output_bytes_of(one)));
  const double bytes = input_bytes_of(one);
  shaped_.in_cache = bytes + output_bytes_of(one) <= static_cast<double>(findings_.hardware.cache_bytes);
  const double seconds = std::min(settings_.floor_seconds / 5, 0.3);
  const std::size_t read = std::min(shaped_.data.bytes(), findings_.floors.memory_bytes);
  shaped_.bandwidth = read_bandwidth(shaped_.data.data(), read, findings_.threads,
                                     static_cast<std::size_t>(findings_.hardware.cache_bytes), seconds)
                          .bytes_per_second;
  shape_ = &one;
}

Row Bench::on_cpu(const Case& one) {
  Row row{.asked = one,
          .input_bytes = input_bytes_of(one),
          .in_cache = shaped_.in_cache,
          .bandwidth = shaped_.bandwidth};
  const std::vector<std::int64_t> sizes = tensor_sizes(one.size);
  const Updates updates = updates_at(shaped_.data.data(), one.n, sizes, one.dtype, MemorySpace::host);
  const Output out = output_at(shaped_.out.data(), sizes, one.dtype);
  row.extra_memory = extra_memory_of([&] {
    Plan plan(one.pipeline, Shape::of(updates), options_);
    row.timing = time_calls([&] { plan.run(updates, out); }, settings_.budget);
    if (plan.status() != Status::ok) row.note = fmt::format("ended with {}", to_string(plan.status()));
  });
  const Phases phases = time_phases(one, shaped_, options_, settings_.budget);
  std::vector<PassWork> passes = passes_of(one.pipeline, one.n, one.size.d, one.dtype, phases.solution);
  if (phases.f32) {
    std::swap(passes.front().fma, passes.front().fma_f32);
    passes.front().conversions = 0;
  }
  for (const PassWork& work : passes) {
    const bool first = passes.size() > 1 && &work == &passes.front();
    row.passes.push_back(
        {.work = work, .floor = {}, .ms = spread_of(first ? phases.first : phases.second).median});
    if (!work.note.empty()) row.note += (row.note.empty() ? "" : "; ") + work.note;
  }
  if (passes.size() > 1) row.solve_ms = spread_of(phases.solve).median;
  return row;
}

/// Timed in turns with plain reading and writing of such files, which the floor is made of.
void Bench::from_files(const Case& one) {
  const WrittenUpdates& files = *shaped_.files;
  FileOptions options;
  options.options = options_;
  std::uint64_t bytes_read = 0;
  const auto aggregate = [&] {
    bytes_read = aggregate_files(one.pipeline, files.files(), files.output(), options).bytes_read;
  };
  const auto seconds_of = [](const auto& call) {
    const Clock::time_point start = Clock::now();
    call();
    return seconds_since(start);
  };
  double cached = 0;  // bandwidth
  const auto row_from = [&](Source source) {
    Row row{.asked = one, .input_bytes = static_cast<double>(files.bytes())};
    row.asked.source = source;
    const Budget& budget = settings_.budget;
    std::vector<double> ms;
    double written = std::numeric_limits<double>::infinity();
    double total = 0;
    while (ms.size() < 3 || (std::cmp_less(ms.size(), budget.calls) && total < 20 * budget.seconds) ||
           total < budget.seconds) {
      files.remove_output();
      written = std::min(written, files.write());
      if (source == Source::disk) files.forget();
      const double read = seconds_of([&] { files.read(findings_.threads); });
      row.bandwidth = std::max(row.bandwidth, static_cast<double>(files.bytes()) / read);
      if (source == Source::disk) files.forget();
      ms.push_back(1e3 * seconds_of(aggregate));
      total += written + read + 1e-3 * ms.back();
    }
    row.timing = {.ms = spread_of(ms), .timings = static_cast<int>(ms.size())};
    if (source == Source::page_cache) cached = row.bandwidth;
    // What is read once more comes from the page cache.
    const auto bytes = static_cast<double>(bytes_read);
    const double once = std::min(bytes, row.input_bytes);
    row.passes.push_back(
        {.work = {.name = "read", .bytes_read = bytes},
         .floor = {.seconds = once / row.bandwidth + (bytes - once) / cached, .bound = "reading"},
         .ms = {}});
    row.passes.push_back({.work = {.name = "write", .bytes_written = output_bytes_of(one)},
                          .floor = {.seconds = written, .bound = "writing"},
                          .ms = {}});
    return row;
  };
  const std::optional<double> extra_memory = extra_memory_of(aggregate);
  findings_.rows.push_back(row_from(Source::page_cache));
  findings_.rows.back().extra_memory = extra_memory;
  if (files.forget()) {
    findings_.rows.push_back(row_from(Source::disk));
    findings_.rows.back().extra_memory = extra_memory;
  } else {
    findings_.rows.back().note = "not from disk: the system does not forget these files";
  }
}

void Bench::ask_peers(const Case& one, Row& row) {
  if (!settings_.peers || one.dtype != DType::f32) return;
  for (const std::string& name : settings_.peers->names) {
    report(fmt::format("{}  n = {}, d = {}  {}", to_string(one.pipeline), one.n, one.size.d, name));
    if (!input_) input_.emplace(shaped_.data.data(), one.n, one.size.d);
    row.peers.push_back(
        ask_peer(*settings_.peers, name, one.pipeline, *input_, options_, row.timing.ms.median));
  }
}

/// Whether there is memory for the shape; if not, the case is skipped. A device is asked when its memory is
/// allocated.
bool Bench::fits(const Case& one) {
  if (!settings_.files.empty()) {
    if (shape_ != nullptr && same_shape(*shape_, one)) return true;
    const double needed =
        1.01 * (input_bytes_of(one) + 2 * output_bytes_of(one));  // an output beside the last
    const double there = static_cast<double>(free_bytes(settings_.files)) +
                         static_cast<double>(shaped_.files ? shaped_.files->bytes() : 0);
    if (needed <= there) return true;
    findings_.skipped.push_back({one, fmt::format("needs {} in {}, {} are free", detail::bytes_text(needed),
                                                  settings_.files.string(), detail::bytes_text(there))});
    findings_.skipped.back().asked.source = Source::page_cache;
    return false;
  }
  if (settings_.device == Device::cuda || (shape_ != nullptr && same_shape(*shape_, one))) return true;
  const double needed = input_bytes_of(one) + 2 * output_bytes_of(one);
  const double there = static_cast<double>(available_memory()) + static_cast<double>(shaped_.data.bytes());
  if (needed <= 0.9 * there) return true;
  findings_.skipped.push_back({one, fmt::format("needs {} of memory, {} are free", detail::bytes_text(needed),
                                                detail::bytes_text(there))});
  return false;
}

void Bench::measure(const Case& one) {
  report(fmt::format("{}  n = {}, d = {}, {}{}{}", to_string(one.pipeline), one.n, one.size.d,
                     to_string(one.dtype), one.gram.empty() ? "" : ", products by ", one.gram));
  if (!fits(one)) return;
  if (!settings_.files.empty()) {
    shape_for(one);
    from_files(one);
  } else if (settings_.device == Device::cuda) {
    try {
      shape_for(one);
      findings_.rows.push_back(
          measure_on_device(one, shaped_.on_device.get(), settings_.budget, shaped_.products));
    } catch (const Error& error) {
      // There may be no cuBLAS here.
      const bool has_no_choice = !one.gram.empty() && error.status() == Status::unsupported;
      if (error.status() != Status::out_of_memory && !has_no_choice) throw;
      findings_.skipped.push_back({one, error.what()});
    }
  } else {
    shape_for(one);
    Row row = on_cpu(one);
    ask_peers(one, row);
    findings_.rows.push_back(std::move(row));
  }
}

void Bench::tell() {
  if (!settings_.found) return;
  Findings so_far = findings_;
  so_far.seconds = seconds_since(start_);
  set_floors(so_far);
  settings_.found(so_far);
}

/// Before the rows and after them, where the machine may have more, or less, to give.
void Bench::update_floors() {
  report("the machine's own speed");
  const auto cache_bytes = static_cast<std::size_t>(findings_.hardware.cache_bytes);
  const bool on_device = settings_.device == Device::cuda;
  if (!on_device && memory_.bytes() == 0) memory_ = memory_beyond(cache_bytes);
  const Floors now = on_device
                         ? measure_device_floors(findings_.device_name, settings_.floor_seconds / 4)
                         : measure_floors(findings_.threads, memory_, cache_bytes, settings_.floor_seconds);
  findings_.floors = findings_.floors.memory_bytes == 0 ? now : best_of(findings_.floors, now);
  done_ += settings_.floor_seconds;
}

Findings Bench::run() {
  options_.threads = settings_.threads;
  options_.device = settings_.device;
  findings_.hardware = this_hardware();
  findings_.device = settings_.device;
  findings_.threads = detail::threads_of(settings_.threads);
  findings_.bound = threads_are_bound();
  // A run takes about its time budget, or, of large shapes, some passes over the data.
  const auto weight = [&](const Case& one) {
    return settings_.budget.seconds + 1e-10 * one.n * input_bytes_of(one);
  };
  for (const Case& one : settings_.cases) total_ += weight(one);
  total_ += 2 * settings_.floor_seconds;
  update_floors();
  for (const Case& one : settings_.cases) {
    measure(one);
    tell();
    done_ += weight(one);
  }
  update_floors();
  set_floors(findings_);
  findings_.seconds = seconds_since(start_);
  findings_.complete = true;
  return std::move(findings_);
}

}  // namespace

double Row::bytes() const {
  double sum = 0;
  for (const PassRow& pass : passes) sum += pass.work.bytes();
  return sum;
}

double Row::floor_ms() const {
  double sum = 0;
  for (const PassRow& pass : passes) sum += 1e3 * pass.floor.seconds;
  return sum;
}

const char* Row::bound() const {
  const auto most = std::max_element(passes.begin(), passes.end(), [](const PassRow& a, const PassRow& b) {
    return a.floor.seconds < b.floor.seconds;
  });
  return most == passes.end() ? "" : most->floor.bound;
}

Findings run(const Settings& settings) { return Bench(settings).run(); }

}  // namespace bragg::bench
