// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>
#include <bragg/plan.hpp>

#include <string_view>

namespace bragg::python {

/// @throws nb::value_error: not the name of one.
Scope scope_named(std::string_view name);
OnFailure on_failure_named(std::string_view name);

}  // namespace bragg::python
