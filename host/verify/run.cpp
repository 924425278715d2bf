// SPDX-License-Identifier: Apache-2.0
#include "host/verify/run.hpp"

#include <optional>
#include <tuple>

// Where the backend is built; tests put the executor of tests/simt in the device's place.
#if defined(BRAGG_HAS_CUDA)
#include "host/cuda/device.hpp"
#include "host/verify/device_image.hpp"
#include "kernels/common/sum_unit.hpp"
#endif

namespace bragg::verify {

namespace {

/// Everything in host memory that a run touches.
struct Buffers {
  GuardedRows rows;
  GuardedBuffer out;
  std::optional<GuardedRows> reference;
  std::vector<void*> targets;
  RunArguments arguments;
  std::vector<bool> judged;

  explicit Buffers(const Request& request);
  Updates updates();
  std::string trespass() const;
};

Buffers::Buffers(const Request& request)
    : rows(request.rows, request.dtype, request.layout, request.misalignment),
      out(static_cast<std::size_t>(rows.d()) * size_of(out_dtype(request)), 3),
      arguments{.base = {}, .weights = request.weights},
      judged(request.judged) {
  if (!request.reference.empty()) {
    reference.emplace(Rows{request.reference}, request.dtype, request.layout, 1);
    for (void* tensor : reference->tensors_of(reference->row(0))) arguments.base.tensors.push_back(tensor);
  }
  unsigned char* at = out.data();
  for (const std::int64_t size : rows.sizes()) {
    targets.push_back(size > 0 ? at : nullptr);
    at += static_cast<std::size_t>(size) * size_of(out_dtype(request));
  }
}

Updates Buffers::updates() {
  Updates made = rows.updates();
  if (!judged.empty()) made.judge_by(judged);
  return made;
}

std::string Buffers::trespass() const {
  if (!rows.intact()) return "inputs or their surroundings were written to";
  if (!out.intact()) return "bytes around the output were written to";
  if (reference && !reference->intact()) return "the reference or its surroundings were written to";
  return "";
}

#if defined(BRAGG_HAS_CUDA)
/// The same rows at their mirrored addresses.
Updates on_device(const Updates& host, const DeviceImage& image) {
  std::vector<std::vector<const void*>> tensors(static_cast<std::size_t>(host.n()));
  for (int i = 0; i < host.n(); ++i) {
    for (std::size_t t = 0; t < host.sizes().size(); ++t) {
      tensors[static_cast<std::size_t>(i)].push_back(image.on_device(host.data(i, t)));
    }
  }
  Updates made = Updates::tensors(tensors, host.sizes(), host.dtype(), MemorySpace::cuda);
  if (!host.judged().empty()) made.judge_by(host.judged());
  return made;
}

Plan run_on_device(const Pipeline& pipeline, const Options& options, Buffers& buffers) {
  Plan plan(pipeline, Shape::of(buffers.updates()), options);
  const detail::cuda::OnDevice on(detail::cuda::checked_device(options));
  const detail::cuda::OwnStream stream;
  DeviceImage image(stream.get());
  for (GuardedBuffer& buffer : buffers.rows.buffers()) image.add(buffer.whole());
  image.add(buffers.out.whole());
  std::vector<void*> targets;
  for (void* const target : buffers.targets) targets.push_back(image.on_device(target));
  RunArguments arguments = buffers.arguments;
  if (buffers.reference) {
    for (GuardedBuffer& buffer : buffers.reference->buffers()) image.add(buffer.whole());
    for (const void*& tensor : arguments.base.tensors) tensor = image.on_device(tensor);
  }
  plan.run(on_device(buffers.updates(), image), Output(targets), stream.get(), arguments);
  std::ignore = plan.wait(stream.get());  // the caller asks for the status
  image.fetch();
  return plan;
}
#endif

Plan run_on_host(const Pipeline& pipeline, const Options& options, Buffers& buffers) {
  const Updates updates = buffers.updates();
  Plan plan(pipeline, Shape::of(updates), options);
  plan.run(updates, Output(buffers.targets), buffers.arguments);
  return plan;
}

}  // namespace

Rows as_stored(const Rows& rows, DType dtype) {
  Rows stored = rows;
  for (auto& row : stored) {
    for (auto& value : row) value = round_to(dtype, value);
  }
  return stored;
}

long double sum_error_of([[maybe_unused]] const Request& request, [[maybe_unused]] bool mixed) {
#if defined(BRAGG_HAS_CUDA)
  if (request.options.device == Device::cuda && request.dtype != DType::f64 &&
      detail::cuda::sum_unit(detail::cuda::checked_device(request.options)) ==
          detail::cuda::SumUnit::double_float) {
    return mixed ? mixed_sum_error : pair_sum_error;
  }
#endif
  return f64_sum_error;
}

Outcome run(const Pipeline& pipeline, const Request& request) {
  Buffers buffers(request);
#if defined(BRAGG_HAS_CUDA)
  const bool on_device = request.options.device == Device::cuda;
  const Plan plan = on_device ? run_on_device(pipeline, request.options, buffers)
                              : run_on_host(pipeline, request.options, buffers);
#else
  const Plan plan = run_on_host(pipeline, request.options, buffers);
#endif
  Outcome outcome{.status = plan.status(),
                  .out = {},
                  .reports = {plan.reports().begin(), plan.reports().end()},
                  .bytes = buffers.out.copy(),
                  .trespass = buffers.trespass(),
                  .sum_error = sum_error_of(request, !pipeline.pre.empty())};
  for (std::int64_t j = 0; j < buffers.rows.d(); ++j) {
    outcome.out.push_back(load(out_dtype(request), buffers.out.data(), static_cast<std::size_t>(j)));
  }
  return outcome;
}

}  // namespace bragg::verify
