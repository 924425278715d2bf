// SPDX-License-Identifier: Apache-2.0
#include "host/cuda/absent.hpp"
#include "host/sharded/shard_backend.hpp"

namespace bragg::detail {

std::unique_ptr<RowMemory> make_cuda_memory(const Options&) { refuse_cuda(); }
std::unique_ptr<ShardBackend> make_cuda_shard(const PlanRequest&, const PlanRequest&,
                                              std::span<const Slice>) {
  refuse_cuda();
}

}  // namespace bragg::detail
