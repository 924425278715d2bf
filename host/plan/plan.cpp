// SPDX-License-Identifier: Apache-2.0
#include <bragg/plan.hpp>

#include "host/base/api_call.hpp"
#include "host/plan/plan_backend.hpp"
#include "host/plan/report.hpp"

namespace bragg {
inline namespace v0 {

using detail::api_call;

struct Plan::Impl {
  detail::PlanRequest request;
  std::unique_ptr<detail::PlanBackend> backend;

  Impl(Pipeline pipeline, Shape shape, const Options& options)
      : request(std::move(pipeline), std::move(shape), options),
        backend(options.device == Device::cuda ? detail::make_cuda_plan(request)
                                               : detail::make_cpu_plan(request)) {}

  bool on_device() const { return request.options.device == Device::cuda; }
};

Plan::Plan(Pipeline pipeline, Shape shape, Options options)
    : impl_(api_call(
          "plan", [&] { return std::make_unique<Impl>(std::move(pipeline), std::move(shape), options); })) {}
Plan::~Plan() = default;
Plan::Plan(Plan&&) noexcept = default;
Plan& Plan::operator=(Plan&&) noexcept = default;

void Plan::run(const Updates& updates, const Output& out, const RunArguments& arguments) {
  if (impl_->on_device()) {
    throw Error(Status::invalid_argument,
                "run: the plan is for a CUDA device, whose work goes to a stream; pass one, such as "
                "Stream::legacy_default()");
  }
  api_call("run", [&] {
    impl_->request.check(updates, {&out, 1}, arguments.base);
    impl_->backend->run(updates, out, nullptr, arguments);
  });
}

void Plan::run(const Updates& updates, const Output& out, Stream stream, const RunArguments& arguments) {
  if (!impl_->on_device()) {
    throw Error(Status::invalid_argument,
                "run: the plan is for the CPU and knows no stream; leave it out, or make the plan with "
                "Options::device = Device::cuda");
  }
  api_call("run", [&] {
    impl_->request.check(updates, {&out, 1}, arguments.base);
    impl_->backend->run(updates, out, stream.get(), arguments);
  });
}

Status Plan::status() const noexcept { return impl_->backend->status(); }
Status Plan::wait(Stream stream) {
  api_call("wait", [&] { impl_->backend->wait(stream.get()); });
  return impl_->backend->status();
}
std::size_t Plan::workspace_bytes() const noexcept { return impl_->backend->workspace_bytes(); }
std::span<const Report> Plan::reports() const noexcept { return impl_->backend->reports(); }
void Plan::reset() { impl_->backend->reset(); }
const Pipeline& Plan::pipeline() const noexcept { return impl_->request.pipeline; }
const Shape& Plan::shape() const noexcept { return impl_->request.shape; }

std::vector<Report> aggregate(const Pipeline& pipeline, const Updates& updates, const Output& out,
                              const RunArguments& arguments, const Options& options) {
  return api_call("aggregate", [&]() -> std::vector<Report> {
    Options chosen = options;
    chosen.device = detail::device_of(updates, options);
    Plan plan(pipeline, Shape::of(updates), chosen);
    if (chosen.device == Device::cuda) {
      plan.run(updates, out, Stream::legacy_default(), arguments);
    } else {
      plan.run(updates, out, arguments);
    }
    if (const Status status = plan.wait(Stream::legacy_default()); status != Status::ok)
      throw Error(status, detail::describe_failure(status, plan.reports()));
    return {plan.reports().begin(), plan.reports().end()};
  });
}

}  // namespace v0
}  // namespace bragg
