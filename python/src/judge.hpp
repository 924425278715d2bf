// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace bragg::python {

/// Adds `judge`: the oracle of `bragg verify`, for the package's tests.
void add_judge(nanobind::module_& module);

}  // namespace bragg::python
