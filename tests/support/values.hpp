// SPDX-License-Identifier: Apache-2.0
// What `bragg verify` makes data with, and judges by, under the tests' own name.
#pragma once

#include "host/verify/values.hpp"

namespace bragg::test {

using namespace verify;  // NOLINT: one vocabulary

}  // namespace bragg::test
