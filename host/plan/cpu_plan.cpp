// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "host/plan/cpu_rows.hpp"
#include "host/plan/plan_backend.hpp"

namespace bragg::detail {

namespace {

class CpuPlan final : public PlanBackend {
 public:
  explicit CpuPlan(const PlanRequest& request)
      : rows_(request, request), solutions_(rows_.parts()), reports_(rows_.parts()) {}

  void run(const Updates& updates, const Output& out, StreamHandle, const RunArguments& arguments) override {
    rows_.begin(updates, out, arguments);
    for (std::size_t p = 0; p < rows_.parts(); ++p) {
      rows_.scan_unjudged(p);
      rows_.sum_up(p, sums_);
      rows_.engine().solve(sums_, solutions_[p]);
    }
    status_ = rows_.finish(solutions_);
    if (status_ == Status::ok) rows_.keep();
    for (std::size_t p = 0; p < rows_.parts(); ++p) std::swap(reports_[p], solutions_[p].report);
  }
  void wait(StreamHandle) override {}  // a run is over when it returns
  Status status() const noexcept override { return status_; }
  std::span<const Report> reports() const noexcept override { return reports_; }
  std::size_t workspace_bytes() const noexcept override { return 0; }
  void reset() override { rows_.reset(); }

 private:
  CpuRows rows_;
  // Of the run.
  GramSums sums_;
  std::vector<Solution> solutions_;
  std::vector<Report> reports_;
  Status status_ = Status::ok;
};

}  // namespace

std::unique_ptr<PlanBackend> make_cpu_plan(const PlanRequest& request) {
  return std::make_unique<CpuPlan>(request);
}

}  // namespace bragg::detail
