// SPDX-License-Identifier: Apache-2.0
// Linked into tests that need a CUDA device: without one, all are skipped.
#include <gtest/gtest.h>
#include <bragg/plan.hpp>

namespace {

class NeedsDevice : public testing::Environment {
 public:
  void SetUp() override {
    if (bragg::cuda_device_count() == 0) GTEST_SKIP() << "no CUDA device";
  }
};

[[maybe_unused]] const auto* const registered = testing::AddGlobalTestEnvironment(new NeedsDevice);

}  // namespace
