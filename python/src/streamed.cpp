// SPDX-License-Identifier: Apache-2.0
#include "python/src/streamed.hpp"

#include <fmt/format.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "host/plan/engine.hpp"
#include "host/plan/report.hpp"
#include "python/src/arrays.hpp"
#include "python/src/errors.hpp"

namespace bragg::python {

namespace {

/// A run over rows on the CPU of which only one tensor is in memory at a time: `accumulate` each of them
/// until it is `settled`, if the pipeline `needs_statistics`; `solve`; then `apply` to each of them. As files
/// are aggregated. Rows judge whole; they are judged by tensors of any dtype but f64 beside others.
class Streamed {
 public:
  /// `coordinates`: of all tensors.
  Streamed(std::string_view rule, int n, std::int64_t coordinates, bool has_base, std::uint64_t round,
           const std::optional<std::vector<double>>& weights, double max_weight_share, int threads)
      : engine_(parse_shown(rule), n, {.max_weight_share = max_weight_share, .threads = threads}), n_(n) {
    detail::set_active_rows(weights ? *weights : std::vector<double>(), n, max_weight_share, active_);
    engine_.begin(active_, has_base, false, round);
    sums_.coordinates = coordinates;
    if (engine_.needs_statistics()) engine_.reset(sums_);
  }

  bool needs_statistics() const { return engine_.needs_statistics(); }

  void accumulate(nb::handle rows, nb::handle base) {
    const Tensor tensor(*this, rows, base);
    const nb::gil_scoped_release released;
    engine_.sample(tensor.table(), {&seen_, 1}, sums_);
    engine_.accumulate(tensor.table(), sums_);
    seen_ += tensor.sizes.front();
  }

  bool settled() {
    const nb::gil_scoped_release released;
    return engine_.settled(sums_);
  }

  void solve() {
    {
      const nb::gil_scoped_release released;
      engine_.solve(sums_, solution_);
    }
    if (solution_.status == Status::ok) return;
    throw RunFailed{solution_.status,
                    detail::describe_failure(solution_.status, {&solution_.report, 1}),
                    {solution_.report}};
  }

  void apply(nb::handle rows, nb::handle base, nb::handle out) {
    Tensor tensor(*this, rows, base);
    const std::vector<void*> target = tensor.batch.read_row(out, "out", {}, true, 0);
    const nb::gil_scoped_release released;
    engine_.apply(tensor.table(), solution_, {.dtype = tensor.dtype, .data = target.data(), .stride = 1});
  }

  /// Of a pipeline that needs no statistics, when all tensors are through.
  Reports reports() const { return reports_to_python({&solution_.report, 1}); }

 private:
  /// One tensor of all rows.
  struct Tensor {
    Batch batch;
    DType dtype;
    int inputs;
    std::vector<std::int64_t> sizes;
    std::vector<const void*> addresses;

    Tensor(const Streamed& run, nb::handle rows, nb::handle base)
        : batch(rows, nb::none(), 0), inputs(static_cast<int>(run.active_.rows.size())) {
      const Updates updates = batch.view();
      if (updates.n() != run.n_) {
        throw nb::value_error(fmt::format("updates: n = {}; needs n = {}", updates.n(), run.n_).c_str());
      }
      if (batch.device() != Device::cpu) {
        throw nb::value_error(
            "updates are on a CUDA device; tensor by tensor they are aggregated on the CPU");
      }
      dtype = updates.dtype();
      sizes.assign(updates.sizes().begin(), updates.sizes().end());
      for (const int row : run.active_.rows) addresses.push_back(updates.data(row, 0));
      addresses.push_back(base.is_none() ? nullptr : batch.read_row(base, "base", {}, false, 0).front());
    }

    detail::RowTable table() const {
      return {.dtype = dtype,
              .reference_dtype = dtype,
              .inputs = inputs,
              .rows = inputs + 1,
              .sizes = sizes,
              .data = addresses.data()};
    }
  };

  detail::Engine engine_;
  int n_;
  detail::ActiveRows active_;
  detail::GramSums sums_;
  std::int64_t seen_ = 0;  // coordinates, in all passes
  detail::Solution solution_;
};

}  // namespace

void add_streamed(nb::module_& module) {
  nb::class_<Streamed>(module, "Streamed")
      .def(nb::init<std::string_view, int, std::int64_t, bool, std::uint64_t,
                    const std::optional<std::vector<double>>&, double, int>(),
           nb::arg("rule"), nb::arg("n"), nb::arg("coordinates"), nb::arg("has_base"), nb::arg("round"),
           nb::arg("weights").none(), nb::arg("max_weight_share"), nb::arg("threads"))
      .def("needs_statistics", &Streamed::needs_statistics)
      .def("accumulate", &Streamed::accumulate, nb::arg("rows"), nb::arg("base").none())
      .def("settled", &Streamed::settled)
      .def("solve", &Streamed::solve)
      .def("apply", &Streamed::apply, nb::arg("rows"), nb::arg("base").none(), nb::arg("out"))
      .def("reports", &Streamed::reports);
}

}  // namespace bragg::python
