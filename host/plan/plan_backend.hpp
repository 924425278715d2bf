// SPDX-License-Identifier: Apache-2.0
// Interface that executes a plan.
#pragma once

#include <bragg/plan.hpp>
#include <memory>
#include <span>

#include "host/plan/plan_request.hpp"

namespace bragg::detail {

/// Of a CUDA device; null on the CPU, and for the legacy default stream.
using StreamHandle = ::CUstream_st*;

class PlanBackend {
 public:
  virtual ~PlanBackend() = default;
  /// The arguments are checked.
  virtual void run(const Updates& updates, const Output& out, StreamHandle stream,
                   const RunArguments& arguments) = 0;
  /// Waits for the stream and brings status and reports up to date.
  virtual void wait(StreamHandle stream) = 0;
  virtual Status status() const noexcept = 0;
  virtual std::span<const Report> reports() const noexcept = 0;
  virtual std::size_t workspace_bytes() const noexcept = 0;
  virtual void reset() = 0;
};

/// `request` outlives the backend. @throws Error as Plan's constructor.
std::unique_ptr<PlanBackend> make_cpu_plan(const PlanRequest& request);
/// @throws Error unsupported in a build without CUDA.
std::unique_ptr<PlanBackend> make_cuda_plan(const PlanRequest& request);

}  // namespace bragg::detail
