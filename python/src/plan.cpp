// SPDX-License-Identifier: Apache-2.0
#include "python/src/plan.hpp"

#include <fmt/format.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>
#include <bragg/plan.hpp>

#include <algorithm>
#include <atomic>
#include <list>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>

#include "host/base/nonfinite.hpp"
#include "host/base/team.hpp"
#include "host/plan/pre_aggregate.hpp"
#include "host/plan/report.hpp"
#include "python/src/arrays.hpp"
#include "python/src/errors.hpp"
#include "python/src/options.hpp"
#include "rules/needs.hpp"

namespace bragg::python {

Scope scope_named(std::string_view name) {
  if (name == "whole") return Scope::whole;
  if (name == "per_tensor") return Scope::per_tensor;
  throw nb::value_error(fmt::format("scope = '{}'; needs 'whole' or 'per_tensor'", name).c_str());
}

OnFailure on_failure_named(std::string_view name) {
  if (name == "keep") return OnFailure::keep;
  if (name == "nan") return OnFailure::nan;
  if (name == "zero") return OnFailure::zero;
  throw nb::value_error(fmt::format("on_failure = '{}'; needs 'keep', 'nan' or 'zero'", name).c_str());
}

namespace {

Options make_options(std::string_view scope, const std::optional<std::string>& out_dtype,
                     double max_weight_share, int threads, const Batch& batch) {
  Options options{.scope = scope_named(scope),
                  .max_weight_share = max_weight_share,
                  .threads = threads,
                  .device = batch.device(),
                  .cuda_device = batch.cuda_device()};
  if (out_dtype) options.out_dtype = dtype_named(*out_dtype, "out_dtype");
  return options;
}

using Weights = std::optional<std::vector<double>>;
using Judged = std::optional<std::vector<bool>>;

/// The rows of a call, judged by the tensors that `judged` marks.
Batch read_batch(nb::handle updates, nb::handle names, const Judged& judged, std::uintptr_t stream) {
  Batch batch(updates, names, stream);
  if (judged) batch.judge_by(*judged);
  return batch;
}

/// What a run is given, with everything that it points to.
struct Call {
  Batch batch;
  Updates updates;
  Output out;
  Weights weights;
  RunArguments arguments;

  Call(Batch batch_in, nb::handle out_in, bool fresh, std::optional<DType> out_dtype, nb::handle base,
       Weights weights_in, std::uintptr_t stream)
      : batch(std::move(batch_in)), updates(batch.view()), weights(std::move(weights_in)) {
    out = Output(batch.read_row(out_in, "out", out_dtype, !fresh, stream));
    if (!base.is_none()) {
      const std::vector<void*> row = batch.read_row(base, "base", {}, false, stream);
      arguments.base = Row({row.begin(), row.end()});
    }
    if (!weights) return;
    if (weights->size() != static_cast<std::size_t>(updates.n())) {
      throw nb::value_error(
          fmt::format("weights: {} of them; needs n = {}, one for each row", weights->size(), updates.n())
              .c_str());
    }
    arguments.weights = *weights;
  }
};

void run(Plan& plan, const Call& call, Stream stream) {
  if (call.batch.device() == Device::cuda) {
    plan.run(call.updates, call.out, stream, call.arguments);
  } else {
    plan.run(call.updates, call.out, call.arguments);
  }
}

/// Values of a tensor that are NaN or infinite.
std::int64_t count_nonfinite(const void* data, std::int64_t size, DType dtype, int threads) {
  constexpr std::int64_t stretch = 1 << 18;  // worth a thread
  const auto* const from = static_cast<const std::byte*>(data);
  std::int64_t count = 0;
#pragma omp parallel for reduction(+ : count) num_threads(detail::team(size > stretch ? threads : 1))
  for (std::int64_t begin = 0; begin < size; begin += stretch) {
    count += detail::count_nonfinite(dtype, from + static_cast<std::size_t>(begin) * size_of(dtype),
                                     std::min(stretch, size - begin));
  }
  return count;
}

/// Of each part of the result; nothing on a device, where it would be waited for.
void count_nonfinite(const Call& call, const Options& options, std::vector<std::int64_t>& counts) {
  counts.clear();
  if (call.batch.device() == Device::cuda) return;
  const std::span<const std::int64_t> sizes = call.updates.sizes();
  const int threads = detail::threads_of(options.threads);
  const bool whole = options.scope == Scope::whole;
  if (whole || sizes.empty()) counts.push_back(0);
  for (std::size_t t = 0; t < sizes.size(); ++t) {
    if (!whole) counts.push_back(0);
    const DType dtype = options.out_dtype.value_or(call.updates.dtype(t));
    counts.back() += count_nonfinite(call.out.tensors[t], sizes[t], dtype, threads);
  }
}

Stream as_stream(std::uintptr_t stream) { return reinterpret_cast<CUstream_st*>(stream); }

// Plan ------------------------------------------------------------------------------------------------------

class PlanObject {
 public:
  PlanObject(std::string_view rule, nb::handle like, nb::handle names, std::string_view on_failure,
             std::string_view scope, const std::optional<std::string>& out_dtype, double max_weight_share,
             int threads, const Judged& judged, std::uintptr_t stream)
      : PlanObject(parse_shown(rule), read_batch(like, names, judged, stream), on_failure, scope, out_dtype,
                   max_weight_share, threads) {
    judged_ = judged;
  }

