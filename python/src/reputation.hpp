// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace bragg::python {

/// Adds what bragg.Reputation is written on, and `Trust` and `Judgement`.
void add_reputation(nanobind::module_& module);

}  // namespace bragg::python
