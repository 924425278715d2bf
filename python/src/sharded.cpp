// SPDX-License-Identifier: Apache-2.0
#include "python/src/sharded.hpp"

#include <fmt/format.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>
#include <bragg/sharded.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "host/base/nonfinite.hpp"
#include "host/plan/report.hpp"
#include "python/src/arrays.hpp"
#include "python/src/errors.hpp"
#include "python/src/options.hpp"

namespace bragg::python {

namespace {

/// One rank's arrays, which are kept.
struct HeldRow {
  std::vector<Array> arrays;
  std::vector<std::int64_t> sizes;
  std::vector<DType> dtypes;

  HeldRow() = default;
  /// `objects`: a list of arrays, contiguous and on the CPU.
  HeldRow(nb::handle objects, const char* argument, bool to_write) {
    const std::size_t count = nb::len(objects);
    for (std::size_t t = 0; t < count; ++t) {
      const nb::object object = objects[t];
      const Place place{.argument = argument, .tensor = static_cast<std::int64_t>(t), .to_write = to_write};
      Array array = read_array(object, place, 0);
      if (array.device != Device::cpu) {
        throw nb::value_error(fmt::format("{}: on {}; ranks aggregate on the CPU: pass a copy there",
                                          place.text(), device_text(array.device, array.cuda_device))
                                  .c_str());
      }
      check_contiguous(array, 0, place);
      if (to_write && !array.writable) {
        throw nb::value_error(
            fmt::format("{} is read-only; pass an array that can be written to", place.text()).c_str());
      }
      sizes.push_back(elements(array.shape));
      dtypes.push_back(array.dtype);
      arrays.push_back(std::move(array));
    }
  }

  std::vector<const void*> addresses() const {
    std::vector<const void*> made;
    for (const Array& array : arrays) made.push_back(array.data);
    return made;
  }
  bool is_alike(const std::vector<std::int64_t>& other_sizes, const std::vector<DType>& other_dtypes) const {
    return sizes == other_sizes && dtypes == other_dtypes;
  }
};

/// bragg::AllReduce, whose bytes the caller moves: `plan` once; then `begin`, and `next` until it returns
/// None, for each run. A rank whose arguments are bad calls `fail` in the place of `begin`: the others are
/// told in the first exchange.
class AllReduceObject {
 public:
  AllReduceObject(int rank, int ranks) : rank_(rank), ranks_(ranks) {
    if (ranks < 1 || rank < 0 || rank >= ranks) {
      throw nb::value_error(fmt::format("rank = {} of {}; needs a rank of the group", rank, ranks).c_str());
    }
  }
  AllReduceObject(const AllReduceObject&) = delete;
  AllReduceObject& operator=(const AllReduceObject&) = delete;
  ~AllReduceObject() {
    try {
      release_views();
    } catch (nb::python_error& error) {  // somebody still reads one
      error.discard_as_unraisable("bragg: a view of a transfer outlives it");
    }
  }

  /// `like`: this rank's row. `owners`: the rank of each tensor, which alone gets that tensor of the result;
  /// None: everybody gets all. `replicas`: of each slice; then no rank may pass others' bytes on.
  void plan(std::string_view rule, nb::handle like, std::string_view on_failure, std::string_view scope,
            double max_weight_share, int threads, const std::optional<std::vector<int>>& owners,
            int replicas) {
    plan_.reset();
    const HeldRow row(like, "tensors", false);
    sizes_ = row.sizes;
    dtypes_ = row.dtypes;
    Shape shape{.n = ranks_, .sizes = sizes_};
    if (!dtypes_.empty()) shape.dtype = dtypes_[0];
    for (const DType dtype : dtypes_) {
      if (dtype != shape.dtype) shape.dtypes = dtypes_;
    }
    options_ = {.scope = scope_named(scope),
                .on_failure = on_failure_named(on_failure),
                .max_weight_share = max_weight_share,
                .threads = threads};
    AllReduceOptions options{.options = options_, .replicas = replicas};
    gather_ = options.gather = !owners.has_value();
    if (owners) options.sharding = Sharding::owners(sizes_, *owners, ranks_);
    Pipeline pipeline = parse_shown(rule);
    const nb::gil_scoped_release released;
    plan_.emplace(std::move(pipeline), std::move(shape), rank_, std::move(options));
  }

  /// `mine`, `out`: of the plan's sizes; `out` may be `mine`. Of a tensor that is another rank's, `out` has
  /// no elements.
  void begin(nb::handle mine, nb::handle out, nb::handle base,
             const std::optional<std::vector<double>>& weights) {
    if (!plan_) throw std::runtime_error("begin: no plan");
    release_views();
    failed_.reset();
    mine_ = HeldRow(mine, "tensors", false);
    out_ = HeldRow(out, "out", true);
    base_ = base.is_none() ? HeldRow() : HeldRow(base, "base", false);
    const std::vector<std::int64_t> out_sizes = gather_ ? sizes_ : plan_->sharding().sizes_of(rank_);
    if (!mine_.is_alike(sizes_, dtypes_)) refuse("tensors", "of other sizes or dtypes than the plan is for");
    if (!out_.is_alike(out_sizes, dtypes_)) refuse("out", "of other sizes or dtypes than tensors");
    if (!base.is_none() && !base_.is_alike(sizes_, dtypes_))
      refuse("base", "of other sizes or dtypes than tensors");
    weights_ = weights.value_or(std::vector<double>());
    if (weights && weights_.size() != static_cast<std::size_t>(ranks_)) {
      throw nb::value_error(
          fmt::format("weights: {} of them; needs n = {}, one for each rank", weights_.size(), ranks_)
              .c_str());
    }
    Output output;
    for (const Array& array : out_.arrays) output.tensors.push_back(array.data);
    RunArguments arguments;
    arguments.weights = weights_;
    if (!base.is_none()) arguments.base = Row(base_.addresses());
    const nb::gil_scoped_release released;
    plan_->begin(Row(mine_.addresses()), output, arguments);
  }