  void run(nb::handle updates, nb::handle names, nb::handle out, nb::handle base, const Weights& weights,
           std::uintptr_t stream) {
    Batch batch = read_batch(updates, names, judged_, stream);
    if (batch.device() != device_ || batch.cuda_device() != cuda_device_) {
      throw nb::value_error(fmt::format("updates are on {}; the plan is for {}: make one with updates there",
                                        device_text(batch.device(), batch.cuda_device()),
                                        device_text(device_, cuda_device_))
                                .c_str());
    }
    const Call call(std::move(batch), out, false, options_.out_dtype, base, weights, stream);
    const InUse in_use(*this);
    const nb::gil_scoped_release released;
    stream_ = as_stream(stream);
    python::run(plan_, call, stream_);
    under_way_ = device_ == Device::cuda;
    nonfinite_.clear();
    if (plan_.status() == Status::ok) count_nonfinite(call, options_, nonfinite_);
  }

  // `stream`: the current one. A captured run is replayed there, and not where it was captured.
  const char* wait(std::uintptr_t stream) {
    const InUse in_use(*this);
    return to_string(wait_for(stream));
  }

  void check(std::uintptr_t stream) {
    const InUse in_use(*this);
    const Status status = wait_for(stream);
    if (status == Status::ok) return;
    throw RunFailed{status,
                    detail::describe_failure(status, plan_.reports()),
                    {plan_.reports().begin(), plan_.reports().end()}};
  }

  Reports reports() {
    const InUse in_use(*this);
    if (under_way_) {
      throw std::runtime_error(
          "reports: the last run has not been waited for; call wait() or check() before reading them");
    }
    return reports_to_python(plan_.reports(), nonfinite_);
  }

  void reset() {
    const InUse in_use(*this);
    const nb::gil_scoped_release released;
    plan_.reset();
  }

  std::string rule() const { return to_string(plan_.pipeline()); }
  int n() const { return plan_.shape().n; }

 private:
  /// One call at a time: a plan has one state and one report.
  class InUse {
   public:
    explicit InUse(PlanObject& plan) : plan_(plan) {
      if (!plan_.in_use_.exchange(true)) return;
      throw std::runtime_error("the plan is in use by another thread; give each thread a plan of its own");
    }
    ~InUse() { plan_.in_use_ = false; }
    InUse(const InUse&) = delete;
    InUse& operator=(const InUse&) = delete;

   private:
    PlanObject& plan_;
  };

  PlanObject(Pipeline pipeline, const Batch& batch, std::string_view on_failure, std::string_view scope,
             const std::optional<std::string>& out_dtype, double max_weight_share, int threads)
      : device_(batch.device()),
        cuda_device_(batch.cuda_device()),
        options_(make_options(scope, out_dtype, max_weight_share, threads, batch)),
        plan_([&] {
          options_.on_failure = on_failure_named(on_failure);
          return Plan(std::move(pipeline), batch.shape(), options_);
        }()) {}

