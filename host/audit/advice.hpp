// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/audit.hpp>
#include <string>

#include "host/audit/looks.hpp"

namespace bragg::detail {

/// F, where it is a word of its own, becomes the number.
std::string with_f(const std::string& rule, int f);

/// Which rule to take, of an audit that is done, and what speaks for it and against it.
AuditAdvice advise(const Audit& audit, const Looks& looks, const AuditOptions& options);

}  // namespace bragg::detail
