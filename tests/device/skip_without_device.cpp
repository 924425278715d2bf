// SPDX-License-Identifier: Apache-2.0
// Linked into tests that need a CUDA device: without one all are skipped; or fail, where BRAGG_REQUIRE_DEVICE
// is set, as it is where a device was paid for.
#include <gtest/gtest.h>
#include <bragg/error.hpp>
#include <bragg/plan.hpp>

#include <cstdlib>
#include <string>

namespace {

/// The library's own words on why there is none.
std::string reason() {
  try {
    const bragg::Plan plan(bragg::Median{}, {.n = 1, .sizes = {1}}, {.device = bragg::Device::cuda});
    return "none is counted";
  } catch (const bragg::Error& error) {
    return error.what();
  }
}

class NeedsDevice : public testing::Environment {
 public:
  void SetUp() override {
    if (bragg::cuda_device_count() > 0) return;
    if (std::getenv("BRAGG_REQUIRE_DEVICE") != nullptr) FAIL() << "no CUDA device: " << reason();
    GTEST_SKIP() << "no CUDA device";
  }
};

[[maybe_unused]] const auto* const registered = testing::AddGlobalTestEnvironment(new NeedsDevice);

}  // namespace