  Status wait_for(std::uintptr_t stream) {
    const nb::gil_scoped_release released;
    if (as_stream(stream) != stream_) std::ignore = plan_.wait(stream_);
    const Status status = plan_.wait(as_stream(stream));
    under_way_ = false;
    return status;
  }

  Device device_;
  int cuda_device_;
  Options options_;
  Judged judged_;
  Plan plan_;
  std::vector<std::int64_t> nonfinite_;       // of the last run's result
  Stream stream_ = Stream::legacy_default();  // of the last run
  bool under_way_ = false;                    // that was not waited for
  std::atomic<bool> in_use_ = false;
};

// aggregate -------------------------------------------------------------------------------------------------

/// What a plan is made for.
struct Key {
  std::string rule;
  int n;
  std::vector<std::int64_t> sizes;
  DType dtype;
  std::vector<DType> dtypes;
  std::vector<bool> judged;
  Scope scope;
  std::optional<DType> out_dtype;
  double max_weight_share;
  int threads;
  Device device;
  int cuda_device;

  bool operator==(const Key&) const = default;
};

/// The plans of the last calls, for the next ones like them. Making one takes 2 to 4 µs for a small call, and
/// on a device an allocation.
class PlanCache {
 public:
  /// The plan for the key, out of the cache or made, with no state.
  Plan take(const Key& key, const Options& options) {
    {
      const std::lock_guard lock(mutex_);
      for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
        if (entry->first != key) continue;
        Plan plan = std::move(entry->second);
        entries_.erase(entry);
        return plan;
      }
    }
    return {parse_shown(key.rule),
            {.n = key.n, .sizes = key.sizes, .dtype = key.dtype, .dtypes = key.dtypes, .judged = key.judged},
            options};
  }

  void give_back(Key key, Plan plan) {
    if (detail::has_memory(plan.pipeline()) || plan.workspace_bytes() > largest_workspace) return;
    const std::lock_guard lock(mutex_);
    entries_.emplace_front(std::move(key), std::move(plan));
    if (entries_.size() > most) entries_.pop_back();
  }

 private:
  static constexpr std::size_t most = 8;
  static constexpr std::size_t largest_workspace = std::size_t{64} << 20;

  std::mutex mutex_;
  std::list<std::pair<Key, Plan>> entries_;
};

PlanCache& plan_cache() {
  // Never freed: at exit a device's driver may be gone before it.
  static PlanCache& cache = *new PlanCache;
  return cache;
}

/// @return the reports, if they are asked for, or the result is not finite.
Reports aggregate_arrays(std::string rule, nb::handle updates, nb::handle names, nb::handle out, bool fresh,
                         nb::handle base, const Weights& weights, std::string_view scope,
                         const std::optional<std::string>& out_dtype, double max_weight_share, int threads,
                         const Judged& judged, std::uintptr_t stream, bool return_reports) {
  Batch batch = read_batch(updates, names, judged, stream);
  const Options options = make_options(scope, out_dtype, max_weight_share, threads, batch);
  Shape shape = batch.shape();
  Key key{.rule = std::move(rule),
          .n = shape.n,
          .sizes = std::move(shape.sizes),
          .dtype = shape.dtype,
          .dtypes = std::move(shape.dtypes),
          .judged = std::move(shape.judged),
          .scope = options.scope,
          .out_dtype = options.out_dtype,
          .max_weight_share = max_weight_share,
          .threads = threads,
          .device = batch.device(),
          .cuda_device = batch.cuda_device()};
  const Call call(std::move(batch), out, fresh, options.out_dtype, base, weights, stream);
  std::vector<Report> reports;
  std::vector<std::int64_t> nonfinite;
  {
    const nb::gil_scoped_release released;
    Plan plan = plan_cache().take(key, options);
    run(plan, call, as_stream(stream));
    const Status status = plan.wait(as_stream(stream));
    if (status == Status::ok) count_nonfinite(call, options, nonfinite);
    const bool is_finite =
        std::all_of(nonfinite.begin(), nonfinite.end(), [](auto count) { return count == 0; });
    if (return_reports || status != Status::ok || !is_finite)
      reports.assign(plan.reports().begin(), plan.reports().end());
    plan_cache().give_back(std::move(key), std::move(plan));
    if (status != Status::ok) {
      throw RunFailed{status, detail::describe_failure(status, reports), std::move(reports)};
    }
  }
  return reports_to_python(reports, nonfinite);
}

// pre_aggregate ---------------------------------------------------------------------------------------------

/// `points`: one output each, fresh arrays of the extension's caller.
std::vector<Output> outputs_of(const Batch& points) {
  const Updates view = points.view();
  std::vector<Output> outputs(static_cast<std::size_t>(view.n()));
  for (int p = 0; p < view.n(); ++p) {
    for (std::size_t t = 0; t < view.sizes().size(); ++t) {
      outputs[static_cast<std::size_t>(p)].tensors.push_back(const_cast<void*>(view.data(p, t)));
    }
  }
  return outputs;
}

/// `out`: fresh arrays in the form of `updates`, a row for each point.
Reports pre_aggregate_arrays(std::string_view sequence, nb::handle updates, nb::handle names, nb::handle out,
                             nb::handle base, std::string_view scope,
                             const std::optional<std::string>& out_dtype, int threads, const Judged& judged,
                             std::uintptr_t stream) {
  const PreSequence stages = parse_pre_aggregators_shown(sequence);
  Batch batch = read_batch(updates, names, judged, stream);
  const Options options = make_options(scope, out_dtype, 0, threads, batch);
  const Batch points(out, names, stream);
  const std::vector<Output> outputs = outputs_of(points);
  const Updates view = batch.view();
  RunArguments arguments;
  if (!base.is_none()) {
    const std::vector<void*> row = batch.read_row(base, "base", {}, false, stream);
    arguments.base = Row({row.begin(), row.end()});
  }
  detail::PreAggregated done;
  {
    const nb::gil_scoped_release released;
    done = detail::run_pre_aggregators(stages, view, outputs, arguments, options, as_stream(stream));
  }
  if (done.status != Status::ok) {
    std::string message = detail::describe_failure(done.status, done.reports);
    throw RunFailed{done.status, std::move(message), std::move(done.reports)};
  }
  return reports_to_python(done.reports);
}

}  // namespace

