// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace bragg::python {

/// Adds `Streamed`: a pipeline over rows that come tensor by tensor.
void add_streamed(nanobind::module_& module);

}  // namespace bragg::python
