// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace bragg::python {

/// Adds `AllReduce`: one row a rank, for a transport that is the caller's.
void add_sharded(nanobind::module_& module);

}  // namespace bragg::python