void add_plan(nb::module_& module) {
  nb::class_<PlanObject>(module, "Plan")
      .def(nb::init<std::string_view, nb::handle, nb::handle, std::string_view, std::string_view,
                    const std::optional<std::string>&, double, int, const Judged&, std::uintptr_t>(),
           nb::arg("rule"), nb::arg("like").none(), nb::arg("names").none(), nb::arg("on_failure"),
           nb::arg("scope"), nb::arg("out_dtype").none(), nb::arg("max_weight_share"), nb::arg("threads"),
           nb::arg("judged").none(), nb::arg("stream"))
      .def("run", &PlanObject::run, nb::arg("updates").none(), nb::arg("names").none(), nb::arg("out").none(),
           nb::arg("base").none(), nb::arg("weights").none(), nb::arg("stream"))
      .def("wait", &PlanObject::wait, nb::arg("stream"))
      .def("check", &PlanObject::check, nb::arg("stream"))
      .def("reports", &PlanObject::reports)
      .def("reset", &PlanObject::reset)
      .def_prop_ro("rule", &PlanObject::rule)
      .def_prop_ro("n", &PlanObject::n);
  module.def("aggregate", &aggregate_arrays, nb::arg("rule"), nb::arg("updates").none(),
             nb::arg("names").none(), nb::arg("out").none(), nb::arg("fresh"), nb::arg("base").none(),
             nb::arg("weights").none(), nb::arg("scope"), nb::arg("out_dtype").none(),
             nb::arg("max_weight_share"), nb::arg("threads"), nb::arg("judged").none(), nb::arg("stream"),
             nb::arg("return_reports"));
  module.def("pre_aggregate", &pre_aggregate_arrays, nb::arg("sequence"), nb::arg("updates").none(),
             nb::arg("names").none(), nb::arg("out"), nb::arg("base").none(), nb::arg("scope"),
             nb::arg("out_dtype").none(), nb::arg("threads"), nb::arg("judged").none(), nb::arg("stream"));
  module.def(
      "points_after",
      [](std::string_view sequence, int n) { return points_after(parse_pre_aggregators_shown(sequence), n); },
      nb::arg("sequence"), nb::arg("n"));
}

}  // namespace bragg::python
