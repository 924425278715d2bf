// SPDX-License-Identifier: Apache-2.0
// Whether there is a device that a plan can be made for: the first that scripts/gpu_check.sh runs.
#include <gtest/gtest.h>
#include <bragg/bragg.hpp>

#if defined(BRAGG_TEST_CUDA)
#include <cstring>
#include <vector>

#include "host/bench/data.hpp"
#include "host/bench/device.hpp"
#include "kernels/runtime/runtime.hpp"
#endif

namespace bragg {
namespace {

TEST(Device, HasPlans) {
  EXPECT_GT(cuda_device_count(), 0);
  const Plan plan(Median{}, {.n = 3, .sizes = {4}}, {.device = Device::cuda});
  EXPECT_GT(plan.workspace_bytes(), 0U);
}

#if defined(BRAGG_TEST_CUDA)
TEST(Device, MakesTheUpdatesOfTheHost) {
  constexpr int n = 5;
  constexpr std::int64_t d = 100'003;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16, DType::f64}) {
    const bench::Buffer expected = bench::random_updates(n, d, dtype);
    const auto found = bench::updates_on_device(n, d, dtype);
    std::vector<unsigned char> values(expected.bytes());
    detail::cuda::copy_to_host(values.data(), found.get(), values.size(), nullptr);
    detail::cuda::synchronize(nullptr);
    EXPECT_EQ(std::memcmp(values.data(), expected.data(), values.size()), 0) << to_string(dtype);
  }
}
#endif

}  // namespace
}  // namespace bragg