  void fail(const std::string& reason) {
    release_views();
    failed_.emplace(Error(Status::invalid_argument, reason), ranks_, rank_);
  }

  /// What is to be moved: (send, send_bytes, receive, receive_bytes), an all-to-all, or an all-gather where
  /// send_bytes is empty; None: the run is over. The views are released by the next call of anything.
  nb::object next() {
    release_views();
    const Transfer* transfer = nullptr;
    std::exception_ptr thrown;
    {
      const nb::gil_scoped_release released;
      try {
        transfer = compute();
      } catch (...) {
        thrown = std::current_exception();
      }
    }
    if (transfer == nullptr) {
      mine_ = HeldRow();
      out_ = HeldRow();
      base_ = HeldRow();
    }
    if (thrown) std::rethrow_exception(thrown);
    if (transfer == nullptr) return nb::none();
    std::int64_t sent = 0;
    std::int64_t received = 0;
    for (const std::int64_t bytes : transfer->send_bytes) sent += bytes;
    for (const std::int64_t bytes : transfer->receive_bytes) received += bytes;
    if (transfer->send_bytes.empty()) sent = transfer->receive_bytes[static_cast<std::size_t>(rank_)];
    return nb::make_tuple(view(transfer->send, sent), list_of(transfer->send_bytes),
                          view(transfer->receive, received), list_of(transfer->receive_bytes));
  }

  /// Of the run that is over. @throws RunFailed: its status is not ok.
  Reports reports() const {
    if (!plan_) throw std::runtime_error("reports: no plan");
    if (plan_->status() != Status::ok) {
      throw RunFailed{plan_->status(),
                      detail::describe_failure(plan_->status(), plan_->reports()),
                      {plan_->reports().begin(), plan_->reports().end()}};
    }
    return reports_to_python(plan_->reports(), nonfinite_);
  }

 private:
  [[noreturn]] static void refuse(const char* argument, const char* reason) {
    throw nb::value_error(fmt::format("{}: {}", argument, reason).c_str());
  }

  const Transfer* compute() {
    if (failed_) return failed_->next();
    if (!plan_) return nullptr;
    if (const Transfer* const transfer = plan_->next()) return transfer;
    nonfinite_.clear();
    if (plan_->status() == Status::ok) count_nonfinite(nonfinite_);
    return nullptr;
  }

  /// Values of each part of this rank's output.
  void count_nonfinite(std::vector<std::int64_t>& counts) const {
    const bool whole = options_.scope == Scope::whole;
    if (whole || out_.sizes.empty()) counts.push_back(0);
    for (std::size_t t = 0; t < out_.sizes.size(); ++t) {
      if (!whole) counts.push_back(0);
      counts.back() += detail::count_nonfinite(dtypes_[t], static_cast<const std::byte*>(out_.arrays[t].data),
                                               out_.sizes[t]);
    }
  }

  /// Writable also where it is sent: some transports take nothing else. None writes to it.
  nb::object view(const std::byte* data, std::int64_t bytes) {
    static char nothing = 0;
    char* const at = bytes > 0 ? const_cast<char*>(reinterpret_cast<const char*>(data)) : &nothing;
    PyObject* const made = PyMemoryView_FromMemory(at, static_cast<Py_ssize_t>(bytes), PyBUF_WRITE);
    if (made == nullptr) throw nb::python_error();
    views_.push_back(nb::steal(made));
    return views_.back();
  }

  static nb::list list_of(std::span<const std::int64_t> values) {
    nb::list made;
    for (const std::int64_t value : values) made.append(value);
    return made;
  }

  /// The memory may go, so no view of it stays. @throws BufferError: an array of somebody's shares one.
  void release_views() {
    while (!views_.empty()) {
      views_.back().attr("release")();
      views_.pop_back();
    }
  }

  int rank_;
  int ranks_;
  std::vector<std::int64_t> sizes_;
  std::vector<DType> dtypes_;
  Options options_;
  bool gather_ = true;
  std::optional<AllReduce> plan_;

  // Of the run.
  HeldRow mine_, out_, base_;
  std::vector<std::int64_t> nonfinite_;  // of each part of its output
  std::vector<double> weights_;
  std::vector<nb::object> views_;

  std::optional<FailedRun> failed_;  // the run, where this rank has no part in it
};

}  // namespace

void add_sharded(nb::module_& module) {
  nb::class_<AllReduceObject>(module, "AllReduce")
      .def(nb::init<int, int>(), nb::arg("rank"), nb::arg("ranks"))
      .def("plan", &AllReduceObject::plan, nb::arg("rule"), nb::arg("like"), nb::arg("on_failure"),
           nb::arg("scope"), nb::arg("max_weight_share"), nb::arg("threads"), nb::arg("owners").none(),
           nb::arg("replicas"))
      .def("begin", &AllReduceObject::begin, nb::arg("mine"), nb::arg("out"), nb::arg("base").none(),
           nb::arg("weights").none())
      .def("fail", &AllReduceObject::fail, nb::arg("reason"))
      .def("next", &AllReduceObject::next,
           nb::sig("def next(self) -> tuple[memoryview, list[int], memoryview, list[int]] | None"))
      .def("reports", &AllReduceObject::reports);
}

}  // namespace bragg::python
