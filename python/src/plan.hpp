// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace bragg::python {

/// Adds `Plan`, `aggregate`, `pre_aggregate` and `points_after`.
void add_plan(nanobind::module_& module);

}  // namespace bragg::python
