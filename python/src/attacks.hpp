// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace bragg::python {

/// Adds what bragg.attacks is written on.
void add_attacks(nanobind::module_& module);

}  // namespace bragg::python
