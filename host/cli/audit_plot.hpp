// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/audit.hpp>
#include <string>

namespace bragg::cli {

/// An SVG of two panels: what each rule costs, and what the worst attack does to it, over f.
std::string audit_plot(const Audit& audit);

}  // namespace bragg::cli
