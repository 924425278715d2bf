// SPDX-License-Identifier: Apache-2.0
#include "host/cuda/absent.hpp"
#include "host/plan/plan_backend.hpp"

namespace bragg::detail {

std::unique_ptr<PlanBackend> make_cuda_plan(const PlanRequest&) { refuse_cuda(); }

}  // namespace bragg::detail
