// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace bragg::python {

/// Adds `audit`.
void add_audit(nanobind::module_& module);

}  // namespace bragg::python
